"""Pictures of a run: every ratio with its bar, and the peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import bar_of
from benchmarks.figures import Figure

MET, MISSED, OTHER = "#2a78b5", "#c44536", "#707070"


def plot(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Draw what was measured, an image for what is compared with DSPy and one for the peers. Return their paths."""
    parts = {
        "ratios": [figure for figure in figures if not figure.row.startswith("peer-")],
        "peers": [figure for figure in figures if figure.row.startswith("peer-")],
    }
    return [_drawn(folder / f"{name}.svg", part) for name, part in parts.items() if part]


def _drawn(path: Path, figures: Sequence[Figure]) -> Path:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Drawing

    # The same figures make the same file.
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 8}):
        drawing = Drawing(figsize=(8, 1.2 + 0.17 * len(figures)), layout="constrained")
        axes: Any = drawing.subplots()
        for at, figure in enumerate(figures):
            _point(axes, at, figure)
        axes.axvline(1, color=OTHER, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yticks(range(len(figures)), [figure.name for figure in figures])
        axes.set_ylim(len(figures) - 0.5, -0.5)
        axes.grid(axis="x", which="both", linewidth=0.3)
        axes.set_xlabel("ours by theirs; the line: the middle half of the rounds; |: the bar (blue: met, red: missed)")
        drawing.savefig(path, metadata={"Date": None})
    return path


def _point(axes: Any, at: int, figure: Figure) -> None:
    bar = bar_of(figure)
    colour = OTHER if bar is None else MET if bar.is_met(figure) else MISSED
    axes.plot(figure.quartiles, [at, at], color=colour, linewidth=2)
    axes.plot([figure.ratio], [at], "o", color=colour, markersize=4)
    if bar is not None and bar.of == "ratio":
        axes.plot([bar.limit], [at], "|", color="black", markersize=8)
