"""How counts, times, values and texts of others are written: the same in a report, a figure and on the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from rich import filesize

MISSING = "\N{EN DASH}"
"""Stands for what is not known, or cannot be computed."""

_UNITS = (("w", 7 * 86400), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
# They only say how the letters beside them are joined: emoji of several parts, and Persian, are not readable without.
_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write how many there are of something."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(count: int) -> str:
    """Write how many bytes there are, in the largest unit that fits."""
    return filesize.decimal(count)


def cut(text: str, length: int) -> str:
    """Write a text in one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def age(seconds: float) -> str:
    """Write an age in its largest unit, such as `5m`. An age from the future, of another clock, is none."""
    unit, length = next((unit, length) for unit, length in _UNITS if seconds >= 2 * length or unit == "s")
    return f"{max(seconds, 0) / length:.0f}{unit}"


def when(unix_seconds: float | None) -> str:
    """Write a time, in UTC: what people paste to each other means the same everywhere."""
    try:
        return f"{datetime.fromtimestamp(unix_seconds or math.nan, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # no number, or none that a calendar has
        return MISSING


def harmless(text: str) -> str:
    """Return a text in one line that is only shown: what a terminal or a browser would obey is escaped."""
    return "".join(map(_shown, text))


def harmless_lines(text: str) -> str:
    """Return a text as `harmless` does, with its lines and its tabs."""
    return "\n".join(map(harmless, text.expandtabs(4).split("\n")))


def as_json(value: Any) -> Any:
    """Return a value as JSON types: an object by its fields, a choice by its name, and what JSON lacks as text."""
    if isinstance(value, (str, int, bool, type(None))):
        return value
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


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
