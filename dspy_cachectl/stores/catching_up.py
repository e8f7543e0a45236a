"""Giving a store that was away what it missed, from a nearer one that has it; in the background."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.stores.base import Filed, KnowingStore, Store
from dspy_cachectl.stores.missed import MOST, Missed

_AT_ONCE = 100
_REMEMBERED = 20_000
"""How many entries that a store has taken it is asked for when it is back: it may have lost them."""


@runtime_checkable
class ReturningStore(Store, Protocol):
    """A store that may be away, notices that by itself, and takes many entries at once when it is back."""

    on_back: Callable[[], None] | None

    def give(self, entries: Sequence[tuple[str, Filed, bool]]) -> Mapping[str, StoreError]:
        """Keep entries: of each the key, what belongs to it, and whether it goes in place of what is there.

        Returns:
            Those that it refuses, though it may take others, by their keys, each with the reason.
        """
        ...

    def lost(self, keys: Sequence[str]) -> list[str]:
        """Return those of some keys that are not there."""
        ...


class CatchingUp:
    """What one store missed, and how it gets it.

    Args:
        store: The store.
        source: Returns what a nearer store keeps under a key; None where none does.
        missed: The keys that wait.
        on_fault: Called with an error where something cannot be given, or not be kept for later.
    """

    def __init__(
        self,
        store: ReturningStore,
        source: Callable[[str], Filed | None],
        missed: Missed,
        *,
        on_fault: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._source = source
        self._missed = missed
        self._on_fault = on_fault
        self._taken: deque[str] = deque(maxlen=_REMEMBERED)
        self._may_wait = False
        self._busy = free_after_fork(threading.Lock())
        reference = weakref.ref(self)
        store.on_back = lambda: None if (it := reference()) is None else it.catch_up(after_absence=True)

    def note_taken(self, key: str) -> None:
        """Remember that the store has an entry, as far as it does not lose it; and give it what it has refused."""
        self._taken.append(key)
        if self._may_wait and not self._busy.locked():
            self.begin()

    def note_missed(self, key: str, *, replaces: bool) -> None:
        """Let an entry wait for the store."""
        try:
            has_room = self._missed.add(key, replaces=replaces)
        except StoreError as error:
            self._on_fault(error)
            return
        self._may_wait = True
        if not has_room:
            self._on_fault(
                StoreUnavailableError(
                    f"more than {MOST:,} entries wait for the store {self._store.location}: this one is kept here alone"
                )
            )

    def begin(self) -> None:
        """Give the store what earlier processes could not, in a thread of its own."""
        if self._missed.exists():
            with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                threading.Thread(target=self.catch_up, name="dspy-cachectl-catching-up", daemon=True).start()

    def catch_up(self, *, after_absence: bool = False) -> None:
        """Give the store what waits for it, as far as it takes it; after an absence also what it has lost."""
        if not self._busy.acquire(blocking=False):
            return
        self._may_wait = False
        refused: set[str] = set()
        try:
            if after_absence:
                self._find_lost()
            while waiting := self._missed.first(_AT_ONCE, besides=refused):
                refused.update(self._give(waiting))
                given = waiting.keys() - refused
                self._taken.extend(given)  # it may lose these, too
                self._missed.remove(given)
        except StoreError as error:
            self._on_fault(error)  # it is away again; the rest waits
        finally:
            self._busy.release()

    def _find_lost(self) -> None:
        taken = list(dict.fromkeys(self._taken))
        for start in range(0, len(taken), _AT_ONCE):
            some = taken[start : start + _AT_ONCE]
            lost = self._store.lost(some)
            if lost:
                self._give(dict.fromkeys(lost, False))

    def _give(self, keys: dict[str, bool]) -> Collection[str]:
        """Give it what belongs to some keys. Return those that it refuses: they wait on."""
        found = ((key, self._source(key), replaces) for key, replaces in keys.items())
        # What is nowhere any more was removed meanwhile.
        refused = self._store.give([(key, filed, replaces) for key, filed, replaces in found if filed is not None])
        for error in refused.values():
            self._on_fault(error)
        return refused

    def close(self) -> None:
        """Let go of what is kept beside a folder."""
        self._missed.close()


def catching_up(
    store: Store, nearer: Sequence[Store], source: Callable[[str], Filed | None], on_fault: Callable[[StoreError], None]
) -> CatchingUp | None:
    """Return what lets a store catch up; None where it needs none, or no nearer store has what it missed."""
    from dspy_cachectl.stores.reader import FolderReader

    if not isinstance(store, ReturningStore) or not nearer or not isinstance(store, KnowingStore):
        return None
    folder = next((one.path for one in nearer if isinstance(one, FolderReader)), None)
    return CatchingUp(store, source, Missed(folder, store.location), on_fault=on_fault)
