"""Removing entries, those selected or those too old and too many, while other processes use the store.

A removal names its entries first and removes them afterwards, a few at a time. What was stored in between is another
draw, and stays: so nobody loses an answer that was bought after the removal was decided.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.config import settings
from dspy_cachectl.entries import records
from dspy_cachectl.manage.entries import entries_of
from dspy_cachectl.manage.selection import EVERYTHING, Selection
from dspy_cachectl.reports.progress_bar import Advance
from dspy_cachectl.stores import RUN_KIND
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import Reader, bytes_of_values, keys_above
from dspy_cachectl.stores.reader import FolderReader
from dspy_cachectl.stores.rows import Listed, StoredEntry

_BATCH = 250
"""How many entries one transaction removes: it takes some hundredths of a second."""
_PAUSE = 0.005
"""Seconds between two transactions. Whoever waits to write looks every two milliseconds, and gets in here."""

_ROUNDS = 6
"""How often it is looked whether what is left fits: how much of a page an entry takes up is estimated."""

BY = ("model", "phase", "run")


@dataclass
class Share:
    """How much of a removal has something in common.

    Attributes:
        entries: How many entries.
        bytes: How large they are together.
    """

    entries: int = 0
    bytes: int = 0


@dataclass
class Removal:
    """What a removal takes with it.

    Attributes:
        moment: When it was decided, in Unix seconds.
        keys: The keys, each with when what goes was stored: what is stored under it later stays.
        bytes: How large the entries are together.
        by: How many entries, and how large they are, by model, phase and run; "" where there is none.
        oldest: When the oldest was stored, in Unix seconds; None where there is nothing.
        newest: Likewise.
        reasons: How many go for which reason, where there is more than one.
        draws: How many answers go of each run.
        newer: How many would go and stay: a newer version of this package wrote them.
        unread: Of how many, by reason, nobody knows whether they have the text that was asked for: they stay.
    """

    moment: float = field(default_factory=time.time)
    keys: dict[str, float | None] = field(default_factory=dict)
    bytes: int = 0
    by: dict[str, dict[str, Share]] = field(default_factory=lambda: {name: defaultdict(Share) for name in BY})
    oldest: float | None = None
    newest: float | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    draws: Counter[str] = field(default_factory=Counter)
    newer: int = 0
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, entry: StoredEntry, reason: str = "") -> None:
        """Let an entry go, too."""
        self.keys[entry.key] = entry.stored
        self.bytes += entry.size
        self.oldest = entry.stored if self.oldest is None else min(self.oldest, entry.stored)
        self.newest = entry.stored if self.newest is None else max(self.newest, entry.stored)
        for name, shares in self.by.items():
            share = shares[getattr(entry.label, name)]
            share.entries += 1
            share.bytes += entry.size
        self.draws[entry.label.run] += entry.label.is_answer
        if reason:
            self.reasons[reason] += 1


def plan(reader: Reader, selection: Selection, *, advance: Advance | None = None) -> Removal:
    """Return what would go with the entries of a selection. The description of a run goes with the last of its draws.

    Args:
        reader: The store.
        selection: Which entries.
        advance: Told how many entries have been looked at, and of how many.

    Raises:
        StoreUnavailableError: If the store cannot be read.
    """
    decided = Removal()
    found = entries_of(reader, selection, now=decided.moment, unread=decided.unread, advance=advance)
    for entry, is_newer in _told(reader, found):
        if is_newer:
            decided.newer += 1
        else:
            decided.add(entry)
    add_descriptions(decided, reader, selection)
    return decided


def _told(reader: Reader, entries: Iterable[StoredEntry]) -> Iterator[tuple[StoredEntry, bool]]:
    """Yield entries, each with whether a newer version wrote it: this one cannot read it, and leaves it."""
    above = records.FORMAT_VERSION
    known = set() if isinstance(reader, Listed) else keys_above(reader, records.MAGIC, above)
    left = iter(entries)
    while some := list(itertools.islice(left, _BATCH)):
        newer = reader.keys_above([one.key for one in some], above) if isinstance(reader, Listed) else known
        yield from ((entry, entry.key in newer) for entry in some)


def add_descriptions(decided: Removal, reader: Reader, selection: Selection) -> None:
    """Let the descriptions of runs go of which no draw is left.

    Args:
        decided: What goes already.
        reader: The store.
        selection: What was asked for: a run that it names goes whether or not it ever had a draw.
    """
    there: Counter[str] = Counter()
    for label, count in reader.labels().items():
        there[label.run] += count * label.is_answer
    named = replace(selection, models=(), phases=(), roles=(), kinds=("*",)) if selection.runs else None
    for entry, is_newer in _told(reader, entries_of(reader, Selection(kinds=(RUN_KIND,)), now=decided.moment)):
        gone = decided.draws[entry.label.run]
        is_meant = gone > 0 or (named is not None and named.matches(entry.label))
        if is_meant and gone == there[entry.label.run] and not is_newer and entry.key not in decided.keys:
            decided.add(entry, "describe a run of which no draw is left")


def remove(reader: Reader, decided: Removal, *, advance: Advance | None = None) -> int:
    """Remove entries, a few in each transaction, so that nobody waits for long. Return how many there were.

    Args:
        reader: The store.
        decided: What goes. What was stored since stays.
        advance: Told how many entries were looked at, and of how many.

    Raises:
        StoreUnavailableError: If the store cannot be written. What was removed until then is gone.
    """
    store = DiskStore(reader.path) if isinstance(reader, FolderReader) else reader
    keys, removed = list(decided.keys.items()), 0
    for start in range(0, len(keys), _BATCH):
        if start:
            time.sleep(_PAUSE)
        removed += store.delete_many(dict(keys[start : start + _BATCH]))
        if advance is not None:
            advance(min(start + _BATCH, len(keys)), len(keys))
    if keys and isinstance(store, DiskStore):
        store.shrink()
    return removed


@dataclass(frozen=True)
class Limits:
    """What may stay.

    Attributes:
        max_bytes: How much the store may take up, in bytes.
        older_than: Entries that were stored longer ago go, whatever they are, in seconds; None for no such limit.
        max_ages: The ages, in seconds, after which phases serve no answer. An answer of one of these phases goes when
            it is older than all of them: no phase among them serves it any more. Those of others never are too old.
    """

    max_bytes: int
    older_than: float | None = None
    max_ages: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def configured(cls, *, older_than: float | None = None, max_bytes: int | None = None) -> Limits:
        """Return what is configured, and what was said in place of it."""
        known = settings()
        ages = {name: phase.max_age for name, phase in known.phases.items() if phase.max_age is not None}
        return cls(known.disk_bytes if max_bytes is None else max_bytes, older_than, ages)


def plan_pruning(reader: Reader, limits: Limits) -> Removal:
    """Return what is expired, and the oldest of the rest until what is left fits.

    Raises:
        StoreUnavailableError: If the store cannot be read.
    """
    decided = Removal()
    left = float(reader.bytes_used())
    # What pages hold beside values is shared out among the entries.
    factor = max(1.0, left / max(bytes_of_values(reader), 1))
    for entry, is_newer in _told(reader, _oldest_first(reader, decided.moment)):
        reason = _expired(entry, limits, decided.moment) or ("over the size limit" if left > limits.max_bytes else "")
        if reason and is_newer:
            decided.newer += 1
        elif reason:
            decided.add(entry, reason)
            left -= entry.size * factor
    add_descriptions(decided, reader, EVERYTHING)
    return decided


def _oldest_first(reader: Reader, now: float) -> Iterator[StoredEntry]:
    """Yield all entries; first those that lie ahead, which may be of any age."""
    ahead = set()
    for entry in entries_of(reader, replace(EVERYTHING, older_than=math.inf), now=now):
        ahead.add(entry.key)
        yield entry
    for entry in entries_of(reader, EVERYTHING, now=now, reverse=True):
        if entry.key not in ahead:
            yield entry


def prune(reader: Reader, decided: Removal, limits: Limits, *, advance: Advance | None = None) -> int:
    """Remove what was planned, and more of the oldest where that was not enough. Return how many entries went.

    Args:
        reader: The store.
        decided: What was planned.
        limits: What may stay.
        advance: Told how many entries were looked at, and of how many.

    Raises:
        StoreUnavailableError: If the store cannot be read or written.
    """
    removed = remove(reader, decided, advance=advance)
    for _ in range(_ROUNDS):
        if reader.bytes_used() <= limits.max_bytes or not decided.keys:
            break
        decided = plan_pruning(reader, limits)
        removed += remove(reader, decided, advance=advance)
    return removed


def _expired(entry: StoredEntry, limits: Limits, now: float) -> str:
    age = age_of(entry.stored, now=now)
    if limits.older_than is not None and age > limits.older_than:
        return "older than asked for"
    if entry.label.phase in limits.max_ages and age > max(limits.max_ages.values()):
        return "older than every max_age"
    return ""
