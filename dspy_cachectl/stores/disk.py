"""Entries in one folder, kept by diskcache over SQLite, and never unpickled."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import diskcache

from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.stores.base import Label
from dspy_cachectl.stores.database import reason
from dspy_cachectl.stores.folder import Folder
from dspy_cachectl.stores.forks import inside_sqlite, tell_after_fork
from dspy_cachectl.stores.reader import DATABASE, FolderReader, database

_REST_FACTOR = 10
"""After a failed opening the next is tried when ten times as long has passed: failing takes a tenth of the time."""

_INHERITED: list[Folder] = []
"""A forked child may neither use nor close its parent's connections, so they are kept as they are."""


class DiskStore:
    """Entries in one folder. Thread-safe, process-safe, survives a fork.

    The folder is opened at the first use. Where it cannot be written, what is in it is read all the same.

    Args:
        path: The folder. It is made, for this user alone, at the first write.
        max_bytes: When the folder grows beyond it, the entries stored first are removed. In bytes.
        patience: How long a read or write waits for a database that another process has locked, in seconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 30 * 10**9, patience: float = 5.0) -> None:
        self.path = Path(path).expanduser().absolute()
        self.max_bytes = max_bytes
        self.patience = patience
        self._lock = threading.Lock()
        self._folder: Folder | None = None
        self._opened: tuple[int, int] | None = None
        self._failure: tuple[StoreUnavailableError, float] | None = None
        self._reader = FolderReader(self.path, patience=patience)
        tell_after_fork(self)

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.path)

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""
        if self._folder is None and not self._reader.exists():
            return None
        folder = self._open_if_possible()
        if folder is None:
            # A folder on a read-only disk still has answers to give.
            return self._reader.get(key)
        with self._translated("read"):
            value: bytes | None = folder.get(key, retry=False)
            return value

    def put(self, key: str, value: bytes, label: Label) -> None:
        """Keep bytes under a key, in place of what was there."""
        with self._writing() as folder:
            folder.set(key, value, tag=label.encode(), retry=False)

    def delete(self, key: str) -> bool:
        """Remove a key. Tell whether it was there."""
        with self._writing() as folder:
            return bool(folder.delete(key, retry=False))

    def delete_many(self, keys: Sequence[str], *, stored_before: float = math.inf) -> int:
        """Remove keys in one transaction. Return how many were there.

        Args:
            keys: The keys, few enough that other processes can wait for the transaction.
            stored_before: Leave alone what was stored since, in Unix seconds.
        """
        with self._writing() as folder:
            return folder.delete_many(keys, stored_before)

    def shrink(self) -> None:
        """Give the disk back what deleted entries took up, as far as other processes let it. It never waits long."""
        with self._writing() as folder:
            folder.shrink()

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""
        return self._reader.keys(kind)

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        return self._reader.labels()

    def add_usage(self, used: Mapping[Label, Mapping[str, float]], served: Mapping[str, int]) -> None:
        """Add to what is counted, and note beside entries that they were served, in one transaction."""
        with self._writing() as folder:
            folder.add_usage({label.encode(): counters for label, counters in used.items()}, served)

    def usage(self) -> dict[Label, dict[str, float]]:
        """Return what is counted."""
        return self._reader.usage()

    def clear(self) -> int:
        """Remove all entries. Return how many there were."""
        with self._writing() as folder:
            return int(folder.clear(retry=False))

    def close(self) -> None:
        """Close this thread's connection; other threads' close when the threads end."""
        with self._lock:
            folder, self._folder, self._opened = self._folder, None, None
        if folder is not None:
            with self._translated("close"):
                folder.close()

    def after_fork(self) -> None:
        """Open everything anew in the child."""
        self._lock = threading.Lock()
        if self._folder is not None:
            _INHERITED.append(self._folder)
        self._folder = self._opened = self._failure = None

    def _open_if_possible(self) -> Folder | None:
        try:
            return self._open()
        except StoreUnavailableError:
            if self._failure is None:
                raise  # it could be opened, and was deleted
            return None

    def _open(self) -> Folder:
        folder = self._folder
        if folder is not None and self._identity() == self._opened:
            return folder
        with self._lock:
            if self._folder is not None:
                if self._identity() == self._opened:
                    return self._folder
                self._folder = self._opened = None
                raise StoreUnavailableError(
                    f"the store's folder {self.path} was deleted or replaced while in use; it is opened anew"
                )
            if self._failure is not None and time.monotonic() < self._failure[1]:
                # Whoever waited for the lock must not wait once more for what just failed.
                raise StoreUnavailableError(str(self._failure[0])) from self._failure[0].__cause__
            started = time.monotonic()
            try:
                self._folder = self._opening()
            except StoreUnavailableError as error:
                now = time.monotonic()
                self._failure = error, now + _REST_FACTOR * (now - started)
                raise
            self._opened, self._failure = self._identity(), None
            return self._folder

    def _opening(self) -> Folder:
        database(self.path, patience=self.patience).make()
        with self._translated("open"):
            return Folder(str(self.path), max_bytes=self.max_bytes, patience=self.patience)

    def _identity(self) -> tuple[int, int] | None:
        # SQLite goes on writing to a deleted file without a word, so the file is looked at by name.
        try:
            found = (self.path / DATABASE).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Folder]:
        folder = self._open()
        with self._translated("write"):
            yield folder

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            with inside_sqlite:
                yield
        except StoreError:
            raise
        except diskcache.Timeout as error:
            self._unavailable(doing, f"another process kept its database locked for {self.patience:g} s", error)
        except Exception as error:  # noqa: BLE001 - what a damaged database makes diskcache raise has no bounds
            self._unavailable(doing, reason(error), error)

    def _unavailable(self, doing: str, why: str, error: BaseException) -> NoReturn:
        raise StoreUnavailableError(f"could not {doing} the store {self.path}: {why}") from error
