"""Several stores as one: the nearest first, filled upward, and a faulty one set aside for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.stores.base import Label, Store
from dspy_cachectl.stores.memory import MemoryStore

_SLOW = 1.0
"""A fault that took this many seconds would hold up every call; the store is set aside."""

_REST = 30.0
"""For how many seconds it is set aside."""

Into = Literal["all", "memory", "behind"]

Doing = Literal["read", "write"]

OnFault = Callable[[Doing, StoreError], None]


@dataclass
class _Tier:
    store: Store
    # Apart, because a store that cannot be written for a while may have answers to give all the same.
    rests_until: dict[Doing, float] = field(default_factory=lambda: {"read": 0.0, "write": 0.0})

    def run(self, doing: Doing, action: Callable[[], bytes | None]) -> bytes | None:
        if time.monotonic() < self.rests_until[doing]:
            raise StoreUnavailableError(
                f"the store {self.store.location} is set aside for a while after a slow failure"
            )
        started = time.monotonic()
        try:
            return self._asked(action)
        except StoreUnavailableError:
            if time.monotonic() - started > _SLOW:
                self.rests_until[doing] = time.monotonic() + _REST
            raise

    def _asked(self, action: Callable[[], bytes | None]) -> bytes | None:
        try:
            return action()
        except StoreError:
            raise
        except Exception as error:
            # Somebody's own store may raise anything; a paid answer does not depend on its manners.
            raise StoreUnavailableError(f"the store {self.store.location} failed: {error!r}") from error


class Tiers:
    """Stores in the order in which they are asked. No fault of one reaches the caller.

    Args:
        stores: The stores, nearest first.
        on_fault: Called with `"read"` or `"write"` and the error whenever a store fails.
    """

    def __init__(self, stores: Sequence[Store], *, on_fault: OnFault) -> None:
        self.stores = tuple(stores)
        self._tiers = [_Tier(store) for store in stores]
        self._on_fault = on_fault

    def behind(self, *, on_fault: OnFault) -> Tiers:
        """Return the stores behind the memory, as tiers that are set aside together with these."""
        others = Tiers((), on_fault=on_fault)
        others._tiers = [tier for tier in self._tiers if not isinstance(tier.store, MemoryStore)]
        others.stores = tuple(tier.store for tier in others._tiers)
        return others

    @property
    def location(self) -> str:
        """The stores' locations."""
        return " > ".join(store.location for store in self.stores)

    def peek(self, key: str) -> bytes | None:
        """Return the bytes kept under a key by the memory in front, or None; never waits for a disk."""
        first = self.stores[0] if self.stores else None
        return first.get(key) if isinstance(first, MemoryStore) else None

    def get(self, key: str, *, behind: bool = False) -> bytes | None:
        """Return the bytes that the nearest store keeps under a key, or None; the ones before it are filled.

        Args:
            key: The key.
            behind: Do not ask the memory, where what another process has written since is not to be seen.
        """
        for index, tier in enumerate(self._tiers):
            if behind and isinstance(tier.store, MemoryStore) and len(self._tiers) > 1:
                continue
            try:
                value = tier.run("read", lambda tier=tier: tier.store.get(key))  # type: ignore[misc]
            except StoreError as error:
                self._on_fault("read", error)
                continue
            if value is not None:
                self._fill(self._tiers[:index], key, value)
                return value
        return None

    def put(self, key: str, value: bytes, label: Label, *, into: Into = "all") -> None:
        """Keep bytes under a key in every store, only in memory, or only behind the memory."""
        for tier in self._tiers:
            if into != "all" and isinstance(tier.store, MemoryStore) != (into == "memory"):
                continue
            try:
                tier.run("write", lambda tier=tier: tier.store.put(key, value, label))  # type: ignore[misc]
            except StoreError as error:
                self._on_fault("write", error)

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
        found: set[Label] = set()
        for store in self.stores:
            try:
                found.update(store.labels())
            except StoreError as error:
                self._on_fault("read", error)
        return found

    def note_served(self, counts: Mapping[str, int]) -> None:
        """Note in every store how often its entries were served."""
        for tier in self._tiers:
            try:
                tier.run("write", lambda tier=tier: tier.store.note_served(counts))  # type: ignore[misc]
            except StoreError as error:
                self._on_fault("write", error)

    def clear_memory(self) -> None:
        """Forget what is kept in memory; the other stores keep it."""
        for store in self.stores:
            if isinstance(store, MemoryStore):
                store.clear()

    def close(self) -> None:
        """Close every store."""
        for store in self.stores:
            store.close()

    def _fill(self, tiers: Sequence[_Tier], key: str, value: bytes) -> None:
        for tier in tiers:
            try:
                tier.run("write", lambda tier=tier: tier.store.put(key, value, Label()))  # type: ignore[misc]
            except StoreError as error:
                self._on_fault("write", error)
