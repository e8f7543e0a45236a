"""The workers of somebody's pool: parts of a work are handed to them, and again where a worker is lost."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from typing import Any

import dspy

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import CachectlError, ConfigurationError

_MOST_PARTS = 32
_ATTEMPTS = 3
"""How often a part is sent whose worker is lost."""

logger = logger_for(__name__)


class Workers:
    """The workers of somebody's pool.

    Args:
        executor: What has `submit(function, *arguments)` and returns futures; or a function that makes one.

    Raises:
        ConfigurationError: If it is neither.
    """

    def __init__(self, executor: Any) -> None:
        self._make: Callable[[], Any] | None = None
        if callable(executor) and not hasattr(executor, "submit"):
            self._make = executor
            executor = executor()
        if not hasattr(executor, "submit"):
            raise ConfigurationError(
                "executor is something with submit(function, *arguments), such as a ProcessPoolExecutor, or a "
                f"function that makes one; not {executor!r}"
            )
        self._pool = self._usable(executor)

    @property
    def are_threads(self) -> bool:
        """Whether they are threads of this process, to which nothing is sent."""
        return isinstance(self._pool, ThreadPoolExecutor)

    def submit(self, *call: Any) -> Any:
        """Have a function called; return its future."""
        return self._pool.submit(*call)

    def renew(self) -> bool:
        """Take another pool in the place of one that is broken. Tell whether there is one."""
        if self._make is None:
            return False
        self.close()
        self._pool = self._usable(self._make())
        return True

    def close(self) -> None:
        """Let go of a pool that was made here."""
        if self._make is not None and hasattr(self._pool, "shutdown"):
            self._pool.shutdown(wait=True)

    @staticmethod
    def _usable(pool: Any) -> Any:
        # A client of Dask takes equal calls for one; its executor does not.
        return pool.get_executor() if hasattr(pool, "get_executor") else pool


def parts_for(count: int, threads: int | None) -> int:
    """Return into how many parts a number of questions is made, so that each thread of a worker has one."""
    return max(1, min(_MOST_PARTS, count // (threads or dspy.settings.num_threads)))


def outcomes(
    workers: Workers, function: Callable[..., Any], common: Any, parts: Sequence[Any]
) -> Iterator[tuple[int, Any]]:
    """Have a function called with what parts have in common and each of them; yield what it returns as it comes.

    A part whose worker is lost is sent again. Where nobody wants more, what has not begun is cancelled.

    Raises:
        CachectlError: If a worker is lost again and again, or the pool is broken and there is no other.
    """
    sending = _Sending(workers, function, common, parts)
    try:
        yield from sending.outcomes()
    finally:
        sending.cancel()


class _Sending:
    """The parts that are in the air."""

    def __init__(self, workers: Workers, function: Callable[..., Any], common: Any, parts: Sequence[Any]) -> None:
        self._workers, self._function, self._common, self._parts = workers, function, common, parts
        self._done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._in_air: dict[int, Any] = {}
        self._tried = [0] * len(parts)

    def outcomes(self) -> Iterator[tuple[int, Any]]:
        for index in range(len(self._parts)):
            self._send(index)
        while self._in_air:
            index, future = self._done.get()
            del self._in_air[index]  # each part is in the air once, until it comes in
            try:
                outcome = future.result()
            except Exception as error:  # noqa: BLE001 - of whichever engine
                self._repeat(index, error)
            else:
                yield index, outcome

    def cancel(self) -> None:
        for future in self._in_air.values():
            future.cancel()

    def _send(self, index: int) -> None:
        self._tried[index] += 1
        try:
            future = self._workers.submit(self._function, self._common, self._parts[index])
        except BrokenExecutor as error:
            self._renew(error)
            future = self._workers.submit(self._function, self._common, self._parts[index])
        self._in_air[index] = future
        future.add_done_callback(lambda done: self._done.put((index, done)))

    def _repeat(self, index: int, error: Exception) -> None:
        what = f"part {index} of {len(self._parts)}"
        if self._tried[index] >= _ATTEMPTS:
            raise CachectlError(
                f"{what} was sent {_ATTEMPTS} times, and each time its worker was lost: {type(error).__name__}: {error}"
            ) from error
        logger.warning("%s is sent again, since its worker was lost (%s)", what, type(error).__name__)
        self._send(index)

    def _renew(self, error: Exception) -> None:
        if not self._workers.renew():
            raise CachectlError(
                f"the pool is broken, since one of its workers was lost ({error}), and takes no more work. The same "
                "again with another pool goes on from here; give executor= a function that makes the pool, and "
                "another one is made"
            ) from error
