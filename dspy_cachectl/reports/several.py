"""Several reports, each compared with each, or ranked: what many comparisons do to one is allowed for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.apart.metrics import each_by_metric
from dspy_cachectl.reports.apart.tables import differences_by_metric, scores_by_metric
from dspy_cachectl.reports.caveats import bias_of_best
from dspy_cachectl.reports.comparison import Comparison, compare_two, together
from dspy_cachectl.reports.describe import MORE, REPORT_COLUMNS, report_row, scores_picture
from dspy_cachectl.reports.difference import best_of_several
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.plots import plot_scores
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Giving, Part, Sheet, notes, sheet
from dspy_cachectl.showing.stand_in import passes_on
from dspy_cachectl.statistics.verdicts import Verdict

_PAIR_COLUMNS = ("candidate against baseline", "difference", "interval", "p", "p (Holm)", "won/tied/lost", "verdict")
_BRIEF_PAIRS = ("candidate", "baseline", "difference", "interval", "p (Holm)", "verdict")
_GIVE = Giving(
    right=("questions", "repeats", "failed", "p", "p (Holm)"),
    whole=("score", "interval", "difference", "won/tied/lost", "per answer"),
    names=("report", "model", "candidate", "baseline"),
)


@dataclass(frozen=True)
class Comparisons(Shown):
    """Several reports, each pair compared, with the multiplicity handled.

    Attributes:
        reports: The reports, in the order in which they were given.
        pairs: A comparison for each pair; the earlier report is the baseline.
    """

    reports: tuple[Measurement, ...]
    pairs: tuple[Comparison, ...]

    @property
    def best(self) -> str:
        """The name of the report that scores highest on the questions that all of them have.

        Its score is biased upward; see `selection_bias`. Where no question is in all of them, that of the most wins.
        """
        return max(self.common_scores, key=self.common_scores.__getitem__)

    @cached_property
    def common_scores(self) -> Mapping[str, float]:
        """The score of each report on the questions that all have; without any, its wins less its losses."""
        means = {report.name: dict(zip(report.table.names, report.table.means, strict=True)) for report in self.reports}
        common = set.intersection(*map(set, means.values()))
        if common:
            return {name: math.fsum(rows[one] for one in common) / len(common) for name, rows in means.items()}
        won = {report.name: 0.0 for report in self.reports}
        for pair in self.pairs:
            sign = (pair.verdict is Verdict.BETTER) - (pair.verdict is Verdict.WORSE)
            won[pair.candidate] += sign
            won[pair.baseline] -= sign
        return won

    @cached_property
    def metrics(self) -> Mapping[str, Comparisons]:
        """The same by each metric, by name, where there are several; the verdicts of all of them hold together."""
        return {
            name: Comparisons(
                tuple(one for one in scored if one is not None),
                tuple(
                    replace(pair.metrics[name], baseline=pair.baseline, candidate=pair.candidate)
                    for pair in self.pairs
                    if name in pair.metrics
                ),
            )
            for name, scored in each_by_metric(self.reports).items()
        }

    @property
    def selection_bias(self) -> float:
        """By about how much the best of these scores is too high, in units of the score."""
        return bias_of_best(self.reports, len(self.reports))

    def __getitem__(self, names: tuple[str, str]) -> Comparison:
        for pair in self.pairs:
            if (pair.baseline, pair.candidate) == names:
                return pair
        known = ", ".join(repr(report.name) for report in self.reports)
        raise ConfigurationError(f"no comparison of {names!r}; name an earlier report, then a later one, of {known}")

    def __repr__(self) -> str:
        return f"<Comparisons: {len(self.reports):,} reports, {len(self.pairs):,} pairs; highest: {self.best!r}>"

    def plot(self, path: Any = None) -> Any:
        """Draw all scores with their intervals, and score against cost. Needs the `plots` extra."""
        return plot_scores(self.reports, path)

    def _sheet(self) -> Sheet:
        settling = [f"{pair.title}: {line}" for pair in self.pairs for line in pair.settling()]
        scores = Part("Scores", tuple(map(report_row, self.reports)), header=REPORT_COLUMNS, giving=_GIVE)
        pairs = Part(self._pairs_title, tuple(map(_pair_row, self.pairs)), header=_PAIR_COLUMNS, giving=_GIVE)
        return self._shown(scores, pairs, self._by_metric(), settling, picture=scores_picture(self.reports))

    def _brief(self) -> Sheet:
        settling = [f"{pair.title}: {line}" for pair in self.pairs for line in pair.settling_briefly()]
        header, rows = REPORT_COLUMNS, [report_row(report) for report in self.reports]
        scores = Part("Scores", tuple(row[:3] + row[5:7] for row in rows), header[:3] + header[5:7], giving=_GIVE)
        named = ((Cell(pair.candidate), Cell(pair.baseline), *_pair_row(pair)) for pair in self.pairs)
        pairs = Part(
            self._pairs_title, tuple(row[:2] + row[3:5] + row[6::2] for row in named), _BRIEF_PAIRS, giving=_GIVE
        )
        return self._shown(scores, pairs, self._by_metric(briefly=True), settling, more=MORE)

    @property
    def _pairs_title(self) -> str:
        first = next(iter(self.metrics), None)
        return "Pairs" if first is None else f"Pairs by {first} (as if there were no other metric)"

    def _by_metric(self, *, briefly: bool = False) -> tuple[Part, Part]:
        found = {
            name: [(pair.candidate, pair.baseline, pair.cells()) for pair in its.pairs]
            for name, its in self.metrics.items()
        }
        among = max((pair.compared_with for its in self.metrics.values() for pair in its.pairs), default=0)
        return scores_by_metric(self.reports, briefly=briefly), differences_by_metric(found, among, briefly=briefly)

    def _shown(
        self, scores: Part, pairs: Part, by_metric: Sequence[Part], settling: Sequence[str], **more: Any
    ) -> Sheet:
        return sheet(
            f"{len(self.reports)} reports, each against each",
            Cell(best_of_several(self.best, self.selection_bias, self.reports)),
            scores,
            pairs,
            *by_metric,
            notes("What would settle them", settling),
            notes("Warnings", dict.fromkeys(warning for pair in self.pairs for warning in pair.warnings)),
            notes("Caveats", dict.fromkeys(caveat for pair in self.pairs for caveat in pair.interval.caveats)),
            **more,
        )


@passes_on
def compare(
    reports: Mapping[str, Measurement], *, smallest_difference: float | None = None, level: float | None = None
) -> Comparisons:
    """Compare several reports, each with each.

    The p-values are adjusted by Holm's method, since among many comparisons some win by luck: those of the first metric
    for the number of pairs, as if there were no others, and those by metric for all pairs by all metrics.

    Args:
        reports: The reports by name; two at least.
        smallest_difference: The smallest difference that matters, in units of the score; None for a twentieth of
            the scale. It is that of the first metric: each other has a twentieth of its own scale.
        level: The nominal coverage of the intervals; None for that of the reports, the highest where they differ.

    Raises:
        ConfigurationError: If these are no reports by name, or fewer than two, or two have no question in common.
    """
    given: Any = reports
    if not (isinstance(given, Mapping) and all(isinstance(one, Measurement) for one in given.values())):
        raise ConfigurationError(
            'compare() takes reports by name: compare({"zero-shot": one, "bootstrap": other}), each of evaluate()'
        )
    if len(reports) < 2:
        raise ConfigurationError(f"compare() takes two reports at least, by name; got {len(reports)}")
    named = tuple(replace(report, name=name) for name, report in reports.items())
    level = max(report.level for report in named) if level is None else level
    pairs = [
        compare_two(one, other, smallest_difference=smallest_difference, level=level)
        for one, other in combinations(named, 2)
    ]
    return Comparisons(reports=named, pairs=together(pairs))


def _pair_row(comparison: Comparison) -> tuple[Cell, ...]:
    return Cell(comparison.title), *comparison.cells()
