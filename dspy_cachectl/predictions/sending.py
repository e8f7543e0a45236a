"""Sending in the background: only the end of the process waits for it, and not for long."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import ClassVar

from dspy_cachectl.boundary.shown import logger_for

logger = logger_for(__name__)

_PATIENCE = 30.0
"""How long the end of a process waits for all that is being sent, in seconds."""


class Sender:
    """What sends to one place, in one thread at a time. Thread-safe.

    Args:
        place: The place, as it is shown.
    """

    _all: ClassVar[dict[str, Sender]] = {}

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again: Callable[[], int] | None = None
        self._left = 0

    @classmethod
    def of(cls, place: str) -> Sender:
        """Return the one sender of a place."""
        return cls._all.setdefault(place, cls(place))

    def start(self, send: Callable[[], int]) -> None:
        """Send, once what is being sent is there.

        Args:
            send: Sends what waits, and returns how many snapshots still do.
        """
        with self._lock:
            self._again = send
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="dspy-cachectl-sending", daemon=True)
                self._thread.start()

    def wait(self, limit: float) -> None:
        """Wait until nothing is being sent, so many seconds at most."""
        thread = self._thread
        if thread is not None:
            thread.join(limit)

    def say_what_is_left(self, until: float) -> None:
        """Wait until a moment of the monotonic clock, and say what is not sent then."""
        self.wait(max(0.0, until - time.monotonic()))
        is_alive = self._thread is not None and self._thread.is_alive()
        if is_alive or self._left:
            logger.warning("not all predictions are in %s yet; they go up with the next evaluation", self._place)

    def _run(self) -> None:
        while True:
            with self._lock:
                send, self._again = self._again, None
                if send is None:
                    self._thread = None  # who starts from now on starts a thread
                    return
            self._left = send()


def _at_end() -> None:
    until = time.monotonic() + _PATIENCE
    for sender in list(Sender._all.values()):  # noqa: SLF001 - this module's own
        sender.say_what_is_left(until)


atexit.register(_at_end)
