"""How what is looked at apart is shown: a row for each, with what is said of their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dspy_cachectl.reports.apart.measures import MEASURES
from dspy_cachectl.reports.apart.metrics import by_metric, each_by_metric
from dspy_cachectl.reports.apart.slices import slices_of
from dspy_cachectl.reports.measurement import MEASURE, Measurement
from dspy_cachectl.reports.texts import MISSING, ends_text, score_text
from dspy_cachectl.showing.sheets import Cell, Giving, Part

MOST_BRIEFLY = 8
"""How many of them are shown on one screen."""
MOST_OF_SEVERAL = 20
"""How many rows where several reports have some each."""
GIVE = Giving(
    right=("questions", "failed", "p (Holm)"),
    whole=("score", "interval", "difference"),
    names=("slice", "metric", "report", "model", "candidate", "baseline"),
    spare=("failed", "p (Holm)"),
)
"""How such a table gives way."""


Differences = Iterable[tuple[str, int, tuple[Cell, ...]]]
"""The name of each, its number of questions, and the cells of its difference (see `difference_cells`)."""
Pairs = Iterable[tuple[str, str, tuple[Cell, ...]]]
"""The names of each candidate and its baseline, and the cells of their difference."""


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


def scores_by_metric(reports: Sequence[Measurement], *, briefly: bool = False) -> Part:
    """Return what several reports score by their further metrics, as a table; empty where they have none.

    Args:
        reports: The reports.
        briefly: Whether it has to fit on a screen.
    """
    rows = [
        (Cell(metric + _unit_of(found)), Cell(report.name), *_cells(one))
        for metric, found in each_by_metric(reports).items()
        for report, one in zip(reports, found, strict=True)
        if metric != report.provenance.metric
    ]
    title = "Further metrics of the same answers (each interval by itself)"
    columns = ("metric", "report", "score", "interval", "questions", "failed")
    return _table(title, columns, rows, most=MOST_OF_SEVERAL if briefly else None)


def differences_by_metric(found: Mapping[str, Pairs], among: int, *, briefly: bool = False) -> Part:
    """Return the differences of several pairs by each metric, as a table.

    Args:
        found: By metric, those of all pairs.
        among: How many comparisons these are in all.
        briefly: Whether it has to fit on a screen.
    """
    rows = [
        (Cell(metric), Cell(candidate), Cell(baseline), *cells[:2], cells[3], cells[5])
        for metric, differences in found.items()
        for candidate, baseline, cells in differences
    ]
    title = f"Pairs by metric (verdicts hold together, among {among:,} comparisons)"
    columns = ("metric", "candidate", "baseline", "difference", "interval", "p (Holm)", "verdict")
    return _table(title, columns, rows, most=MOST_OF_SEVERAL if briefly else None)


def standings_by_metric(
    names: Sequence[str],
    scores: Mapping[str, Sequence[Measurement | None]],
    verdicts: Mapping[str, Sequence[Cell]],
    among: int,
    *,
    briefly: bool = False,
) -> Part:
    """Return what the reports of a ranking score by each metric, and how they stand, as a table.

    Args:
        names: The reports.
        scores: By metric, the score of each; None where it is not known.
        verdicts: What is said of each.
        among: How many comparisons these are in all.
        briefly: Whether it has to fit on a screen.
    """
    rows = [
        (Cell(metric + _unit_of(found)), Cell(name), *_cells(one)[:2], verdict)
        for metric, found in scores.items()
        for name, one, verdict in zip(names, found, verdicts[metric], strict=True)
    ]
    together = f"; verdicts hold together, among {among:,} comparisons" if among else ""
    title = f"By metric (each interval by itself{together})"
    columns = ("metric", "model", "score", "interval", "verdict")
    return _table(title, columns, rows, most=MOST_OF_SEVERAL if briefly else None)


def _scores(
    what: str, title: str, found: Mapping[str, Measurement], unknown: Sequence[str] = (), *, briefly: bool
) -> Part:
    rows = [(Cell(name + _unit_of([one])), *_cells(one)) for name, one in found.items()]
    rows += [(Cell(name), *_cells(None)) for name in unknown]
    return _table(title, (what, "score", "interval", "questions", "failed"), rows, most=_most(briefly))


def _cells(report: Measurement | None) -> tuple[Cell, ...]:
    if report is None:
        return Cell("not known"), *[Cell(MISSING)] * 3
    score, ends = score_text(report.score, report.standard_error), ends_text(report.interval, report.standard_error)
    return tuple(map(Cell, (score, ends, f"{report.n:,}", f"{report.failures:,}")))


def _unit_of(reports: Sequence[Measurement | None]) -> str:
    """Return the unit of what is measured, where its name does not say it."""
    report = next((one for one in reports if one is not None), None)
    if report is None or not report.is_measure:
        return ""
    unit = MEASURES.get(report.provenance.metric_hash.removeprefix(MEASURE).split(" ")[0])
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
    columns = (what, "questions", "difference", "interval", "p (Holm)", "verdict")
    return _table(title, columns, rows, most=_most(briefly))


def _most(briefly: bool) -> int | None:
    return MOST_BRIEFLY if briefly else None


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], *, most: int | None) -> Part:
    """Return rows as a table: as many as fit where a number is given, and how many there are beside them."""
    if most is not None and len(rows) > most:
        left = Cell(f"and {len(rows) - most:,} more")
        rows = [*rows[:most], (left, *[Cell("")] * (len(columns) - 1))]
    return Part(title, tuple(rows), header=columns, giving=GIVE)
