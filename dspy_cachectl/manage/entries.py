"""The entries of a store: those of a selection in a row, one in full, and what differs between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from dspy_cachectl.boundary.ages import ASTRAY
from dspy_cachectl.boundary.shown import stands_for
from dspy_cachectl.entries import differences, records
from dspy_cachectl.entries.values import readable
from dspy_cachectl.errors import ConfigurationError, EncryptedError, FormatVersionError, StoreError
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.reports import entry_text
from dspy_cachectl.reports.entry_text import Part
from dspy_cachectl.reports.progress_bar import Advance, watched
from dspy_cachectl.stores.listing import (
    Reader,
    entries_beginning_with,
    read_entries,
    read_rows,
    row_numbers,
)
from dspy_cachectl.stores.rows import Order, Rows, StoredEntry

DAMAGED = "damaged"
NEWER = "of a newer version of this package"
SEALED = "encrypted, and the key for that is not given: set DSPY_CACHECTL_ENCRYPTION_KEY"
"""Why an entry cannot be read."""

SHORTEST = 4
"""How many characters of a key are enough to name an entry."""
_CANDIDATES = 10
_OPENING = 200
"""How many characters of a prompt are given in a list."""


@dataclass(frozen=True)
class ListedEntry(StoredEntry):
    """An entry in a list.

    Attributes:
        prompt: The beginning of what was asked, in one line; None where the entry cannot be read.
        damage: What is wrong with it where it cannot be read, or None.
        newer: What is said of it where a newer version of this package wrote it, or None.
    """

    prompt: str | None
    damage: str | None = None
    newer: str | None = None


@dataclass(frozen=True)
class ShownEntry(StoredEntry):
    """An entry in full.

    Attributes:
        origin: Where its answer came from.
        request: What was asked (`records.decode_request`).
        messages: What was asked, as people read it.
        answer: What was answered, as people read it.
        value: The answer as plain JSON.
    """

    origin: records.Origin
    request: dict[str, Any]
    messages: list[Part]
    answer: list[Part]
    value: Any


def rows_of(selection: Selection, *, now: float) -> Rows:
    """Return which rows a selection means. What it says of their text is not among it."""
    after = None if selection.newer_than is None else now - selection.newer_than
    before = None if selection.older_than is None else now - selection.older_than
    return Rows(selection.matches, after, before, ahead=now + ASTRAY)


def entries_of(
    reader: Reader,
    selection: Selection,
    *,
    now: float,
    reverse: bool = False,
    unread: Counter[str] | None = None,
    advance: Advance | None = None,
) -> Iterator[StoredEntry]:
    """Yield the entries that `list_entries` lists. Only where they are asked for a text are they read.

    Args:
        reader: Reads the store.
        selection: Which entries.
        now: The time from which ages are counted, in Unix seconds.
        reverse: The oldest first.
        unread: See `list_entries`.
        advance: Told how many entries have been looked at, and of how many.
    """
    if selection.text is not None:
        yield from list_entries(reader, selection, now=now, reverse=reverse, unread=unread, advance=advance)
        return
    numbers = row_numbers(reader, rows_of(selection, now=now), reverse=reverse)
    yield from watched(read_rows(reader, numbers), len(numbers), advance)


def list_entries(
    reader: Reader,
    selection: Selection,
    *,
    now: float,
    order: Order = "age",
    reverse: bool = False,
    limit: int | None = None,
    unread: Counter[str] | None = None,
    advance: Advance | None = None,
) -> Iterator[ListedEntry]:
    """Yield entries, in order. Of a table of any size only those that are yielded are read, or searched for a text.

    Args:
        reader: Reads the store.
        selection: Which entries.
        now: The time from which ages are counted, in Unix seconds.
        order: What they are sorted by.
        reverse: The other way round.
        limit: How many at most; None for all.
        unread: Counts, by reason, those of which nobody knows whether they have the text that is asked for.
        advance: Told how many entries have been read, and of how many.
    """
    # A text is looked for in all that is selected, from the first on, until there are enough.
    most = limit if selection.text is None else None
    numbers = row_numbers(reader, rows_of(selection, now=now), order=order, reverse=reverse, limit=most)
    found = 0
    for row, value in watched(read_entries(reader, numbers), len(numbers), advance):
        try:
            request = records.decode_request(value())
        except StoreError as error:
            if selection.text is not None:
                if unread is not None:
                    unread[why_unread(error)] += 1
                continue
            is_newer, said = isinstance(error, FormatVersionError), str(error)
            yield ListedEntry(
                **vars(row), prompt=None, damage=None if is_newer else said, newer=said if is_newer else None
            )
        else:
            if not _asks(request, selection.text):
                continue
            yield ListedEntry(**vars(row), prompt=entry_text.opening(request, length=_OPENING))
        found += 1
        if found == limit:
            return


def why_unread(error: StoreError) -> str:
    """Say in a few words why an entry cannot be read."""
    if isinstance(error, EncryptedError):
        return SEALED
    return NEWER if isinstance(error, FormatVersionError) else DAMAGED


def _asks(request: dict[str, Any], text: str | None) -> bool:
    return text is None or any(text.casefold() in part.text.casefold() for part in entry_text.messages(request))


def find(reader: Reader, prefix: str) -> ShownEntry:
    """Return the one entry whose key begins with a text, or is shown so with its middle left out.

    Raises:
        ConfigurationError: If there is none or several, or the text is too short to name one.
        StoreError: If the entry is damaged.
    """
    if len(prefix) < SHORTEST:
        raise ConfigurationError(f"{prefix!r} is too short for a key: write at least {SHORTEST} of its characters")
    head = prefix.partition("…")[0]
    found = entries_beginning_with(reader, head, limit=_CANDIDATES)
    if head != prefix:
        found = [one for one in found if stands_for(prefix, one[0].key)]
    if not found:
        raise ConfigurationError(f"no entry's key begins with {prefix!r} in the store {reader.location!r}")
    if len(found) > 1:
        keys = "".join(f"\n  {row.key}" for row, _ in found)
        raise ConfigurationError(f"{prefix!r} may be any of these; write more of the key:{keys}")
    row, value = found[0]
    try:
        data = value()
        _, stored, _, request = records.take_apart(data)
        origin = records.decode_origin(data)
    except StoreError as error:
        raise type(error)(f"the entry {row.key} cannot be shown: {error}") from error
    return ShownEntry(
        **vars(row),
        origin=origin,
        request=request,
        messages=entry_text.messages(request),
        answer=entry_text.answer(stored),
        value=readable(stored),
    )


@dataclass(frozen=True)
class EntryDifference:
    """What differs between two entries.

    Attributes:
        first: The key of the first.
        second: The key of the second.
        request: What differs between what was asked, one line each.
        messages: The messages that differ, by position and role, word by word.
        answer: The answers, word by word; None where they are the same.
        origin: What differs between where they came from, one line each.
    """

    first: str
    second: str
    request: list[str]
    messages: dict[str, list[differences.Span]]
    answer: list[differences.Span] | None
    origin: list[str]


def compare(first: ShownEntry, second: ShownEntry) -> EntryDifference:
    """Say what differs between two entries."""
    names = ("first", "second")
    one, other = (_joined(entry.answer) for entry in (first, second))
    origins = [asdict(entry.origin) for entry in (first, second)]
    return EntryDifference(
        first.key,
        second.key,
        request=differences.between(first.request, second.request, names=names),
        messages=dict(_different_messages(first, second)),
        answer=None if one == other else differences.word_diff(one, other),
        origin=differences.fields(origins[0], origins[1], origins[0].keys(), names=names),
    )


def _different_messages(first: ShownEntry, second: ShownEntry) -> Iterator[tuple[str, list[differences.Span]]]:
    for index, (mine, theirs) in enumerate(zip_longest(first.messages, second.messages)):
        if mine != theirs:
            titles = " / ".join(dict.fromkeys(part.title for part in (mine, theirs) if part is not None))
            texts = ("" if part is None else part.text for part in (mine, theirs))
            yield f"{index} ({titles})", differences.word_diff(*texts)


def _joined(parts: list[Part]) -> str:
    return "\n".join(part.text if part.title == "text" else f"{part.title}: {part.text}" for part in parts)
