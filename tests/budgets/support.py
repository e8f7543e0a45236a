"""A phase that ends with more asked than its budget allows, and questions from threads and coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Budget, BudgetExceededError


@dataclass
class Exceeded:
    """What a phase was, and how it ended."""

    run: cachectl.PhaseRun = field(init=False)
    error: BudgetExceededError = field(init=False)


@contextmanager
def exceeding(budget: Budget, name: str = "compile", **options: Any) -> Iterator[Exceeded]:
    """Open a phase that has to end as one whose budget did not allow a call. What is asserted in it counts."""
    seen, wrong = Exceeded(), None
    with pytest.raises(BudgetExceededError) as raised, cachectl.phase(name, budget=budget, **options) as seen.run:  # noqa: PT012
        try:
            yield seen
        except AssertionError as error:  # the end of the phase would take its place
            wrong = error
    if wrong is not None:
        raise wrong
    seen.error = raised.value


def ask_in_threads(lm: Any, count: int, threads: int = 32) -> int:
    """Ask so many questions from threads, and return how many were not made."""
    ask = cachectl.carry(lambda number: _was_made(lm, number))
    with ThreadPoolExecutor(threads) as pool:
        return count - sum(pool.map(ask, range(count)))


def _was_made(lm: Any, number: int) -> bool:
    try:
        lm(f"question {number}")
    except BudgetExceededError:
        return False
    except dspy.LMError:
        pass
    return True


def ask_in_coroutines(lm: Any, count: int) -> int:
    """Ask so many questions at once, and return how many were not made."""

    async def ask() -> list[Any]:
        asked = [lm.acall(f"question {number}") for number in range(count)]
        return await asyncio.gather(*asked, return_exceptions=True)

    return sum(isinstance(one, BudgetExceededError) for one in asyncio.run(ask()))


ASKING = {"threads": ask_in_threads, "coroutines": ask_in_coroutines}
