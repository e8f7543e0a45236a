"""Figures of reports and comparisons. They need the `plots` extra; nothing here touches pyplot or a display."""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.boundary.writing import write_output
from dspy_cachectl.errors import ConfigurationError, MissingExtraError
from dspy_cachectl.reports.apart.measures import prices
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.results import QuestionResult
from dspy_cachectl.reports.texts import cut, distinct_text, ends_text, level_text, plural, score_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_QUESTIONS = 200
"""How many questions a heat map shows at most; more would be thinner than a pixel."""

_DPI = 150
_SHOWN_DPI = 80
"""How large a notebook shows it; with more pixels than that, it is sharp on any screen."""
_NAME_SHOWN = 28
# Okabe and Ito's palette can be told apart with every kind of colour vision; the markers differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_NO_ANSWER = "#dddddd"
_MOST_SEPARATED = 60


def plot_report(report: Measurement, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw a score with its interval, and below it the score of every question and repeat.

    Args:
        report: The report.
        path: Where to save the figure (PNG unless the name ends otherwise), or None to only return it.

    Returns:
        The figure.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        ConfigurationError: If the name ends in something that matplotlib cannot write.
        StoreUnavailableError: If the file cannot be written.
    """
    rows = 0.9 + 0.28 * min(report.repeats, 12)
    figure = _figure(9.0, 2.3 + rows)
    above, below = figure.subplots(2, 1, height_ratios=(0.8, rows))
    _draw_score(above, report)
    _draw_heat_map(figure, below, report)
    return _saved(figure, path)


def plot_scores(reports: Sequence[Measurement], path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the scores of several reports with their intervals, and score against what an answer costs.

    The cost is in US dollars where every report knows its prices, else in tokens.

    Args:
        reports: The reports.
        path: As for `plot_report`.

    Returns:
        The figure.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        ConfigurationError: If the name ends in something that matplotlib cannot write.
        StoreUnavailableError: If the file cannot be written.
    """
    figure = _figure(10.5, max(3.4, 1.6 + 0.42 * len(reports)))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    _draw_scores(left, reports)
    _draw_prices(right, reports)
    return _saved(figure, path)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plot()", extra="plots") from error
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    # Notebooks show by themselves what pyplot makes, and nothing here does.
    vars(figure)["_repr_png_"] = functools.partial(_png, figure)
    return figure


def _png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    image = io.BytesIO()
    figure.savefig(image, format="png")
    width, height = (round(inches * _SHOWN_DPI) for inches in figure.get_size_inches())
    return image.getvalue(), {"width": width, "height": height}


def _saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is None:
        return figure
    target = Path(path)
    form = target.suffix[1:].lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if form not in known:
        raise ConfigurationError(f"a figure cannot be saved as {target.name}; end it in one of {', '.join(known)}")
    image = io.BytesIO()
    figure.savefig(image, format=form)
    write_output(target, image.getvalue(), what="the figure")
    return figure


def _draw_score(axes: Axes, report: Measurement) -> None:
    _draw_interval(axes, report, 0.0, _COLOURS[0], _MARKERS[0])
    without = report.score_without_failures
    if report.failures and without is not None:
        axes.plot([without], [0.0], "o", mfc="none", mec=_COLOURS[1], ms=10, label="without failures")
        axes.legend(frameon=False, fontsize=8, borderaxespad=0.0)
    axes.set(ylim=(-1.0, 1.0), yticks=[])
    axes.spines[["top", "left", "right"]].set_visible(False)
    if report.table.score_range == (0.0, 1.0):
        axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"score ({_metric_name([report])})", parse_math=False)
    error = report.standard_error
    score, ends = score_text(report.score, error), ends_text(report.interval, error)
    title = f"{_name(report)}: {score}, {level_text(report.interval)} interval {ends}"
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)


def _draw_interval(axes: Axes, report: Measurement, height: float, colour: str, marker: str) -> None:
    axes.errorbar(
        [report.score], [height], xerr=_reach(report), fmt=marker, color=colour, ms=7, capsize=4, lw=1.8, zorder=3
    )


def _reach(report: Measurement) -> list[list[float]] | None:
    """Return how far the interval reaches down and up from the score; None where it has no end."""
    interval = report.interval
    if not math.isfinite(interval.width):
        return None
    return [[report.score - interval.low], [interval.high - report.score]]


def _draw_heat_map(figure: Figure, axes: Axes, report: Measurement) -> None:
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    shown = _shown(report)
    scores = np.full((report.repeats, len(shown)), math.nan)
    for column, question in enumerate(shown):
        scores[: len(question.draws), column] = [draw.score for draw in question.draws]
    low, high = report.table.score_range
    # Cells are centred on whole numbers, and lines stand between them where there are few enough not to hide them.
    cells = axes.pcolormesh(
        np.arange(len(shown) + 1) + 0.5,
        np.arange(report.repeats + 1) + 0.5,
        np.ma.masked_invalid(scores),
        cmap="cividis",
        vmin=low,
        vmax=high if high > low else low + 1.0,
        edgecolors="white" if len(shown) <= _MOST_SEPARATED else "none",
        linewidth=0.8,
    )
    axes.set_facecolor(_NO_ANSWER)
    axes.invert_yaxis()
    bar = figure.colorbar(cells, ax=axes, label="score", pad=0.01, fraction=0.04)
    if report.table.is_binary:
        bar.set_ticks([0.0, 1.0], labels=["0", "1"])
    _mark_failures(axes, shown)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="question, sorted by its mean score", ylabel="repeat")
    distinct = report.distinct
    some = "" if len(shown) == report.n else f"{len(shown)} of "
    axes.set_title(
        f"{some}{plural(report.n, 'question')}, {plural(report.repeats, 'repeat')}, {distinct_text(distinct)}",
        loc="left",
        fontsize=10,
    )


def _mark_failures(axes: Axes, shown: Sequence[QuestionResult]) -> None:
    failed = [
        (column, row)
        for column, question in enumerate(shown, 1)
        for row, draw in enumerate(question.draws, 1)
        if draw.failed is not None
    ]
    if failed:
        size = min(6.0, max(2.0, 500.0 / len(shown)))
        axes.plot(*zip(*failed, strict=True), "x", color=_COLOURS[1], ms=size, mew=size / 4, label="failed")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, borderaxespad=0.2)


def _shown(report: Measurement) -> Sequence[QuestionResult]:
    means = report.table.means
    order = sorted(range(report.n), key=lambda number: means[number])
    if report.n > MOST_QUESTIONS:
        # Evenly spaced, so that the picture has the shape of the whole.
        order = [order[round(step * (report.n - 1) / (MOST_QUESTIONS - 1))] for step in range(MOST_QUESTIONS)]
    return [report.questions[number] for number in order]


def _draw_scores(axes: Axes, reports: Sequence[Measurement]) -> None:
    for height, (report, colour, marker) in enumerate(_styled(reports)):
        _draw_interval(axes, report, height, colour, marker)
    axes.set_yticks(range(len(reports)), labels=[_name(report) for report in reports], parse_math=False)
    axes.set_ylim(len(reports) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    levels = {level_text(report.interval) for report in reports}
    axes.set_xlabel(f"score ({_metric_name(reports)})", parse_math=False)
    axes.set_title(f"Scores with {' or '.join(sorted(levels))} intervals", loc="left", fontsize=11)


def _draw_prices(axes: Axes, reports: Sequence[Measurement]) -> None:
    found = prices(reports)
    unit, costs = found or ("tokens", None)
    in_dollars = unit != "tokens"
    for at, (report, colour, marker) in enumerate(_styled(reports)):
        each = report.tokens_per_answer if costs is None else costs[at].score
        axes.errorbar(
            [each],
            [report.score],
            xerr=None if costs is None else _reach(costs[at]),
            yerr=_reach(report),
            fmt=marker,
            color=colour,
            ms=7,
            capsize=3,
            lw=1.2,
            label=_name(report),
        )
    axes.set_xlim(left=0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.set_xlabel("cost of one answer (US$)" if in_dollars else "tokens of one answer")
    axes.set_ylabel(f"score ({_metric_name(reports)})", parse_math=False)
    axes.set_title(
        f"Score against {'cost' if in_dollars else 'tokens'}, marked as on the left", loc="left", fontsize=11
    )


def _styled(reports: Sequence[Measurement]) -> list[tuple[Measurement, str, str]]:
    return [
        (report, _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)])
        for number, report in enumerate(reports)
    ]


def _name(report: Measurement) -> str:
    return cut(harmless(report.name), _NAME_SHOWN)


def _metric_name(reports: Sequence[Measurement]) -> str:
    return harmless(" / ".join(dict.fromkeys(report.provenance.metric for report in reports)))
