"""One entry, or two, in full."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dspy_cachectl.entries import explain, records
from dspy_cachectl.entries.values import readable
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage import content
from dspy_cachectl.manage.content import Part
from dspy_cachectl.stores.listing import Row, rows_beginning_with
from dspy_cachectl.stores.reader import FolderReader

SHORTEST = 4
"""How many characters of a key are enough to name an entry."""
_CANDIDATES = 10


class AmbiguousKeyError(ConfigurationError):
    """A text with which the keys of several entries begin.

    Attributes:
        candidates: The first of these keys.
    """

    def __init__(self, prefix: str, candidates: list[str]) -> None:
        self.candidates = tuple(candidates)
        lines = [f"{prefix!r} may be any of these; write more of the key:", *(f"  {key}" for key in candidates)]
        super().__init__("\n".join(lines))


class ShortKeyError(ConfigurationError):
    """A text that is too short to name an entry."""


class NoSuchEntryError(ConfigurationError):
    """A text with which no entry's key begins."""


@dataclass(frozen=True)
class Shown:
    """An entry in full.

    Attributes:
        row: What the table says of it.
        origin: Where its answer came from.
        description: What was asked (`records.decode_request`).
        stored: The answer in its stored form.
    """

    row: Row
    origin: records.Origin
    description: dict[str, Any]
    stored: Any

    @property
    def messages(self) -> list[Part]:
        """What was asked."""
        return content.messages(self.description)

    @property
    def answer(self) -> list[Part]:
        """What was answered."""
        return content.answer(self.stored)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data. Times are in Unix seconds, sizes in bytes, costs in US dollars."""
        return {
            "key": self.row.key,
            "stored": self.row.stored,
            "size": self.row.size,
            "served": self.row.served,
            "served_at": self.row.served_at,
            "origin": asdict(self.origin),
            "request": self.description,
            "answer": [asdict(part) for part in self.answer],
            "value": readable(self.stored),
        }


def options_of(shown: Shown) -> list[tuple[str, str]]:
    """Return what was asked for beside the messages, as text."""
    return [(name, _option(value)) for name, value in content.options(shown.description).items()]


def find(reader: FolderReader, prefix: str) -> tuple[Row, Callable[[], Shown]]:
    """Return the one entry whose key begins with a text, and a function that decodes it.

    The function raises `StoreError` where the entry is damaged.

    Raises:
        AmbiguousKeyError: If there are several.
        NoSuchEntryError: If there is none.
        ShortKeyError: If the text is too short to name one.
    """
    if len(prefix) < SHORTEST:
        raise ShortKeyError(f"{prefix!r} is too short for a key: write at least {SHORTEST} of its characters")
    found = rows_beginning_with(reader, prefix, limit=_CANDIDATES)
    if not found:
        raise NoSuchEntryError(f"no entry's key begins with {prefix!r} in the store {str(reader.path)!r}")
    if len(found) > 1:
        raise AmbiguousKeyError(prefix, [row.key for row, _ in found])
    row, value = found[0]

    def decoded() -> Shown:
        data = value()
        _, stored, _, description = records.take_apart(data)
        return Shown(row, records.decode_origin(data), description, stored)

    return row, decoded


@dataclass(frozen=True)
class Difference:
    """What differs between two entries.

    Attributes:
        request: What differs between what was asked, one line each.
        messages: The messages that differ, by position and role, word by word.
        answer: The answers, word by word; None where they are the same.
        origin: What differs between where they came from, one line each.
    """

    request: list[str]
    messages: list[tuple[str, list[explain.Span]]]
    answer: list[explain.Span] | None
    origin: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "request": self.request,
            "messages": [
                {"message": title, "words": [asdict(span) for span in spans]} for title, spans in self.messages
            ],
            "answer": None if self.answer is None else [asdict(span) for span in self.answer],
            "origin": self.origin,
        }


def compare(first: Shown, second: Shown) -> Difference:
    """Say what differs between two entries."""
    names = ("first", "second")
    one, other = (_joined(entry.answer) for entry in (first, second))
    origins = [asdict(entry.origin) for entry in (first, second)]
    return Difference(
        request=explain.differences(first.description, second.description, names=names),
        messages=_messages(first, second),
        answer=None if one == other else explain.word_diff(one, other),
        origin=explain.fields(origins[0], origins[1], origins[0].keys(), names=names),
    )


def _messages(first: Shown, second: Shown) -> list[tuple[str, list[explain.Span]]]:
    found = []
    one, other = first.messages, second.messages
    for index in range(max(len(one), len(other))):
        mine, theirs = (parts[index] if index < len(parts) else None for parts in (one, other))
        if mine != theirs:
            titles = " / ".join(dict.fromkeys(part.title for part in (mine, theirs) if part is not None))
            texts = ("" if part is None else part.text for part in (mine, theirs))
            found.append((f"{index} ({titles})", explain.word_diff(*texts)))
    return found


def _joined(parts: list[Part]) -> str:
    return "\n".join(part.text if part.title == "text" else f"{part.title}: {part.text}" for part in parts)


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
