"""Texts of others made harmless for whoever shows them."""

from __future__ import annotations

import re

_SHELL = re.compile(r"[\w/@][\w./:@+,=%-]*")
_FORMULA = re.compile(r"[\s\x00-\x1f]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")

# They only say how the letters beside them are joined: emoji of several parts, and Persian, are not readable without.
_MOST_BITS = 12_000
_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")

_PIECE = 64 * 1024


def harmless(text: str) -> str:
    """Return a text in one line that is only shown: what a terminal or a browser would obey is escaped."""
    if text.isprintable():
        return text
    # By pieces: a list of all its characters would take eight times as much memory as the text.
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    return "".join("".join(map(_shown, piece)) for piece in pieces)


def is_harmless_for_shells(text: str) -> bool:
    """Tell whether a text may be put on a command line: no shell takes anything in it for more than a letter."""
    return _SHELL.fullmatch(text) is not None


def harmless_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe stands before it, which is not shown."""
    return f"'{text}" if _FORMULA.match(text) else text


def harmless_lines(text: str) -> str:
    """Return a text as `harmless` does, with its lines and its tabs."""
    return "\n".join(map(harmless, text.expandtabs(4).split("\n")))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def writable_number(value: int) -> int | str:
    """Return a number, or its hexadecimal digits where it has thousands: Python refuses to write those in decimal."""
    return value if value.bit_length() < _MOST_BITS else hex(value)
