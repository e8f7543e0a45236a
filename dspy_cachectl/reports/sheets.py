"""What is shown of a result, as plain data: the same sheet becomes text, a panel in a terminal, or HTML.

Texts in it are raw. Whoever renders them passes each through `texts.harmless` and escapes it for its own medium.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


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
