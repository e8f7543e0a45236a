"""How the numbers of an evaluation are written: with as many digits as say something."""

from __future__ import annotations

import math

from dspy_cachectl.reports.texts import MISSING
from dspy_cachectl.statistics.intervals import Interval

_HASH_SHOWN = 12
_NAME_SHOWN = 24
_SMALLEST_P = 1e-4


def places(error: float) -> int | None:
    """Return how many decimal places a number with this standard error deserves; None where the error tells nothing."""
    if not math.isfinite(error) or error <= 0.0:
        return None
    return min(6, max(0, 1 - math.floor(math.log10(error))))


def number(value: float | None, decimals: int | None = None, *, sign: bool = False) -> str:
    """Write a number with so many decimal places, or else with three digits; with its sign if that is asked for."""
    if value is None or math.isnan(value):
        return MISSING
    plus = "+" if sign and value != 0 else ""
    if math.isinf(value):
        return f"{'-' if value < 0 else plus}∞"
    if decimals is not None:
        return f"{value:{plus},.{decimals}f}"
    return f"{value:{plus},.0f}" if 1_000 <= abs(value) < 1e15 else f"{value:{plus}.3g}"


def p_value(value: float) -> str:
    """Write a p-value."""
    if math.isnan(value):
        return MISSING
    return f"below {_SMALLEST_P:.4f}" if value < _SMALLEST_P else f"{value:.2g}"


def money(value: float | None) -> str:
    """Write an amount of US dollars; small ones with three digits that count, not as 0."""
    if value is None or not math.isfinite(value):
        return MISSING
    digits = 2 if value == 0 else min(12, max(2, 2 - math.floor(math.log10(abs(value)))))
    return f"${value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Write a number of seconds, as hours and minutes where there are many."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def short(identity: str) -> str:
    """Write the beginning of a hash."""
    return identity[:_HASH_SHOWN] or MISSING


def short_name(name: str) -> str:
    """Write a name that may be a hash: whole unless it is long."""
    return name if len(name) <= _NAME_SHOWN else f"{name[:_HASH_SHOWN]}…"


def score_text(score: float, error: float) -> str:
    """Write a score and its standard error with the digits that the error allows."""
    decimals = places(error)
    return f"{number(score, decimals)} ± {number(error, decimals)}"


def level_text(interval: Interval) -> str:
    """Write the level of an interval."""
    return f"{100 * interval.level:.4g}%"


def ends_text(interval: Interval, error: float, *, sign: bool = False) -> str:
    """Write the ends of an interval with the digits that the error allows."""
    decimals = places(error)
    return f"{number(interval.low, decimals, sign=sign)} to {number(interval.high, decimals, sign=sign)}"
