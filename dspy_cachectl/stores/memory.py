"""Entries in this process's memory, as bytes, within a budget of bytes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.stores.base import Filed, Label, Put, name_of
from dspy_cachectl.stores.marks import Marks

_OVERHEAD = 400
_OF_A_MARK = 200
"""Bytes that Python takes for an entry beside its key and value, and for its mark."""


class MemoryStore:
    """Keeps the entries that were used last. Thread-safe.

    Encoded bytes cost less than objects, keep the garbage collector out, and cannot be changed by a caller.

    Args:
        max_bytes: The budget, in bytes. An entry larger than the whole budget is not kept.
    """

    def __init__(self, max_bytes: int = 256 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[bytes, Label, int]] = OrderedDict()
        self._marks = Marks()
        self._bytes = 0
        tell_after_fork(self)

    @property
    def location(self) -> str:
        """Always `memory://`."""
        return "memory://"

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""
        with self._lock:
            kept = self._entries.get(key)
            if kept is None:
                return None
            self._entries.move_to_end(key)
            return kept[0]

    def get_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes kept under each of some keys, or None."""
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            for key, kept in zip(keys, found, strict=True):
                if kept is not None:
                    self._entries.move_to_end(key)
            return [None if kept is None else kept[0] for kept in found]

    def get_filed(self, key: str) -> Filed | None:
        """Return the bytes kept under a key, with what they are filed under; or None."""
        with self._lock:
            kept = self._entries.get(key)
            return None if kept is None else Filed(kept[0], kept[1])

    def put(self, key: str, value: bytes, label: Label) -> None:
        """Keep bytes under a key; the entries unused for longest make room."""
        self.put_marked(key, value, label, "")

    def put_all(self, entries: Mapping[str, tuple[bytes, Label]]) -> None:
        """Keep bytes under each of some keys, likewise."""
        with self._lock:
            for key, (value, label) in entries.items():
                self._put(key, value, label, "")

    def put_marked(self, key: str, value: bytes, label: Label, mark: str) -> Put:
        """Keep bytes under a key with their mark."""
        with self._lock:
            return Put(None, self._put(key, value, label, mark))

    def put_first(self, key: str, value: bytes, label: Label, mark: str, *, instead_of: bytes | None = None) -> Put:
        """Keep bytes under a key with their mark, unless others are there."""
        with self._lock:
            there = self._entries.get(key)
            if there is not None and there[0] != instead_of:
                return Put(there[0], self._marks.named(name_of(mark)))
            return Put(None, self._put(key, value, label, mark))

    def _put(self, key: str, value: bytes, label: Label, mark: str) -> dict[str, str]:
        """Return the marks of the mark's name that were there, with their keys."""
        size = len(key) + len(value) + _OVERHEAD + (_OF_A_MARK if mark else 0)
        before = self._marks.named(name_of(mark)) if mark else {}
        self._remove(key)
        if size > self.max_bytes:
            return before
        self._entries[key] = (value, label, size)
        if mark:
            self._marks.add(key, mark)
        self._bytes += size
        while self._bytes > self.max_bytes:
            self._remove(next(iter(self._entries)))
        return before

    def marked(self, name: str) -> dict[str, str]:
        """Return the marks that have a name, each with the key that it was first kept under."""
        with self._lock:
            return self._marks.named(name)

    def delete(self, key: str) -> bool:
        """Remove a key. Tell whether it was there."""
        with self._lock:
            return self._remove(key)

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, last used first; only those filed under a kind, where one is named."""
        with self._lock:
            found = [key for key, (_, label, _) in self._entries.items() if kind is None or label.kind == kind]
        return reversed(found)

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        with self._lock:
            return dict(Counter(label for _, label, _ in self._entries.values()))

    def clear(self) -> int:
        """Remove all entries. Return how many there were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._marks = Marks()
            self._bytes = 0
            return count

    def close(self) -> None:
        """Nothing is held open; the entries stay."""

    def after_fork(self) -> None:
        """Go on in the child with what the parent had."""
        self._lock = threading.Lock()

    def _remove(self, key: str) -> bool:
        kept = self._entries.pop(key, None)
        if kept is None:
            return False
        self._marks.remove(key)
        self._bytes -= kept[2]
        return True
