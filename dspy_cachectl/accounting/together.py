"""Counting calls a few at a time: what they have in common is looked up, and locked, once for all of them.

Whoever reads a ledger, or writes how a store is used, has what is noted here added up first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from dspy_cachectl.boundary.forks import tell_after_fork

_MOST = 32
"""How many calls are added up at once, at most."""


class OfCalls(Protocol):
    """What counts calls: a ledger."""

    def record(self, row: Any, tally: Any) -> None:
        """Add what happened to the row."""


class OfEntries(Protocol):
    """What counts calls, and beside the entries that answered them: the use of a store."""

    def count(self, used: Any, tally: Any, served: Iterable[str]) -> None:
        """Add what happened to what is used, and that the entries of these keys were served."""


class Where(NamedTuple):
    """Where a call is counted.

    Attributes:
        ledgers: In which ledgers.
        row: In which row of theirs.
        usage: In the use of which store; None for none.
        used: In which row of that.
    """

    ledgers: tuple[OfCalls, ...]
    row: Hashable
    usage: OfEntries | None
    used: Hashable


class Together:
    """What was counted, and is not added up yet. Thread-safe; a forked child begins with nothing.

    Args:
        new: Makes a tally in which nothing is counted.
    """

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Begin with nothing: the parent adds up what it counted."""
        # A finalizer that reads a ledger may interrupt whoever adds up.
        self._lock = threading.RLock()
        self._noted: deque[tuple[Where, Any, str | None]] = deque()

    def note(self, where: Where, tally: Any, served: str | None) -> None:
        """Count a call, now or with those that follow.

        Args:
            where: Where it is counted.
            tally: What is counted for it, which nobody changes from now on.
            served: The key of the entry that answered it, or None.
        """
        self._noted.append((where, tally, served))
        if len(self._noted) >= _MOST:
            self.add_up()

    def add_up(self) -> None:
        """Let all that was noted be counted where it belongs."""
        with self._lock:
            noted: dict[Where, list[tuple[Any, str | None]]] = {}
            last = None
            while self._noted:
                where, tally, served = self._noted.popleft()
                if where != last:  # as seldom
                    last, calls = where, noted.setdefault(where, [])
                calls.append((tally, served))
            for where, calls in noted.items():
                self._count(where, calls)

    def _count(self, where: Where, calls: Sequence[tuple[Any, str | None]]) -> None:
        total = self._new()
        total.add(*[tally for tally, _ in calls])
        for ledger in where.ledgers:
            ledger.record(where.row, total)
        if where.usage is not None:
            where.usage.count(where.used, total, [served for _, served in calls if served is not None])
