"""Optimizers within a budget: where they stop, what they have by then, and what they come to with more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Budget
from tests.budgets.support import exceeding
from tests.calls.support import exact, gold
from tests.endpoint import Endpoint
from tests.phases.optimizers import OPTIMIZERS, TRAINSET, VALSET
from tests.statistics.simulate import in_full

LMs = Callable[..., Any]
QUICK = {"MIPROv2"}


def with_feedback(
    gold: Any, prediction: Any, trace: Any = None, name: Any = None, name_trace: Any = None
) -> dspy.Prediction:
    """What GEPA wants of a metric."""
    return dspy.Prediction(score=float(exact(gold, prediction)), feedback=f"It is {gold.answer}.")


def gepa(student: dspy.Module) -> dspy.Module:
    """Compile by GEPA."""
    optimizer = dspy.GEPA(
        metric=with_feedback, reflection_lm=dspy.settings.lm, max_metric_calls=60, num_threads=1, seed=1
    )
    return optimizer.compile(student, trainset=TRAINSET, valset=VALSET)


BY_NAME = {**OPTIMIZERS, "GEPA": gepa}


@pytest.mark.parametrize("name", [one if one in QUICK else in_full(one) for one in ("MIPROv2", "GEPA", "SIMBA")])
def test_an_optimizer_stops_and_goes_on(name: str, lm: LMs, endpoint: Endpoint, tmp_path: Path) -> None:
    """It buys what the budget allows, has its best program by then, and comes to the same with the rest."""
    endpoint.configure(gold=gold(12), accuracy=0.6, fixed_id=True)
    dspy.configure(lm=lm(temperature=1.0), num_threads=1)

    def optimize() -> dspy.Module:
        return BY_NAME[name](dspy.ChainOfThought("question -> answer"))

    with cachectl.configure(store=str(tmp_path / "whole")), cachectl.phase("compile"):
        whole = optimize()
    asked = endpoint.requests
    endpoint.reset()
    endpoint.configure(gold=gold(12), accuracy=0.6, fixed_id=True)
    most = asked * 3 // 4
    with exceeding(Budget(requests=most)) as seen:
        optimize()
    assert endpoint.requests == most
    best, score = seen.error.best, seen.error.score
    assert isinstance(best, dspy.ChainOfThought)
    assert score is not None
    assert 0 <= score <= 100
    with cachectl.phase("compile", budget=Budget(requests=asked - most)):
        resumed = optimize()
    assert endpoint.requests == asked
    assert resumed.dump_state() == whole.dump_state()
    if name != "SIMBA":  # which knows its programs by a part of the questions until its end
        with cachectl.phase("compile"):
            again = dspy.Evaluate(devset=VALSET, metric=exact, num_threads=1)(best)
        assert (endpoint.requests, again.score) == (asked, score)
