"""Tests of what is looked at apart: slices of the questions."""
