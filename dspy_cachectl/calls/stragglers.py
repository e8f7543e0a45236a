"""Questions that DSPy's executor starts a second time, since the first start takes long.

Where a phase draws afresh, the second start would be a draw of its own, bought beside the first. It waits for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.context.ruling import phase_around


@dataclass(frozen=True)
class _Item:
    number: int
    item: Any

    def __repr__(self) -> str:
        return repr(self.item)  # DSPy's log names what it failed on


class _Once:
    """A function of items that runs once for each, and whose second start gets what the first comes to."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._started: dict[int, Future[Any]] = {}

    def __call__(self, numbered: _Item) -> Any:
        with self._lock:
            first = self._started.get(numbered.number)
            mine = self._started[numbered.number] = Future() if first is None else first
        if first is not None:
            return first.result()
        try:
            result = self._function(numbered.item)
        except BaseException as error:
            mine.set_exception(error)
            raise
        mine.set_result(result)
        return result


def asking_once(original: Callable[..., Any]) -> Callable[..., Any]:
    """Around `ParallelExecutor.execute`, which `dspy.Evaluate` and `dspy.Parallel` run everything with."""

    def execute(executor: Any, function: Callable[[Any], Any], data: Sequence[Any]) -> Any:
        context = phase_around()
        if context is None or not context.draws_afresh:
            return original(executor, function, data)
        return original(executor, _Once(function), [_Item(*numbered) for numbered in enumerate(data)])

    return execute
