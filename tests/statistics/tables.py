"""Score tables from plain scores."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from dspy_cachectl.statistics.scores import QuestionScores, ScoreTable


def table_of(
    scores: Iterable[Any], *, questions: Sequence[str] | None = None, clusters: Sequence[Hashable] | None = None
) -> ScoreTable:
    """A table of one score a question, or of several; None is a draw that failed and counts as 0."""
    rows = [row if isinstance(row, list) else [row] for row in scores]
    return ScoreTable.of(
        QuestionScores(
            str(i) if questions is None else questions[i],
            tuple(float(score or 0) for score in row),
            tuple(score is None for score in row),
            None if clusters is None else clusters[i],
        )
        for i, row in enumerate(rows)
    )
