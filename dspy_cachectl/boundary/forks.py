"""Locks and stores across a fork.

What another thread holds at the moment of a fork stays held in the child for ever: a store's lock, or one inside
SQLite. And SQLite remembers for the process which locks it has on a file, also in the child, where nobody will let go
of them. So a fork waits until no thread is inside SQLite or in a transaction, and the stores renew their locks in the
child.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any, Protocol, TypeVar

L = TypeVar("L")

_LONGEST_WAIT = 10.0
"""How long a fork waits for threads that are inside SQLite, in seconds."""


class _Gate:
    """Lets any number of threads in, and none while the process forks. Who is in may go further in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._forking = 0
        self._own = threading.local()

    def __enter__(self) -> None:
        depth = getattr(self._own, "depth", 0)
        if not depth:
            with self._lock:
                while self._forking:
                    self._changed.wait()
                self._inside += 1
        self._own.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        self._own.depth -= 1
        if self._own.depth:
            return
        with self._lock:
            self._inside -= 1
            if self._forking:
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._forking += 1
            self._changed.wait_for(lambda: self._inside == 0, _LONGEST_WAIT)

    def open(self) -> None:
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()


def lives(number: int) -> bool:
    """Tell whether a process lives."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is another's
    return True


class _Forked(Protocol):
    def after_fork(self) -> None: ...


inside_sqlite = _Gate()
"""Around every use of SQLite, and a transaction from its beginning to its end: `with inside_sqlite: ...`."""

_FORKED: weakref.WeakSet[_Forked] = weakref.WeakSet()


def tell_after_fork(store: _Forked) -> None:
    """Call the store's `after_fork` in every child that is forked while the store lives."""
    _FORKED.add(store)


_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()


def free_after_fork(lock: L) -> L:
    """Return a lock that nobody holds in a child that is forked, whoever held it in its parent."""
    _LOCKS.add(lock)
    return lock


def _in_child() -> None:
    inside_sqlite.__init__()  # type: ignore[misc] # in place: other modules hold the object
    for lock in list(_LOCKS):
        lock._at_fork_reinit()  # noqa: SLF001 - what Python itself does with its own
    for store in list(_FORKED):
        store.after_fork()


if sys.platform != "win32":
    os.register_at_fork(before=inside_sqlite.close, after_in_parent=inside_sqlite.open, after_in_child=_in_child)
