"""How what is looked at apart is shown: a row for each, with what is said of their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dspy_cachectl.reports.apart.measures import MEASURES
from dspy_cachectl.reports.apart.metrics import by_metric
from dspy_cachectl.reports.apart.slices import slices_of
from dspy_cachectl.reports.measurement import MEASURE, Measurement
from dspy_cachectl.reports.texts import MISSING, ends_text, score_text
from dspy_cachectl.showing.sheets import Cell, Giving, Part

MOST_BRIEFLY = 8
"""How many of them are shown on one screen."""
GIVE = Giving(
    right=("questions", "failed", "p (Holm)"),
    whole=("score", "interval", "difference"),
    names=("slice", "metric"),
    spare=("failed", "p (Holm)"),
)
"""How such a table gives way."""


Differences = Iterable[tuple[str, int, tuple[Cell, ...]]]
"""The name of each, its number of questions, and the cells of its difference (see `difference_cells`)."""


def parts_of(report: Measurement, *, briefly: bool = False) -> tuple[Part, ...]:
    """Return what of a report is looked at apart, as tables: its metrics, and its slices with the lowest first.

    Args:
        report: The report.
        briefly: Whether they have to fit on a screen.
    """
    others = report.provenance.others
    metrics = by_metric(report) if others else {}
    unknown = [one.metric for one in others if one.metric not in metrics]
    slices = dict(sorted(slices_of(report).items(), key=lambda one: one[1].score))
    return (
        _scores("metric", "Metrics of the same answers (each interval by itself)", metrics, unknown, briefly=briefly),
        _scores("slice", "Slices, the lowest first (each interval by itself)", slices, briefly=briefly),
    )


def _scores(
    what: str, title: str, found: Mapping[str, Measurement], unknown: Sequence[str] = (), *, briefly: bool
) -> Part:
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(name + _unit(one)),
            Cell(score_text(one.score, one.standard_error)),
            Cell(ends_text(one.interval, one.standard_error)),
            Cell(f"{one.n:,}"),
            Cell(f"{one.failures:,}"),
        )
        for name, one in found.items()
    ]
    rows += [(Cell(name), Cell("not known"), *[Cell(MISSING)] * 3) for name in unknown]
    return _table(title, (what, "score", "interval", "questions", "failed"), rows, briefly=briefly)


def _unit(report: Measurement) -> str:
    """Return the unit of what is measured, where its name does not say it."""
    unit = (
        MEASURES.get(report.provenance.metric_hash.removeprefix(MEASURE).split(" ")[0]) if report.is_measure else None
    )
    return f" ({unit})" if unit and report.provenance.metric not in {unit, "seconds"} else ""


def difference_parts(metrics: Differences, slices: Differences, *, briefly: bool = False) -> tuple[Part, ...]:
    """Return the differences of two reports that are looked at apart, as tables.

    Args:
        metrics: By metric.
        slices: By slice, the worst first.
        briefly: Whether they have to fit on a screen.
    """
    return (
        _differences("metric", "Metrics of the same answers (verdicts hold together)", metrics, briefly=briefly),
        _differences("slice", "Slices, the worst first (verdicts hold together)", slices, briefly=briefly),
    )


def _differences(what: str, title: str, found: Differences, *, briefly: bool) -> Part:
    rows = [(Cell(name), Cell(f"{n:,}"), *cells[:2], cells[3], cells[5]) for name, n, cells in found]
    return _table(title, (what, "questions", "difference", "interval", "p (Holm)", "verdict"), rows, briefly=briefly)


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], *, briefly: bool) -> Part:
    """Return rows as a table; briefly, as many as fit on a screen, and how many there are beside them."""
    if briefly and len(rows) > MOST_BRIEFLY:
        left = Cell(f"and {len(rows) - MOST_BRIEFLY:,} more")
        rows = [*rows[:MOST_BRIEFLY], (left, *[Cell("")] * (len(columns) - 1))]
    return Part(title, tuple(rows), header=columns, giving=GIVE)
