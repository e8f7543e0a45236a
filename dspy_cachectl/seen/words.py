"""Texts by their words: what differs in blanks, capitals and punctuation only is one text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from dspy_cachectl.fingerprints import canonical

# A Chinese or Japanese character is a word, since no blanks tell words there. "7 - 5" is not "7 * 5": what may be
# punctuation is a word before a number.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+|[+=<>^%×÷]|[-*/](?=\s*\d)")
_APOSTROPHES = str.maketrans("", "", "'’")
_HEAD = 8
"""By so many words at its beginning a text is looked for, before all of it is read."""
_IN_HEAD = 400
"""In so many characters they are looked for first."""


def text_of(value: Any) -> str:
    """Return a value as a text that tells it from others: itself, or what it holds."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "\n".join(f"{name} {text_of(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return "\n".join(map(text_of, value))
    try:
        return canonical.digest(value)
    except canonical.UnstableError:
        return f"{type(value).__name__} {id(value)}"


def words(text: str) -> str:
    """Return the words of a text, one blank between two of them."""
    return " ".join(_WORD.findall(_plain(text)))


def head(text: str) -> tuple[str, ...]:
    """Return the first words of a text, in a time that does not depend on its length."""
    found = _first(text[:_IN_HEAD])
    return found if len(found) == _HEAD or len(text) <= _IN_HEAD else _first(text)


def _first(text: str) -> tuple[str, ...]:
    return tuple(match.group() for match in islice(_WORD.finditer(_plain(text)), _HEAD))


def _plain(text: str) -> str:
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).translate(_APOSTROPHES).casefold()


class Passages:
    """Texts in which others are looked for, word by word.

    Args:
        texts: The texts.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [f" {words(text)} " for text in texts]
        self._windows: dict[int, set[int]] = {}
        self._found: dict[str, tuple[int, ...]] = {}

    def may_hold(self, beginning: tuple[str, ...]) -> bool:
        """Tell whether some text has these words in a row, as far as their hash tells."""
        size = len(beginning)
        if size not in self._windows:
            rows = [text.split() for text in self._texts]
            self._windows[size] = {
                hash(tuple(row[at : at + size])) for row in rows for at in range(len(row) - size + 1)
            }
        return hash(beginning) in self._windows[size]

    def holding(self, text: str) -> tuple[int, ...]:
        """Return the places of the texts that hold these words in a row."""
        row = text.split()
        # Many begin and end alike: all of it is looked for only where each of its parts is somewhere.
        parts = (row[at : at + _HEAD] for at in (*range(0, len(row) - _HEAD, _HEAD), max(0, len(row) - _HEAD)))
        if not all(self.may_hold(tuple(part)) for part in parts):
            return ()
        if text not in self._found:
            self._found[text] = tuple(place for place, held in enumerate(self._texts) if f" {text} " in held)
        return self._found[text]
