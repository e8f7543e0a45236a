"""Several programs, each compared with each, and the luck of the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.comparison import Comparison, compare_two
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.numbers import ends_text, money, number, p_value, places, score_text
from dspy_cachectl.reports.plots import plot_scores
from dspy_cachectl.reports.sheets import Cell, Part, Sheet, notes, sheet
from dspy_cachectl.reports.shown import Shown
from dspy_cachectl.statistics.multiplicity import holm, selection_bias

_REPORT_COLUMNS = ("report", "score", "interval", "questions", "repeats", "failed", "per answer", "model")
_PAIR_COLUMNS = ("candidate against baseline", "difference", "interval", "p", "p (Holm)", "won/tied/lost", "verdict")


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
        """The name of the report with the highest score. Its score is biased upward; see `selection_bias`."""
        return max(self.reports, key=lambda report: report.score).name

    @property
    def selection_bias(self) -> float:
        """By about how much the best of these scores is too high, in units of the score."""
        return selection_bias(max(report.standard_error for report in self.reports), len(self.reports))

    def __getitem__(self, names: tuple[str, str]) -> Comparison:
        for pair in self.pairs:
            if (pair.baseline, pair.candidate) == names:
                return pair
        known = ", ".join(repr(report.name) for report in self.reports)
        raise ConfigurationError(f"no comparison of {names!r}; name an earlier report, then a later one, of {known}")

    def plot(self, path: Any = None) -> Any:
        """Draw all scores with their intervals, and score against cost. Needs the `plots` extra."""
        return plot_scores(self.reports, path)

    def _sheet(self) -> Sheet:
        pairs = self.pairs
        warnings = dict.fromkeys(warning for pair in pairs for warning in pair.warnings)
        settling = [f"{pair.title}: {line}" for pair in pairs for line in pair.settling()]
        return sheet(
            f"{len(self.reports)} reports, each against each",
            Cell(_best(self)),
            Part("Scores", tuple(map(_report_row, self.reports)), header=_REPORT_COLUMNS),
            Part("Pairs", tuple(map(_pair_row, pairs)), header=_PAIR_COLUMNS),
            notes("What would settle them", settling),
            notes("Warnings", warnings),
        )


def compare(
    reports: Mapping[str, Measurement], *, smallest_difference: float = 0.05, level: float = 0.95
) -> Comparisons:
    """Compare several reports, each with each.

    The p-values are adjusted by Holm's method, since among many comparisons some win by luck.

    Args:
        reports: The reports by name; two at least.
        smallest_difference: The smallest difference that matters, in units of the score.
        level: The nominal coverage of the intervals.

    Raises:
        ConfigurationError: If there are fewer than two reports, or two of them have no question in common.
    """
    if len(reports) < 2:
        raise ConfigurationError(f"compare() takes two reports at least, by name; got {len(reports)}")
    named = tuple(replace(report, name=name) for name, report in reports.items())
    pairs = [
        compare_two(one, other, smallest_difference=smallest_difference, level=level)
        for one, other in combinations(named, 2)
    ]
    adjusted = holm([pair.p_value for pair in pairs])
    return Comparisons(
        reports=named,
        pairs=tuple(
            replace(pair, adjusted_p_value=value, compared_with=len(pairs))
            for pair, value in zip(pairs, adjusted, strict=True)
        ),
    )


def _best(comparisons: Comparisons) -> str:
    bias = comparisons.selection_bias
    error = max(report.standard_error for report in comparisons.reports)
    much = f"up to about {number(bias, places(error))}" if math.isfinite(bias) else "any amount"
    return (
        f"{comparisons.best} has the highest score. The best of {len(comparisons.reports)} may look too good by {much} "
        "on the questions that chose it: report its score on others."
    )


def _report_row(report: Measurement) -> tuple[Cell, ...]:
    cost = f", {money(report.cost_per_answer)}" if report.cost_per_answer else ""
    return (
        Cell(report.name),
        Cell(score_text(report.score, report.standard_error)),
        Cell(ends_text(report.interval, report.standard_error)),
        Cell(f"{report.n:,}"),
        Cell(f"{report.repeats:,}"),
        Cell(f"{report.failures:,}"),
        Cell(f"{number(report.tokens_per_answer)} tokens{cost}"),
        Cell(report.provenance.model),
    )


def _pair_row(comparison: Comparison) -> tuple[Cell, ...]:
    result = comparison.result
    return (
        Cell(comparison.title),
        Cell(number(result.difference, places(result.error.value), sign=True)),
        Cell(ends_text(result.interval, result.error.value, sign=True)),
        Cell(p_value(comparison.p_value)),
        Cell(p_value(comparison.adjusted_p_value)),
        Cell(f"{result.wins:,}/{result.ties:,}/{result.losses:,}"),
        comparison.verdict_cell(),
    )
