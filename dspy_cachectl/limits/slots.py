"""Who goes when: for each name the time from which on the next may go, in this process, in a folder or in a server."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.stores.base import Store
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.disk import DiskStore

NAME = "rates.db"
"""The file in a store's folder."""

_LONGEST, _MOST = 3600.0, 1000
"""Nobody waits for more seconds, and for more others, than these: a time that is farther away is of a wrong clock."""
_SCHEMA = ("CREATE TABLE free (name TEXT PRIMARY KEY, at REAL) WITHOUT ROWID",)

Claims = Mapping[str, float]
"""For how many seconds somebody who goes keeps others from going, by name."""


class Slots(Protocol):
    """The times from which on the next may go, by name. Thread-safe; raises the `StoreError` family."""

    def take(self, claims: Claims) -> float:
        """Take the next time that is free for all names. Return in how many seconds it is."""
        ...

    def put_off(self, claims: Claims) -> None:
        """Let the next go so much later, or sooner where it is less than 0, for each name."""
        ...


class OwnSlots:
    """The times of this process alone."""

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._free: dict[str, float] = {}

    def take(self, claims: Claims) -> float:
        """Take the next time that is free for all names. Return in how many seconds it is."""
        with self._lock:
            now = time.monotonic()
            at = _first(now, [self._free.get(name) for name in claims], claims)
            self._free.update({name: at + seconds for name, seconds in claims.items()})
            return at - now

    def put_off(self, claims: Claims) -> None:
        """Let the next go so much later, for each name."""
        with self._lock:
            for name, seconds in claims.items():
                self._free[name] = self._free.get(name, time.monotonic()) + seconds


class FileSlots:
    """The times of all processes of one machine that use a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder / NAME, kind="rates", version=1, schema=_SCHEMA, keep_open=True)

    def take(self, claims: Claims) -> float:
        """Take the next time that is free for all names. Return in how many seconds it is."""
        with self._database.change() as sql:
            now = time.time()
            at = _first(now, [_at(sql, name) for name in claims], claims)
            for name, seconds in claims.items():
                sql("INSERT OR REPLACE INTO free VALUES (?, ?)", _hashed(name), at + seconds)
        return at - now

    def put_off(self, claims: Claims) -> None:
        """Let the next go so much later, for each name."""
        with self._database.change() as sql:
            for name, seconds in claims.items():
                sql("UPDATE free SET at = at + ? WHERE name = ?", seconds, _hashed(name))


class RedisSlots:
    """The times of all who use a server.

    Args:
        store: The store there.
    """

    def __init__(self, store: Any) -> None:
        from dspy_cachectl.stores.redis import rates

        self._take, self._put_off = partial(rates.take, store), partial(rates.put_off, store)

    def take(self, claims: Claims) -> float:
        """Take the next time that is free for all names. Return in how many seconds it is."""
        return self._take({_hashed(name): seconds for name, seconds in claims.items()}, _utmost(claims))

    def put_off(self, claims: Claims) -> None:
        """Let the next go so much later, for each name."""
        self._put_off({_hashed(name): seconds for name, seconds in claims.items()})


def slots_of(stores: Sequence[Store]) -> dict[str, Callable[[], Slots]]:
    """Return what makes the slots of some stores, by where they are: that which most processes share first."""
    found: dict[str, Callable[[], Slots]] = {}
    for store in reversed(stores):
        if isinstance(store, DiskStore):
            found[store.location] = partial(FileSlots, store.path)
        elif hasattr(store, "names") and hasattr(store, "client"):
            found[store.location] = partial(RedisSlots, store)
    return found


def _first(now: float, free: Sequence[float | None], claims: Claims) -> float:
    utmost = now + _utmost(claims)
    return max([now, *(at for at in free if at is not None and at < utmost)])


def _utmost(claims: Claims) -> float:
    return max(_LONGEST, _MOST * max(claims.values(), default=0.0))


def _at(sql: Callable[..., list[tuple[Any, ...]]], name: str) -> float | None:
    found = sql("SELECT at FROM free WHERE name = ?", _hashed(name))
    return float(found[0][0]) if found else None


def _hashed(name: str) -> str:
    """Return a name as it is written down: of a store that is encrypted nobody reads which models it asks."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20]
