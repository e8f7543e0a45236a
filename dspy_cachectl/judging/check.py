"""What became of asking a judge several times about the same answers, and how it is shown."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from dspy_cachectl.accounting.ledger import Stats
from dspy_cachectl.reports.apart.labels import MOST_KINDS, agreement_rows, kind_of
from dspy_cachectl.reports.texts import number, plural
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Sheet, facts, notes, sheet
from dspy_cachectl.statistics.agreement import Agreement, cohen_kappa, krippendorff_alpha
from dspy_cachectl.statistics.scores import QuestionScores, ScoreTable
from dspy_cachectl.statistics.variance import VarianceSplit, variance_split


@dataclass(frozen=True)
class JudgeCheck(Shown):
    """How far a judge agrees with itself, and with people.

    Attributes:
        name: What the judge is called.
        scores: What it gave each answer, each time; without the times that it failed.
        labels: What people say of each answer; None where nobody was asked.
        failures: How often it failed.
        run_id: The run whose draws its verdicts are: with it the same call again buys nothing.
        stats: What happened to its LM calls.
        level: The nominal coverage of the intervals.
        clusters: The cluster of each answer's question; None where these are independent.
    """

    name: str
    scores: tuple[tuple[float, ...], ...]
    labels: tuple[float | None, ...]
    failures: int
    run_id: str | None
    stats: Stats
    level: float = 0.95
    clusters: tuple[Hashable, ...] | None = None

    @property
    def kind(self) -> str:
        """How its scores differ: `"nominal"` where there are two at most, else `"interval"`."""
        return kind_of([score for row in self.scores for score in row])

    @cached_property
    def itself(self) -> Agreement:
        """Krippendorff's alpha of its verdicts of the same answer."""
        return krippendorff_alpha(self.scores, kind=self.kind, clusters=self.clusters, level=self.level)

    @property
    def same(self) -> float:
        """The share of the pairs of verdicts of one answer that are the same."""
        pairs = [one == other for row in self.scores for one, other in combinations(row, 2)]
        return sum(pairs) / len(pairs)

    @cached_property
    def variance(self) -> VarianceSplit:
        """How much of the variance of its scores is of the answers, and how much the judge's own wavering."""
        groups = self.clusters or [None] * len(self.scores)
        rows = enumerate(zip(self.scores, groups, strict=True))
        return variance_split(
            ScoreTable.of(QuestionScores(str(at), row, cluster=group) for at, (row, group) in rows if row)
        )

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Its first verdict and the label of each answer that has both."""
        return [(self.scores[at][0], label) for at, label in self._labelled()]

    def _labelled(self) -> list[tuple[int, float]]:
        """Return the place and the label of each answer that has a verdict and a label."""
        both = enumerate(zip(self.scores, self.labels, strict=True))
        return [(at, label) for at, (row, label) in both if row and label is not None]

    @property
    def _groups(self) -> list[Hashable] | None:
        """The clusters of these."""
        return None if self.clusters is None else [self.clusters[at] for at, _ in self._labelled()]

    @cached_property
    def kappa(self) -> Agreement | None:
        """Cohen's kappa of its first verdict and people; None without labels, or where these are of no few kinds."""
        values = {value for pair in self.pairs for value in pair}
        if not 0 < len(values) <= MOST_KINDS:
            return None
        return cohen_kappa(self.pairs, clusters=self._groups, level=self.level)

    @cached_property
    def alpha(self) -> Agreement | None:
        """Krippendorff's alpha of its first verdict and people; None without labels."""
        values = [value for pair in self.pairs for value in pair]
        if not values:
            return None
        return krippendorff_alpha(self.pairs, kind=kind_of(values), clusters=self._groups, level=self.level)

    @property
    def right(self) -> float | None:
        """The share of the labelled answers of which its first verdict says what people say; None without labels."""
        return sum(score == label for score, label in self.pairs) / len(self.pairs) if self.pairs else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "answers": len(self.scores),
            "clusters": None if self.clusters is None else len(set(self.clusters)),
            "failures": self.failures,
            "run_id": self.run_id,
            "same": self.same,
            "itself": asdict(self.itself),
            "share_within": self.variance.share_within,
            "labels": len(self.pairs),
            "right": self.right,
            "kappa": None if self.kappa is None else asdict(self.kappa),
            "alpha": None if self.alpha is None else asdict(self.alpha),
        }

    def __repr__(self) -> str:
        labels = f", right in {self.right:.1%} of {len(self.pairs)}" if self.right is not None else ""
        return f"<JudgeCheck {self.name!r}: the same in {self.same:.1%} of {len(self.scores)}{labels}>"

    def _caveats(self) -> Iterator[str]:
        if self.failures:
            yield f"{plural(self.failures, 'verdict')} failed, and are left out"
        if self.same == 1.0:
            yield "it never wavered: asked at a temperature of 0 it tells nothing of whether it is right"
        if math.isnan(self.itself.value):
            yield "all verdicts are one: what is no question says nothing of a judge"

    def _rows(self) -> Iterator[tuple[str, str]]:
        times = max(map(len, self.scores))
        yield "answers", f"{len(self.scores):,}, each judged {times:,} times"
        if self.clusters is not None:
            yield "clusters", f"{len(set(self.clusters)):,}, which the intervals rest on"
        yield from agreement_rows("with itself", None, self.itself, self.same)
        share = self.variance.share_within
        if share is not None:
            yield (
                "wavering",
                f"{share:.0%} of the variance of its scores ({number(self.variance.within)} of one answer)",
            )
        if self.alpha is not None and self.right is not None:
            yield from agreement_rows("with people", self.kappa, self.alpha, self.right)
        yield "LM calls", f"{self.stats.calls:,}, {plural(self.stats.requests, 'request')}; run {self.run_id or 'none'}"

    def _sheet(self) -> Sheet:
        right = "" if self.right is None else f", and with people in {self.right:.1%}"
        headline = Cell(f"agrees with itself in {self.same:.1%}{right}")
        return sheet(f"Judge {self.name}", headline, notes("Caveats", self._caveats()), facts("", self._rows()))

    def _brief(self) -> Sheet:
        return self._sheet()
