"""Entries in one folder, kept by diskcache over SQLite, and never unpickled."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.stores.base import Filed, Label, Put, name_of
from dspy_cachectl.stores.file_leases import file_lease
from dspy_cachectl.stores.folder import Folder
from dspy_cachectl.stores.leases import Lease
from dspy_cachectl.stores.patience import reason
from dspy_cachectl.stores.reader import FolderReader, as_bytes, kept, mark_from
from dspy_cachectl.stores.registers.file import NAME as REGISTERS, FileRegister

_FILED = "SELECT mode, value, tag FROM Cache WHERE key = ? AND raw = 1"
_FILED_AND_MARKED = "SELECT mode, value, tag, mark FROM Cache WHERE key = ? AND raw = 1"
_FILED_ALL = "SELECT key, mode, value, tag FROM Cache WHERE key IN ({}) AND raw = 1"
_MOST_AT_ONCE = 500
"""Values in one statement; old SQLite takes 999."""


class DiskStore(FolderReader):
    """Entries in one folder. Thread-safe, process-safe, survives a fork.

    The folder is opened at the first use. Where it cannot be written, what is in it is read all the same.

    Attributes:
        on_evicted: Called with a number where a write has removed so many entries to make room; None for nobody.

    Args:
        path: The folder. It is made, for this user alone, at the first write.
        max_bytes: When the folder grows beyond it, the entries stored first are removed. In bytes.
        patience: How long a read or write waits for a database that another process has locked, in seconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 30 * 10**9, patience: float = 5.0) -> None:
        super().__init__(Path(path).expanduser(), patience=patience, keep_open=True, prepare=self._prepare)
        self.max_bytes = max_bytes
        self.on_evicted: Callable[[int], None] | None = None

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""
        return super().get(key) if self._opens() else None

    def get_filed(self, key: str) -> Filed | None:
        """Return the bytes kept under a key, with what they are filed under; or None. Their mark is not looked up."""
        rows = self.query(_FILED, (kept(key),)) if self._opens() else []
        return Filed(as_bytes(*rows[0][:2]), _label(rows[0][2])) if rows else None

    @property
    def is_open(self) -> bool:
        """Whether its database is open, so that `glance` finds what is there."""
        return self._database.is_open

    def glance(self, key: str) -> Filed | None:
        """Return what `get_filed` does, where that takes one look at an open database; None where it does not."""
        try:
            rows = self._database.glance(_FILED, (kept(key),))
            return Filed(as_bytes(*rows[0][:2]), _label(rows[0][2])) if rows else None
        except StoreError:
            return None

    def glance_all(self, keys: Sequence[str]) -> dict[str, Filed]:
        """Return what `glance` does of each of some keys, in one look; nothing of a key where it returns None."""
        found: dict[str, Filed] = {}
        for at in range(0, len(keys), _MOST_AT_ONCE):
            some = {kept(key): key for key in keys[at : at + _MOST_AT_ONCE]}
            rows = self._database.glance(_FILED_ALL.format(",".join("?" * len(some))), list(some))
            for key, mode, value, tag in rows:
                try:
                    found[some[key]] = Filed(as_bytes(mode, value), _label(tag))
                except StoreError:  # nothing is found of this one
                    continue
        return found

    def get_marked(self, key: str) -> Filed | None:
        """Return what `get_filed` does, with the mark."""
        rows = self.query(_FILED_AND_MARKED, (kept(key),)) if self._opens() else []
        return Filed(as_bytes(*rows[0][:2]), _label(rows[0][2]), mark_from(rows[0][3]) or "") if rows else None

    def _opens(self) -> bool:
        """Open the folder where that has to be done. Tell whether it is there."""
        if not self._database.is_open:
            if not self.exists():
                return False
            with contextlib.suppress(StoreUnavailableError):  # a folder on a read-only disk has answers to give, too
                self.make()
        return True

    def put(self, key: str, value: bytes, label: Label) -> None:
        """Keep bytes under a key, in place of what was there."""
        self.put_marked(key, value, label, "")

    def put_marked(self, key: str, value: bytes, label: Label, mark: str) -> Put:
        """Keep bytes under a key with their mark."""
        return self._put(key, value, label, mark)

    def put_first(self, key: str, value: bytes, label: Label, mark: str, *, instead_of: bytes | None = None) -> Put:
        """Keep bytes under a key with their mark, unless others are there."""
        return self._put(key, value, label, mark, lambda there: there not in {None, instead_of})

    def _put(
        self, key: str, value: bytes, label: Label, mark: str, stays: Callable[[bytes | None], bool] = lambda _: False
    ) -> Put:
        try:
            with self._database.change():
                put, evicted = self._put_within(key, value, label, mark, stays)
        except StoreError:
            raise
        except Exception as error:  # as in `_translated`, which takes longer
            raise self._unavailable("write", error) from error
        if evicted and self.on_evicted is not None:
            self.on_evicted(evicted)
        return put

    def _put_within(
        self, key: str, value: bytes, label: Label, mark: str, stays: Callable[[bytes | None], bool]
    ) -> tuple[Put, int]:
        """Keep bytes in a transaction. Return what was found, and how many answers made room."""
        folder = self._folder
        before = folder.marked(name_of(mark)) if mark else {}
        fits = len(value) <= folder.size_limit
        folder.evicted.clear()
        there = folder.keep(key, value, label.encode(), mark, stays) if fits else folder.there(key)
        if stays(there):
            return Put(there, before), 0
        if not fits:
            raise StoreUnavailableError(
                f"an entry of {len(value):,} bytes is larger than the store {self.path} may be: raise disk_bytes, "
                f"which is {self.max_bytes:,}"
            )
        return Put(None, before), self._count_evicted(folder) if folder.evicted else 0

    def _count_evicted(self, folder: Folder) -> int:
        # Descriptions of runs are no answers, and are written anew.
        lost = {label: count for tag, count in folder.evicted.items() if (label := Label.decode(tag)).is_answer}
        if lost:
            folder.add_usage({label.encode(): {"evicted": count} for label, count in lost.items()}, {})
        return sum(lost.values())

    def delete(self, key: str) -> bool:
        """Remove a key. Tell whether it was there."""
        with self._writing() as folder:
            return bool(folder.delete(key))

    def delete_many(self, keys: Mapping[str, float | None]) -> int:
        """Remove keys in one transaction. Return how many were there.

        Args:
            keys: The keys, few enough that other processes can wait for the transaction. With each, when what is meant
                was stored, by whatever clock, in Unix seconds: what was stored since stays. None: whatever is there.
        """
        with self._writing() as folder:
            return folder.delete_many(keys)

    def rewrite(self, entries: Mapping[str, tuple[bytes, bytes]]) -> int:
        """Put bytes in the place of others, of each key, where those are there; all else of the entry stays.

        Args:
            entries: Of each key what may be there and goes, and what comes.

        Returns:
            How many were there.
        """
        with self._translated("write"), self._database.change() as sql:
            written = 0
            sql("PRAGMA secure_delete = ON")  # nothing of them is left in the file
            for key, (before, after) in entries.items():
                sql("UPDATE Cache SET value = ? WHERE key = ? AND raw = 1 AND value = ?", after, kept(key), before)
                written += sql("SELECT changes()")[0][0]
            return written

    def lease(self, name: str) -> Lease | None:
        """Return the lease of a name among the processes of this machine that use the folder."""
        return file_lease(self.path, name)

    def register(self) -> FileRegister:
        """Return the register of the processes of this machine that use the folder."""
        return FileRegister(self.path / REGISTERS)

    def shrink(self) -> None:
        """Give the disk back what deleted entries took up, as far as other processes let it. It never waits long."""
        self.make()
        self._database.read("PRAGMA wal_checkpoint(TRUNCATE)")  # SQLite then cuts the database, too: it is made so

    def add_usage(self, used: Mapping[Label, Mapping[str, float]], served: Mapping[str, int]) -> None:
        """Add to what is counted, and note beside entries that they were served, in one transaction."""
        with self._writing() as folder:
            folder.add_usage({label.encode(): counters for label, counters in used.items()}, served)

    def clear(self) -> int:
        """Remove all entries. Return how many there were."""
        with self._writing() as folder:
            return int(folder.clear())

    def make(self) -> None:
        """See to it that the folder is there, and can be written."""
        self._database.make()

    def close(self) -> None:
        """Close the connection. The next use makes another."""
        self._database.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with self._translated("open"):
            self._folder = Folder(
                str(self.path), connection, max_bytes=self.max_bytes, patience=self._database.patience
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Folder]:
        with self._translated("write"), self._database.change():
            yield self._folder

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # what a damaged database makes diskcache raise has no bounds
            raise self._unavailable(doing, error) from error

    def _unavailable(self, doing: str, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(f"could not {doing} the store {self.path}: {reason(error)}")


@lru_cache(maxsize=1024)
def _label(tag: object) -> Label:
    """Return the label of a tag; most entries have one of a few."""
    return Label.decode(tag)
