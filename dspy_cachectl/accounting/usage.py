"""How the entries of a store are used: added up in memory, and kept beside the entries.

Each process keeps one entry of its own with its running total, and overwrites it: writing it twice counts nothing
twice, and no process waits for another. The total names its process, so that totals of processes that have ended can
be put together into one entry: as long as both are there, whoever reads takes each process once.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from multiprocessing import util as multiprocessing_util
from typing import Any

from dspy_cachectl.accounting.ledger import FIELDS, Tally
from dspy_cachectl.entries import records
from dspy_cachectl.errors import CorruptEntryError, StoreError
from dspy_cachectl.stores import USAGE_KIND, Label
from dspy_cachectl.stores.forks import tell_after_fork
from dspy_cachectl.stores.tiers import Doing, OnFault, Tiers

_EVERY = 60.0
"""After how many seconds a call that is counted brings what is stored up to date."""
_MOST_KEYS = 100_000
"""Of how many entries it is remembered that they were served, while the store cannot be written."""
_MOST_ENTRIES = 200
"""From this many on, the entries of processes that have ended are put together."""
_RESTS = 86_400.0
"""A process that wrote nothing for so many seconds begins another entry, so that nobody waits for it with the old."""
_OVER = 2 * _RESTS
"""After so many seconds an entry is never written again, even where clocks differ or its process was killed."""

Used = tuple[str, str, str, str, str]
"""What a tally is kept for: the fields of a `Label`, in their order. Making a label takes longer than counting."""


@dataclass(frozen=True)
class Total:
    """What one process did with a store.

    Attributes:
        updated: When it was written, in Unix seconds.
        ended: Whether the process said that it writes no more.
        rows: The tallies.
    """

    updated: float
    ended: bool
    rows: Mapping[Label, Tally]


@dataclass
class UsageTotals:
    """What all processes did with a store, each counted once.

    Attributes:
        totals: The total of each process, by its name.
        damaged: How many entries could not be read.
    """

    totals: dict[str, Total] = field(default_factory=dict)
    damaged: int = 0

    @classmethod
    def of(cls, entries: Iterable[bytes]) -> UsageTotals:
        """Put together what the entries of kind `usage` say."""
        found = cls()
        for data in entries:
            try:
                for name, total in _decode(data).items():
                    known = found.totals.get(name)
                    if known is None or known.updated < total.updated:
                        found.totals[name] = total
            except StoreError:
                found.damaged += 1
        return found

    def rows(self) -> dict[Label, Tally]:
        """Return the sums of all processes."""
        rows: dict[Label, Tally] = {}
        for total in self.totals.values():
            for label, tally in total.rows.items():
                rows.setdefault(label, Tally()).add(tally)
        return rows


class Usage:
    """Adds up what this process does with its stores. Thread-safe; a forked child begins with nothing.

    Nothing here raises: a total that cannot be written is told to `on_fault`, kept, and written the next time.

    Args:
        tiers: Where entries live. Memory is left out: it ends with the process.
        on_fault: Called with `"read"` or `"write"` and the error whenever a store fails.
    """

    def __init__(self, tiers: Tiers, *, on_fault: OnFault) -> None:
        self._tiers = tiers.behind(on_fault=self._failed)
        self._on_fault = on_fault
        self._closed = False
        self.after_fork()
        tell_after_fork(self)
        _OPEN.add(self)

    def after_fork(self) -> None:
        """Begin with nothing: the parent keeps what it counted."""
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._begin()
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
        with self._lock:
            kept = self._rows.get(used)
            if kept is None:
                kept = self._rows[used] = Tally()
            kept.add(tally)
            if served is not None:
                self._served[served] = self._served.get(served, 0) + 1
        if time.monotonic() > self._due or len(self._served) > _MOST_KEYS:
            self.flush(wait=False)

    def flush(self, *, ended: bool = False, wait: bool = True) -> None:
        """Bring what is stored up to date.

        Args:
            ended: Whether this is the last time.
            wait: Whether to wait for another thread that is at it.
        """
        if not self._tiers.stores or self._closed or not self._writing.acquire(blocking=wait):
            return
        try:
            self._closed = ended
            self._due = time.monotonic() + _EVERY
            self._write(ended=ended)
        except Exception as error:  # noqa: BLE001 - counting may never end a call or a phase
            self._failed("write", CorruptEntryError(f"the statistics of use could not be written: {error!r}"))
        finally:
            self._writing.release()

    def _begin(self) -> None:
        self._name = uuid.uuid4().hex
        self._total: dict[Used, Tally] = {}
        self._written = 0.0
        self._folded = False

    def _write(self, *, ended: bool) -> None:
        with self._lock:
            rows, self._rows = self._rows, {}
            served, self._served = self._served, {}
        rested = self._written and time.time() - self._written > _RESTS
        if rows or (ended and self._written and not rested):
            if rested:
                self._begin()
            total = _sum(self._total, rows)
            now = max(time.time(), self._written + 0.001)  # of two totals the later one holds the other
            if not self._put(f"{USAGE_KIND}:{self._name}", {self._name: _plain(total, updated=now, ended=ended)}, now):
                self._take_back(rows, served)
                return
            self._total, self._written = total, now
        if served and not self._without_fault(lambda: self._tiers.note_served(served)):
            self._take_back({}, served)
        if rows and not self._folded:
            self._folded = True
            self._fold()

    def _take_back(self, rows: dict[Used, Tally], served: dict[str, int]) -> None:
        with self._lock:
            self._rows = _sum(rows, self._rows)
            if len(served) <= _MOST_KEYS:
                for key, count in served.items():
                    self._served[key] = self._served.get(key, 0) + count

    def _put(self, key: str, processes: dict[str, Any], now: float) -> bool:
        origin = records.Origin(kind=USAGE_KIND, model="", created=now)
        data = records.encode(origin, {"processes": processes})
        return self._without_fault(lambda: self._tiers.put(key, data, Label(kind=USAGE_KIND)))

    def _without_fault(self, action: Callable[[], None]) -> bool:
        self._faults = 0
        action()
        return not self._faults

    def _failed(self, doing: Doing, error: StoreError) -> None:
        self._faults = 1
        self._on_fault(doing, error)

    def _fold(self) -> None:
        """Put the totals of processes that have ended into one entry, where there are many."""
        keys = list(self._tiers.keys(USAGE_KIND))
        if len(keys) <= _MOST_ENTRIES:
            return
        now = time.time()
        over: dict[str, bytes] = {}
        for key in keys:
            # One that is damaged stays: it is counted wherever the totals are read.
            with contextlib.suppress(StoreError):
                data = self._tiers.get(key) or b""
                if all(total.ended or now - total.updated > _OVER for total in _decode(data).values()):
                    over[key] = data
        processes = {
            name: _plain(
                {astuple(label): tally for label, tally in total.rows.items()},
                updated=total.updated,
                ended=total.ended,
            )
            for name, total in UsageTotals.of(over.values()).totals.items()
        }
        if len(over) > 1 and self._put(f"{USAGE_KIND}:{uuid.uuid4().hex}", processes, now):
            for store in self._tiers.stores:
                for key in over:
                    try:
                        store.delete(key)
                    except StoreError as error:
                        self._failed("write", error)
                        break


def _sum(*several: Mapping[Used, Tally]) -> dict[Used, Tally]:
    total: dict[Used, Tally] = {}
    for rows in several:
        for used, tally in rows.items():
            total.setdefault(used, Tally()).add(tally)
    return total


def _plain(rows: Mapping[Any, Tally], *, updated: float, ended: bool) -> dict[str, Any]:
    return {
        "updated": updated,
        "ended": ended,
        "rows": [[*used, {name: n for name in FIELDS if (n := getattr(tally, name))}] for used, tally in rows.items()],
    }


def _decode(data: bytes) -> dict[str, Total]:
    answer = records.decode(data).answer
    try:
        return {
            name: Total(
                updated=float(total["updated"]),
                ended=bool(total["ended"]),
                rows={Label(*map(str, row[:5])): _tally(row[5]) for row in total["rows"]},
            )
            for name, total in answer["processes"].items()
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise CorruptEntryError(f"the statistics of use cannot be decoded: {error!r}") from error


def _tally(counters: Mapping[str, Any]) -> Tally:
    for name, amount in counters.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"{name} is {amount!r}, which is no number")
    return Tally(**{name: counters[name] for name in FIELDS if name in counters})


_OPEN: weakref.WeakSet[Usage] = weakref.WeakSet()


def _flush_all() -> None:
    for usage in list(_OPEN):
        usage.flush(ended=True)


def _at_end_of_child(_: object) -> None:
    # A child of multiprocessing leaves without Python's own way out.
    multiprocessing_util.Finalize(None, _flush_all, exitpriority=0)


atexit.register(_flush_all)
multiprocessing_util.register_after_fork(_flush_all, _at_end_of_child)
