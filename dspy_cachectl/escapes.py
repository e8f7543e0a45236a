"""Texts of others in which whatever a terminal or a browser would obey is written out."""

from __future__ import annotations

# They only say how the letters beside them are joined: emoji of several parts, and Persian, are not readable without.
_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")

_PIECE = 64 * 1024


def harmless(text: str) -> str:
    """Return a text in one line that is only shown: what a terminal or a browser would obey is escaped."""
    if text.isprintable():
        return text
    # By pieces: a list of all its characters would take eight times as much memory as the text.
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    return "".join("".join(map(_shown, piece)) for piece in pieces)


def harmless_lines(text: str) -> str:
    """Return a text as `harmless` does, with its lines and its tabs."""
    return "\n".join(map(harmless, text.expandtabs(4).split("\n")))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
