"""The input of every statistic: which question got which scores, from which distinct draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, repeat
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
        _check((self.question,), (self.scores,))

    @property
    def mean(self) -> float:
        """The mean over the draws, failures with the failure score."""
        return _mean(self.scores)


@dataclass(frozen=True)
class ScoreTable:
    """The scores of an evaluation, question by question. Failed draws count as 0 unless left out.

    It is kept column by column: of an object for each question the garbage collector walks over a hundred thousand.

    Attributes:
        names: What identifies each question, shape (n,).
        scores: The scores of each, one per distinct draw, shape (n, K_i).
        failed: Whether each draw failed, shape (n, K_i); empty means that none did.
        groups: The cluster of each question, shape (n,); empty means that there are none.
        scale: The lowest and the highest that scores can be, where they are no shares; None: told by the scores.

    Raises:
        ConfigurationError: No questions, two rows for one question, or clusters that some questions lack; no draws of a
            question, or a score that is NaN or infinite.
    """

    names: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    failed: tuple[tuple[bool, ...], ...] = ()
    groups: tuple[Hashable, ...] = ()
    scale: tuple[float, float] | None = None

    @classmethod
    def of(cls, questions: Iterable[QuestionScores], scale: tuple[float, float] | None = None) -> ScoreTable:
        """Return the table that has these rows."""
        rows = tuple(questions)
        has_failed = any(any(row.failed) for row in rows)
        return cls(
            tuple([row.question for row in rows]),
            tuple([row.scores for row in rows]),
            tuple([row.failed or (False,) * len(row.scores) for row in rows]) if has_failed else (),
            tuple([row.cluster for row in rows]),
            scale,
        )

    def __repr__(self) -> str:
        return f"<ScoreTable: {self.n:,} questions, mean {self.mean:.4g}>"

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigurationError("there are no questions to compute statistics of; evaluate at least one")
        _check(self.names, self.scores)
        if len(set(self.names)) < self.n:
            name, rows = Counter(self.names).most_common(1)[0]
            raise ConfigurationError(
                f"question {name!r} has {rows} rows; put its draws into one row, or name the rows apart"
            )
        missing = [name for name, group in zip(self.names, self.groups, strict=False) if is_missing(group)]
        if missing and len(missing) < self.n:
            shown = ", ".join(repr(name) for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ConfigurationError(
                f"{len(missing)} of {self.n} questions have no cluster id ({shown}); "
                "give every question one (its own where it stands alone), or none at all"
            )

    @cached_property
    def questions(self) -> tuple[QuestionScores, ...]:
        """One row per question, shape (n,)."""
        failed, groups = self.failed or repeat((), self.n), self.groups or repeat(None, self.n)
        return tuple(map(QuestionScores, self.names, self.scores, failed, groups))

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.names)

    @cached_property
    def means(self) -> tuple[float, ...]:
        """The mean score of each question over its draws, shape (n,)."""
        return tuple(map(_mean, self.scores))

    @cached_property
    def mean(self) -> float:
        """The mean over the questions of their means: every question weighs the same."""
        return math.fsum(self.means) / self.n

    @cached_property
    def repeats(self) -> float:
        """The harmonic mean of the number of draws per question: the K of the variance formulas."""
        return self.n / math.fsum([1.0 / len(scores) for scores in self.scores])

    @cached_property
    def clusters(self) -> tuple[Hashable, ...] | None:
        """The cluster of each question, shape (n,), or None where questions are independent."""
        return self.groups if self.groups and not is_missing(self.groups[0]) else None

    @cached_property
    def score_range(self) -> tuple[float, float]:
        """The scale; or (0, 1) where every score lies within it, else the lowest and the highest score seen."""
        return self.scale or range_of(chain.from_iterable(self.scores))

    @cached_property
    def is_binary(self) -> bool:
        """Whether every score says passed or failed, by whichever two numbers: 0 and 1, 0 and 100, -1 and 1.

        What counts for a draw that failed says nothing of the scale, but where it is 0.
        """
        draws = list(chain.from_iterable(self.scores))
        counted = draws
        if self.failed:
            flagged = zip(draws, chain.from_iterable(self.failed), strict=True)
            counted = [score for score, failed in flagged if score == 0.0 or not failed]
        scale = self.scale or range_of(counted)
        return are_ends(scale, draws)

    def without_failures(self) -> ScoreTable | None:
        """The same table without failed draws, and without the questions of which none is left; None without any."""
        if not any(map(any, self.failed)):
            return replace(self, failed=(), scale=None)
        kept = []
        for row in self.questions:
            scores = tuple(score for score, failed in zip(row.scores, row.failed, strict=True) if not failed)
            if scores:
                kept.append(QuestionScores(row.question, scores, cluster=row.cluster))
        return ScoreTable.of(kept) if kept else None


def _check(names: Sequence[str], scores: Sequence[tuple[float, ...]]) -> None:
    if all(scores) and all(map(math.isfinite, chain.from_iterable(scores))):
        return
    for name, row in zip(names, scores, strict=True):
        if not row:
            raise ConfigurationError(f"question {name!r} has no draws; leave it out")
        draw = next((at for at, score in enumerate(row) if not math.isfinite(score)), None)
        if draw is not None:
            raise ConfigurationError(
                f"the score of question {name!r}, draw {draw}, is {row[draw]!r}; a score must be a finite number"
            )


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


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
    mean = _mean(values)
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
