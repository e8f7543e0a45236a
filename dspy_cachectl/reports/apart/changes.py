"""Which questions two programs do not do equally well on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspy_cachectl.statistics.paired import minus
from dspy_cachectl.statistics.scores import ScoreTable


@dataclass(frozen=True, slots=True)
class ChangedQuestion:
    """A question that the candidate won or lost.

    Attributes:
        question: What identifies it.
        preview: The beginning of its inputs, for people.
        baseline: The baseline's score, over its draws.
        candidate: The candidate's score.
        difference: Candidate minus baseline: above 0 it was won, below 0 lost.
    """

    question: str
    preview: str
    baseline: float
    candidate: float
    difference: float


def changed_between(
    baseline: ScoreTable, candidate: ScoreTable, previews: Mapping[str, str]
) -> tuple[ChangedQuestion, ...]:
    """Return the questions of both that were won or lost: the biggest loss first, the biggest gain last.

    Args:
        baseline: The baseline's scores.
        candidate: The candidate's scores.
        previews: The beginning of each question.
    """
    before = {row.question: row.mean for row in baseline.questions}
    found = [
        ChangedQuestion(
            row.question, previews[row.question], before[row.question], row.mean, minus(row.mean, before[row.question])
        )
        for row in candidate.questions
        if row.question in before
    ]
    return tuple(sorted((one for one in found if one.difference), key=lambda one: one.difference))
