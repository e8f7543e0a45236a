"""Estimates, held to what the evaluation then cost."""
