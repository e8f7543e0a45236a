"""Running a function within a limit, whatever it waits for.

The function runs in a daemon thread. Neither its caller nor the interpreter's exit is held up by a thread
that hangs: executors and `asyncio.to_thread` join their threads when they close, and would be.
"""

from __future__ import annotations

import atexit
import math
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeVar

from dspy_cachectl.errors import CachectlError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

COOL_DOWN = 300.0
"""Seconds for which nothing more is asked of a target that did not answer in time."""

EXIT_WAIT = 2.0
"""Seconds, in all, for which the interpreter's exit waits for what is still under way."""


class DeadlineError(CachectlError):
    """A function did not return within its limit. It may still be running."""


class CircuitOpenError(DeadlineError):
    """The function was not started: its target did not answer in time a short while ago."""


class TimeLimiter:
    """Runs functions within a limit and keeps a circuit breaker for each target. Thread-safe.

    Whatever a function imports has to be imported before, in the caller's thread: a thread that hangs within
    an import holds that module's lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open_until: dict[str, float] = {}
        self._under_way: dict[futures.Future[Any], str] = {}

    def run(self, function: Callable[[], T], *, limit: float, target: str, trips: bool = True) -> T:
        """Run a function and return its result, or give up when the limit has passed.

        Args:
            function: What to run. It runs in another thread, without the caller's context variables.
            limit: Seconds to wait. With 0 the function is not started, and the circuit stays as it is.
            target: What the function talks to. A time-out opens the circuit of this target, be it this one or one
                that the function raises as a `DeadlineError`.
            trips: False where the limit is so short that a time-out says nothing about the target.

        Returns:
            What the function returned.

        Raises:
            CircuitOpenError: The circuit of the target is open; the function was not started.
            DeadlineError: The limit passed. The function goes on in its thread, and its result is dropped.
            BaseException: Whatever the function raised.
        """
        if limit <= 0:
            raise DeadlineError("there was no time to try")
        left = self._cooling(target)
        if left > 0:
            raise CircuitOpenError(f"{target} did not answer in time before; it is asked again in {math.ceil(left)} s")
        future = self._start(function, target)
        futures.wait([future], timeout=min(limit, threading.TIMEOUT_MAX))
        late = DeadlineError(f"{target} did not answer within {limit:.3g} s")
        error = future.exception() if future.done() else late
        if trips and isinstance(error, DeadlineError):
            self._open_until[target] = time.monotonic() + COOL_DOWN
        if error is not None:
            raise error
        return future.result()

    def close_circuits(self) -> None:
        """Forget who did not answer, because somebody asks for another try."""
        self._open_until.clear()

    def wait_at_exit(self) -> None:
        """Give calls under way a last chance, all of them together; none to those whose circuit is open."""
        waited_for = [future for future, target in self._under_way.items() if self._cooling(target) <= 0]
        futures.wait(waited_for, timeout=EXIT_WAIT)

    def _cooling(self, target: str) -> float:
        return self._open_until.get(target, -math.inf) - time.monotonic()

    def _start(self, function: Callable[[], T], target: str) -> futures.Future[T]:
        future = in_daemon(function)
        with self._lock:
            under_way = {other: its for other, its in self._under_way.items() if not other.done()}
            self._under_way = {**under_way, future: target}
            # Registered as the last one, so that it runs before the exit hooks of what was imported for the function.
            atexit.unregister(self.wait_at_exit)
            atexit.register(self.wait_at_exit)
        return future


def in_daemon(function: Callable[[], T]) -> futures.Future[T]:
    """Run a function in a thread that holds nothing up, and return its future."""
    future: futures.Future[T] = futures.Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised in the thread that waits for it
            future.set_exception(error)

    threading.Thread(target=work, name="dspy-cachectl-push", daemon=True).start()
    return future


def check_limit(seconds: object) -> float:
    """Return a time limit given by a user.

    Raises:
        ConfigurationError: If it is not a number of seconds, 0 or more.
    """
    # Not `seconds < 0`: a NaN is refused as well.
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ConfigurationError(f"timeout must be a number of seconds, 0 or more, not {seconds!r}")
    return float(seconds)
