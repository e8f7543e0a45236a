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

    Args:
        exit_wait: Seconds, in all, that `wait_at_exit` may take.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, *, exit_wait: float = EXIT_WAIT, clock: Callable[[], float] = time.monotonic) -> None:
        self._exit_wait = exit_wait
        self._clock = clock
        self._lock = threading.Lock()
        self._open_until: dict[str, float] = {}
        self._under_way: dict[futures.Future[Any], str] = {}
        self._registered = False

    def run(self, function: Callable[[], T], *, limit: float, target: str, trips: bool = True) -> T:
        """Run a function and return its result, or give up when the limit has passed.

        Args:
            function: What to run. It runs in another thread, without the caller's context variables.
            limit: Seconds to wait. With 0 the function is not started, and the circuit stays as it is.
            target: What the function talks to. A time-out opens the circuit of this target.
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
        left = self.cooling(target)
        if left > 0:
            raise CircuitOpenError(f"{target} did not answer in time before; it is asked again in {math.ceil(left)} s")
        future = self._start(function, target)
        futures.wait([future], timeout=min(limit, threading.TIMEOUT_MAX))
        if not future.done():
            if trips:
                self.open_circuit(target)
            raise DeadlineError(f"{target} did not answer within {limit:.3g} s")
        return future.result()

    def cooling(self, target: str) -> float:
        """Return for how many seconds the circuit of a target stays open; 0 if it is closed."""
        with self._lock:
            return max(0.0, self._open_until.get(target, -math.inf) - self._clock())

    def open_circuit(self, target: str) -> None:
        """Ask nothing more of a target for `COOL_DOWN` seconds."""
        with self._lock:
            self._open_until[target] = self._clock() + COOL_DOWN

    def close_circuit(self, target: str) -> None:
        """Forget that a target did not answer, because somebody asks for another try."""
        with self._lock:
            self._open_until.pop(target, None)

    def wait_at_exit(self) -> None:
        """Give calls under way a last chance, all of them together; none to those whose circuit is open."""
        with self._lock:
            under_way = list(self._under_way.items())
        futures.wait([future for future, target in under_way if self.cooling(target) <= 0], timeout=self._exit_wait)

    def _start(self, function: Callable[[], T], target: str) -> futures.Future[T]:
        future: futures.Future[T] = futures.Future()

        def work() -> None:
            try:
                value = function()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised in the caller's thread
                future.set_exception(error)
            else:
                future.set_result(value)
            finally:
                self._ended(future)

        with self._lock:
            if not self._registered:
                # Registered late, so that it runs before the exit hooks of what was imported for the function.
                atexit.register(self.wait_at_exit)
                self._registered = True
            self._under_way[future] = target
        try:
            threading.Thread(target=work, name="dspy-cachectl-push", daemon=True).start()
        except BaseException:
            self._ended(future)
            raise
        return future

    def _ended(self, future: futures.Future[Any]) -> None:
        with self._lock:
            self._under_way.pop(future, None)


def check_limit(seconds: object) -> float:
    """Return a time limit given by a user.

    Raises:
        ConfigurationError: If it is not a number of seconds, 0 or more.
    """
    # Not `seconds < 0`: a NaN is refused as well.
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ConfigurationError(f"timeout must be a number of seconds, 0 or more, not {seconds!r}")
    return float(seconds)
