"""How DSPy's executor runs many questions: each once, and in a time in proportion to their number.

Some it starts a second time, since the first start takes long. Where a phase draws afresh or does not read, or a
cassette records, the second start would be an answer of its own, and bought beside the first. In a phase or a cassette
it waits for that. The pool tells one from the other.

After each answer it looks at all questions again. In a phase or a cassette it is given a part of them at a time, and
what it works out for a progress bar that nobody sees is left out. Nothing of this is on the stack while the program
runs.
"""

from __future__ import annotations

import functools
import queue
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from dspy_cachectl.context.homes import as_here
from dspy_cachectl.context.ruling import phase_around, phase_here

_SHARE = 50
"""Answers are handed over by this part of those that are awaited, or by DSPy's patience, which is a second."""
_ENDED = "_cachectl_ended"
"""Where a future of the pool has the queue that it is put into when it is done."""


class _Once(ThreadPoolExecutor):
    """A pool of DSPy's executor that starts each question once, and whose second start comes to what the first does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._started: dict[int, Future[Any]] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def submit(self, worker: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a question: its number is the last argument but one."""
        number = args[-2]
        first = self._started.get(number)
        if first is None:
            first = self._started[number] = super().submit(worker, *args, **kwargs)
            return self._awaited(first)
        again: Future[Any] = Future()
        first.add_done_callback(lambda done: _pass_on(done, again))
        return self._awaited(again)

    def shutdown(self, wait: bool = True, **how: Any) -> None:
        """End. In a rehearsal, what was begun beside the first call that missed comes to a miss of its own."""
        run = phase_here().run
        super().shutdown(wait or (run is not None and run.waves is not None and run.waves.is_rehearsal), **how)

    def _awaited(self, future: Future[Any]) -> Future[Any]:
        setattr(future, _ENDED, self._ended)
        future.add_done_callback(self._ended.put)
        return future


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


def in_parts(original: Callable[..., Any]) -> Callable[..., Any]:
    """In the place of what the executor waits with: for some of many answers, and not for each of them."""

    @functools.wraps(original)
    def wait(futures: set[Future[Any]], timeout: float, **how: Any) -> tuple[set[Future[Any]], set[Future[Any]]]:
        ended = getattr(next(iter(futures), None), _ENDED, None)
        if ended is None:
            result: tuple[set[Future[Any]], set[Future[Any]]] = original(futures, timeout=timeout, **how)
            return result
        done: set[Future[Any]] = set()
        until = time.monotonic() + timeout
        while len(done) <= len(futures) // _SHARE:
            try:
                done.add(ended.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return done, futures - done

    return wait


class _Bars(weakref.WeakSet[Any]):
    """The progress bars that there are. What one thread takes away, or adds, is no error of another."""

    def __iter__(self) -> Iterator[Any]:
        return iter([bar for found in vars(self)["data"].copy() if (bar := found()) is not None])

    def remove(self, item: Any) -> None:
        self.discard(item)

    def clear(self) -> None:
        """Leave those of others alone; one that is closed is taken away by itself."""


def with_bars_apart(original: Any) -> Any:
    """In the place of the module that the executor has its progress bars from.

    It forgets all bars before it makes its own, also the one that another thread is just making, which fails with that.
    """

    class Bar(original.tqdm):  # type: ignore[misc]
        _instances = _Bars()

    return SimpleNamespace(tqdm=Bar)


def if_seen(original: Callable[..., Any]) -> Callable[..., Any]:
    """Around what the executor works out for its progress bar after each answer, of all answers that there are."""

    @functools.wraps(original)
    def report(executor: Any, bar: Any, results: list[Any], total: int) -> None:
        if not getattr(bar, "disable", False):
            original(executor, bar, results, total)

    return report
