"""A program of three calls, each of which asks with what the last one said, and how it is evaluated."""

from __future__ import annotations

from typing import Any

import dspy

import dspy_cachectl as cachectl

QUICK = cachectl.Batch(interval=0.01)


class Three(dspy.Module):
    """Three calls, each of which needs the answer of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.draft = dspy.Predict("question, plan -> draft")
        self.answer = dspy.Predict("question, draft -> answer")

    def forward(self, question: str) -> Any:
        plan = self.plan(question=question).plan
        return self.answer(question=question, draft=self.draft(question=question, plan=plan).draft)


def questions(count: int) -> list[dspy.Example]:
    """So many questions."""
    return [dspy.Example(question=f"question {number}").with_inputs("question") for number in range(count)]


def length(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
    """A score that every answer changes."""
    return sum(map(ord, prediction.answer)) % 97 / 97


def run(program: Any, devset: list[dspy.Example], metric: Any = length, **options: Any) -> cachectl.EvalReport:
    """Evaluate quietly, by batches that are not waited for long."""
    return cachectl.evaluate(program, devset, metric, **{"display_progress": False, "batch": QUICK, **options})
