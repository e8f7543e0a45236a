"""Texts of others made harmless for whoever shows them."""

from __future__ import annotations

# They only say how the letters beside them are joined: emoji of several parts, and Persian, are not readable without.
_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")


def harmless(text: str) -> str:
    """Return a text in one line that is only shown: what a terminal or a browser would obey is escaped."""
    return "".join(map(_shown, text))


def harmless_lines(text: str) -> str:
    """Return a text as `harmless` does, with its lines and its tabs."""
    return "\n".join(map(harmless, text.expandtabs(4).split("\n")))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
