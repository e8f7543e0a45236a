"""Pruning: which entries are too old to be served, and which have to go so that the rest fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspy_cachectl.config import Settings
from dspy_cachectl.manage.entries import entries_of
from dspy_cachectl.manage.progress import Advance
from dspy_cachectl.manage.removal import Removal, add_descriptions, remove
from dspy_cachectl.manage.selection import EVERYTHING
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import StoredEntry
from dspy_cachectl.stores.reader import FolderReader

_ROUNDS = 5
"""How often it is looked whether what is left fits: how much of a page an entry takes up is estimated."""


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
    max_ages: Mapping[str, float] | None = None

    @classmethod
    def of(cls, settings: Settings, *, older_than: float | None = None, max_bytes: int | None = None) -> Limits:
        """Return what is configured, and what was said in place of it."""
        ages = {name: phase.max_age for name, phase in settings.phases.items() if phase.max_age is not None}
        return cls(settings.disk_bytes if max_bytes is None else max_bytes, older_than, ages)


def plan_pruning(reader: FolderReader, limits: Limits) -> Removal:
    """Return what is expired, and the oldest of the rest until what is left fits.

    Raises:
        StoreUnavailableError: If the store cannot be read.
    """
    decided = Removal()
    oldest_first = list(entries_of(reader, EVERYTHING, now=decided.moment, reverse=True))
    left = float(_bytes_kept(reader))
    kept = sum(entry.size for entry in oldest_first)
    # What pages hold beside values is shared out among the entries.
    factor = max(1.0, left / kept) if kept else 1.0
    for entry in oldest_first:
        reason = _expired(entry, limits, decided.moment) or ("over the size limit" if left > limits.max_bytes else "")
        if reason:
            decided.add(entry, reason)
            left -= entry.size * factor
    add_descriptions(decided, reader, EVERYTHING)
    return decided


def prune(
    store: DiskStore, reader: FolderReader, decided: Removal, limits: Limits, *, advance: Advance | None = None
) -> int:
    """Remove what was planned, and more of the oldest where that was not enough. Return how many entries went.

    Args:
        store: The store.
        reader: Reads it.
        decided: What was planned.
        limits: What may stay.
        advance: Told how many entries were looked at, and of how many.

    Raises:
        StoreUnavailableError: If the store cannot be read or written.
    """
    removed = remove(store, decided.keys, decided=decided.moment, advance=advance)
    for _ in range(_ROUNDS):
        if _bytes_kept(reader) <= limits.max_bytes:
            break
        more = plan_pruning(reader, limits)
        if not more.keys:
            break
        removed += remove(store, more.keys, decided=more.moment, advance=advance)
    return removed


def _expired(entry: StoredEntry, limits: Limits, now: float) -> str:
    age = now - entry.stored
    if limits.older_than is not None and age > limits.older_than:
        return "older than asked for"
    if limits.max_ages and entry.label.phase in limits.max_ages and age > max(limits.max_ages.values()):
        return "older than every max_age"
    return ""


def _bytes_kept(reader: FolderReader) -> int:
    found = reader.query(
        "SELECT (page_count - freelist_count) * page_size"
        " + coalesce((SELECT value FROM Settings WHERE key = 'size'), 0)"
        " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    )
    return int(found[0][0]) if found else 0
