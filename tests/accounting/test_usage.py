"""The statistics of use: each call is counted once, in memory, and written now and then."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.accounting import usage as usage_module
from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.accounting.usage import Usage
from dspy_cachectl.context.process import state
from dspy_cachectl.stores import Label, MemoryStore
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.tiers import Tiers
from tests.endpoint import Endpoint
from tests.stores.counting import LABEL, calls, made, record, refusing, served, totals

MakeLM = Callable[..., cachectl.LM]


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store", patience=0.2)


@pytest.fixture
def usage(store: DiskStore) -> Usage:
    return made(store)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return refusing(monkeypatch)


def test_nothing_is_written_for_a_call(usage: Usage, store: DiskStore) -> None:
    """Calls are added up in memory, and written when they are asked for, each once."""
    record(usage, 5)
    assert not store.path.exists()
    for expected in (5, 8, 8):
        usage.flush()
        assert expected == calls(store)
        record(usage, 3 if expected == 5 else 0)


def test_every_counter_by_every_field(usage: Usage, store: DiskStore) -> None:
    """What is read is what was counted, each kind, model, phase, role and run by itself."""
    one = Tally(calls=3, fresh=2, resumed=1, prompt_tokens_spent=7, cost_saved=0.25, seconds_spent=1.5)
    usage.record(("lm", "m\x1b", "p", "judge", "run-1"), one, None)
    usage.record(("embedding", "m\x1b", "p", "", ""), Tally(calls=1), None)
    usage.record(("lm", "m\x1b", "p", "judge", "run-1"), one, None)
    usage.flush()
    twice = Tally()
    twice.add(one)
    twice.add(one)
    expected = {Label("lm", "m\x1b", "p", "judge", "run-1"): twice, Label("embedding", "m\x1b", "p"): Tally(calls=1)}
    assert expected == totals(store)


def test_a_minute_brings_it_up_to_date(usage: Usage, store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never leaves its phase is seen all the same."""
    record(usage, 2)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    record(usage, 1)
    assert 3 == calls(store)
    record(usage, 1)
    assert 3 == calls(store)


def test_how_often_entries_were_served(usage: Usage, store: DiskStore) -> None:
    """It is noted beside the entries, at once, and begins anew when one is replaced."""
    for key in "abc":
        store.put(key, b"value", LABEL)
    record(usage, 3, "a")
    record(usage, 1, "b")
    record(usage, 2, "never stored")
    assert {"a": (0, False), "b": (0, False), "c": (0, False)} == served(store)
    usage.flush()
    usage.flush()
    assert {"a": (3, True), "b": (1, True), "c": (0, False)} == served(store)
    record(usage, 1, "a")
    usage.flush()
    assert (4, True) == served(store)["a"]
    store.put("a", b"another", LABEL)
    assert 0 == served(store)["a"][0]
    assert [b"another", b"value"] == [store.get(key) for key in "ab"]


def test_threads_lose_nothing(usage: Usage, store: DiskStore) -> None:
    """Threads that count, and threads that write meanwhile."""
    store.put("a", b"value", LABEL)

    def work(at: int) -> None:
        for _ in range(300):
            record(usage, 1, "a")
            if at == 0:
                usage.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    usage.flush()
    assert (2400, 2400) == (calls(store), served(store)["a"][0])


def test_several_at_once_are_added_up(store: DiskStore) -> None:
    """Whoever writes first, nothing is lost and nothing is counted twice."""
    several = [made(store) for _ in range(4)]

    def work(number: int) -> None:
        for _ in range(20):
            record(several[number], number)
            several[number].flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert 20 * (0 + 1 + 2 + 3) == calls(store)


def test_it_is_no_entry(usage: Usage, store: DiskStore) -> None:
    """It is kept apart: it is neither listed, nor pushed out by answers; what clears the store leaves it."""
    store.put("a", b"value", LABEL)
    record(usage, 1)
    usage.flush()
    assert ({LABEL: 1}, ["a"]) == (store.labels(), list(store.keys()))
    store.clear()
    assert 1 == calls(store)


def test_a_write_that_failed_is_made_up_for(store: DiskStore, refused: list[str]) -> None:
    """It is told, not raised, and the next write holds what the failed one would have held, once."""
    faults: list[str] = []
    usage = Usage(Tiers([store], on_fault=lambda doing, _: faults.append(doing)), on_fault=lambda *_: None)
    store.put("a", b"value", LABEL)
    record(usage, 2, "a")
    refused.append("add_usage")
    usage.flush()
    assert ["write"] == faults
    record(usage, 1, "a")
    usage.flush()
    assert ["write"] * 2 == faults
    refused.clear()
    usage.flush()
    record(usage, 1, "a")
    usage.flush()
    assert (4, 4) == (calls(store), served(store)["a"][0])
    assert ["write"] * 2 == faults


def test_what_cannot_be_written_does_not_grow_for_ever(
    store: DiskStore, refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a store that stays out of reach the served keys are forgotten in the end; the calls are not."""
    monkeypatch.setattr(usage_module, "_MOST_KEYS", 10)
    usage = Usage(Tiers([store], on_fault=lambda *_: None), on_fault=lambda *_: None)
    refused.append("add_usage")
    for at in range(100):
        record(usage, 1, f"key-{at}")
        assert len(usage._served) <= 11
    refused.clear()
    usage.flush()
    assert 100 == calls(store)


def test_a_failed_write_is_counted_and_said_once(
    lm: MakeLM, store: DiskStore, refused: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The program goes on, its phases count their own calls only, and the process says what failed."""
    cachectl.install([store])
    model = lm()
    model("What?")
    refused.append("add_usage")
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        for _ in range(3):
            with cachectl.phase("compile") as run:
                assert model("What?")
    assert (1, 0) == (run.stats.reused, run.stats.failed_writes)
    assert 3 == cachectl.stats().failed_writes
    assert 1 == sum("write of the store failed" in message for message in caplog.messages)


def test_a_slow_failure_is_not_waited_for_again(store: DiskStore, refused: list[str], monkeypatch: Any) -> None:
    """A store that was set aside after a slow failure is set aside for the statistics too."""
    faults: list[str] = []
    tiers = Tiers([store], on_fault=lambda _, error: faults.append(str(error)))
    usage = Usage(tiers, on_fault=lambda *_: None)
    refused.append("put")
    now = time.monotonic()
    ticks = itertools.chain([now], itertools.repeat(now + 5))  # between the beginning of the first write and its end
    with monkeypatch.context() as patched:
        patched.setattr("dspy_cachectl.stores.tiers.time.monotonic", lambda: next(ticks))
        tiers.put("a", b"value", LABEL)
        refused.clear()
        record(usage, 1)
        usage.flush()
    assert ["set aside" in fault for fault in faults] == [False, True]


def test_a_phase_ends_with_a_write(lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """What a phase did can be seen when it has ended; between its calls nothing is written."""
    cachectl.install([DiskStore(tmp_path / "store")])
    seen = DiskStore(tmp_path / "store")
    model = lm()
    with cachectl.phase("eval", run_id="run-1"):
        for _ in range(3):
            model("What?")
        assert {} == totals(seen)
    with cachectl.phase("eval", run_id="run-1"):
        model("What?")
    label = Label("lm", "openai/test-model", "eval", "", "run-1")
    tally = totals(seen)[label]
    assert (4, 3, 1, 3) == (tally.calls, tally.fresh, tally.resumed, endpoint.requests)
    cachectl.uninstall()
    assert state.usage is None
    assert 4 == calls(seen)


def test_plain_lms_embedders_and_calls_that_failed(
    plain_lm: Callable[..., Any], endpoint: Endpoint, tmp_path: Path
) -> None:
    """Every call that the cache sees is counted once, with its kind."""
    import dspy

    cachectl.install([DiskStore(tmp_path / "store")])
    plain = plain_lm(num_retries=0)
    for _ in range(3):
        plain("What?")
    embedder = dspy.Embedder("openai/vectors", api_base=endpoint.url, api_key="sk-test")
    for _ in range(2):
        embedder(["text"])
    governed = cachectl.wrap(plain_lm(num_retries=0))
    endpoint.fail("status", status=400, times=1)
    with pytest.raises(Exception, match="400"):
        governed("fails?")
    cachectl.uninstall()
    rows = {
        (label.kind, label.model): (tally.calls, tally.served, tally.failed)
        for label, tally in totals(DiskStore(tmp_path / "store")).items()
    }
    assert {
        ("plain-lm", "openai/test-model"): (3, 2, 0),
        ("embedding", "openai/vectors"): (2, 1, 0),
        ("lm", "openai/test-model"): (1, 0, 1),
    } == rows


@pytest.mark.parametrize("from_disk", [False, True])
def test_a_text_that_is_embedded_is_served_once_a_hit(endpoint: Endpoint, tmp_path: Path, from_disk: bool) -> None:
    """Beside each text's entry there is how often it was served, by itself or together with others."""
    import dspy

    cache = cachectl.install([MemoryStore(), DiskStore(tmp_path / "store")])
    embedder = dspy.Embedder("openai/vectors", api_base=endpoint.url, api_key="sk-test")
    embedder(["a"])
    for texts in (["a"], ["b", "c"], ["a"], ["b", "c"], ["c", "a"]):
        if from_disk:
            cache.reset_memory_cache()
        embedder(texts)
    cachectl.uninstall()
    assert 2 == endpoint.requests
    assert [1, 2, 3] == sorted(count for count, _ in served(DiskStore(tmp_path / "store")).values())


def test_memory_alone_keeps_no_statistics() -> None:
    """They would end with the process. A store of somebody's own that does not count is no fault either."""
    memory = MemoryStore()
    usage = Usage(Tiers([memory], on_fault=lambda *_: None), on_fault=lambda *_: None)
    record(usage, 1, "a")
    usage.flush()
    assert [] == list(memory.keys())


def test_all_stores_that_count_take_the_counts(store: DiskStore, tmp_path: Path) -> None:
    """Tiers hand them on to each store, and one that fails does not keep them from the next."""
    other, faults = DiskStore(tmp_path / "other"), []
    for one in (store, other):
        one.put("a", b"value", LABEL)

    class Broken(MemoryStore):
        def add_usage(self, used: Any, served: Any) -> None:
            raise RuntimeError("broken")

        def usage(self) -> dict[Label, dict[str, float]]:
            return {}

    tiers = Tiers([MemoryStore(), Broken(), store, other], on_fault=lambda doing, _: faults.append(doing))
    assert tiers.add_usage({LABEL: {"calls": 3}}, {"a": 2, "b": 1})
    assert [{"a": (2, True)}] * 2 == [served(one) for one in (store, other)]
    assert [3, 3] == [calls(store), calls(other)]
    assert ["write"] == faults


@pytest.mark.skipif(sys.platform == "win32", reason="the folder is in use")
def test_no_folder_is_made_for_nothing(tmp_path: Path) -> None:
    """A process that makes no call leaves no trace."""
    cachectl.install([DiskStore(tmp_path / "store")])
    with cachectl.phase("compile"):
        pass
    cachectl.uninstall()
    assert not (tmp_path / "store").exists()
