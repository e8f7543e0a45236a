"""Questions that DSPy's executor starts a second time, since the first start takes long.

Where a phase draws afresh or does not read, or a cassette records, the second start would be an answer of its own, and
bought beside the first. In a phase or a cassette it waits for that. The pool tells one from the other, so that nothing
of it is on the stack while the program runs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dspy_cachectl.context.homes import as_here
from dspy_cachectl.context.ruling import phase_around


class _Once(ThreadPoolExecutor):
    """A pool of DSPy's executor that starts each question once, and whose second start comes to what the first does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._started: dict[int, Future[Any]] = {}

    def submit(self, worker: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a question: its number is the last argument but one."""
        number = args[-2]
        first = self._started.get(number)
        if first is None:
            first = self._started[number] = super().submit(worker, *args, **kwargs)
            return first
        again: Future[Any] = Future()
        first.add_done_callback(lambda done: _pass_on(done, again))
        return again


def _pass_on(done: Future[Any], again: Future[Any]) -> None:
    error = None if done.cancelled() else done.exception()
    if done.cancelled():
        again.cancel()
    elif error is not None:
        again.set_exception(error)
    else:
        again.set_result(done.result())


def starting_once(original: Callable[..., Any]) -> Callable[..., Any]:
    """In the place of the pool that `dspy.Evaluate` and `dspy.Parallel` run everything with."""

    def pool(*args: Any, **kwargs: Any) -> Any:
        return (original if phase_around() is None else _Once)(*args, **as_here(kwargs))

    return pool
