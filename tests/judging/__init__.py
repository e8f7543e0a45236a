"""Judges: how far they agree with themselves and with people."""
