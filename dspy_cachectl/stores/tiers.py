"""Several stores as one: the nearest first, filled upward, and a faulty one set aside for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.stores.base import CountingStore, KnowingStore, Label, Put, Store
from dspy_cachectl.stores.memory import MemoryStore

_SLOW = 1.0
"""A fault that took this many seconds would hold up every call; the store is set aside."""

_REST = 30.0
"""For how many seconds it is set aside."""

Into = Literal["all", "memory", "disk"]

Doing = Literal["read", "write"]

OnFault = Callable[[Doing, StoreError], None]

_T = TypeVar("_T")


@dataclass
class _Tier:
    store: Store
    # Apart, because a store that cannot be written for a while may have answers to give all the same.
    rests_until: dict[Doing, float] = field(default_factory=lambda: {"read": 0.0, "write": 0.0})

    @property
    def is_memory(self) -> bool:
        return isinstance(self.store, MemoryStore)


class Tiers:
    """Stores in the order in which they are asked. No fault of one reaches the caller.

    Args:
        stores: The stores, nearest first.
        on_fault: Called with `"read"` or `"write"` and the error whenever a store fails.
        for_memory: Returns what of an entry's bytes is kept in memory, where a store behind it has them whole.

    Attributes:
        stores: The stores.
        memory: The first of them, where that is this process's memory; or None.
    """

    def __init__(
        self, stores: Sequence[Store], *, on_fault: OnFault, for_memory: Callable[[bytes], bytes] = bytes
    ) -> None:
        self.stores = tuple(stores)
        self._tiers = [_Tier(store) for store in stores]
        self._on_fault = on_fault
        self._for_memory = for_memory
        first = self.stores[0] if self.stores else None
        self.memory = first if isinstance(first, MemoryStore) else None

    def peek(self, key: str) -> bytes | None:
        """Return the bytes kept under a key by the memory in front, or None; never waits for a disk."""
        return None if self.memory is None else self.memory.get(key)

    def get(self, key: str, *, behind: bool = False) -> bytes | None:
        """Return the bytes that the nearest store keeps under a key, or None; the ones before it are filled.

        Args:
            key: The key.
            behind: Do not ask the memory, where what another process has written since is not to be seen, or what is
                kept in memory is not enough. Otherwise they are as the memory keeps them from then on.
        """
        for index, tier in enumerate(self._tiers):
            if behind and tier.is_memory and len(self._tiers) > 1:
                continue
            value = self._try(tier, "read", partial(tier.store.get, key))
            if value is not None:
                for nearer in self._tiers[:index]:
                    kept = self._for_memory(value) if nearer.is_memory else value
                    self._try(nearer, "write", partial(nearer.store.put, key, kept, Label()))
                    value = value if behind else kept
                return value
        return None

    def put(self, key: str, value: bytes, label: Label, *, mark: str = "", into: Into = "all") -> Put | None:
        """Keep bytes under a key in every store, only in memory, or only behind the memory.

        Args:
            key: The key.
            value: The bytes.
            label: What they are filed under.
            mark: What they are known by again, where that is known.
            into: Which stores.

        Returns:
            What the farthest store that took them found, since others ask that one too. None where none knows marks, or
            none took them.
        """
        found: Put | None = None
        for tier in reversed(self._tiers_of(into)):
            put = self._put(tier, key, value, label, mark, behind=found)
            if found is None or found.marks is None:
                found = put or found
        return found

    def put_first(
        self, key: str, value: bytes, label: Label, *, mark: str, into: Into = "all", instead_of: bytes | None = None
    ) -> Put | None:
        """Keep bytes under a key in the stores that `put` would, unless the farthest that can be reached has others.

        What others ask too decides; the stores in front of it are given what it has. Of stores that are no
        `KnowingStore`, what is there is asked first, so that only who comes later is told.

        Args:
            key: See `put`; likewise the next four.
            value: See there.
            label: See there.
            mark: See there.
            into: See there.
            instead_of: What may be there, and goes (see `KnowingStore.put_first`).
        """
        found: Put | None = None
        for tier in reversed(self._tiers_of(into)):
            if found is not None:
                kept = value if found.there is None else found.there
                self._put(tier, key, kept, label, mark, behind=found)
            elif isinstance(tier.store, KnowingStore):
                first = partial(tier.store.put_first, key, value, label, mark, instead_of=instead_of)
                found = self._try(tier, "write", first)
            else:
                found = self._try(tier, "write", partial(_put_unless_there, tier.store, key, value, label, instead_of))
        return found

    def _put(self, tier: _Tier, key: str, value: bytes, label: Label, mark: str, *, behind: Put | None) -> Put | None:
        """Keep bytes in one store. What one behind it has whole, and knows by its mark, it need not have so, too."""
        if behind is not None:
            value = self._for_memory(value) if tier.is_memory else value
            mark = mark if behind.marks is None else ""
        return self._try(tier, "write", partial(_put, tier.store, key, value, label, mark))

    def _tiers_of(self, into: Into) -> list[_Tier]:
        return [tier for tier in self._tiers if into == "all" or tier.is_memory == (into == "memory")]

    def marked(self, name: str) -> dict[str, str]:
        """Return the marks that have a name, each with a key, in any of the stores."""
        known: dict[str, str] = {}
        for tier in reversed(self._tiers):
            if isinstance(tier.store, KnowingStore):
                known = {**(self._try(tier, "read", partial(tier.store.marked, name)) or {}), **known}
        return known

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys of all stores, each once, newest first within a store."""
        seen: set[str] = set()
        for store in reversed(self.stores):
            try:
                for key in store.keys(kind):
                    if key not in seen:
                        seen.add(key)
                        yield key
            except StoreError as error:
                self._on_fault("read", error)

    def labels(self) -> set[Label]:
        """Return what entries are filed under in any of the stores."""
        return {label for tier in self._tiers for label in self._try(tier, "read", tier.store.labels) or ()}

    def add_usage(self, used: Mapping[Label, Mapping[str, float]], served: Mapping[str, int]) -> bool:
        """Add to what the stores count of their use. Tell whether it is counted, as far as any of them counts."""
        taken = [
            self._try(tier, "write", partial(_add_usage, tier.store, used, served))
            for tier in self._tiers
            if isinstance(tier.store, CountingStore)
        ]
        return not taken or any(taken)

    def clear_memory(self) -> None:
        """Forget what is kept in memory; the other stores keep it."""
        for store in self.stores:
            if isinstance(store, MemoryStore):
                store.clear()

    def close(self) -> None:
        """Close every store."""
        for store in self.stores:
            store.close()

    def _try(self, tier: _Tier, doing: Doing, action: Callable[[], _T]) -> _T | None:
        started = time.monotonic()
        if started < tier.rests_until[doing]:
            self._on_fault(doing, StoreUnavailableError(f"{_name(tier)} is set aside for a while after a slow failure"))
            return None
        try:
            return action()
        except StoreError as error:
            failed = error
        except Exception as error:  # noqa: BLE001 - a paid answer does not depend on the manners of somebody's own store
            failed = StoreUnavailableError(f"{_name(tier)} failed: {error!r}")
            failed.__cause__ = error
        now = time.monotonic()
        if isinstance(failed, StoreUnavailableError) and now - started > _SLOW:
            tier.rests_until[doing] = now + _REST
        self._on_fault(doing, failed)
        return None


def _name(tier: _Tier) -> str:
    return f"the store {tier.store.location}"


def _put(store: Store, key: str, value: bytes, label: Label, mark: str) -> Put:
    if mark and isinstance(store, KnowingStore):
        return store.put_marked(key, value, label, mark)
    store.put(key, value, label)
    return Put(None, None)


def _put_unless_there(store: Store, key: str, value: bytes, label: Label, instead_of: bytes | None) -> Put:
    there = store.get(key)
    if there not in {None, instead_of}:
        return Put(there, None)
    store.put(key, value, label)
    return Put(None, None)


def _add_usage(store: CountingStore, used: Mapping[Label, Mapping[str, float]], served: Mapping[str, int]) -> bool:
    store.add_usage(used, served)
    return True
