"""A figure: the ratio of two things that were timed in turn, how far it spreads, and whether it reaches its bar."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from benchmarks.rounds import Round

Clock = Literal["cpu", "wall"]


@dataclass(frozen=True)
class Figure:
    """How ours compares with something else.

    Attributes:
        row: The row that it belongs to.
        case: The engine, size or peer that it is of; "" where there is one only.
        state: "hot", "first" (see `benchmarks`), or "" where that is no question.
        ratios: Of each round, ours by the other's, of all runs.
        runs: The median ratio of each run.
        ours: The median of a call of ours; in seconds, unless the row says otherwise.
        theirs: The same of the other.
        clock: Which seconds these are.
        other_clock: The median ratio by the other clock; None where that says nothing.
        minima: The quickest round of ours by the quickest of the other: what to look at on a busy machine.
    """

    row: str
    case: str
    state: str
    ratios: tuple[float, ...]
    runs: tuple[float, ...]
    ours: float
    theirs: float
    clock: Clock = "cpu"
    other_clock: float | None = None
    minima: float | None = None

    @property
    def name(self) -> str:
        """What it is called: its row, case and state."""
        return ".".join(filter(None, (self.row, self.case, self.state)))

    @property
    def ratio(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which two ratios the middle half of all rounds lies."""
        if len(self.ratios) < 2:
            return self.ratios[0], self.ratios[0]
        lower, _, upper = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return lower, upper


def compared(
    row: str,
    ours: Sequence[Round],
    theirs: Sequence[Round],
    *,
    case: str = "",
    state: str = "",
    calls: float = 1,
    clock: Clock = "cpu",
) -> Figure:
    """Return the figure of rounds that were timed in turn: the median of the ratios of those of one index.

    Args:
        row: See `Figure`; likewise the next three.
        ours: The rounds of ours.
        theirs: As many of the other.
        case: See there.
        state: See there.
        calls: How many calls a round is of.
        clock: Which seconds the row is about.
    """
    other: Clock = "wall" if clock == "cpu" else "cpu"
    ratios = _ratios(ours, theirs, clock)
    return Figure(
        row,
        case,
        state,
        tuple(ratios),
        (statistics.median(ratios),),
        statistics.median(getattr(one, clock) for one in ours) / calls,
        statistics.median(getattr(one, clock) for one in theirs) / calls,
        clock,
        statistics.median(_ratios(ours, theirs, other)) if all(getattr(one, other) for one in theirs) else None,
        min(getattr(one, clock) for one in ours) / min(getattr(one, clock) for one in theirs),
    )


def counted(row: str, ours: float, theirs: float, *, case: str = "", state: str = "") -> Figure:
    """Return the figure of what is counted, not timed: bytes, requests. It has no spread."""
    return Figure(row, case, state, (ours / theirs,), (ours / theirs,), ours, theirs)


def pooled(figures: Sequence[Figure]) -> Figure:
    """Return one figure of those of several runs."""
    others = [figure.other_clock for figure in figures if figure.other_clock is not None]
    minima = [figure.minima for figure in figures if figure.minima is not None]
    return replace(
        figures[0],
        ratios=tuple(ratio for figure in figures for ratio in figure.ratios),
        runs=tuple(run for figure in figures for run in figure.runs),
        ours=statistics.median(figure.ours for figure in figures),
        theirs=statistics.median(figure.theirs for figure in figures),
        other_clock=statistics.median(others) if others else None,
        minima=statistics.median(minima) if minima else None,
    )


def as_json(figure: Figure) -> dict[str, Any]:
    """Return a figure as it is written, with the ratio that it comes to."""
    return {"name": figure.name, "ratio": figure.ratio, **asdict(figure)}


def from_json(written: dict[str, Any]) -> Figure:
    """Return the figure that was written."""
    fields = {name: value for name, value in written.items() if name not in {"name", "ratio"}}
    return Figure(**{**fields, "ratios": tuple(fields["ratios"]), "runs": tuple(fields["runs"])})


def _ratios(ours: Sequence[Round], theirs: Sequence[Round], clock: Clock) -> list[float]:
    pairs = zip(ours, theirs, strict=True)
    return [getattr(one, clock) / getattr(other, clock) for one, other in pairs if getattr(other, clock)]
