"""Entries in this process's memory, as bytes, within a budget of bytes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator

from dspy_cachectl.boundary.forks import tell_after_fork
from dspy_cachectl.stores.base import Label

_OVERHEAD = 400
"""Bytes that Python takes for an entry beside its key and value."""


class MemoryStore:
    """Keeps the entries that were used last. Thread-safe.

    Encoded bytes cost less than objects, keep the garbage collector out, and cannot be changed by a caller.

    Args:
        max_bytes: The budget, in bytes. An entry larger than the whole budget is not kept.
    """

    def __init__(self, max_bytes: int = 256 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[bytes, Label]] = OrderedDict()
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

    def put(self, key: str, value: bytes, label: Label) -> None:
        """Keep bytes under a key; the entries unused for longest make room."""
        size = _size(key, value)
        with self._lock:
            self._remove(key)
            if size > self.max_bytes:
                return
            self._entries[key] = (value, label)
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._remove(next(iter(self._entries)))

    def delete(self, key: str) -> bool:
        """Remove a key. Tell whether it was there."""
        with self._lock:
            return self._remove(key)

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, last used first; only those filed under a kind, where one is named."""
        with self._lock:
            found = [key for key, (_, label) in self._entries.items() if kind is None or label.kind == kind]
        return reversed(found)

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        with self._lock:
            return dict(Counter(label for _, label in self._entries.values()))

    def clear(self) -> int:
        """Remove all entries. Return how many there were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
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
        self._bytes -= _size(key, kept[0])
        return True


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD
