"""Putting the statistics of use of many processes together: nothing is counted twice, and nothing is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest

from dspy_cachectl.accounting import usage as usage_module
from dspy_cachectl.accounting.usage import Usage, UsageTotals
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.tiers import Tiers
from tests.stores.counting import calls, entries, made, record, refusing, totals


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store", patience=0.2)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return refusing(monkeypatch)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "_MOST_ENTRIES", 5)


def ended(store: DiskStore, number: int) -> None:
    """A process that counted one call, and ended."""
    one = made(store)
    record(one, 1)
    one.flush(ended=True)


def test_many_that_ended_are_put_together(store: DiskStore, few: None) -> None:
    """The number of entries stays small, and every call is counted once at any time."""
    for number in range(1, 40):
        ended(store, number)
        assert number == calls(store)
        assert len(entries(store)) <= 6
    assert 39 == len(totals(store).totals)


def test_one_that_goes_on_is_left_alone(store: DiskStore, few: None) -> None:
    """A process that still counts keeps its entry, and what it counts later is not lost."""
    alive = made(store)
    record(alive, 10)
    alive.flush()
    for number in range(20):
        ended(store, number)
    record(alive, 10)
    alive.flush()
    assert 40 == calls(store)


@pytest.mark.parametrize("days", [0, 1, 3])
def test_one_that_writes_for_the_last_time_meanwhile(
    store: DiskStore, few: None, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """What a living process writes while the others are put together is not deleted with what it wrote before."""
    alive = made(store)
    record(alive, 10)
    alive.flush()
    for number in range(4):
        ended(store, number)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * 86_400)
    put = DiskStore.put

    def in_between(self: DiskStore, key: str, value: bytes, label: Label) -> None:
        put(self, key, value, label)
        if len(UsageTotals.of([value]).totals) > 1:
            record(alive, 10)
            alive.flush(ended=True)

    monkeypatch.setattr(DiskStore, "put", in_between)
    ended(store, 5)
    assert 25 == calls(store)


def test_a_clock_that_is_set_back(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two totals of a process the later one counts, whatever the clock says."""
    one = made(store)
    record(one, 1)
    one.flush()
    first = store.get(entries(store)[0]) or b""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1000)
    record(one, 1)
    one.flush()
    later = store.get(entries(store)[0]) or b""
    for several in ([first, later], [later, first]):
        assert 2 == sum(tally.calls for tally in UsageTotals.of(several).rows().values())


def test_one_that_was_killed_long_ago_is_put_together_too(
    store: DiskStore, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two days nobody writes it again: a process that rested for a day begins another entry."""
    killed, resting = made(store), made(store)
    for one in (killed, resting):
        record(one, 1)
        one.flush()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3 * 86_400)
    for number in range(10):
        ended(store, number)
    assert 12 == calls(store)
    assert len(entries(store)) <= 6
    record(resting, 5)
    resting.flush()
    assert 17 == calls(store)
    record(resting, 5)
    resting.flush(ended=True)
    assert 22 == calls(store)


@pytest.mark.parametrize("after", range(7))
def test_a_crash_while_they_are_put_together(
    store: DiskStore, few: None, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Whatever was deleted until then, nothing is counted twice and nothing is lost; the next one goes on."""
    for number in range(5):
        ended(store, number)
    delete, done = DiskStore.delete, []

    class CrashError(BaseException):
        pass

    def crash(self: DiskStore, key: str) -> bool:
        if len(done) == after:
            raise CrashError
        done.append(key)
        return delete(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(DiskStore, "delete", crash)
        with contextlib.suppress(CrashError):
            ended(store, 6)
    assert 6 == calls(store)
    ended(store, 7)
    ended(store, 8)
    assert 8 == calls(store)


def test_two_that_put_together_at_once(store: DiskStore, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that decide at the same moment put some of the same together; each call still counts once."""
    for number in range(5):
        ended(store, number)
    put, inner = DiskStore.put, threading.Event()

    def in_between(self: DiskStore, key: str, value: bytes, label: Label) -> None:
        if len(UsageTotals.of([value]).totals) > 1 and not inner.is_set():
            inner.set()  # the first is about to write what it put together; the second overtakes it
            ended(store, 6)
        put(self, key, value, label)

    monkeypatch.setattr(DiskStore, "put", in_between)
    ended(store, 7)
    assert inner.is_set()
    assert 7 == calls(store)
    for number in range(8, 20):
        ended(store, number)
        assert number == calls(store)


def test_deletions_that_fail_while_they_are_put_together(store: DiskStore, few: None, refused: list[str]) -> None:
    """What is in both places counts once, and is deleted the next time."""
    for number in range(5):
        ended(store, number)
    faults: list[str] = []
    one = Usage(Tiers([store], on_fault=lambda *_: None), on_fault=lambda doing, _: faults.append(doing))
    record(one, 1)
    refused.append("delete")
    one.flush(ended=True)
    assert ["write"] == faults
    assert (6, 7) == (calls(store), len(entries(store)))
    refused.clear()
    ended(store, 7)
    assert (7, 1) == (calls(store), len(entries(store)))


def test_what_cannot_be_put_together_is_not_deleted(
    store: DiskStore, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the entry for all of them cannot be written, each keeps its own."""
    for number in range(5):
        ended(store, number)
    put = DiskStore.put

    def refuse(self: DiskStore, key: str, value: bytes, label: Label) -> None:
        if len(UsageTotals.of([value]).totals) > 1:
            raise StoreUnavailableError("refused")
        put(self, key, value, label)

    monkeypatch.setattr(DiskStore, "put", refuse)
    faults: list[str] = []
    one = Usage(Tiers([store], on_fault=lambda *_: None), on_fault=lambda doing, _: faults.append(doing))
    record(one, 1)
    one.flush(ended=True)
    assert ["write"] == faults
    assert (6, 6) == (calls(store), len(entries(store)))


def test_a_damaged_one_is_passed_over(store: DiskStore, few: None) -> None:
    """It is counted as damaged, is not deleted, and holds nobody up."""
    for number in range(4):
        ended(store, number)
    damaged = entries(store)[0]
    store.put(damaged, b"nothing", Label("usage"))
    for number in range(4, 12):
        ended(store, number)
    assert (1, 11) == (totals(store).damaged, sum(tally.calls for tally in totals(store).rows().values()))
    assert b"nothing" == store.get(damaged)
