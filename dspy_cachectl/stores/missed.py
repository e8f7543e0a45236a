"""Which entries a store missed while it was away: their keys, beside a nearer store that has what belongs to them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path

from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.boundary.ownership import MISSED
from dspy_cachectl.stores.database import Database

NAME = "missed.db"
MOST = 100_000
"""How many keys wait at most for a store, beside a folder. What comes then is not given to it later."""
_COUNTED = 1000
"""After how many it is counted how many there are."""
_MOST_IN_MEMORY = 10_000
_VERSION = 1
_SCHEMA = ("CREATE TABLE missed (store TEXT, key TEXT, replaces INTEGER, PRIMARY KEY (store, key)) WITHOUT ROWID",)


class Missed:
    """The keys that one store missed. Thread-safe; in a folder also process-safe, and there for later processes.

    Args:
        folder: The folder of the nearer store; None for one in memory, with which they are gone.
        store: Where the store is that missed them.
    """

    def __init__(self, folder: Path | None, store: str) -> None:
        self._store = store
        self._database = None if folder is None else _database(folder)
        self._room = 0
        tell_after_fork(self)
        self.after_fork()

    def after_fork(self) -> None:
        """Begin in the child with nothing that is only in memory: the parent gives it to the store."""
        self._lock = threading.Lock()
        self._kept: dict[str, bool] = {}

    def exists(self) -> bool:
        """Tell, without a look into it, whether there may be any."""
        return bool(self._kept) or (self._database is not None and self._database.path.exists())

    def add(self, key: str, *, replaces: bool) -> bool:
        """Let a key wait. Tell whether there is room for it.

        Args:
            key: The key.
            replaces: Whether it goes in place of what is there.

        Raises:
            StoreUnavailableError: If the folder cannot be written.
        """
        if self._database is None:
            with self._lock:
                if len(self._kept) < _MOST_IN_MEMORY or key in self._kept:
                    self._kept[key] = replaces
                return key in self._kept
        with self._database.change() as sql:
            if self._room <= 0:  # counting takes a while where there are many
                self._room = min(MOST - sql("SELECT COUNT(*) FROM missed WHERE store = ?", self._store)[0][0], _COUNTED)
            if self._room <= 0:
                return False
            self._room -= 1
            sql(
                "INSERT INTO missed VALUES (?, ?, ?)"
                " ON CONFLICT (store, key) DO UPDATE SET replaces = MAX(replaces, excluded.replaces)",
                *(self._store, key, int(replaces)),
            )
        return True

    def first(self, count: int, besides: Collection[str] = ()) -> dict[str, bool]:
        """Return some keys that wait, each with whether it goes in place of what is there.

        Args:
            count: How many at most.
            besides: Those that are left out.

        Raises:
            StoreUnavailableError: If the folder cannot be read.
        """
        if self._database is None:
            with self._lock:
                waiting = list(self._kept.items())
        else:
            some = "SELECT key, replaces FROM missed WHERE store = ? LIMIT ?"
            waiting = self._database.read(some, self._store, count + len(besides))
        others = ((key, bool(replaces)) for key, replaces in waiting if key not in besides)
        return dict(islice(others, count))

    def remove(self, keys: Iterable[str]) -> None:
        """Let keys wait no more.

        Raises:
            StoreUnavailableError: If the folder cannot be written.
        """
        if self._database is None:
            with self._lock:
                for key in keys:
                    self._kept.pop(key, None)
            return
        with self._database.change() as sql:
            for key in keys:
                sql("DELETE FROM missed WHERE store = ? AND key = ?", self._store, key)

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()


def waiting_beside(folder: Path) -> dict[str, int]:
    """Return how many entries wait beside a folder, by the store that they wait for.

    Raises:
        StoreUnavailableError: If the folder cannot be read.
    """
    return dict(_database(folder).read("SELECT store, COUNT(*) FROM missed GROUP BY store"))


def _database(folder: Path) -> Database:
    return Database(folder / NAME, kind=MISSED, version=_VERSION, schema=_SCHEMA, keep_open=True)
