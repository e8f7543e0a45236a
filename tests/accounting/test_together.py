"""Hits are counted a few at a time, and whoever looks sees all of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.accounting.ledger import TOGETHER, Ledger, Tally
from dspy_cachectl.accounting.together import Where
from dspy_cachectl.context.process import state
from dspy_cachectl.stores.disk import DiskStore
from tests.stores.counting import USED, calls, made, served, totals

MakeLM = Callable[..., cachectl.LM]

HIT = Tally(calls=1, reused=1)
ROW = ("compile", None, "m")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_whoever_reads_a_ledger_sees_every_call(ledger: Ledger, count: int) -> None:
    """However few were noted since, and once each."""
    where, other = Where((ledger,), ROW, None, None), Where((ledger,), ("eval", "judge", "m"), None, None)
    for _ in range(2):
        for _ in range(count):
            TOGETHER.note(where, HIT, None)
            TOGETHER.note(other, HIT, None)
        ledger.snapshot()
    stats = ledger.snapshot()
    assert (4 * count, [2 * count] * 2) == (stats.calls, [tally.calls for tally in stats.by.values()])
    assert ["compile", "eval"] == [row.phase for row in stats.by]


def test_what_is_written_of_a_store_has_every_call(tmp_path: Path) -> None:
    """With how often each entry was served."""
    store = DiskStore(tmp_path / "store")
    usage = made(store)
    where = Where((), ROW, usage, USED)
    for number in range(40):
        TOGETHER.note(where, HIT, "a" * 64 if number % 4 else "b" * 64)
    usage.flush()
    assert 40 == calls(store)
    assert [40] == [tally.reused for tally in totals(store).values()]


def test_a_cleared_ledger_counts_nothing_of_before(ledger: Ledger) -> None:
    """What was noted before is cleared, too."""
    TOGETHER.note(Where((ledger,), ROW, None, None), HIT, None)
    ledger.clear()
    assert 0 == ledger.snapshot().calls


def test_threads_count_each_call_once(ledger: Ledger) -> None:
    """While others read, who never see fewer than before."""
    where, seen = Where((ledger,), ROW, None, None), [0]

    def ask() -> None:
        for _ in range(2000):
            TOGETHER.note(where, HIT, None)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(ledger.snapshot().calls)
    assert seen == sorted(seen)
    assert 8000 == ledger.snapshot().calls


def test_a_hit_is_seen_as_soon_as_it_is_made(lm: MakeLM, tmp_path: Path) -> None:
    """In its phase, in the process and in the store; and what is bought after hits comes after them."""
    judge = lm(role="judge")
    with cachectl.phase("compile"):
        for _ in range(2):
            lm()("q")
    with cachectl.phase("eval", roles={"judge": cachectl.Policy.REUSE}, run_id="r") as run:
        judge("q")
        lm()("q")
        assert [("judge", 1), (None, 1)] == [(row.role, tally.calls) for row, tally in run.stats.by.items()]
        for hits in range(2, 5):
            judge("q")
            assert (hits, hits + 1) == (run.stats.reused, run.stats.calls)
            assert hits + 1 == cachectl.stats().served
    assert [5] == [times for times, _ in served(DiskStore(tmp_path / "store")).values() if times]


def test_a_hit_is_told_at_once_where_another_process_may_end_this_one(lm: MakeLM) -> None:
    """A worker tells where its phase was opened, call by call."""
    told: list[int] = []
    with cachectl.phase("compile") as run:
        lm()("q")
        run.ledger.also = lambda _, tally: told.append(tally.reused)
        for _ in range(3):
            lm()("q")
            assert [1] * len(told) == told
        assert 3 == len(told)
        run.ledger.also = None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_counts_nothing_twice(lm: MakeLM, tmp_path: Path) -> None:
    """Hits of the parent that were not added up yet are the parent's alone."""
    for _ in range(3):
        lm()("q")
    usage = state.usage
    assert usage is not None
    child = os.fork()
    if not child:
        counted = cachectl.stats().calls
        usage.flush()
        os._exit(counted)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for _ in range(2):
        lm()("q")
    usage.flush()
    assert 5 == calls(DiskStore(tmp_path / "store")) == cachectl.stats().calls
