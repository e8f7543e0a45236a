"""How numbers, times and texts of others are written: the same in a report, a figure and on the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_cachectl.statistics.intervals import Interval
    from dspy_cachectl.statistics.repeats import DistinctDraws

from rich import filesize

from dspy_cachectl.boundary.ages import ASTRAY
from dspy_cachectl.boundary.shown import writable_number
from dspy_cachectl.errors import MissingExtraError

MISSING = "\N{EN DASH}"
"""Stands for what is not known, or cannot be computed."""

_UNITS = (("w", 7 * 86400), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_HASH_SHOWN = 12
_NAME_SHOWN = 24
_SMALLEST_P = 1e-4


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write how many there are of something."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def distinct_text(distinct: DistinctDraws) -> str:
    """Write how many of the repeats are distinct draws."""
    if distinct.distinct is None:
        return f"distinct draws unknown of {distinct.asked:,}"
    fresh = f", {distinct.asked - distinct.known:,} fresh" if distinct.known else ""
    return f"{distinct.distinct:,} distinct draws of {distinct.asked:,}{fresh}"


def size(count: int) -> str:
    """Write how many bytes there are, in the largest unit that fits."""
    return filesize.decimal(count)


def cut(text: str, length: int) -> str:
    """Write a text in one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def age(seconds: float) -> str:
    """Write an age in its largest unit, such as `5m`; `?` where it lies ahead, by a clock that is or was wrong."""
    if not -ASTRAY <= seconds < math.inf:
        return "?"
    unit, length = next((unit, length) for unit, length in _UNITS if seconds >= 2 * length or unit == "s")
    return f"{max(seconds, 0) / length:.0f}{unit}"


def when(unix_seconds: float | None) -> str:
    """Write a time, in UTC: what people paste to each other means the same everywhere."""
    try:
        return f"{datetime.fromtimestamp(unix_seconds or math.nan, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # no number, or none that a calendar has
        return MISSING


def as_json(value: Any) -> Any:
    """Return a value as JSON types: an object by its fields, a choice by its name, and what JSON lacks as text."""
    if isinstance(value, (str, int, bool, type(None))):
        return writable_number(value) if type(value) is int else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(as_json, value), key=str)
    if isinstance(value, Enum):
        return value.name.lower()
    if is_dataclass(value):
        shown = [field.name for field in fields(value) if not field.name.startswith("_")]
        return {name: as_json(getattr(value, name)) for name in shown}
    return str(value)


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Any:
    """Return rows as a `pandas.DataFrame`. Half of a surrogate pair has no UTF-8, and is written as its escape.

    Raises:
        MissingExtraError: If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("to_pandas()", extra="pandas") from error

    def cell(value: Any) -> Any:
        return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

    return pd.DataFrame([{name: cell(value) for name, value in row.items()} for row in rows], columns=columns)


def finite(value: float) -> float | None:
    """Return a number, or None where it is none, or infinite."""
    return value if math.isfinite(value) else None


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


def score_text(score: float, error: float, *, sign: bool = False) -> str:
    """Write a score and its standard error with the digits that the error allows; with its sign if asked for."""
    decimals = places(error)
    return f"{number(score, decimals, sign=sign)} ± {number(error, decimals)}"


def level_text(interval: Interval) -> str:
    """Write the level of an interval."""
    return f"{100 * interval.level:.4g}%"


def ends_text(interval: Interval, error: float, *, sign: bool = False) -> str:
    """Write the ends of an interval with the digits that the error allows."""
    decimals = places(error)
    return f"{number(interval.low, decimals, sign=sign)} to {number(interval.high, decimals, sign=sign)}"
