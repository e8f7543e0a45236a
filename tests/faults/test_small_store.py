"""A store that is too small for one run: what has to make room is said, counted, and seen where runs are listed."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.manage.listed_runs import list_runs
from dspy_cachectl.manage.store_usage import store_usage
from dspy_cachectl.stores.reader import FolderReader
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint

DRAWS = 60


def draw(lm: dspy.LM, run_id: str) -> cachectl.PhaseRun:
    with cachectl.phase("eval", run_id=run_id) as run:
        for number in range(DRAWS):
            lm(f"question {number}")
    return run


def test_a_store_too_small_for_a_run(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a run lost is warned of once, counted in its stats and the store's, and bought again: no number differs."""
    with cachectl.configure(store=str(tmp_path), disk_bytes=120_000, memory_bytes=0), caplog.at_level(logging.WARNING):
        asked = lm()
        first, second = draw(asked, "run-1"), draw(asked, "run-1")
    again = second.stats.fresh
    assert 2 * DRAWS == first.stats.calls + second.stats.calls
    assert endpoint.requests == DRAWS + again
    assert again > 0
    # The second's own description may have made room for itself before its ledger was there.
    lost = cachectl.stats().evicted
    assert lost >= max(again, first.stats.evicted + second.stats.evicted)
    assert 1 == len([message for message in caplog.messages if "is full" in message and "disk_bytes" in message])
    cachectl.uninstall()

    (run,) = list_runs(FolderReader(tmp_path))
    assert ("resumable", lost) == (run.state, run.gone)
    assert lost == store_usage(FolderReader(tmp_path)).total.tally.evicted


def test_an_answer_larger_than_the_store(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not push everything else out, reaches its caller, and is counted and said."""
    with cachectl.configure(store=str(tmp_path), disk_bytes=200_000, memory_bytes=0), caplog.at_level(logging.WARNING):
        asked = lm()
        with cachectl.phase("compile") as run:
            asked("one")
            asked.copy(max_tokens=5)(random.Random(0).randbytes(300_000).hex())
            asked("one")
    assert (2, 1, 1, 0) == (endpoint.requests, run.stats.reused, run.stats.failed_writes, run.stats.evicted)
    assert 1 == len([message for message in caplog.messages if "larger than the store" in message])
