"""How the entries of a store are used: added up in memory, and then added to what the store says of itself.

What a process counted is added in one transaction, so it is counted once, and no process waits for another.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from multiprocessing import util as multiprocessing_util

from dspy_cachectl.accounting.ledger import FIELDS, TOGETHER, Tally
from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.base import OTHERS
from dspy_cachectl.stores.tiers import OnFault, Tiers

_EVERY = 60.0
"""After how many seconds a call that is counted brings what is stored up to date."""
_MOST_KEYS = 100_000
"""Of how many entries it is remembered that they were served, while the store cannot be written."""

_MOST_ROWS = 10_000

Used = tuple[str, str, str, str, str]
"""What a tally is kept for: the fields of a `Label`, in their order. Making a label takes longer than counting."""


class Usage:
    """Adds up what this process does with its stores. Thread-safe; a forked child begins with nothing.

    Nothing here raises: what cannot be written is kept, and written the next time.

    Args:
        tiers: Where entries live. They tell what fails.
        on_fault: Called with `"write"` and the error where something else fails.
    """

    def __init__(self, tiers: Tiers, *, on_fault: OnFault) -> None:
        self._tiers = tiers
        self._on_fault = on_fault
        self.after_fork()
        tell_after_fork(self)
        _OPEN.add(self)

    def after_fork(self) -> None:
        """Begin with nothing: the parent keeps what it counted."""
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._rows: dict[Used, Tally] = {}
        self._served: dict[str, int] = {}
        self._due = time.monotonic() + _EVERY

    def record(self, used: Used, tally: Tally, served: str | None) -> None:
        """Count a call.

        Args:
            used: What it is counted for.
            tally: What happened to it.
            served: The key of the entry that answered it, or None.
        """
        self.count(used, tally, () if served is None else (served,))
        self.flush_if_due()

    def count(self, used: Used, tally: Tally, served: Iterable[str]) -> None:
        """Count likewise some calls, and write nothing.

        Args:
            used: What they are counted for.
            tally: What happened to them.
            served: The keys of the entries that answered them.
        """
        with self._lock:
            kept = self._rows.get(used)
            if kept is None:
                kept = self._rows.setdefault(self._place(used), Tally())
            kept.add(tally)
            for key in served:
                self._served[key] = self._served.get(key, 0) + 1

    def note_served(self, keys: Iterable[str]) -> None:
        """Note beside entries that they were served, in a call that is counted as a whole."""
        with self._lock:
            for key in keys:
                self._served[key] = self._served.get(key, 0) + 1
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Bring what is stored up to date, where that was not done for a while."""
        if time.monotonic() > self._due or len(self._served) > _MOST_KEYS:
            self.flush(wait=False)

    def _place(self, used: Used) -> Used:
        """Return what is counted for: where too much is told apart while the store cannot be written, only the kind."""
        kind = used[0]
        return used if len(self._rows) < _MOST_ROWS or used in self._rows else (kind, OTHERS, OTHERS, "", "")

    def flush(self, *, wait: bool = True) -> None:
        """Bring what is stored up to date.

        Args:
            wait: Whether to wait for another thread that is at it.
        """
        TOGETHER.add_up()
        if not self._writing.acquire(blocking=wait):
            return
        try:
            self._due = time.monotonic() + _EVERY
            self._write()
        except Exception as error:  # noqa: BLE001 - counting may never end a call or a phase
            self._on_fault("write", CorruptEntryError(f"the statistics of use could not be written: {error!r}"))
        finally:
            self._writing.release()

    def _write(self) -> None:
        with self._lock:
            rows, self._rows = self._rows, {}
            served, self._served = self._served, {}
        used = {Label(*used): _counters(tally) for used, tally in rows.items()}
        if (used or served) and not self._tiers.add_usage(used, served):
            self._take_back(rows, served)

    def _take_back(self, rows: Mapping[Used, Tally], served: Mapping[str, int]) -> None:
        with self._lock:
            for used, tally in rows.items():
                self._rows.setdefault(self._place(used), Tally()).add(tally)
            if len(served) <= _MOST_KEYS:
                for key, count in served.items():
                    self._served[key] = self._served.get(key, 0) + count


def _counters(tally: Tally) -> dict[str, float]:
    # What was removed to make room the store counts itself, under what that was filed under.
    return {name: amount for name in FIELDS if name != "evicted" and (amount := getattr(tally, name))}


_OPEN: weakref.WeakSet[Usage] = weakref.WeakSet()


def _flush_all() -> None:
    for usage in list(_OPEN):
        usage.flush()


def _at_end_of_child(_: object) -> None:
    # A child of multiprocessing leaves without Python's own way out.
    multiprocessing_util.Finalize(None, _flush_all, exitpriority=0)


atexit.register(_flush_all)
multiprocessing_util.register_after_fork(_flush_all, _at_end_of_child)
