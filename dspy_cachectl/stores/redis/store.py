"""The store: entries in Redis or Valkey, for all processes and machines that name the same server."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.config.shared import Shared, shared_of
from dspy_cachectl.errors import CorruptEntryError, StoreError
from dspy_cachectl.stores.base import Filed, Label, Put, coarser, name_of
from dspy_cachectl.stores.leases import Lease
from dspy_cachectl.stores.redis import layout, scripts
from dspy_cachectl.stores.redis.client import Client
from dspy_cachectl.stores.redis.commands import Command
from dspy_cachectl.stores.redis.layout import TAGS, USAGE, Names
from dspy_cachectl.stores.redis.leases import RedisLease
from dspy_cachectl.stores.redis.listing import Lists, Place, batches
from dspy_cachectl.stores.redis.register import RedisRegister
from dspy_cachectl.stores.rows import Listed, Order, Rows, StoredEntry

_AT_ONCE = 100
"""How many commands are sent at once: more gain nothing."""
_MOST_COUNTERS, _MOST_LABELS = 50_000, 2_000
"""How many counters there are at most, and of how many labels the use is told apart then."""
_FIRST_KEYS, _MORE_KEYS = 200, 5000
_FOR_MANY = 5.0
_PER_MEGABYTE = 0.05
"""For how many seconds longer a large entry may be on its way."""


class RedisStore(Listed):
    """Entries in Redis or Valkey. Thread-safe; a forked child has connections of its own.

    Nothing is connected to before the first use. Where the server is away, or slow, no call waits for it longer than
    its patience, and the next ones do not wait at all until it works again.

    Attributes:
        on_back: Called in a thread of the store's when a server that was away can be used again; None for nobody.

    Args:
        address: The server's address (see `shared_of`).
        patience: How long a command may take, in seconds. None: as the address says.

    Raises:
        ConfigurationError: If the address cannot be used.
        MissingExtraError: If the package `redis` is not installed.
    """

    def __init__(self, address: str | Shared, *, patience: float | None = None) -> None:
        said = shared_of(address) if isinstance(address, str) else address
        self.address = said if patience is None else replace(said, patience=patience)
        self.names = Names(said.namespace)
        self.on_back: Callable[[], None] | None = None
        self.client = Client(
            self.address, probe=lambda tag: self.names.base(tag) + b"probe", tags=TAGS, on_back=self._is_back
        )
        self.lists = Lists(self.client, self.names, patience=self.patience)
        tell_after_fork(self)

    @property
    def patience(self) -> float:
        """How long many commands at once may take, in seconds: nobody's call waits for them."""
        return max(self.address.patience, _FOR_MANY)

    @property
    def location(self) -> str:
        """The server's address, without what opens it."""
        return self.address.shown

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""
        found = self.get_filed(key)
        return None if found is None else found.value

    def get_filed(self, key: str) -> Filed | None:
        """Return the bytes kept under a key, with what they are filed under and their mark; or None."""
        data = self.client.run("read", layout.tag_of(key), ("GET", self.names.entry(key)), gains=True)
        if data is None:
            return None
        kept = layout.unpack(data)
        return Filed(kept.value, kept.label, kept.mark)

    def put(self, key: str, value: bytes, label: Label) -> None:
        """Keep bytes under a key, in place of what was there."""
        self._put(key, value, label, "")

    def put_marked(self, key: str, value: bytes, label: Label, mark: str) -> Put:
        """Keep bytes under a key with their mark."""
        return self._put(key, value, label, mark)

    def put_first(self, key: str, value: bytes, label: Label, mark: str, *, instead_of: bytes | None = None) -> Put:
        """Keep bytes under a key with their mark, unless others are there."""
        return self._put(key, value, label, mark, first=True, instead_of=instead_of)

    def _put(
        self, key: str, value: bytes, label: Label, mark: str, *, first: bool = False, instead_of: bytes | None = None
    ) -> Put:
        now = time.time()
        command = self._putting(key, Filed(value, label, mark), now, first=first, instead_of=instead_of)
        longer = len(value) / 2**20 * _PER_MEGABYTE
        there, *before = self.client.run("write", layout.tag_of(key), command, longer=longer)
        if there is not None:
            try:
                kept = layout.unpack(there).value
            except CorruptEntryError:  # it is nobody's answer
                if not first:
                    raise
                return self._put(key, value, label, mark)
            return Put(kept, self.marked(name_of(mark)) if mark else {})
        old = before[0].decode("utf-8", "replace")
        if old and old != mark:
            self._unmark({key: old})
        return Put(None, self._mark(key, mark, now) if mark else {})

    def _putting(self, key: str, filed: Filed, now: float, *, first: bool, instead_of: bytes | None = None) -> Command:
        entry = layout.pack(*filed, now)
        return (
            *(scripts.PUT, self.names.entry(key), self.names.base(layout.tag_of(key)), layout.member_of(key)),
            *(layout.text_of(filed.label), repr(now), self._ttl, entry, int(first), layout.hash_of(instead_of)),
        )

    def _marking(self, key: str, mark: str, now: float) -> Command:
        listed = self.names.marks(name_of(mark))[1]
        return scripts.MARK, listed, layout.mark_member(key, mark), repr(now), self._ttl

    def give(self, entries: Sequence[tuple[str, Filed, bool]]) -> dict[str, StoreError]:
        """Keep entries: of each the key, what belongs to it, and whether it goes in place of what is there.

        Returns:
            Those that the server refuses, though it may take others, by their keys, each with the reason.
        """
        now, refused = time.time(), dict[str, StoreError]()

        def done(commands: Mapping[str, Command]) -> dict[str, Any]:
            replies = self.client.each("write", list(commands.values()), seconds=self.patience)
            told = dict(zip(commands, replies, strict=True))
            refused.update({key: reply for key, reply in told.items() if isinstance(reply, StoreError)})
            return {key: reply for key, reply in told.items() if key not in refused}

        for some in batches(entries, _AT_ONCE):
            given = done({key: self._putting(key, filed, now, first=not replaces) for key, filed, replaces in some})
            kept = {key for key, (there, *_) in given.items() if there is None}
            done({key: self._marking(key, filed.mark, now) for key, filed, _ in some if key in kept and filed.mark})
        return refused

    def lost(self, keys: Sequence[str]) -> list[str]:
        """Return those of some keys that are not there."""
        there = self.client.many("read", [("EXISTS", self.names.entry(key)) for key in keys], seconds=self.patience)
        return [key for key, is_there in zip(keys, there, strict=True) if not is_there]

    def _mark(self, key: str, mark: str, now: float) -> dict[str, str]:
        """Note the mark of an entry. Return the marks of its name that were there."""
        found = self.client.run("write", self.names.marks(name_of(mark))[0], self._marking(key, mark, now))
        return dict(layout.marked_entry(name_of(mark), member) for member in found)

    def _unmark(self, marks: Mapping[str, str]) -> None:
        """Take away the marks of entries that are gone."""
        self.client.many(
            "write",
            [
                ("ZREM", self.names.marks(name_of(mark))[1], layout.mark_member(key, mark))
                for key, mark in marks.items()
            ],
        )

    def lease(self, name: str) -> Lease:
        """Return the lease of a name among all who use the store."""
        return RedisLease(self.client, self.names, name)

    def register(self) -> RedisRegister:
        """Return the register of all who use the store."""
        return RedisRegister(self.client, self.names)

    def marked(self, name: str) -> dict[str, str]:
        """Return the marks that have a name, each with the key that it was first kept under; two of them at most."""
        tag, listed = self.names.marks(name)
        found = self.client.run("read", tag, (scripts.MARKED, listed))
        return dict(layout.marked_entry(name, member) for member in found)

    def delete(self, key: str) -> bool:
        """Remove a key. Tell whether it was there."""
        return bool(self.delete_many({key: None}))

    def delete_many(self, keys: Mapping[str, float | None]) -> int:
        """Remove keys. Return how many were there.

        Args:
            keys: The keys. With each, when what is meant was stored, in Unix seconds: what was stored since stays.
                None: whatever is there.
        """
        removed = 0
        for some in batches(list(keys.items()), _AT_ONCE):
            replies = self.client.many("write", [self._deletion(key, when) for key, when in some])
            removed += sum(there for there, _ in replies)
            marks = {key: mark.decode("utf-8", "replace") for (key, _), (_, mark) in zip(some, replies, strict=True)}
            self._unmark({key: mark for key, mark in marks.items() if mark})
        return removed

    def rewrite(self, entries: Mapping[str, tuple[bytes, bytes]]) -> int:
        """Put bytes in the place of others, of each key, where those are there; all else stays. Return how many."""
        names = {self.names.entry(key): before_and_after for key, before_and_after in entries.items()}
        there = self.client.many("read", [("GET", name) for name in names], seconds=self.patience)
        commands: list[Command] = []
        for (name, (before, after)), data in zip(names.items(), there, strict=True):
            if data is not None:
                kept = layout.unpack(data)
                entry = layout.pack(after, kept.label, kept.mark, kept.stored)
                commands.append((scripts.REWRITE, name, layout.hash_of(before), entry))
        return sum(self.client.many("write", commands, seconds=self.patience))

    def _deletion(self, key: str, when: float | None) -> Command:
        base = self.names.base(layout.tag_of(key))
        return scripts.DELETE, self.names.entry(key), base, layout.member_of(key), "" if when is None else repr(when)

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""
        rows, seen = Rows(lambda label: kind is None or label.kind == kind), set()
        size = _FIRST_KEYS
        while True:
            # From the last time on, and not beyond it: several may have been stored at once.
            places = self.lists.places(rows, limit=size)
            new = [place.key for place in places if place.key not in seen]
            yield from new
            if len(places) < size:
                return
            seen = {place.key for place in places if place.stored == places[-1].stored}
            rows, size = replace(rows, before=math.nextafter(places[-1].stored, math.inf)), _MORE_KEYS + len(seen)

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        counts: dict[Label, int] = {}
        for text, count in self.lists.counts().items():
            label = layout.label_of(text)
            counts[label] = counts.get(label, 0) + count
        return counts

    def clear(self) -> int:
        """Remove all entries. Return how many there were."""
        count = 0
        for names in self.client.scan(self.names.pattern("e:")):
            count += self._unlink(names)
        for part in ("z:", "i:", "labels", "served"):
            for names in self.client.scan(self.names.pattern(part)):
                self._unlink(names)
        return count

    def _unlink(self, names: Sequence[bytes]) -> int:
        return sum(self.client.many("write", [("UNLINK", name) for name in names], seconds=self.patience))

    def add_usage(self, used: Mapping[Label, Mapping[str, float]], served: Mapping[str, int]) -> None:
        """Add to what is counted, and note beside entries that they were served."""
        now = repr(time.time())
        by_tag: dict[str, list[tuple[str, int]]] = {}
        for key, count in served.items():
            by_tag.setdefault(layout.tag_of(key), []).append((key, count))
        commands: list[Command] = []
        for tag, of_tag in by_tag.items():
            base = self.names.base(tag)
            for some in batches(of_tag, _AT_ONCE):
                told = [(self.names.entry(key), layout.member_of(key), count) for key, count in some]
                commands.append((scripts.SERVED, base + b"served", base, now, *chain.from_iterable(told)))
        counters = [
            (layout.text_of(label) + b"\0" + name.encode(), repr(amount))
            for label, amounts in used.items()
            for name, amount in amounts.items()
        ]
        # Last, and in one step: what has failed until then is counted once, when it is added again.
        commands += [(scripts.USED, self._usage, *chain.from_iterable(counters))] if counters else []
        replies = list(chain.from_iterable(self.client.many("write", some) for some in batches(commands, _AT_ONCE)))
        if counters and replies[-1] > _MOST_COUNTERS:
            with contextlib.suppress(StoreError):  # it is counted, and another time will do
                self._sum_up()

    def _sum_up(self) -> None:
        """Count together what is told apart too finely."""
        (fields,) = self.client.many("read", [("HKEYS", self._usage)], seconds=self.patience)
        parts = [field.partition(b"\0") for field in sorted(fields)]
        labels = dict.fromkeys(label.decode("utf-8", "surrogatepass") for label, _, _ in parts)
        into = {
            label.encode("utf-8", "surrogatepass"): other.encode("utf-8", "surrogatepass")
            for label, other in coarser(list(labels), most=_MOST_LABELS).items()
        }
        moved = [
            (label + b"\0" + counter, into[label] + b"\0" + counter) for label, _, counter in parts if label in into
        ]
        for some in batches(moved, _AT_ONCE):
            self.client.run("write", USAGE, (scripts.COUNT_UNDER, self._usage, *chain.from_iterable(some)))

    def usage(self) -> dict[Label, dict[str, float]]:
        """Return what is counted."""
        found: dict[Label, dict[str, float]] = {}
        reply = self.client.run("read", USAGE, ("HGETALL", self._usage))
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        for name, amount in pairs:
            label, _, counter = name.partition(b"\0")
            number = float(amount)
            counters = found.setdefault(layout.label_of(label), {})
            counters[counter.decode("utf-8", "replace")] = int(number) if number.is_integer() else number
        return found

    # -- what the commands see

    def exists(self) -> bool:
        """Tell whether there is a store: whoever asks for an entry makes one."""
        return True

    def bytes_used(self) -> int:
        """Return how many bytes the entries take up; about, by some of them."""
        return self.lists.bytes_used()

    def share_gone(self) -> float:
        """Return how large a part of what `labels` counts is gone, by some of it; from 0 to 1."""
        return self.lists.share_gone()

    def keys_above(self, keys: Sequence[str], above: int) -> set[str]:
        """Return those of some keys whose entries say a version above a number."""
        commands: list[Command] = [("GETRANGE", self.names.entry(key), *layout.FLAGS) for key in keys]
        told = self.client.many("read", commands, seconds=self.patience)
        return {key for key, flags in zip(keys, told, strict=True) if layout.version_in(flags) > above}

    def row_numbers(
        self, rows: Rows, *, order: Order = "age", reverse: bool = False, limit: int | None = None
    ) -> Sequence[Place]:
        """Return where the entries stand that are meant, in order."""
        return self.lists.places(rows, order=order, reverse=reverse, limit=limit)

    def read_rows(self, numbers: Sequence[Place]) -> Iterator[StoredEntry]:
        """Yield entries that are there, without what they hold."""
        return self.lists.rows(numbers)

    def read_entries(self, numbers: Sequence[Place]) -> Iterator[tuple[StoredEntry, Callable[[], bytes]]]:
        """Yield entries that are there, each with a function that returns its bytes."""
        return self.lists.entries(numbers)

    def entries_beginning_with(self, prefix: str, *, limit: int) -> list[tuple[StoredEntry, Callable[[], bytes]]]:
        """Return the answers whose keys begin with a text; one whose key is that text alone."""
        places = self.lists.beginning_with(prefix, limit=limit)
        return list(self.lists.entries([place for place in places if place.key == prefix] or places))

    @property
    def _usage(self) -> bytes:
        return self.names.base(USAGE) + b"usage"

    def close(self) -> None:
        """Let go of connections and threads. The next use makes others."""
        self.client.close()

    def after_fork(self) -> None:
        """Begin anew in the child."""
        self.client.after_fork()

    @property
    def _ttl(self) -> int:
        return int(self.address.ttl * 1000)

    def _is_back(self) -> None:
        if self.on_back is not None:
            self.on_back()
