"""Removing entries: what would go, and letting it go while other processes use the store.

A removal names its entries first and removes them afterwards, a few at a time. What was stored in between is another
draw, and stays: so nobody loses an answer that was bought after the removal was decided.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dspy_cachectl.manage.entries import entries_of
from dspy_cachectl.manage.progress import Advance
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.stores import RUN_KIND
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import StoredEntry
from dspy_cachectl.stores.reader import FolderReader

_BATCH = 250
"""How many entries one transaction removes: it takes some hundredths of a second."""
_PAUSE = 0.005
"""Seconds between two transactions. Whoever waits to write looks every two milliseconds, and gets in here."""

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
        moment: When it was decided, in Unix seconds. What is stored later stays.
        keys: The keys.
        bytes: How large the entries are together.
        by: How many entries, and how large they are, by model, phase and run; "" where there is none.
        oldest: When the oldest was stored, in Unix seconds; None where there is nothing.
        newest: Likewise.
        reasons: How many go for which reason, where there is more than one.
        draws: How many answers go of each run.
    """

    moment: float = field(default_factory=time.time)
    keys: list[str] = field(default_factory=list)
    bytes: int = 0
    by: dict[str, dict[str, Share]] = field(default_factory=lambda: {name: defaultdict(Share) for name in BY})
    oldest: float | None = None
    newest: float | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    draws: Counter[str] = field(default_factory=Counter)

    def add(self, entry: StoredEntry, reason: str = "") -> None:
        """Let an entry go, too."""
        self.keys.append(entry.key)
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


def plan(reader: FolderReader, selection: Selection, *, advance: Advance | None = None) -> Removal:
    """Return what would go with the entries of a selection. The description of a run goes with the last of its draws.

    Args:
        reader: The store.
        selection: Which entries.
        advance: Told how many entries have been looked at, and of how many.

    Raises:
        StoreUnavailableError: If the store cannot be read.
    """
    decided = Removal()
    for entry in entries_of(reader, selection, now=decided.moment, advance=advance):
        decided.add(entry)
    add_descriptions(decided, reader, selection)
    return decided


def add_descriptions(decided: Removal, reader: FolderReader, selection: Selection) -> None:
    """Let the descriptions of runs go of which no draw is left.

    Args:
        decided: What goes already.
        reader: The store.
        selection: What was asked for: a run that it names goes whether or not it ever had a draw.
    """
    there: Counter[str] = Counter()
    for label, count in reader.labels().items():
        there[label.run] += count * label.is_answer
    known = set(decided.keys)
    named = replace(selection, models=(), phases=(), roles=(), kinds=("*",)) if selection.runs else None
    for entry in entries_of(reader, Selection(kinds=(RUN_KIND,)), now=decided.moment):
        gone = decided.draws[entry.label.run]
        is_meant = gone > 0 or (named is not None and named.matches(entry.label))
        if is_meant and gone == there[entry.label.run] and entry.key not in known:
            decided.add(entry, "describe a run of which no draw is left")


def remove(store: DiskStore, keys: Sequence[str], *, decided: float, advance: Advance | None = None) -> int:
    """Remove entries, a few in each transaction, so that nobody waits for long. Return how many there were.

    Args:
        store: The store.
        keys: The keys.
        decided: What was stored since stays, in Unix seconds.
        advance: Told how many of them were looked at.

    Raises:
        StoreUnavailableError: If the store cannot be written. What was removed until then is gone.
    """
    removed = 0
    for start in range(0, len(keys), _BATCH):
        if start:
            time.sleep(_PAUSE)
        removed += store.delete_many(keys[start : start + _BATCH], stored_before=decided)
        if advance is not None:
            advance(min(start + _BATCH, len(keys)), len(keys))
    if keys:
        store.shrink()
    return removed
