"""Which questions two programs do not do equally well on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        command: What shows in a terminal what both were told and answered; None where one of them is not kept.
    """

    question: str
    preview: str
    baseline: float
    candidate: float
    difference: float
    command: str | None = None


def command_for(paths: Sequence[str | None], metric: str) -> str | None:
    """Return what lists in a terminal the questions that two reports differ in; None where one is not kept.

    Args:
        paths: Where their predictions are kept.
        metric: By which metric.
    """
    kept = [path for path in paths if path is not None]
    folders = {str(Path(path).parent) for path in kept}
    if len(kept) < len(paths) or len(folders) != 1:
        return None
    names = [Path(path).name for path in kept]
    return shlex.join(["dspy-cachectl", "changed", *names, "--predictions", folders.pop(), "--metric", metric])


def changed_between(
    baseline: ScoreTable, candidate: ScoreTable, previews: Mapping[str, str], command: str | None
) -> tuple[ChangedQuestion, ...]:
    """Return the questions of both that were won or lost: the biggest loss first, the biggest gain last.

    Args:
        baseline: The baseline's scores.
        candidate: The candidate's scores.
        previews: The beginning of each question.
        command: What shows one of them, but for what identifies it; None where nothing does.
    """
    before = {row.question: row.mean for row in baseline.questions}
    found = [
        ChangedQuestion(
            question=row.question,
            preview=previews[row.question],
            baseline=before[row.question],
            candidate=row.mean,
            difference=minus(row.mean, before[row.question]),
            command=None if command is None else f"{command} {shlex.quote(row.question)}",
        )
        for row in candidate.questions
        if row.question in before
    ]
    return tuple(sorted((one for one in found if one.difference), key=lambda one: one.difference))
