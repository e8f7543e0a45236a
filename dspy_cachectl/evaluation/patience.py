"""How long a question is waited for, and which questions are asked again before they count as failed."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

import dspy
from dspy.clients._http import finite_seconds
from dspy.utils.exceptions import LMRateLimitError, is_retryable_lm_error

T = TypeVar("T")

_PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before questions are asked again that were refused for their number; others are asked again once."""
_LOOKS = 0.1
_LONGEST = 60.0
"""For how many seconds at most a provider can say that it wants to be left alone."""


class AskedAgainError(Exception):
    """A question has no answer for now: it is asked again when all the others have been, or by whoever resumes."""


class Passing:
    """The questions of a passage that failed for a reason that passes: 429, a time-out, a server's fault. Thread-safe.

    After many such failures without an answer between them the provider is taken to be away, and no more are put off:
    as many as DSPy gives up after, and one for each thread.

    Args:
        max_errors: After how many failures DSPy gives up. None: as its settings say.
        num_threads: How many are asked at once. None: as its settings say.
    """

    def __init__(self, max_errors: int | None, num_threads: int | None) -> None:
        errors: int = dspy.settings.max_errors if max_errors is None else max_errors
        self._most = errors + (num_threads or dspy.settings.num_threads)
        self._lock = threading.Lock()
        self._in_a_row = self._round = 0
        self._put_off: dict[int, float | None] = {}

    def answered(self) -> None:
        """Note that a question was answered."""
        self._in_a_row = 0

    def puts_off(self, number: int, error: BaseException) -> bool:
        """Tell whether a question that failed is asked again later, and note it."""
        cause: BaseException | None = error
        while cause is not None and not is_retryable_lm_error(cause):
            cause = cause.__cause__
        if cause is None:
            return False
        is_refused = isinstance(cause, LMRateLimitError)
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row > self._most or self._round >= (len(_PAUSES) if is_refused else 1):
                return False
            self._put_off[number] = finite_seconds(getattr(cause, "retry_after", None)) if is_refused else None
            return True

    def to_ask(self, is_ending: Callable[[], bool]) -> list[int]:
        """Wait for as long as it takes, or until nobody does, and return which are to be asked now."""
        with self._lock:
            put_off, self._put_off = self._put_off, {}
            pause, self._round, self._in_a_row = _PAUSES[min(self._round, len(_PAUSES) - 1)], self._round + 1, 0
        waited_for = min(max([pause, *(said or 0.0 for said in put_off.values())]), _LONGEST) if put_off else 0.0
        until = time.monotonic() + waited_for
        while (left := until - time.monotonic()) > 0 and not is_ending():
            time.sleep(min(left, _LOOKS))
        return sorted(put_off)


def within(timeout: float | None, run: Callable[[], T]) -> T:
    """Run a function in this context, and return what it returns.

    Args:
        timeout: Seconds to wait for it; None: as long as it takes.
        run: The function. It goes on in a thread of its own where it is given up, and holds up no exit.

    Raises:
        TimeoutError: It was given up.
        BaseException: Whatever it raises.
    """
    if timeout is None:
        return run()
    future: futures.Future[T] = futures.Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(run))
        except BaseException as error:  # noqa: BLE001 - it is raised where the function is waited for
            future.set_exception(error)

    threading.Thread(target=work, name="dspy-cachectl-question", daemon=True).start()
    done, _ = futures.wait([future], timeout=timeout)
    if not done:
        raise TimeoutError(f"it was not answered within {timeout:g} s")
    return future.result()
