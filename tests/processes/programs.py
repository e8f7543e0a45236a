"""Imports what the programs of users import."""

import dspy  # noqa: F401
from dspy.clients._litellm import get_litellm

import dspy_cachectl

get_litellm(feature="tests")
for _name in dspy_cachectl.__all__:
    getattr(dspy_cachectl, _name)
