"""What an agent did is replayed, though its thermometer says something else each time that it is asked."""

from __future__ import annotations

from collections.abc import Iterator

import dspy
import pytest
from dspy.utils import DummyLM
from forecast import agent

import dspy_cachectl as cachectl

pytestmark = pytest.mark.cachectl

STEPS = [
    {"next_thought": "How cold is it?", "next_tool_name": "thermometer", "next_tool_args": '{"city": "Oslo"}'},
    {"next_thought": "That is what I need.", "next_tool_name": "finish", "next_tool_args": "{}"},
    {"reasoning": "The thermometer says it.", "advice": "Dress for what the thermometer says."},
]


@pytest.fixture(autouse=True)
def configured(request: pytest.FixtureRequest) -> Iterator[None]:
    """A provider's model is asked; the small local one cannot choose tools, and somebody plays its part."""
    name = request.config.getoption("--model")
    with dspy.context(lm=cachectl.wrap(DummyLM(STEPS)) if name == "local" else cachectl.LM(name)):
        yield


def test_it_looks_at_the_thermometer() -> None:
    """Neither the model nor the thermometer is asked in a replay, and the agent saw what it had seen."""
    trajectory = agent()(city="Oslo").trajectory
    assert "thermometer" in trajectory.values()
    assert any(str(seen).endswith(" degrees") for seen in trajectory.values())
