"""What the program has to do; each test replays what the model answered when it was recorded."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from triage import program

import dspy_cachectl as cachectl

pytestmark = pytest.mark.cachectl

DEV = [
    dspy.Example(message=message, priority=priority).with_inputs("message")
    for message, priority in (
        ("The cellar is on fire!", "urgent"),
        ("A burst pipe floods my kitchen.", "urgent"),
        ("A window pane is about to fall into the street.", "urgent"),
        ("My neighbour has fallen and does not answer.", "urgent"),
        ("The garden bench needs a new coat of paint.", "can wait"),
        ("Could we have a second bicycle stand?", "can wait"),
        ("When is the next meeting of tenants?", "can wait"),
        ("The mat at the front door is worn.", "can wait"),
    )
]


def right(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
    """Tell whether the priority is the right one."""
    return example.priority == prediction.priority


def test_a_fire_is_urgent() -> None:
    """One call."""
    assert program()(message="The cellar is on fire!").priority == "urgent"


@pytest.mark.parametrize("message", ["Water drips onto the fuse box.", "Please water the plants in the hall."])
def test_every_message_has_a_priority(message: str) -> None:
    """Each case has a recording of its own."""
    assert program()(message=message).priority in {"urgent", "can wait"}


def test_half_of_them_are_right_at_least() -> None:
    """An evaluation, drawn afresh when it was recorded: the same score on every machine, without a key."""
    with cachectl.phase("eval") as run:
        result = dspy.Evaluate(devset=DEV, metric=right, num_threads=2, max_errors=1000)(program())
    assert len(DEV) == run.stats.calls
    assert result.score >= 50
