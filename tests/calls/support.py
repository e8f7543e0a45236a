"""What the tests of whole programs share: questions, metrics, and the oracle's agreement with the stats."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import dspy

from dspy_cachectl.accounting.ledger import Tally

MakeLM = Callable[..., Any]

OUTCOMES = (
    *("fresh", "repeated", "bought_twice", "resumed", "reused", "coalesced", "collapsed"),
    *("refreshed", "replayed", "uncacheable", "missed", "failed"),
)
"""Each call that ended is counted in exactly one of these."""


def examples(questions: int, copies: int = 1) -> list[dspy.Example]:
    """Different questions, the whole list so many times over; the right answer to number 3 is `city3`."""
    one = [dspy.Example(question=question(at), answer=f"city{at}").with_inputs("question") for at in range(questions)]
    return one * copies


def question(at: int) -> str:
    """Question number `at`; none is part of another."""
    return f"What is the capital number {at:03}?"


def gold(questions: int) -> dict[str, str]:
    """The right answers, for the endpoint's `gold`."""
    return {question(at): f"city{at}" for at in range(questions)}


def exact(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    """Whether the answer is the right one."""
    return float(example.answer == prediction.answer)


def qa() -> dspy.Predict:
    """A program that makes one call."""
    return dspy.Predict("question -> answer")


def evaluate(program: Any, devset: Sequence[dspy.Example], *, threads: int = 2, **options: Any) -> float:
    """The score of `dspy.Evaluate`, in percent."""
    evaluation = dspy.Evaluate(
        devset=list(devset),
        metric=exact,
        num_threads=threads,
        display_progress=False,
        **{"max_errors": 1000, **options},
    )
    return float(evaluation(program).score)


def assert_counted(tally: Tally, **expected: int) -> None:
    """The named counters are as expected, every other outcome is 0, and the outcomes add up to the calls."""
    outcomes = {name: getattr(tally, name) for name in OUTCOMES}
    assert {**dict.fromkeys(OUTCOMES, 0), **{k: v for k, v in expected.items() if k in OUTCOMES}} == outcomes
    rest = {name: value for name, value in expected.items() if name not in OUTCOMES}
    assert rest == {name: getattr(tally, name) for name in rest}
    assert tally.calls == sum(outcomes.values())


def until(true: Callable[[], bool]) -> None:
    """Wait for something that other threads bring about."""
    for _ in range(30_000):
        if true():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came to that")


def waiters(future: Future[Any]) -> int:
    """How many threads and coroutines wait for a future; Python counts them, and says so nowhere."""
    return len(future._condition._waiters) + len(future._done_callbacks)  # type: ignore[attr-defined]
