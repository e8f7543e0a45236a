"""Which facts of a comparison are shown, and in which words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dspy_cachectl.reports.describe import Price, ends_text, level_text, score_with_error
from dspy_cachectl.reports.sheets import (
    MISSING,
    Cell,
    Facts,
    Grid,
    Notes,
    Sheet,
    Tone,
    money,
    number,
    p_value,
    places,
    plural,
    sheet,
    short,
)
from dspy_cachectl.statistics import Verdict

if TYPE_CHECKING:
    from dspy_cachectl.reports.comparison import Comparison, Comparisons
    from dspy_cachectl.reports.report import EvalReport

_UNPAIRED_SHOWN = 20
_TONES = {
    Verdict.BETTER: Tone.GOOD,
    Verdict.WORSE: Tone.BAD,
    Verdict.NO_DIFFERENCE: Tone.EVEN,
    Verdict.INCONCLUSIVE: Tone.UNSURE,
}


def describe_comparison(comparison: Comparison) -> Sheet:
    """Describe a comparison: the verdict, the difference and its error, and what stands in the way of both."""
    unpaired = _unpaired(comparison)
    return sheet(
        f"{comparison.candidate} against {comparison.baseline}",
        _verdict(comparison),
        Notes("What would settle it", tuple(_settling(comparison))),
        Facts("Difference", tuple(_rows(comparison))),
        Notes("Warnings", comparison.warnings),
        Notes("Caveats", comparison.interval.caveats),
        Grid("Questions that do not pair", ("only in", "question", "begins with"), unpaired),
        Notes("More questions that do not pair", tuple(_more_unpaired(comparison))),
    )


def describe_comparisons(comparisons: Comparisons) -> Sheet:
    """Describe several reports: their scores, each pair's verdict, and the luck of the best of them."""
    pairs = comparisons.pairs
    warnings = dict.fromkeys(warning for pair in pairs for warning in pair.warnings)
    settling = [f"{_names(pair)}: {line}" for pair in pairs for line in _settling(pair)]
    return sheet(
        f"{len(comparisons.reports)} reports, each against each",
        Cell(_best(comparisons)),
        Grid(
            "Scores",
            ("report", "score", "interval", "questions", "repeats", "failed", "per answer", "model"),
            tuple(_report_row(report) for report in comparisons.reports),
        ),
        Grid(
            "Pairs",
            ("candidate against baseline", "difference", "interval", "p", "p (Holm)", "won/tied/lost", "verdict"),
            tuple(_pair_row(pair) for pair in pairs),
        ),
        Notes("What would settle them", tuple(settling)),
        Notes("Warnings", tuple(warnings)),
    )


def _names(comparison: Comparison) -> str:
    return f"{comparison.candidate} against {comparison.baseline}"


def _verdict(comparison: Comparison) -> Cell:
    return Cell(comparison.verdict_text, _TONES[comparison.verdict])


def _rows(comparison: Comparison) -> Iterator[tuple[str, str]]:
    result, error, interval = comparison.result, comparison.result.error, comparison.interval
    decimals = places(error.value)
    yield "candidate", f"{number(result.candidate_mean, decimals)} ({comparison.candidate})"
    yield "baseline", f"{number(result.baseline_mean, decimals)} ({comparison.baseline})"
    yield "difference", f"{number(result.difference, decimals, sign=True)} ± {number(error.value, decimals)}"
    yield f"{level_text(interval)} interval", f"{ends_text(interval, error.value, sign=True)}, {interval.method}"
    yield "p-value", f"{p_value(comparison.p_value)}, {result.test}"
    if comparison.compared_with > 1:
        yield (
            "adjusted p-value",
            f"{p_value(comparison.adjusted_p_value)}, Holm, among {comparison.compared_with:,} comparisons",
        )
    yield (
        "questions",
        f"{plural(result.n, 'pair')}: {result.wins:,} won, {result.ties:,} tied, {result.losses:,} lost",
    )
    yield "correlation", number(result.correlation, 2)
    yield (
        "standard error",
        f"{number(error.value, decimals)} paired, {number(result.unpaired_error, decimals)} if it were not",
    )
    if error.clusters is not None:
        yield "clusters", f"{error.clusters:,}; design effect {number(error.design_effect)}"
    effect = f"{number(result.minimal_detectable_effect, decimals)} with a probability of {result.power:.0%}"
    yield "smallest detectable difference", f"{effect} (the smallest that matters: {result.smallest_difference:g})"


def _settling(comparison: Comparison) -> Iterator[str]:
    result = comparison.result
    if comparison.verdict is not Verdict.INCONCLUSIVE:
        return
    if result.needed is not None:
        yield result.needed.sentence
    if result.verdict is not comparison.verdict:
        alpha = 1.0 - result.interval.level
        yield (
            f"Alone it would be {result.verdict_text}; among {comparison.compared_with:,} comparisons its p-value of "
            f"{p_value(comparison.p_value)} becomes {p_value(comparison.adjusted_p_value)} (Holm), and "
            f"{alpha:.3g} is the limit. Compare fewer reports, or evaluate these two afresh on more questions."
        )


def _unpaired(comparison: Comparison) -> tuple[tuple[Cell, ...], ...]:
    result, previews = comparison.result, comparison.unpaired
    questions = [(comparison.baseline, one) for one in result.only_baseline]
    questions += [(comparison.candidate, one) for one in result.only_candidate]
    return tuple(
        (Cell(name), Cell(short(one)), Cell(previews.get(one, MISSING))) for name, one in questions[:_UNPAIRED_SHOWN]
    )


def _more_unpaired(comparison: Comparison) -> Iterator[str]:
    count = len(comparison.result.only_baseline) + len(comparison.result.only_candidate) - _UNPAIRED_SHOWN
    if count > 0:
        yield f"and {count:,} more: as_dict()['only_baseline'] and as_dict()['only_candidate'] list them all"


def _best(comparisons: Comparisons) -> str:
    bias = comparisons.selection_bias
    error = max(report.standard_error for report in comparisons.reports)
    much = f"up to about {number(bias, places(error))}" if math.isfinite(bias) else "any amount"
    return (
        f"{comparisons.best} has the highest score. The best of {len(comparisons.reports)} may look too good by {much} "
        "on the questions that chose it: report its score on others."
    )


def _report_row(report: EvalReport) -> tuple[Cell, ...]:
    price = Price.of(report)
    cost = f", {money(price.cost_per_answer)}" if price.cost else ""
    return (
        Cell(report.name),
        Cell(score_with_error(report)),
        Cell(ends_text(report.interval, report.standard_error)),
        Cell(f"{report.n:,}"),
        Cell(f"{report.repeats:,}"),
        Cell(f"{report.failures:,}"),
        Cell(f"{number(price.tokens_per_answer)} tokens{cost}"),
        Cell(report.provenance.model),
    )


def _pair_row(comparison: Comparison) -> tuple[Cell, ...]:
    result = comparison.result
    return (
        Cell(_names(comparison)),
        Cell(number(result.difference, places(result.error.value), sign=True)),
        Cell(ends_text(result.interval, result.error.value, sign=True)),
        Cell(p_value(comparison.p_value)),
        Cell(p_value(comparison.adjusted_p_value)),
        Cell(f"{result.wins:,}/{result.ties:,}/{result.losses:,}"),
        _verdict(comparison),
    )
