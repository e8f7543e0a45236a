"""`evaluate(batch=True)`: what is sent, what is counted, and that the report is that of the ordinary way."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.batches.support import Three, questions, run
from tests.endpoint import Endpoint

_TIMES = {"seconds", "seconds_spent", "created", "oldest", "newest", "run_id", "draw", "path", "snapshot"}


@pytest.fixture(params=["auto", "litellm"])
def three(request: pytest.FixtureRequest, lm: Any) -> dspy.Module:
    """The program of three calls, through either of DSPy's engines."""
    dspy.configure(lm=lm(engine=request.param))
    return Three()


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_three_calls_that_need_one_another_are_three_batches(
    three: dspy.Module, endpoint: Endpoint, count: int
) -> None:
    """And the report is that of the ordinary way, to the digit."""
    ordinary = run(three, questions(count), batch=False, predictions=False, run_id="ordinary")
    assert 3 * count == endpoint.requests
    endpoint.reset()
    before = cachectl.stats()
    report = run(three, questions(count), predictions=False, run_id="ordinary-too")
    assert [count] * 3 == [len(batch["lines"]) for batch in endpoint.batches()]
    assert 0 == endpoint.requests
    assert ordinary.score == report.score
    assert [_of(one) for one in ordinary.questions] == [_of(one) for one in report.questions]
    assert _counted(ordinary) == _counted(report)
    assert 3 * count == report.provenance.counters["fresh"] == report.provenance.counters["requests"]
    after = cachectl.stats()  # what a rehearsal serves, or misses, is nobody's
    assert [3 * count] * 3 == [getattr(after, name) - getattr(before, name) for name in ("calls", "fresh", "requests")]


def _of(question: Any) -> Any:
    draws = [(one.score, one.output, one.requests, one.tokens, one.failed, one.troubles) for one in question.draws]
    return question.question, draws


def _counted(report: cachectl.EvalReport) -> dict[str, Any]:
    return {name: value for name, value in report.provenance.counters.items() if name not in {*_TIMES, "by"}}
