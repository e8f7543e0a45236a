"""Reading a store's folder without writing to it: for the command line, and for folders that cannot be written.

It reads diskcache's table with SQLite alone, so it needs neither diskcache nor a writable disk, and it never
makes a folder that is not there.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.stores.base import Label

DATABASE = "cache.db"
_FILENAME = re.compile(r"[0-9a-f]{2}[/\\][0-9a-f]{2}[/\\][0-9a-f]{28}\.val")
_PAGE = 1000


def check_filename(filename: str) -> None:
    """Refuse a file name that diskcache would not have made: it could point outside the folder.

    Raises:
        CorruptEntryError: If the name is not of diskcache's form.
    """
    if _FILENAME.fullmatch(filename) is None:
        raise CorruptEntryError(f"the store names the file {filename!r}, which is not one that it writes")


class FolderReader:
    """Reads a store's folder.

    Args:
        path: The folder. It may be missing; then there is nothing in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None.

        Raises:
            CorruptEntryError: If what is kept is not bytes.
            StoreUnavailableError: If the folder cannot be read.
        """
        query = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
        rows = self._rows(query, (key,))
        if not rows:
            return None
        mode, filename, value = rows[0]
        if mode == 1 and isinstance(value, bytes):
            return value
        if mode != 2 or not isinstance(filename, str):
            raise CorruptEntryError("the store holds an entry of a kind that is never written; it is not unpickled")
        check_filename(filename)
        try:
            return (self.path / filename).read_bytes()
        except OSError as error:
            raise StoreUnavailableError(f"could not read {self.path / filename}: {error}") from error

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""
        below: int | None = None
        while True:
            rows = self._rows(
                "SELECT rowid, key FROM Cache WHERE (? IS NULL OR rowid < ?) AND (? IS NULL OR tag >= ? AND tag < ?)"
                " AND typeof(key) = 'text' ORDER BY rowid DESC LIMIT ?",
                (below, below, kind, f"{kind}\x1f", f"{kind}\x20", _PAGE),
            )
            for rowid, key in rows:
                below = rowid
                yield key
            if len(rows) < _PAGE:
                return

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        counts: dict[Label, int] = {}
        for tag, count in self._rows("SELECT tag, COUNT(*) FROM Cache GROUP BY tag"):
            label = Label.decode(tag if isinstance(tag, str) else None)
            counts[label] = counts.get(label, 0) + count
        return counts

    def bytes_used(self) -> int:
        """Return how many bytes the files of the folder take up."""
        total = 0
        for name in (DATABASE, f"{DATABASE}-wal"):
            with contextlib.suppress(FileNotFoundError):
                total += (self.path / name).stat().st_size
        rows = self._rows("SELECT value FROM Settings WHERE key = 'size'")
        return total + (int(rows[0][0]) if rows else 0)

    def _rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        if not (self.path / DATABASE).exists():
            return []
        address = (self.path / DATABASE).as_uri()
        try:
            return _query(f"{address}?mode=ro", query, parameters)
        except sqlite3.OperationalError as error:
            if "unable to open" not in str(error) and "readonly" not in str(error):
                raise StoreUnavailableError(f"could not read the store {self.path}: {error}") from error
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"could not read the store {self.path}: {error}") from error
        try:
            # On a read-only disk SQLite cannot keep its lock file; nobody else can write there either.
            return _query(f"{address}?mode=ro&immutable=1", query, parameters)
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"could not read the store {self.path}: {error}") from error


def _query(address: str, query: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=2.0)) as connection:
        return connection.execute(query, parameters).fetchall()
