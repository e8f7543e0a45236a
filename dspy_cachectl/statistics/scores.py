"""The input of every statistic: which question got which scores, from which distinct draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

from dspy_cachectl.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class QuestionScores:
    """The scores of one question.

    Attributes:
        question: What identifies the question; equal in two tables means the same question.
        scores: One score per distinct draw, shape (K_i,). A failed draw counts with the
            failure score, usually 0.
        failed: Whether each draw failed, shape (K_i,); empty means that none did.
        cluster: The group of related questions that it belongs to (a passage, a repository), or None.

    Raises:
        ConfigurationError: No draws, or a score that is NaN or infinite.
    """

    question: str
    scores: tuple[float, ...]
    failed: tuple[bool, ...] = ()
    cluster: Hashable | None = None

    def __post_init__(self) -> None:
        if not self.scores:
            raise ConfigurationError(f"question {self.question!r} has no draws; leave it out")
        if not all(map(math.isfinite, self.scores)):
            draw = next(i for i, score in enumerate(self.scores) if not math.isfinite(score))
            raise ConfigurationError(
                f"the score of question {self.question!r}, draw {draw}, is {self.scores[draw]!r}; a score must be a "
                "finite number"
            )

    @property
    def mean(self) -> float:
        """The mean over the draws, failures with the failure score."""
        return math.fsum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class ScoreTable:
    """The scores of an evaluation, question by question. Failed draws count as 0 unless left out.

    Attributes:
        questions: One row per question, shape (n,).
        scale: The lowest and the highest that scores can be, where they are no shares; None: told by the scores.

    Raises:
        ConfigurationError: No questions, two rows for one question, or clusters that some questions lack.
    """

    questions: tuple[QuestionScores, ...]
    scale: tuple[float, float] | None = None

    def __repr__(self) -> str:
        return f"<ScoreTable: {self.n:,} questions, mean {self.mean:.4g}>"

    def __post_init__(self) -> None:
        if not self.questions:
            raise ConfigurationError("there are no questions to compute statistics of; evaluate at least one")
        name, rows = Counter(row.question for row in self.questions).most_common(1)[0]
        if rows > 1:
            raise ConfigurationError(
                f"question {name!r} has {rows} rows; put its draws into one row, or name the rows apart"
            )
        missing = [row.question for row in self.questions if is_missing(row.cluster)]
        if missing and len(missing) < self.n:
            shown = ", ".join(repr(name) for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ConfigurationError(
                f"{len(missing)} of {self.n} questions have no cluster id ({shown}); "
                "give every question one (its own where it stands alone), or none at all"
            )

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.questions)

    @cached_property
    def means(self) -> tuple[float, ...]:
        """The mean score of each question over its draws, shape (n,)."""
        return tuple(row.mean for row in self.questions)

    @cached_property
    def mean(self) -> float:
        """The mean over the questions of their means: every question weighs the same."""
        return math.fsum(self.means) / self.n

    @cached_property
    def repeats(self) -> float:
        """The harmonic mean of the number of draws per question: the K of the variance formulas."""
        return self.n / math.fsum(1.0 / len(row.scores) for row in self.questions)

    @cached_property
    def clusters(self) -> tuple[Hashable, ...] | None:
        """The cluster of each question, shape (n,), or None where questions are independent."""
        if is_missing(self.questions[0].cluster):
            return None
        return tuple(row.cluster for row in self.questions)

    @cached_property
    def score_range(self) -> tuple[float, float]:
        """The scale; or (0, 1) where every score lies within it, else the lowest and the highest score seen."""
        return self.scale or range_of(score for row in self.questions for score in row.scores)

    @cached_property
    def is_binary(self) -> bool:
        """Whether every score says passed or failed, by whichever two numbers: 0 and 1, 0 and 100, -1 and 1.

        What counts for a draw that failed says nothing of the scale, but where it is 0.
        """
        draws = [pair for row in self.questions for pair in zip(row.scores, _flags(row), strict=True)]
        scale = self.scale or range_of(score for score, failed in draws if score == 0.0 or not failed)
        return are_ends(scale, (score for score, _ in draws))

    def without_failures(self) -> ScoreTable | None:
        """The same table without failed draws, and without the questions of which none is left; None without any."""
        if not any(map(any, map(_flags, self.questions))):
            return ScoreTable(self.questions)
        kept = []
        for row in self.questions:
            scores = tuple(score for score, failed in zip(row.scores, _flags(row), strict=True) if not failed)
            if scores:
                kept.append(QuestionScores(row.question, scores, cluster=row.cluster))
        return ScoreTable(tuple(kept)) if kept else None


def _flags(row: QuestionScores) -> tuple[bool, ...]:
    return row.failed or (False,) * len(row.scores)


def range_of(scores: Iterable[float]) -> tuple[float, float]:
    """(0, 1) where all of some scores lie within it, else the lowest and the highest of them."""
    low, high = math.inf, -math.inf
    for score in scores:
        low, high = min(low, score), max(high, score)
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)


def are_ends(ends: tuple[float, float], scores: Iterable[float]) -> bool:
    """Whether scores take two values only, the ends of a scale that begins or ends at 0, or has it in its middle."""
    low, high = ends
    return low < high and (0.0 in ends or low == -high) and set(ends).issuperset(scores)


def sample_variance(values: Sequence[float]) -> float:
    """The unbiased variance of at least two values (divisor n - 1), by two passes."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


class Implied(str):
    """The cluster of questions that are equal, which nobody gave: it gives way to one that somebody did."""

    __slots__ = ()


def is_missing(cluster: Any) -> bool:
    """Whether a cluster id is none."""
    if cluster is None:
        return True
    # pandas writes a missing value as NaN, NA or NaT, a CSV file as an empty field.
    if isinstance(cluster, Real):
        return bool(cluster != cluster)  # noqa: PLR0124 - also numpy's, and a number too large for a float
    return cluster == "" if isinstance(cluster, str) else type(cluster).__name__ in {"NAType", "NaTType"}
