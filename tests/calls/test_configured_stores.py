"""A store that is configured holds from the next call on, wherever and whenever that is said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.stores.reader import FolderReader
from tests.endpoint import Endpoint

Make = Callable[..., Any]


def answers(folder: Path) -> int:
    """How many answers a folder holds, for somebody else who looks."""
    reader = FolderReader(folder)
    return sum(count for label, count in reader.labels().items() if label.is_answer) if reader.exists() else 0


@pytest.fixture(params=["governed", "plain"])
def asked(request: pytest.FixtureRequest, lm: Make, plain_lm: Make) -> Callable[[str], Any]:
    """Ask a question of an LM that was made before anything was configured."""
    made = lm() if request.param == "governed" else plain_lm()
    cachectl.install()
    return made


def test_from_the_next_call_on(asked: Callable[[str], Any], tmp_path: Path) -> None:
    """Answers go where it was said last, and the store before is left as it is."""
    asked("one")
    cachectl.configure(store=tmp_path / "mine")
    asked("two")
    asked("three")
    assert (1, 2) == (answers(tmp_path / "store"), answers(tmp_path / "mine"))


def test_until_the_block_has_ended(asked: Callable[[str], Any], tmp_path: Path, endpoint: Endpoint) -> None:
    """Blocks within one another each give back what was there before."""
    asked("one")
    with cachectl.configure(store=tmp_path / "outer"):
        asked("two")
        with cachectl.configure(store=tmp_path / "inner"):
            asked("three")
        asked("four")
    asked("five")
    asked("one")
    assert [2, 2, 1] == [answers(tmp_path / name) for name in ("store", "outer", "inner")]
    assert 5 == endpoint.requests


def test_a_block_that_another_thread_leaves_first(asked: Callable[[str], Any], tmp_path: Path) -> None:
    """The store of a block that has ended is never given back."""
    opened, may_end = threading.Event(), threading.Event()

    def other() -> None:
        with cachectl.configure(store=tmp_path / "other"):
            opened.set()
            may_end.wait()

    thread = threading.Thread(target=other)
    with cachectl.configure(store=tmp_path / "mine"):
        thread.start()
        opened.wait()
    may_end.set()
    thread.join()
    asked("one")
    assert [1, 0, 0] == [answers(tmp_path / name) for name in ("store", "other", "mine")]


def test_within_a_phase(lm: Make, tmp_path: Path, endpoint: Endpoint) -> None:
    """A phase that is open asks the new store from the next call on, and ends whole."""
    made = lm()
    with cachectl.phase("eval", run_id="run") as run:
        made("one")
        cachectl.configure(store=tmp_path / "mine")
        made("two")
    with cachectl.phase("eval", run_id="run"):
        made("two")
    assert (1, 2, 1) == (answers(tmp_path / "store"), run.stats.fresh, answers(tmp_path / "mine"))


def test_memory_keeps_what_was_bought_for_it(lm: Make, tmp_path: Path, endpoint: Endpoint) -> None:
    """A store in memory is there again when a block that configured another ends."""
    cachectl.configure(store="memory://")
    made = lm()
    made("one")
    with cachectl.configure(store=tmp_path / "mine"):
        made("two")
    made("one")
    assert 2 == endpoint.requests


def test_what_says_nothing_of_the_store_leaves_it_in_place(lm: Make) -> None:
    """Another policy, or another temperature of a phase, opens no store anew; other limits do."""
    lm()
    before = dspy.cache
    with cachectl.configure(policy="OFF", force_recompute=True, phases={"eval": {"temperature": 0.5}}):
        assert before is dspy.cache
    assert before is dspy.cache
    with cachectl.configure(disk_bytes=10**6, memory_bytes=0):
        (disk,) = dspy.cache.tiers.stores
        assert 10**6 == disk.max_bytes
    assert 2 == len(dspy.cache.tiers.stores)


def test_the_policy_outside_phases(asked: Callable[[str], Any], endpoint: Endpoint) -> None:
    """It holds from the next call on, and no longer than its block."""
    asked("one")
    with cachectl.configure(policy="OFF"):
        asked("one")
    asked("one")
    assert 2 == endpoint.requests


def test_a_store_of_ones_own_stays(lm: Make, tmp_path: Path) -> None:
    """What was installed by hand is not replaced by a setting."""
    cachectl.install(tmp_path / "own")
    cachectl.configure(store=tmp_path / "mine")
    lm()("one")
    assert (1, 0) == (answers(tmp_path / "own"), answers(tmp_path / "mine"))


def test_nothing_is_put_in_place_where_nothing_is(tmp_path: Path) -> None:
    """A setting alone makes no cache ours, and no folder."""
    cachectl.configure(store=tmp_path / "mine")
    assert not isinstance(dspy.cache, cachectl.ManagedCache)
    cachectl.install()
    cachectl.uninstall()
    cachectl.configure(memory_bytes=0)
    assert not isinstance(dspy.cache, cachectl.ManagedCache)
    assert not (tmp_path / "mine").exists()
