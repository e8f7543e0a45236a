"""Tests of evaluations that are awaited."""
