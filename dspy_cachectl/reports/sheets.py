"""What is shown of a result, as plain data: the same sheet becomes text, a panel in a terminal, or HTML.

Texts in it are raw. Whoever renders them passes each through `clean` and escapes it for its own medium.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import NamedTuple

MISSING = "\N{EN DASH}"
"""Stands for what is not known, or cannot be computed."""

_HASH_SHOWN = 12
_NAME_SHOWN = 24
_SMALLEST_P = 1e-4
# These turn the direction of the text around them, in a terminal and in a notebook.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Tone(str, Enum):
    """How something is meant, for those who show it in colour."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    EVEN = "even"
    UNSURE = "unsure"


class Cell(NamedTuple):
    """A text and how it is meant."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Facts:
    """Labelled values.

    Attributes:
        title: What they are about.
        rows: Label and value of each.
        is_aside: Whether they may be folded away where the medium can fold.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    is_aside: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Things of one kind side by side.

    Attributes:
        title: What they are.
        header: The name of each column.
        rows: One row a thing.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Notes:
    """Sentences to be read before the numbers are used."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything that is shown of a result.

    Attributes:
        title: What it is.
        headline: The result itself.
        parts: The rest, in the order in which it is shown.
    """

    title: str
    headline: Cell
    parts: tuple[Facts | Grid | Notes, ...]


def sheet(title: str, headline: Cell, *parts: Facts | Grid | Notes) -> Sheet:
    """Make a sheet of the parts that have something to say."""
    said = [part for part in parts if (part.lines if isinstance(part, Notes) else part.rows)]
    return Sheet(title, headline, tuple(said))


def clean(text: str) -> str:
    """Return a text that can be printed on one line: without anything that a terminal or a browser would obey."""
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character.isspace():
        return " "
    if character in _DIRECTIONS or unicodedata.category(character) in {"Cc", "Cs"}:
        return "\N{REPLACEMENT CHARACTER}"
    return character


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


def moment(unix_seconds: float | None) -> str:
    """Write a time, in UTC."""
    if unix_seconds is None or not math.isfinite(unix_seconds):
        return MISSING
    return f"{datetime.fromtimestamp(unix_seconds, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def short(identity: str) -> str:
    """Write the beginning of a hash."""
    return identity[:_HASH_SHOWN] or MISSING


def short_name(name: str) -> str:
    """Write a name that may be a hash: whole unless it is long."""
    return name if len(name) <= _NAME_SHOWN else f"{name[:_HASH_SHOWN]}…"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write how many there are of something."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
