"""Evaluations of programs that answer with numbers, two of which may overlap in two threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import dspy

import dspy_cachectl as cachectl
from tests.limits import PATIENCE


def is_even(example: Any, prediction: Any, trace: Any = None) -> bool:
    return int(prediction.answer) % 2 == 0


def questions(n: int, mark: str = "") -> list[dspy.Example]:
    return [dspy.Example(question=f"{mark}{number}").with_inputs("question") for number in range(n)]


def report_of(program: Any, n: int = 6, mark: str = "", **options: Any) -> cachectl.EvalReport:
    """What `evaluate` finds of a program whose answers are numbers."""
    return cachectl.evaluate(
        program, questions(n, mark), is_even, display_progress=False, predictions=False, num_threads=4, **options
    )


class Meeting(dspy.Module):
    """A program that goes on only when another one has begun, so that two evaluations overlap."""

    def __init__(self, mine: threading.Event, others: threading.Event) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")
        self.events = [mine, others]

    def forward(self, question: str) -> dspy.Prediction:
        self.events[0].set()
        assert self.events[1].wait(PATIENCE)
        return self.answer(question=question)

    def __deepcopy__(self, memo: Any) -> Meeting:
        return self


def overlapping(*works: Callable[[Meeting], Any]) -> list[Any]:
    """Run two evaluations that overlap, each in a thread of its own; what they returned."""
    begun = [threading.Event(), threading.Event()]
    found: list[Any] = [None, None]

    def run(number: int) -> None:
        if number:
            assert begun[0].wait(PATIENCE)
        found[number] = works[number](Meeting(begun[number], begun[1 - number]))

    settings = dspy.settings.copy()

    def in_settings(number: int) -> None:
        with dspy.context(**{name: settings[name] for name in ("lm", "callbacks", "track_usage")}):
            run(number)

    threads = [threading.Thread(target=in_settings, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
