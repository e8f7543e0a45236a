"""Another program under test: an agent that looks at a thermometer before it answers."""

from __future__ import annotations

import random

import dspy

import dspy_cachectl as cachectl


def thermometer(city: str) -> str:
    """The temperature in a city, now."""
    return f"{random.uniform(-10, 35):.1f} degrees"


def agent() -> dspy.Module:
    """Return the agent. Its tool says something else each time, and obeys the phase: it only looks."""
    return dspy.ReAct("city -> advice", tools=[cachectl.wrap(thermometer)], max_iters=2)
