"""Several stores as one: the nearest first, filled upward, and a faulty one set aside for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.stores.base import CountingStore, Filed, FilingStore, KnowingStore, Label, Put, Store
from dspy_cachectl.stores.catching_up import CatchingUp, catching_up
from dspy_cachectl.stores.leases import Lease, LeasingStore
from dspy_cachectl.stores.memory import MemoryStore
from dspy_cachectl.stores.registers.base import IN_MEMORY, Register, RegisteringStore

_SLOW = 1.0
"""Faults that took this many seconds together hold up every call; the store is set aside."""

_REST = 30.0
"""For how many seconds it is set aside, and for how many faults are counted together."""

Into = Literal["all", "memory", "disk"]

Doing = Literal["read", "write"]

Form = Callable[[bytes, str], bytes]

OnFault = Callable[[Doing, StoreError], None]

_T = TypeVar("_T")


@dataclass
class _Tier:
    store: Store
    # Apart, because a store that cannot be written for a while may have answers to give all the same.
    rests_until: dict[Doing, float] = field(default_factory=lambda: {"read": 0.0, "write": 0.0})
    lost: dict[Doing, float] = field(default_factory=lambda: {"read": 0.0, "write": 0.0})
    lost_since: float = 0.0
    catching_up: CatchingUp | None = None

    def __post_init__(self) -> None:
        self.is_memory = isinstance(self.store, MemoryStore)
        # Once: to ask a store whether it has all the methods of another takes as long as a look into it.
        self.knowing = self.store if isinstance(self.store, KnowingStore) else None
        self._files = self.store if isinstance(self.store, FilingStore) and not self.is_memory else None

    def put(self, key: str, value: bytes, label: Label, mark: str) -> Put:
        """Keep bytes under a key with their mark, where there is one and the store takes it."""
        if mark and self.knowing is not None:
            return self.knowing.put_marked(key, value, label, mark)
        self.store.put(key, value, label)
        return Put(None, None)

    def filed(self, key: str) -> Filed | None:
        """Return what is kept under a key, with what it is filed under as far as the store tells that."""
        if self._files is not None:
            return self._files.get_filed(key)
        value = self.store.get(key)
        return None if value is None else Filed(value, Label())


class Tiers:
    """Stores in the order in which they are asked. No fault of one reaches the caller.

    Args:
        stores: The stores, nearest first.
        on_fault: Called with `"read"` or `"write"` and the error whenever a store fails.
        for_memory: Returns what of an entry's bytes is kept in memory, where a store behind it has them whole; given
            the bytes and the key.
        for_store: Returns an answer's bytes as stores behind the memory are to keep them; given the same.

    Attributes:
        stores: The stores.
        memory: The first of them, where that is this process's memory; or None.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        on_fault: OnFault,
        for_memory: Form = lambda value, _: value,
        for_store: Form = lambda value, _: value,
    ) -> None:
        self.stores = tuple(stores)
        self._tiers = [_Tier(store) for store in stores]
        self._on_fault = on_fault
        self._for_memory = for_memory
        self._for_store = for_store
        for index, tier in enumerate(self._tiers):
            source = partial(_source, self.stores[:index], for_store)
            tier.catching_up = catching_up(tier.store, self.stores[:index], source, partial(on_fault, "write"))
        for tier in self._tiers:
            if tier.catching_up is not None:
                tier.catching_up.begin()
        self._register: Register | None = None
        self._leasing = [store for store in self.stores if isinstance(store, LeasingStore)]
        first = self.stores[0] if self.stores else None
        self.memory = first if isinstance(first, MemoryStore) else None
        second = self.stores[1] if len(self.stores) > 1 else None
        self._glancing, self._glancing_all = (getattr(second, name, None) for name in ("glance", "glance_all"))

    def peek(self, key: str) -> bytes | None:
        """Return the bytes kept under a key by the memory in front, or None; never waits for a disk."""
        return None if self.memory is None else self.memory.get(key)

    @property
    def glances(self) -> bool:
        """Whether `glance` looks into every store: not while the folder is closed."""
        return self._glancing is not None and len(self._tiers) == 2 and bool(getattr(self.stores[1], "is_open", False))

    @property
    def has_turns(self) -> bool:
        """Whether there is a store in which those who ask for the same can know of one another."""
        return bool(self._leasing)

    def glance(self, key: str) -> bytes | None:
        """Return likewise what a folder behind that keeps, where it can be read at once; `get` says why it cannot."""
        if self.memory is None or (kept := self.memory.get(key)) is not None or self._glancing is None:
            return None if self.memory is None else kept
        found = self._glancing(key)
        return None if found is None else self._fill(self._tiers[:1], key, found)

    def glance_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what `glance` does of each of some keys; the folder is looked into once for all of them."""
        if self.memory is None:
            return [None] * len(keys)
        kept = self.memory.get_all(keys)
        if self._glancing_all is None or None not in kept:
            return kept
        found: dict[str, Filed] = self._glancing_all(
            [key for key, value in zip(keys, kept, strict=True) if value is None]
        )
        for_memory = {key: (self._for_memory(value, key), label) for key, (value, label, _) in found.items()}
        self._try(self._tiers[0], "write", partial(self.memory.put_all, for_memory))
        return [
            for_memory[key][0] if value is None and key in for_memory else value
            for key, value in zip(keys, kept, strict=True)
        ]

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
            if not index:
                value = self._try(tier, "read", partial(tier.store.get, key))
                if value is not None:
                    return value
                continue
            found = self._try(tier, "read", partial(tier.filed, key))
            if found is not None:
                kept = self._fill(self._tiers[:index], key, found)
                return found.value if behind else kept
        return None

    def beyond(self, key: str, opened: Callable[[bytes], _T | None], *, replaces: bool) -> tuple[_T, bytes] | None:
        """Return what a farther store keeps under a key, where what is nearest cannot be read; opened, and its bytes.

        Args:
            key: The key.
            opened: Opens bytes, or returns None where they cannot be used either.
            replaces: Whether it takes the place of what is nearer.
        """
        for index, tier in enumerate(self._tiers[1:], 1):
            found = self._try(tier, "read", partial(tier.filed, key))
            if found is not None and (one := opened(found.value)) is not None:
                return one, self._fill(self._tiers[:index], key, found) if replaces else found.value
        return None

    def _fill(self, nearer: Sequence[_Tier], key: str, found: Filed) -> bytes:
        """Keep in nearer stores what a farther one has. Return it as the nearest keeps it."""
        kept = found.value
        for tier in reversed(nearer):
            if tier.is_memory:  # it never rests, and a hit waits for it
                kept = self._for_memory(found.value, key)
                try:
                    tier.store.put(key, kept, found.label)
                except StoreError as error:
                    self._on_fault("write", error)
                continue
            kept = self._stored(key, found.value, found.label)
            self._try(tier, "write", partial(tier.put, key, kept, found.label, found.mark))
        return kept

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
        stored = value if into == "memory" else self._stored(key, value, label)
        for tier in reversed(self._tiers_of(into)):
            put = self._put(tier, key, value if tier.is_memory else stored, label, mark, behind=found)
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
        stored = value if into == "memory" else self._stored(key, value, label)
        for tier in reversed(self._tiers_of(into)):
            given = value if tier.is_memory else stored
            if found is not None:
                kept = given if found.there is None else found.there
                self._put(tier, key, kept, label, mark, behind=found)
            elif tier.knowing is not None:
                first = partial(tier.knowing.put_first, key, given, label, mark, instead_of=instead_of)
                found = self._try(tier, "write", first, key=key)
            else:
                put = partial(_put_unless_there, tier.store, key, given, label, instead_of)
                found = self._try(tier, "write", put, key=key)
        return found

    def _put(self, tier: _Tier, key: str, value: bytes, label: Label, mark: str, *, behind: Put | None) -> Put | None:
        """Keep bytes in one store. What one behind it has whole, and knows by its mark, memory need not."""
        if behind is not None and tier.is_memory:
            value = self._for_memory(value, key)
            mark = mark if behind.marks is None else ""
        return self._try(tier, "write", partial(tier.put, key, value, label, mark), key=key, replaces=behind is None)

    def _stored(self, key: str, value: bytes, label: Label) -> bytes:
        """Return bytes as stores behind the memory keep them: what is told of a run anybody may read."""
        return self._for_store(value, key) if label.is_answer else value

    def _tiers_of(self, into: Into) -> list[_Tier]:
        return [tier for tier in self._tiers if into == "all" or tier.is_memory == (into == "memory")]

    def marked(self, name: str) -> dict[str, str]:
        """Return the marks that have a name, each with a key, in any of the stores."""
        known: dict[str, str] = {}
        for tier in reversed(self._tiers):
            if tier.knowing is not None:
                known = {**(self._try(tier, "read", partial(tier.knowing.marked, name)) or {}), **known}
        return known

    def leases(self, name: str) -> list[Lease]:
        """Return the leases of a name, the nearest store's first: who waits here for another asks no farther one."""
        return [lease for store in self._leasing if (lease := store.lease(name)) is not None]

    def register(self) -> Register:
        """Return the register that most share: the farthest store's that has one, or else this process's own."""
        if self._register is None:
            with_one = [store for store in self.stores if isinstance(store, RegisteringStore)]
            self._register = with_one[-1].register() if with_one else IN_MEMORY
        return self._register

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
        for tier in self._tiers:
            tier.store.close()
            if tier.catching_up is not None:
                tier.catching_up.close()

    def _try(
        self, tier: _Tier, doing: Doing, action: Callable[[], _T], *, key: str = "", replaces: bool = False
    ) -> _T | None:
        """Return what an action returns, or None where a store fails.

        Args:
            tier: The store.
            doing: What is done.
            action: It.
            key: Which entry is written; "" where none is.
            replaces: Whether it goes in place of what is there.
        """
        started = time.monotonic()
        catching_up = tier.catching_up if key else None
        if started < tier.rests_until[doing]:
            self._on_fault(doing, StoreUnavailableError(f"{_name(tier)} is set aside for a while after a slow failure"))
            return None
        try:
            done = action()
        except StoreError as error:
            failed = error
        except Exception as error:  # noqa: BLE001 - a paid answer does not depend on the manners of somebody's own store
            failed = StoreUnavailableError(f"{_name(tier)} failed: {error!r}")
            failed.__cause__ = error
        else:
            if catching_up is not None:
                catching_up.note_taken(key)
            return done
        self._on_fault(doing, failed)
        if isinstance(failed, StoreUnavailableError):
            self._set_aside(tier, doing, started)
            if catching_up is not None:
                catching_up.note_missed(key, replaces=replaces)
        return None

    @staticmethod
    def _set_aside(tier: _Tier, doing: Doing, started: float) -> None:
        """Use a store no more for a while that has cost too much time; but for one that sees to that by itself."""
        now = time.monotonic()
        if tier.catching_up is not None:
            return
        if now - tier.lost_since > _REST:
            tier.lost, tier.lost_since = {"read": 0.0, "write": 0.0}, now
        tier.lost[doing] += now - started
        if tier.lost[doing] > _SLOW:
            tier.rests_until[doing] = now + _REST


def _name(tier: _Tier) -> str:
    return f"the store {tier.store.location}"


def _source(stores: Sequence[Store], for_store: Form, key: str) -> Filed | None:
    """Return what the farthest of some stores keeps under a key that has it whole, with its mark, for another store."""
    from dspy_cachectl.stores.disk import DiskStore

    for store in reversed(stores):
        if isinstance(store, DiskStore):
            found = store.get_marked(key)
        else:
            found = store.get_filed(key) if isinstance(store, FilingStore) else None
        if found is not None:
            return found._replace(value=for_store(found.value, key)) if found.label.is_answer else found
    return None


def _put_unless_there(store: Store, key: str, value: bytes, label: Label, instead_of: bytes | None) -> Put:
    there = store.get(key)
    if there not in {None, instead_of}:
        return Put(there, None)
    store.put(key, value, label)
    return Put(None, None)


def _add_usage(store: CountingStore, used: Mapping[Label, Mapping[str, float]], served: Mapping[str, int]) -> bool:
    store.add_usage(used, served)
    return True
