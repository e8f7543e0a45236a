"""How much each figure may come to: its bar, and the stretch beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.figures import Figure

ENGINES = ("native", "litellm")


@dataclass(frozen=True)
class Bar:
    """What a figure is held to.

    Attributes:
        limit: The ratio, or the milliseconds of ours.
        stretch: What would be better still.
        of: Whether the ratio is held, or the milliseconds that ours takes.
        at_least: The figure is to reach the limit, not to stay below.
    """

    limit: float
    stretch: float | None = None
    of: Literal["ratio", "ms"] = "ratio"
    at_least: bool = False

    def measured(self, figure: Figure) -> float:
        """Return what is held against the limit."""
        return figure.ratio if self.of == "ratio" else figure.ours * 1000

    def is_met(self, figure: Figure) -> bool:
        """Tell whether a figure reaches its bar."""
        measured = self.measured(figure)
        return measured >= self.limit if self.at_least else measured <= self.limit

    def __str__(self) -> str:
        sign, unit = "≥" if self.at_least else "≤", "" if self.of == "ratio" else " ms"
        return f"{sign} {self.limit:g}{unit}" + ("" if self.stretch is None else f" ({self.stretch:g})")


def bar_of(figure: Figure) -> Bar | None:
    """Return what a figure is held to, if anything."""
    return BARS.get(figure.name)


def _engines(
    row: str, limits: tuple[float, float], stretch: tuple[float, float] | None = None, *, state: str = "hot"
) -> Iterator[tuple[str, Bar]]:
    for at, engine in enumerate(ENGINES):
        yield f"{row}.{engine}.{state}", Bar(limits[at], stretch and stretch[at])


_FIRST = 1.15
"""What no hit of an LM may come to when its entry is decoded for the first time."""

_FAULTS = ("killed", "stopped", "full", "read-only", "silent", "slow", "cut", "drip", "garbage", "other", "refused")
"""Those of `benchmarks.faults`."""

BARS: dict[str, Bar] = dict(
    [
        *_engines("lm-compile", (0.70, 0.62), (0.6, 0.5)),
        *_engines("lm-compile", (1.05, 1.05), (0.9, 0.9), state="first"),
        *_engines("lm-outside", (0.70, 0.62), (0.6, 0.5)),
        *_engines("lm-outside", (1.05, 1.05), (0.9, 0.9), state="first"),
        *_engines("lm-eval", (0.80, 0.72), (0.7, 0.6)),
        *_engines("lm-eval", (_FIRST, _FIRST), state="first"),
        *_engines("lm-disk", (0.9, 0.9), (0.8, 0.8), state="first"),
        *_engines("lm-disk-process", (0.9, 0.9), (0.8, 0.8), state="first"),
        *_engines("lm-disk-eval", (_FIRST, _FIRST), state="first"),
        *_engines("lm-pydantic", (0.15, 0.15), (0.12, 0.12)),
        *_engines("lm-pydantic", (_FIRST, _FIRST), state="first"),
        *_engines("lm-pydantic-disk", (0.3, 0.4), (0.25, 0.25), state="first"),
        *_engines("lm-plain", (0.95, 0.8), (0.85, 0.7)),
        *_engines("lm-plain", (_FIRST, _FIRST), state="first"),
        *_engines("lm-tools", (_FIRST, _FIRST), state="first"),
        *_engines("lm-tools-disk", (_FIRST, _FIRST), state="first"),
        *_engines("lm-long", (0.85, 0.85), (0.8, 0.8)),
        *_engines("lm-long", (_FIRST, _FIRST), state="first"),
        *_engines("acall", (0.3, 0.3), (0.25, 0.25)),
        *_engines("acall-gather", (0.55, 0.55), (0.45, 0.45)),
        *_engines("predict-compile", (0.95, 0.95), (0.9, 0.9)),
        *_engines("predict-eval", (1.8, 1.8), (1.3, 1.3)),
        ("threads.native", Bar(1.8, 2.2, at_least=True)),
        ("threads.litellm", Bar(1.8, 2.2, at_least=True)),
        ("threads.native.p99", Bar(0.4, 0.3)),
        ("threads.litellm.p99", Bar(0.6, 0.3)),
        ("put.native", Bar(1.5, 1.3)),
        ("put.litellm", Bar(1.5, 1.3)),
        ("put-encoding.native", Bar(0.1)),
        ("put-encoding.litellm", Bar(0.1)),
        ("bytes-disk.native", Bar(1.6, 1.4)),
        ("bytes-disk.litellm", Bar(1.0, 0.8)),
        ("bytes-memory.native", Bar(0.4, 0.35)),
        ("bytes-memory.litellm", Bar(0.4, 0.35)),
        ("report.10,000", Bar(11)),
        ("report.100,000", Bar(12)),
        ("report-clustered.10,000", Bar(11)),
        ("report-clustered.100,000", Bar(12)),
        ("command.path", Bar(300, 200, of="ms")),
        ("command.stats", Bar(300, 200, of="ms")),
        ("bought-50ms.native", Bar(1.01)),
        ("bought-50ms.litellm", Bar(1.01)),
        ("aevaluate-50ms", Bar(1.1)),
        ("evaluate-again.new", Bar(0.9, 0.7)),
        ("evaluate-again.history", Bar(0.9, 0.7)),
        ("store.get.1,000,000", Bar(1.2)),
        *((f"peer-memory.{peer}", Bar(0.5, 0.33)) for peer in ("langchain", "litellm")),
        *((f"peer-disk.{peer}", Bar(0.5, 0.33)) for peer in ("langchain", "inspect")),
        *((f"peer-redis.{peer}", Bar(0.5, 0.33)) for peer in ("langchain", "litellm")),
        ("peer-disk.joblib", Bar(0.71, 0.5)),
        *((f"fault.{name}", Bar(1)) for name in _FAULTS),
        ("page.opening", Bar(1)),
        ("page.filtering", Bar(1)),
        ("embedder.hot", Bar(0.55, 0.5)),
        ("embedder-disk.first", Bar(0.68, 0.6)),
    ]
)
