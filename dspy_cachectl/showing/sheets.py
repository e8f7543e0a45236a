"""What is shown of a result, as plain data: the same sheet becomes text, a panel in a terminal, or HTML with a picture.

Texts in it are raw. Whoever renders them passes each through `shown.harmless` and escapes it for its own medium.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class Tone(str, Enum):
    """How something is meant, for those who show it in colour."""

    PLAIN = "plain"
    LABEL = "label"
    GOOD = "good"
    BAD = "bad"
    EVEN = "even"
    UNSURE = "unsure"


class Cell(NamedTuple):
    """A text and how it is meant."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Giving:
    """How the columns of a table give way; those that are not named are folded.

    Attributes:
        right: Numbers, which stay whole: a part of a number is another number.
        whole: What stays whole as well, unless it is very long.
        names: What is shortened in its middle.
        cut: What is cut at its end.
        spare: What is left out where there is no room, the first first.
    """

    right: Collection[str] = ()
    whole: Collection[str] = ()
    names: Collection[str] = ()
    cut: str | None = None
    spare: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Rows under a title.

    Attributes:
        title: What they are about; empty where that goes without saying.
        rows: The cells of each.
        header: The name of each column; empty where none needs one.
        is_aside: Whether they may be folded away where the medium can fold.
        giving: How the columns of a header give way where there is little room.
    """

    title: str
    rows: tuple[tuple[Cell, ...], ...]
    header: tuple[str, ...] = ()
    is_aside: bool = False
    giving: Giving = field(default_factory=Giving)


class Span(NamedTuple):
    """A value and its interval, on an axis. What is not known is NaN, and what has no end is infinite.

    Attributes:
        name: Whose value it is.
        said: The value in words.
        value: The value.
        low: Where its interval begins.
        high: Where it ends.
        tone: How it is meant.
    """

    name: str
    said: str
    value: float
    low: float
    high: float
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Intervals:
    """A picture: values and their intervals, one below the other, on one axis.

    Attributes:
        spans: The values.
        axis: What they are values of.
        scale: What the axis shows in any case; empty for what the values need.
        about_zero: Whether they are differences, and the place of none is marked.
        band: Up to which size a difference does not matter; None where nobody asked.
    """

    spans: tuple[Span, ...]
    axis: str
    scale: tuple[float, ...] = ()
    about_zero: bool = False
    band: float | None = None


class Share(NamedTuple):
    """So many of all."""

    name: str
    number: int
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Shares:
    """A picture: what a number is made of, side by side."""

    shares: tuple[Share, ...]


Picture = Intervals | Shares


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything that is shown of a result.

    Attributes:
        title: What it is.
        headline: The result itself.
        parts: The rest, in the order in which it is shown.
        picture: What it looks like, for a medium that can draw.
        more: Where more is to be had; empty where this is all.
    """

    title: str
    headline: Cell
    parts: tuple[Part, ...]
    picture: Picture | None = None
    more: str = ""


def facts(title: str, rows: Iterable[tuple[str, str]], *, is_aside: bool = False) -> Part:
    """Make a part of labelled values. What has no value here, and so an empty text, is left out."""
    said = tuple((Cell(label, Tone.LABEL), Cell(text)) for label, text in rows if text)
    return Part(title, said, is_aside=is_aside)


def notes(title: str, lines: Iterable[str]) -> Part:
    """Make a part of sentences that are to be read before the numbers are used."""
    return Part(title, tuple((Cell("-"), Cell(line)) for line in lines))


def sheet(title: str, headline: Cell, *parts: Part, picture: Picture | None = None, more: str = "") -> Sheet:
    """Make a sheet of the parts that have something to say."""
    return Sheet(title, headline, tuple(part for part in parts if part.rows), picture, more)
