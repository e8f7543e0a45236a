"""Entries that were decoded once: each hit is given an answer of its own, without decoding and validating it again.

A program may change what a hit gave it, so no two hits share what can be changed. What can not is shared: texts, and
what all answers of a shape have alike. What is of no known shape is decoded anew each time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

from dspy.clients.base_lm import BaseLM
from dspy.clients.call_result import CallResult

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.entries import records
from dspy_cachectl.entries.results import found_in_cache, is_record, result_of, result_of_record

_OVERHEAD = 3000
"""Bytes that Python takes for an entry that is decoded, beside as many again as it has."""


class Decoded:
    """An entry that was decoded: where it came from, and its answer for whoever asks.

    Args:
        data: The bytes of the entry.
        key: The key that it is filed under (see `records.decode`).

    Attributes:
        data: Those.
        origin: Where the answer came from.
        is_checked: Whether it is known that DSPy makes something of the answer: see `checked`.
        vector: The numbers of the vector that the answer is; None where it is none.

    Raises:
        CorruptEntryError: If they are damaged or are not an entry.
        FormatVersionError: If a newer version of this package wrote them.
    """

    __slots__ = ("_first", "_is_record", "_opened", "data", "is_checked", "origin", "vector")

    def __init__(self, data: bytes, key: str | None = None) -> None:
        opened = records.open_answer(data, key)
        self.data, self.origin, self.vector = data, opened.origin, opened.vector
        # What has no shape is used up by what is made of it.
        self._opened = None if opened.shaped is None else opened
        self._is_record = is_record(opened)
        self.is_checked = not self._is_record
        # Made at once: whoever serves an entry has to know that its answer can be.
        self._first = [found_in_cache(opened)] if self.is_checked and self.vector is None else []

    def checked(self) -> Decoded:
        """Return it where DSPy makes something of its answer, which is then made already.

        Raises:
            CorruptEntryError: If DSPy makes nothing of it.
        """
        if not self.is_checked:
            self._first.append(result_of_record(self._open()))
            self.is_checked = True
        return self

    def answer(self) -> Any:
        """Return what DSPy finds in its cache."""
        if self.vector is not None:
            return [self.vector.tolist()]
        return self._open().answer() if self._is_record else self._next(found_in_cache)

    def result(self, lm: BaseLM, kwargs: Mapping[str, Any], sent: Callable[[], dict[str, Any]]) -> CallResult:
        """Return what DSPy makes of it for a call.

        Args:
            lm: Its LM.
            kwargs: The options of the call.
            sent: Returns what DSPy sends: the LM's options and the call's, which many hits do not need.
        """
        if self._is_record:
            result: CallResult = self._next(result_of_record)
            return result
        return result_of(self._next(found_in_cache), self._opened, lm, kwargs, sent)

    def _next(self, make: Callable[[records.Opened], Any]) -> Any:
        """Return what was made already, to the first who asks, or something made anew."""
        try:
            return self._first.pop()  # as one thread only can
        except IndexError:
            return make(self._open())

    def _open(self) -> records.Opened:
        return records.open_answer(self.data) if self._opened is None else self._opened


class DecodedEntries:
    """Entries that were decoded once, by key, within a budget of bytes. Thread-safe.

    What makes room is chosen by chance: where more prompts go round than there is room for, the last used of them would
    never be found again.

    Args:
        most: The budget, in bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = free_after_fork(threading.Lock())
        self._kept: dict[str, Decoded] = {}
        self._keys: list[str] = []
        self._bytes = 0

    def decode(self, key: str, data: bytes) -> Decoded:
        """Return the entry of a key, decoded now or before.

        Args:
            key: The key.
            data: The bytes that are kept under it, in memory: other ones than before are another entry.

        Raises:
            CorruptEntryError: If they are damaged or are not an entry.
            FormatVersionError: If a newer version of this package wrote them.
        """
        kept = self._kept.get(key)
        if kept is not None and kept.data is data:
            return kept
        decoded = Decoded(data, key)
        with self._lock:
            self._put(key, decoded)
        return decoded

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept, self._keys, self._bytes = {}, [], 0

    def _put(self, key: str, decoded: Decoded) -> None:
        size = _size(decoded)
        if size > self._most:
            return
        before = self._kept.get(key)
        if before is None:
            self._keys.append(key)
        self._kept[key] = decoded
        self._bytes += size - (0 if before is None else _size(before))
        while self._bytes > self._most:
            place = random.randrange(len(self._keys))  # noqa: S311 - nothing rests on which one it is
            self._keys[place], self._keys[-1] = self._keys[-1], self._keys[place]
            self._bytes -= _size(self._kept.pop(self._keys.pop()))


def _size(decoded: Decoded) -> int:
    return 2 * len(decoded.data) + _OVERHEAD
