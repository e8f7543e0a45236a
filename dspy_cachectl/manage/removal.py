"""Removing entries: what would go, and letting it go while other processes use the store.

A removal names its entries first and removes them afterwards, a few at a time. What was stored in between is another
draw, and stays: so nobody loses an answer that was bought after the removal was decided.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from dspy_cachectl.entries import records
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError
from dspy_cachectl.manage import content
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.stores import RUN_KIND, Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import Row
from dspy_cachectl.stores.reader import FolderReader

Advance = Callable[[int, int], None]
"""Told how much is done, and of how much."""

_PAGE = 5000
_BATCH = 250
"""How many entries one transaction removes: it takes some hundredths of a second."""
_PAUSE = 0.005
"""Seconds between two transactions. Whoever waits to write looks every two milliseconds, and gets in here."""

BY = ("model", "phase", "run")


@dataclass
class Plan:
    """What a removal takes with it.

    Attributes:
        moment: When it was decided, in Unix seconds. What is stored later stays.
        keys: The keys.
        bytes: How large the entries are together.
        by: How many entries, and how large they are, by model, phase and run; "" where there is none.
        oldest: When the oldest was stored, in Unix seconds; None where there is nothing.
        newest: Likewise.
        reasons: How many go for which reason, where there is more than one.
    """

    moment: float
    keys: list[str] = field(default_factory=list)
    bytes: int = 0
    by: dict[str, dict[str, tuple[int, int]]] = field(default_factory=lambda: {name: {} for name in BY})
    oldest: float | None = None
    newest: float | None = None
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def entries(self) -> int:
        """How many entries go."""
        return len(self.keys)

    def add(self, row: Row, reason: str = "") -> None:
        """Let an entry go, too."""
        self.keys.append(row.key)
        self.bytes += row.size
        self.oldest = row.stored if self.oldest is None else min(self.oldest, row.stored)
        self.newest = row.stored if self.newest is None else max(self.newest, row.stored)
        for name, value in zip(BY, (row.label.model, row.label.phase, row.label.run_id), strict=True):
            count, size = self.by[name].get(value, (0, 0))
            self.by[name][value] = count + 1, size + row.size
        if reason:
            self.reasons[reason] += 1

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON types, without the keys."""
        return {
            "entries": self.entries,
            "bytes": self.bytes,
            "oldest": self.oldest,
            "newest": self.newest,
            "by": {
                name: {value: {"entries": count, "bytes": size} for value, (count, size) in sorted(found.items())}
                for name, found in self.by.items()
            },
            **({"reasons": dict(self.reasons)} if self.reasons else {}),
        }


def plan(
    reader: FolderReader, selection: Selection, *, now: float | None = None, advance: Advance | None = None
) -> Plan:
    """Return what would go with the entries of a selection. The description of a run goes with the last of its draws.

    Args:
        reader: The store.
        selection: Which entries.
        now: The time from which ages are counted, in Unix seconds; now, where it is not given.
        advance: Told how many entries have been looked at, where requests have to be read.

    Raises:
        StoreUnavailableError: If the store cannot be read.
    """
    decided = Plan(time.time() if now is None else now)
    gone: Counter[str] = Counter()
    for row in matching(reader, selection, now=decided.moment, advance=advance):
        decided.add(row)
        gone[row.label.run_id] += row.label.is_answer
    add_descriptions(decided, reader, gone, selection)
    return decided


def add_descriptions(decided: Plan, reader: FolderReader, gone: Counter[str], selection: Selection) -> None:
    """Let the descriptions of runs go of which no draw is left.

    Args:
        decided: What goes already.
        reader: The store.
        gone: How many answers go of each run.
        selection: What was asked for: a run that it names goes whether or not it ever had a draw.
    """
    there: Counter[str] = Counter()
    for label, count in reader.labels().items():
        there[label.run_id] += count * label.is_answer
    known = set(decided.keys)
    named = replace(selection, models=(), phases=(), roles=(), kinds=("*",)) if selection.runs else None
    for row in matching(reader, Selection(kinds=(RUN_KIND,)), now=decided.moment):
        run_id = row.label.run_id
        is_meant = gone[run_id] > 0 or (named is not None and named.matches(row.label))
        if is_meant and gone[run_id] == there[run_id] and row.key not in known:
            decided.add(row, "describe a run of which no draw is left")


def matching(
    reader: FolderReader, selection: Selection, *, now: float, advance: Advance | None = None
) -> Iterator[Row]:
    """Yield the entries of a selection. Only where they are asked for a text are they read.

    Args:
        reader: The store.
        selection: Which entries.
        now: The time from which ages are counted, in Unix seconds.
        advance: Told how many entries have been looked at.
    """
    after, before = selection.window(now)
    tags = {tag: count for tag, count in reader.tags().items() if selection.matches(Label.decode(tag))}
    total, done = sum(tags.values()), 0
    text = None if selection.text is None else selection.text.casefold()
    for tag in tags:
        for row in _filed_under(reader, tag):
            done += 1
            if advance is not None and not done % 100:
                advance(done, total)
            if after < row.stored < before and (text is None or _asks(reader, row.key, text)):
                yield row


def _filed_under(reader: FolderReader, tag: str | None) -> Iterator[Row]:
    label = Label.decode(tag)
    filed, parameters = ("typeof(tag) != 'text'", ()) if tag is None else ("tag = ?", (tag,))
    last = -1
    while True:
        rows = reader.query(
            "SELECT rowid, key, CAST(coalesce(store_time, 0) AS REAL), access_time, access_count,"  # noqa: S608 - no values
            " length(CAST(value AS BLOB)) FROM Cache"
            f" WHERE {filed} AND rowid > ? AND typeof(key) = 'text' AND raw = 1 ORDER BY rowid LIMIT {_PAGE}",
            (*parameters, last),
        )
        for rowid, key, stored, served_at, served, size in rows:
            last = rowid
            yield Row(key, label, stored, served or 0, served_at if served else None, size or 0)
        if len(rows) < _PAGE:
            return


def _asks(reader: FolderReader, key: str, text: str) -> bool:
    try:
        data = reader.get(key)
        parts = content.messages(records.decode_request(data)) if data is not None else []
    except (CorruptEntryError, FormatVersionError):
        return False  # nobody knows what it asks
    return any(text in part.text.casefold() for part in parts)


def remove(store: DiskStore, keys: Iterable[str], *, decided: float, advance: Advance | None = None) -> int:
    """Remove entries, a few in each transaction, so that nobody waits for long. Return how many there were.

    Args:
        store: The store.
        keys: The keys.
        decided: What was stored since stays, in Unix seconds.
        advance: Told how many of them were looked at.

    Raises:
        StoreUnavailableError: If the store cannot be written. What was removed until then is gone.
    """
    wanted = list(keys)
    removed = 0
    for start in range(0, len(wanted), _BATCH):
        if start:
            time.sleep(_PAUSE)
        removed += store.delete_many(wanted[start : start + _BATCH], stored_before=decided)
        if advance is not None:
            advance(min(start + _BATCH, len(wanted)), len(wanted))
    if wanted:
        store.shrink()
    return removed
