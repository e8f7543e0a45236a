"""Entries in one folder, kept by diskcache over SQLite, and never unpickled.

diskcache brings the file format, eviction, and safe writing by many processes. Three things are set right here:
it may not unpickle, it may not wait for a locked database without bound, and its errors are translated.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import diskcache

from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.stores.base import Label
from dspy_cachectl.stores.reader import DATABASE, FolderReader, check_filename

_MODE_RAW, _MODE_FILE = 1, 2
_NEVER_PICKLE = "pickle is never used here"


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps strings to bytes and refuses everything else. A planted pickle does not run."""

    def put(self, key: Any) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError(f"a key is a string, not {type(key).__name__}: {_NEVER_PICKLE}")
        return key, True

    def get(self, key: Any, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise CorruptEntryError(f"the store holds a key that is not text; {_NEVER_PICKLE}")
        return key

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, str | None, Any]:
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, not {type(value).__name__}: {_NEVER_PICKLE}")
        stored: tuple[int, int, str | None, Any] = super().store(value, read=False, key=key)
        return stored

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if mode == _MODE_RAW and isinstance(value, bytes):
            return value
        if mode == _MODE_FILE and filename is not None:
            check_filename(filename)
            fetched: bytes = super().fetch(mode, filename, value, read=False)
            return fetched
        raise CorruptEntryError(f"the store holds an entry of a kind that is never written; {_NEVER_PICKLE}")

    def remove(self, file_path: str) -> None:
        check_filename(file_path)
        super().remove(file_path)


class _Folder(diskcache.Cache):  # type: ignore[misc]
    """A diskcache that gives up on a locked database after `patience` seconds, also while it opens."""

    def __init__(self, directory: str, *, patience: float, **settings: Any) -> None:
        self.patience = patience
        super().__init__(directory, timeout=patience, **settings)

    @property
    def _sql_retry(self) -> Any:
        execute = self._sql
        give_up = time.monotonic() + self.patience

        def retry(statement: str, *args: Any) -> Any:
            while True:
                try:
                    return execute(statement, *args)
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > give_up:
                        raise
                    time.sleep(0.005)

        return retry


class DiskStore:
    """Entries in one folder. Thread-safe, process-safe, survives a fork.

    The folder is opened at the first use. Where it cannot be written, what is in it is read all the same.

    Args:
        path: The folder. It is made, for this user alone, at the first write.
        max_bytes: When the folder grows beyond it, the entries stored first are removed. In bytes.
        patience: How long a write waits for a database that another process has locked, in seconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 30 * 10**9, patience: float = 5.0) -> None:
        self.path = Path(path).expanduser().absolute()
        self.max_bytes = max_bytes
        self.patience = patience
        self._lock = threading.Lock()
        self._folder: _Folder | None = None
        self._opened: tuple[int, int] | None = None
        self._reader = FolderReader(self.path)

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.path)

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""
        if self._folder is None and not (self.path / DATABASE).exists():
            return None
        try:
            folder = self._open()
        except StoreUnavailableError as error:
            # A folder on a read-only disk still has answers to give.
            if self._folder is None and (found := self._read_only(key, error)) is not None:
                return found
            raise
        with self._translated("read"):
            value: bytes | None = folder.get(key, retry=False)
            return value

    def put(self, key: str, value: bytes, label: Label) -> None:
        """Keep bytes under a key, in place of what was there."""
        folder = self._open()
        with self._translated("write"):
            folder.set(key, value, tag=label.encode(), retry=False)

    def delete(self, key: str) -> bool:
        """Remove a key. Tell whether it was there."""
        folder = self._open()
        with self._translated("write"):
            return bool(folder.delete(key, retry=False))

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""
        return self._reader.keys(kind)

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        return self._reader.labels()

    def bytes_used(self) -> int:
        """Return how many bytes the folder takes up, its database included."""
        return self._reader.bytes_used()

    def clear(self) -> int:
        """Remove everything. Return how many entries there were."""
        folder = self._open()
        with self._translated("write"):
            return int(folder.clear(retry=False))

    def close(self) -> None:
        """Close this thread's connection; other threads' close when the threads end."""
        with self._lock:
            folder, self._folder, self._opened = self._folder, None, None
        if folder is not None:
            with self._translated("close"):
                folder.close()

    def _open(self) -> _Folder:
        folder = self._folder
        if folder is not None and self._identity() == self._opened:
            return folder
        with self._lock:
            if self._folder is not None and self._identity() == self._opened:
                return self._folder
            deleted = self._folder is not None
            self._folder = None
            if deleted:
                self._opened = None
                raise StoreUnavailableError(
                    f"the store's folder {self.path} was deleted or replaced while in use; it is opened anew"
                )
            with self._translated("open"):
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder = _Folder(
                    str(self.path),
                    patience=self.patience,
                    disk=_BytesDisk,
                    size_limit=self.max_bytes,
                    eviction_policy="least-recently-stored",
                    statistics=0,
                    tag_index=1,
                )
            self._opened = self._identity()
            self._folder = folder
            return folder

    def _identity(self) -> tuple[int, int] | None:
        # SQLite goes on writing to a deleted file without a word, so the file is looked at by name.
        try:
            found = (self.path / DATABASE).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _read_only(self, key: str, error: StoreUnavailableError) -> bytes | None:
        try:
            return self._reader.get(key)
        except CorruptEntryError:
            raise
        except StoreUnavailableError:
            raise error from error.__cause__

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except diskcache.Timeout as error:
            self._unavailable(doing, f"another process kept its database locked for {self.patience:g} s", error)
        except (sqlite3.Error, OSError, ValueError, AssertionError) as error:
            self._unavailable(doing, str(error), error)

    def _unavailable(self, doing: str, why: str, error: BaseException) -> NoReturn:
        raise StoreUnavailableError(f"could not {doing} the store {self.path}: {why}") from error
