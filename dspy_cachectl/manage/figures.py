"""The statistics of a store as a figure. It needs the `plots` extra; nothing here touches pyplot or a display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dspy_cachectl.errors import ConfigurationError, MissingExtraError, StoreUnavailableError
from dspy_cachectl.manage.statistics import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 25
_NAME_SHOWN = 40
# From Okabe and Ito's palette, which can be told apart with every kind of colour vision.
_SERVED, _ASKED, _STORED = "#0072B2", "#D55E00", "#666666"


def plot_statistics(lines: Mapping[str, Line], path: Path, *, by: str) -> None:
    """Draw how many entries there are, how many calls were served, and what was spent and saved.

    Args:
        lines: What to draw, most important first; only the first are drawn.
        path: Where to save the figure (PNG unless the name ends otherwise).
        by: What the lines are told apart by.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        ConfigurationError: If the name ends in something that matplotlib cannot write.
        StoreUnavailableError: If the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("stats --plot FILE", extra="plots") from error
    shown = list(lines.items())[:_MOST_LINES]
    names = [_name(name) for name, _ in shown]
    sums = [line for _, line in shown]
    figure = Figure(figsize=(12.0, 1.6 + 0.34 * max(len(shown), 1)), dpi=150, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    form = path.suffix[1:].lower() or "png"
    if form not in canvas.get_supported_filetypes():
        known = ", ".join(canvas.get_supported_filetypes())
        raise ConfigurationError(f"a figure cannot be saved as {path.name!r}; end it in one of {known}")
    entries, calls, money = figure.subplots(1, 3, sharey=True)
    _bars(entries, names, ([line.entries for line in sums], _STORED, "stored"), title=f"entries by {by}")
    _bars(
        calls,
        names,
        ([line.tally.served for line in sums], _SERVED, "served"),
        ([line.tally.calls - line.tally.served for line in sums], _ASKED, "not served"),
        title="calls",
    )
    what, spent, saved = _worth(sums)
    _bars(money, names, (saved, _SERVED, "saved"), (spent, _ASKED, "spent"), title=what)
    entries.invert_yaxis()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=form)
    except OSError as error:
        raise StoreUnavailableError(f"the figure could not be written to {path}: {error}") from error


def _bars(axes: Axes, names: list[str], *parts: tuple[list[float] | list[int], str, str], title: str) -> None:
    left = [0.0] * len(names)
    positions = range(len(names))
    for widths, colour, label in parts:
        axes.barh(positions, widths, left=left, color=colour, label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(positions, names, parse_math=False)
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    if len(parts) > 1:
        axes.legend(frameon=False)


def _worth(lines: list[Line]) -> tuple[str, list[float], list[float]]:
    if any(line.tally.cost_spent or line.tally.cost_saved for line in lines):
        costs = ([line.tally.cost_spent for line in lines], [line.tally.cost_saved for line in lines])
        return "US dollars", *costs
    tokens = ([float(line.tally.tokens_spent) for line in lines], [float(line.tally.tokens_saved) for line in lines])
    return "tokens (prices not known)", *tokens


def _name(name: str) -> str:
    printable = "".join(letter if letter.isprintable() else "?" for letter in name) or "-"
    return printable if len(printable) <= _NAME_SHOWN else f"{printable[: _NAME_SHOWN - 1]}…"
