"""Running a function within a limit, whatever it waits for.

The function runs in a daemon thread. Neither its caller nor the interpreter's exit is held up by a thread
that hangs: executors and `asyncio.to_thread` join their threads when they close, and would be.

A target is blamed for no more than the time for which it let us wait: what this machine takes for its own part, and
however busy it is, is not the target's fault.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
import time
from concurrent import futures
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from dspy_cachectl.errors import CachectlError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

COOL_DOWN = 300.0
"""Seconds for which nothing more is asked of a target that did not answer in time."""

EXIT_WAIT = 2.0
"""Seconds, in all, for which the interpreter's exit waits for what is still under way."""

SHARE_OF_BLAME = 0.5
"""The share of its caller's limit that a target has to leave a question unanswered for, before it is left alone."""


class DeadlineError(CachectlError):
    """A function did not return within its limit. It may still be running."""


class CircuitOpenError(DeadlineError):
    """The function was not started: its target did not answer in time a short while ago."""


class _Question:
    """What a function that runs within a limit waits for.

    Attributes:
        part: What of its target it asks for, where that has a circuit of its own.
        since: Since when its target owes it an answer, on the monotonic clock; None while it works by itself.
        was_asked: Whether it has asked at all.
    """

    part = ""
    since: float | None = None
    was_asked = False

    def __init__(self, limiter: TimeLimiter, target: str) -> None:
        self._limiter, self._target = limiter, target

    @property
    def circuit(self) -> str:
        """Whose circuit it is that is opened where there is no answer."""
        return f"{self._target} ({self.part})" if self.part else self._target

    def check(self) -> None:
        """Stop where that circuit is open."""
        self._limiter.check(self.circuit)

    def waited(self) -> float:
        """Return for how long the target has owed an answer; 0 where it owes none."""
        since = self.since
        return 0.0 if since is None else time.monotonic() - since

    def late(self, limit: float) -> DeadlineError:
        """Return why a limit has passed."""
        target = self.circuit
        if waited := self.waited():
            return DeadlineError(f"{target} did not answer within {waited:.3g} s")
        if self.was_asked:
            return DeadlineError(f"it was not done within {limit:.3g} s, though {target} answers")
        return DeadlineError(f"{limit:.3g} s were not enough for this machine's own part of it")


_question: ContextVar[_Question | None] = ContextVar("_question", default=None)


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Say, in a function that runs within a limit, that its target is waited for as long as the block runs."""
    question = _question.get()
    if question is None or question.since is not None:
        yield
        return
    question.since, question.was_asked = time.monotonic(), True
    try:
        yield
    finally:
        question.since = None


@contextlib.contextmanager
def asking_for(part: str) -> Iterator[None]:
    """Say that what is asked for in the block has a circuit of its own: a server may take numbers, but no files.

    Raises:
        CircuitOpenError: It is open.
    """
    question = _question.get()
    if question is None:
        yield
        return
    question.part = part
    try:
        question.check()
        yield
    finally:
        question.part = ""


def is_asking() -> bool:
    """Tell whether this thread waits for the target of a function that runs within a limit."""
    question = _question.get()
    return question is not None and question.since is not None


class TimeLimiter:
    """Runs functions within a limit and keeps a circuit breaker for each target. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open_until: dict[str, float] = {}
        self._under_way: dict[futures.Future[Any], str] = {}

    def run(self, function: Callable[[], T], *, limit: float, target: str, patience: float | None = None) -> T:
        """Run a function and return its result, or give up when the limit has passed.

        Args:
            function: What to run. It runs in another thread, without the caller's context variables, and says by
                `asking` when it waits for the target.
            limit: Seconds to wait. With 0 the function is not started, and the circuit stays as it is.
            target: What the function talks to. Its circuit is opened where it has left a question unanswered for the
                better part of the caller's limit, or where the function raises a `DeadlineError`.
            patience: The caller's limit, of which `limit` is left; infinite where nothing is to open the circuit.

        Returns:
            What the function returned.

        Raises:
            CircuitOpenError: The circuit of the target is open; the function was not started.
            DeadlineError: The limit passed. The function goes on in its thread, and its result is dropped.
            BaseException: Whatever the function raised.
        """
        if limit <= 0:
            raise DeadlineError("there was no time to try")
        self.check(target)
        question, patience = _Question(self, target), limit if patience is None else patience
        future = self.start(lambda: _run(function, question), target)
        futures.wait([future], timeout=min(limit, threading.TIMEOUT_MAX))
        done, waited, now = future.done(), question.waited(), time.monotonic()
        error = future.exception() if done else question.late(limit)
        if isinstance(error, DeadlineError) and patience < math.inf and (done or waited >= patience * SHARE_OF_BLAME):
            cooling = {other: until for other, until in list(self._open_until.items()) if until > now}
            self._open_until = {**cooling, question.circuit: now + COOL_DOWN}
        if error is not None:
            raise error
        return future.result()

    def start(self, function: Callable[[], T], target: str) -> futures.Future[T]:
        """Run a function that holds nothing up, but for the interpreter's exit for the moment that it waits."""
        future = in_daemon(function)
        with self._lock:
            under_way = {other: its for other, its in self._under_way.items() if not other.done()}
            self._under_way = {**under_way, future: target}
            # Registered as the last one, so that it runs before the exit hooks of what was imported for the function.
            atexit.unregister(self.wait_at_exit)
            atexit.register(self.wait_at_exit)
        return future

    def check(self, circuit: str) -> None:
        """Raise a `CircuitOpenError` where a circuit is open."""
        left = self._cooling(circuit)
        if left > 0:
            raise CircuitOpenError(f"{circuit} did not answer in time before; it is asked again in {math.ceil(left)} s")

    def close_circuits(self) -> None:
        """Forget who did not answer, because somebody asks for another try."""
        self._open_until.clear()

    def wait_at_exit(self) -> None:
        """Give calls under way a last chance, all of them together; none to those whose circuit is open."""
        waited_for = [future for future, target in self._under_way.items() if self._cooling(target) <= 0]
        futures.wait(waited_for, timeout=EXIT_WAIT)

    def _cooling(self, target: str) -> float:
        return self._open_until.get(target, -math.inf) - time.monotonic()


def _run(function: Callable[[], T], question: _Question) -> T:
    _question.set(question)
    return function()


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
