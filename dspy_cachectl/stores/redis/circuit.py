"""Whether a node of a server is used at the moment.

A fault closes it at once, a slow server when it has cost more time than it may. In the background it is tried whether
it works again, so callers pay for the first failure only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from dspy_cachectl.stores.redis.workers import Times

Doing = Literal["read", "write"]

_FREE = 1 / 50
"""Which part of the time that a command may take is no loss at all: 5 ms of a quarter of a second."""
_BUDGET = 1.2
"""How much time a node may cost beyond that: so many times what one command may take. It comes back in a minute."""
_MINUTE = 60.0
_LEAST = 0.1
"""Which part of that it has to have again before the node is used again."""
_FIRST = 0.25
_EVERY = 1.0
_SELDOM = 30.0
"""After how many seconds a node is tried again: at first, then, and where it has failed again and again."""
_SOON = 60.0
"""A node that fails again within so many seconds is tried half as often."""


class Circuit:
    """One node. Thread-safe.

    Attributes:
        why: Why it is not used, for messages.

    Args:
        patience: How long a command may take, in seconds.
    """

    def __init__(self, patience: float) -> None:
        self.why = ""
        self._free, self._whole = _FREE * patience, _BUDGET * patience
        self._lock = threading.Lock()
        self._rests: set[Doing] = set()
        self._budget, self._filled = self._whole, time.monotonic()
        self._counted_until = 0.0
        self._closed_at = -_SOON
        self._pause = _EVERY
        self._due = 0.0

    def rests(self, doing: Doing) -> bool:
        """Tell whether it is not used for this."""
        return doing in self._rests

    @property
    def is_open(self) -> bool:
        """Whether it is not used for something."""
        return bool(self._rests)

    def spent(self, times: Times, *, late: float, gained: bool) -> bool:
        """Note that a command has ended. Tell whether it has cost so much that the node is used no more.

        Args:
            times: When it began and ended. What waited for other commands of this process has not begun.
            late: For how many seconds this process itself kept it waiting, as far as that is known.
            gained: Whether it gave something that was worth waiting for.
        """
        now = times.ended or time.monotonic()
        free = self._free + late
        if not times.begun or now - times.begun <= free:
            return False
        with self._lock:
            # The time of threads that wait at once is lost once.
            lost = now - max(times.begun + free, self._counted_until)
            self._counted_until = max(now, self._counted_until)
            if gained or lost <= 0:
                return False
            self._fill(now)
            self._budget -= lost
            if self._budget >= 0:
                return False
            self._rest("it is slow", ("read", "write"), now)
            return True

    def failed(self, why: str, *doing: Doing) -> None:
        """Use it no more for something.

        Args:
            why: Why, for messages.
            doing: For what.
        """
        with self._lock:
            self._rest(why, doing, time.monotonic())

    def due_in(self) -> float:
        """Return in how many seconds it is to be tried; it is to have some time to lose again, too."""
        now = time.monotonic()
        with self._lock:
            self._fill(now)
            return max(self._due - now, (_LEAST - self._budget / self._whole) * _MINUTE)

    def tried(self, works: Callable[[Doing], bool]) -> None:
        """Note how a trial went.

        Args:
            works: Tells whether it can be used for something again.
        """
        with self._lock:
            now = time.monotonic()
            self._rests = {doing for doing in self._rests if not works(doing)}
            self._due = now + self._pause
            if not self._rests:
                self._closed_at = now

    def _rest(self, why: str, doing: tuple[Doing, ...], now: float) -> None:
        if not self._rests:
            again = now - self._closed_at < _SOON
            self._pause = min(self._pause * 2, _SELDOM) if again else _EVERY
            self._due = now + (self._pause if again else _FIRST)
        if not self._rests.issuperset(doing):  # who fails with it, since its connections were dropped, tells less
            self.why = why
        self._rests = {*self._rests, *doing}

    def _fill(self, now: float) -> None:
        self._budget = min(self._budget + (now - self._filled) / _MINUTE * self._whole, self._whole)
        self._filled = now
