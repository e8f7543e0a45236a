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
from dspy_cachectl.stores.forks import inside_sqlite

DATABASE = "cache.db"
_FILENAME = re.compile(r"[0-9a-f]{2}[/\\][0-9a-f]{2}[/\\][0-9a-f]{28}\.val")
_PAGE = 1000
_RAW, _FILE = 1, 2
"""diskcache's modes of a value: in the table, and in a file. Its others hold text and pickles."""
_NO_LOCK_FILE = ("unable to open", "readonly", "disk I/O error", "is full")
"""What SQLite says where it cannot make the file that readers and writers lock: the disk is read-only, or full."""


class MissingFileError(CorruptEntryError):
    """The file that the table names for a value is not there."""


def is_filename(name: str) -> bool:
    """Tell whether diskcache would have made this name of a value's file. Any other could point outside the folder."""
    return _FILENAME.fullmatch(name) is not None


def read_value(folder: Path, mode: Any, filename: Any, value: Any) -> bytes:
    """Return the value that a row of the table keeps.

    Args:
        folder: The store's folder.
        mode: The row's `mode`; likewise the next two.
        filename: The value's file, relative to the folder, or None.
        value: The value in the table, or None.

    Raises:
        CorruptEntryError: If it is of a kind that is never written, or its file is missing.
        StoreUnavailableError: If its file cannot be read.
    """
    if mode == _RAW and isinstance(value, bytes):
        return value
    if mode != _FILE or not isinstance(filename, str):
        raise CorruptEntryError("the store holds an entry of a kind that is never written; it is not unpickled")
    if not is_filename(filename):
        raise CorruptEntryError(f"the store names the file {filename!r}, which is not one that it writes")
    try:
        return (folder / filename).read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"the store names the file {filename!r}, which is missing") from error
    except OSError as error:
        raise StoreUnavailableError(f"could not read {folder / filename}: {error}") from error


def as_text(data: bytes) -> str:
    """Return a text of the table. What somebody planted need not be UTF-8, and must not hide all the rest."""
    return data.decode("utf-8", "replace")


def unavailable(error: BaseException) -> str:
    """Say in a message why a store failed, and what to do where its database is damaged."""
    if type(error) is sqlite3.DatabaseError:
        return f"{error}. Its database is damaged; remove the folder, or restore it, to use it again"
    return str(error) or type(error).__name__


class FolderReader:
    """Reads a store's folder.

    Args:
        path: The folder. It may be missing; then there is nothing in it.
        patience: How long it waits for a database that another process has locked, in seconds.
    """

    def __init__(self, path: Path, *, patience: float = 2.0) -> None:
        self.path = path.absolute()
        self.patience = patience

    def exists(self) -> bool:
        """Tell whether there is a store in the folder.

        Raises:
            StoreUnavailableError: If the folder may not be looked into.
        """
        try:
            return (self.path / DATABASE).exists()
        except OSError as error:
            raise StoreUnavailableError(f"could not look into the store {self.path}: {error}") from error

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None.

        Raises:
            CorruptEntryError: If what is kept is not bytes.
            StoreUnavailableError: If the folder cannot be read.
        """
        rows = self.query("SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1", (key,))
        return read_value(self.path, *rows[0]) if rows else None

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""
        # Answers are most of a table, which is walked; what a store keeps about itself is little, and looked up.
        tag = "tag" if kind is not None and not Label(kind=kind).is_answer else "+tag"
        tagged = "" if kind is None else f" AND {tag} >= ? AND {tag} < ?"
        parameters = () if kind is None else (f"{kind}\x1f", f"{kind}\x20")
        stored: float | None = None
        rowid: int | None = None
        while True:
            rows = self.query(
                f"SELECT store_time, rowid, key FROM Cache WHERE typeof(key) = 'text'{tagged}"  # noqa: S608 - no values
                " AND (? IS NULL OR (store_time, rowid) < (?, ?)) ORDER BY store_time DESC, rowid DESC LIMIT ?",
                (*parameters, rowid, stored, rowid, _PAGE),
            )
            for stored, rowid, key in rows:  # noqa: B007 - the last row is where the next page begins
                yield key
            if len(rows) < _PAGE:
                return

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        counts: dict[Label, int] = {}
        for tag, count in self.tags().items():
            label = Label.decode(tag)
            counts[label] = counts.get(label, 0) + count
        return counts

    def tags(self) -> dict[str | None, int]:
        """Return how many entries have each tag, as labels are written in the table; None is no text."""
        counts: dict[str | None, int] = {}
        for tag, count in self.query("SELECT tag, COUNT(*) FROM Cache GROUP BY tag"):
            name = tag if isinstance(tag, str) else None
            counts[name] = counts.get(name, 0) + count
        return counts

    def bytes_used(self) -> int:
        """Return how many bytes the files of the folder take up."""
        total = 0
        for name in (DATABASE, f"{DATABASE}-wal"):
            try:
                total += (self.path / name).stat().st_size
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreUnavailableError(f"could not look into the store {self.path}: {error}") from error
        rows = self.query("SELECT value FROM Settings WHERE key = 'size'")
        return total + (int(rows[0][0]) if rows else 0)

    def query(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds in diskcache's tables; nothing where there is no store.

        Raises:
            StoreUnavailableError: If the folder cannot be read.
        """
        if not self.exists():
            return []
        address = (self.path / DATABASE).as_uri()
        try:
            return self._query(f"{address}?mode=ro", query, parameters)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []  # made this moment, and not filled yet
            if not any(reason in str(error) for reason in _NO_LOCK_FILE):
                raise self._error(error) from error
        except (sqlite3.Error, ValueError) as error:
            raise self._error(error) from error
        try:
            # Where SQLite cannot keep its lock file nobody else can write either, so it is read without one.
            return self._query(f"{address}?mode=ro&immutable=1", query, parameters)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _query(self, address: str, query: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with (
            inside_sqlite,
            contextlib.closing(sqlite3.connect(address, uri=True, timeout=self.patience)) as connection,
        ):
            connection.text_factory = as_text
            return connection.execute(query, parameters).fetchall()

    def _error(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(f"could not read the store {self.path}: {unavailable(error)}")
