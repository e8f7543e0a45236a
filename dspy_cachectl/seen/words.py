"""Texts by their words: what differs in blanks, capitals and punctuation only is one text."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from dspy_cachectl.fingerprints import canonical

# "7 - 5" is not "7 * 5", nor "C#" "C": what may be punctuation is a word where it says something else.
_SIGNS = r"!=|[-*/](?=\s*\d)"
_ASCII = re.compile(rf"[^\W_]+#?|[+=<>^%]|{_SIGNS}")
# A Chinese or Japanese character is a word, as is one of Thai, Lao, Burmese and Khmer: no blanks tell words there.
_BY_ITSELF = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_APOSTROPHES = str.maketrans("", "", "'’")
# What is between the letters of a word without being seen, or is left out at will, as the vowels of Arabic and Hebrew.
_BESIDE = re.compile(r"[\u00ad\u200c\u200d\u2060\ufeff\u0591-\u05bd\u05bf-\u05c7\u064b-\u065f\u0670\u0640]")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
# Of a capital, Greek leaves the accent out; Turkish has two letters i, and Python a dot of its own on one of them.
_OF_CAPITALS = re.compile(r"(?<=[αεηιουω])\u0301|(?<=[ιυ]\u0308)\u0301|(?<=i)\u0307")
_ALIKE = str.maketrans("ı⁄", "i/")
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
    plain = _plain(text)
    return " ".join(_word(plain).findall(plain))


def head(text: str) -> tuple[str, ...]:
    """Return the first words of a text, in a time that does not depend on its length."""
    found = _first(text[:_IN_HEAD])
    return found if len(found) == _HEAD or len(text) <= _IN_HEAD else _first(text)


def _first(text: str) -> tuple[str, ...]:
    plain = _plain(text)
    return tuple(match.group() for match in islice(_word(plain).finditer(plain), _HEAD))


def _plain(text: str) -> str:
    text = text.translate(_APOSTROPHES)
    if text.isascii():
        return text.lower()
    text = _RAISED.sub(lambda found: f"^{found.group()}", _BESIDE.sub("", text))
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFKC", _OF_CAPITALS.sub("", folded)).translate(_ALIKE)


def _word(text: str) -> re.Pattern[str]:
    return _ASCII if text.isascii() else _any_word()


@functools.cache
def _any_word() -> re.Pattern[str]:
    """Return what a word is in any script: letters with what is written on them, or a sign such as ≤, → or 😀."""
    kinds: defaultdict[str, str] = defaultdict(str)
    for one in map(chr, range(0x80, 0x10000)):
        kinds[unicodedata.category(one)] += one
    marks, signs = kinds["Mn"] + kinds["Mc"], kinds["Sm"] + kinds["So"]
    letters = rf"(?:[^\W_{_BY_ITSELF}][{marks}]*)+#?|[{_BY_ITSELF}][{marks}]*"
    return re.compile(rf"{letters}|[+=<>^%{signs}]|[\U0001F000-\U0001FBFF]|{_SIGNS}")


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
