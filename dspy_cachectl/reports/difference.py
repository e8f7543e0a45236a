"""What is shown of the difference of two reports, in which words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dspy_cachectl.reports.describe import circumstance_text
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.texts import (
    ends_text,
    level_text,
    number,
    p_value,
    places,
    plural,
)
from dspy_cachectl.showing.sheets import Cell, Intervals, Span, Tone
from dspy_cachectl.statistics.power import POWER
from dspy_cachectl.statistics.verdicts import PairedComparison, Verdict


def difference_rows(
    result: PairedComparison, reports: Sequence[Measurement], *, names: tuple[str, str], adjusted: tuple[float, int]
) -> Iterator[tuple[str, str]]:
    """Yield what a difference is, and what the two reports are.

    Args:
        result: The comparison.
        reports: The two reports.
        names: The candidate's name and the baseline's.
        adjusted: The p-value after Holm's adjustment, and among how many comparisons it is one.
    """
    error, interval, (candidate, baseline), (p_holm, among) = result.error, result.interval, names, adjusted
    decimals = places(error.value)
    yield "candidate", f"{number(result.candidate_mean, decimals)} ({candidate})"
    yield "baseline", f"{number(result.baseline_mean, decimals)} ({baseline})"
    yield "difference", f"{number(result.difference, decimals, sign=True)} ± {number(error.value, decimals)}"
    yield f"{level_text(interval)} interval", f"{ends_text(interval, error.value, sign=True)}, {interval.method}"
    yield "p-value", f"{p_value(result.p_value)}, {result.test}"
    if among > 1:
        yield "adjusted p-value", f"{p_value(p_holm)}, Holm, among {among:,} comparisons"
    pairs = f"{plural(result.n, 'pair')}: {result.wins:,} won, {result.ties:,} tied, {result.losses:,} lost"
    yield "questions", pairs
    if error.clusters is not None:
        yield "clusters", f"{error.clusters:,}; design effect {number(error.design_effect)}"
    for report in reports:
        yield report.name, circumstance_text(report)


def difference_cells(result: PairedComparison, adjusted_p_value: float, verdict: Cell) -> tuple[Cell, ...]:
    """Return a difference as cells of a table: itself, its interval, p-values alone and adjusted, and the verdict."""
    return (
        Cell(number(result.difference, places(result.error.value), sign=True)),
        Cell(ends_text(result.interval, result.error.value, sign=True)),
        Cell(p_value(result.p_value)),
        Cell(p_value(adjusted_p_value)),
        Cell(f"{result.wins:,}/{result.ties:,}/{result.losses:,}"),
        verdict,
    )


def best_of_several(best: str, bias: float, reports: Sequence[Measurement]) -> str:
    """Write which of several reports is the best, and by how much it may look too good."""
    error = max(report.standard_error for report in reports)
    much = f"up to about {number(bias, places(error))}" if math.isfinite(bias) else "any amount"
    return (
        f"{best} has the highest score on the questions that all have. The best of {len(reports)} may look too good by "
        f"{much} on the questions that chose it: report its score on others."
    )


def further_rows(result: PairedComparison) -> Iterator[tuple[str, str]]:
    """Yield what else is known of a difference: how it compares to one without pairs, and what could have been seen."""
    error = result.error.value
    decimals = places(error)
    least, most = result.minimal_detectable_range
    effect = f"{number(least, decimals)} to {number(most, decimals)} with a probability of {POWER:.0%}"
    unpaired = f"{number(result.unpaired_error, decimals)} if it were not"
    yield "correlation", number(result.correlation, 2)
    yield "standard error", f"{number(error, decimals)} paired, {unpaired}"
    yield "smallest detectable difference", f"{effect} (the smallest that matters: {result.smallest_difference:g})"


def difference_picture(result: PairedComparison, *, names: tuple[str, str], tone: Tone) -> Intervals:
    """Return the picture of the difference: against none, and against what is too small to matter.

    Args:
        result: The comparison.
        names: The candidate's name and the baseline's.
        tone: How its verdict is meant.
    """
    interval, error = result.interval, result.error.value
    said = f"{number(result.difference, places(error), sign=True)} ({ends_text(interval, error, sign=True)})"
    return Intervals(
        (Span(" − ".join(names), said, result.difference, interval.low, interval.high, tone),),
        axis=f"difference, {level_text(interval)} interval; up to ±{result.smallest_difference:g} does not matter",
        about_zero=True,
        band=result.smallest_difference,
    )


def why_undecided(result: PairedComparison) -> Iterator[str]:
    """Yield which condition of a verdict is missing, where others are met; nothing where none is, or it is settled.

    Args:
        result: The comparison, by itself.
    """
    if result.verdict is not Verdict.INCONCLUSIVE:
        return
    interval, size, limit = result.interval, result.smallest_difference, f"{1.0 - result.interval.level:.3g}"
    p, is_significant, is_doubted = (
        p_value(result.p_value),
        result.p_value < 1.0 - interval.level,
        "is in doubt (see the caveats)",
    )
    if 0.0 not in interval and is_significant:
        yield f"Its p-value of {p} is below {limit} and its interval leaves out 0, but that {is_doubted}."
    elif 0.0 not in interval:
        yield f"Its interval leaves out 0, but its p-value of {p} is not below {limit}: both have to say so."
    elif is_significant:
        yield f"Its p-value of {p} is below {limit}, but its interval holds 0: both have to say so."
    elif -size < interval.low and interval.high < size:
        unseen = "differences that no question showed may come to more"
        yield f"Its interval lies within ±{size:g}, but {f'that {is_doubted}' if interval.caveats else unseen}."


def settling_briefly(result: PairedComparison, verdict: Verdict, *, adjusted: tuple[float, int]) -> Iterator[str]:
    """Yield what would settle a comparison in a few words, for where there are several; nothing where it is settled.

    Args:
        result: The comparison, by itself.
        verdict: What is said of it among others.
        adjusted: The p-value after Holm's adjustment, and among how many comparisons it is one.
    """
    p_holm, among = adjusted
    if result.verdict is not verdict and result.verdict is Verdict.NO_DIFFERENCE:
        yield f"alone {result.verdict_text}, and not among {among:,} (Bonferroni): add questions"
    elif result.verdict is not verdict:
        yield f"its p-value of {p_value(result.p_value)} becomes {p_value(p_holm)} (Holm, among {among:,})"
    elif result.needed is not None and result.needed.questions_range is not None:
        least, most = result.needed.questions_range
        yield f"{least:,} to {most:,} questions instead of {result.n:,}, looked at once; or cachectl.settle()"
    elif result.needed is not None:
        yield result.needed.sentence
