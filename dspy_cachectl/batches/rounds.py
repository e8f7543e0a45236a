"""Several evaluations whose batches are on their way at once, in place of one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from dspy_cachectl.batches.batch import Batch, batch_of
from dspy_cachectl.errors import BatchPendingError

T = TypeVar("T")


def in_rounds(
    evaluations: Sequence[Callable[[Batch | None], T]],
    given: bool | Batch,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[T]:
    """Yield what each of several evaluations comes to, in their order.

    Args:
        evaluations: Each is told how to wait for batches; None where there are none.
        given: How batches are to be waited for.
        pause: Waits for so many seconds.

    Raises:
        BatchPendingError: If batches of some are on their way, and are not to be waited for.
    """
    how = batch_of(given)
    if how is None:
        yield from (evaluate(None) for evaluate in evaluations)
        return
    found, interval = dict[int, T](), how.interval
    while len(found) < len(evaluations):
        pending: list[BatchPendingError] = []
        for number, evaluate in enumerate(evaluations):
            if number not in found:
                try:
                    found[number] = evaluate(replace(how, wait=False))
                except BatchPendingError as error:
                    pending.append(error)
        if pending and not how.wait:
            raise BatchPendingError([one for error in pending for one in error.batches], _lines(pending), None)
        if pending:
            pause(interval)
            interval = how.after(interval)
    yield from (found[number] for number in range(len(evaluations)))


def _lines(pending: Sequence[BatchPendingError]) -> int:
    return sum(error.lines for error in pending)
