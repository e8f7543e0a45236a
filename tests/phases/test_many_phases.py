"""A server has a phase for each request, for as long as it runs: each costs as much as the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.accounting import ledger
from dspy_cachectl.context import process
from dspy_cachectl.context.process import state
from dspy_cachectl.stores import Label, folder as folders
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint
from tests.processes import Finished


def test_what_is_remembered_of_phases(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of phases, roles and models named for each request no more is told apart than a limit, and the sums are right."""
    monkeypatch.setattr(ledger, "_MOST_ROWS", 20)
    monkeypatch.setattr(process, "_MOST_SAID", 20)
    monkeypatch.setattr(folders, "_MOST_LABELS", 20)
    monkeypatch.setattr(folders, "_EVERY", 10)
    with cachectl.configure(store=str(tmp_path)):
        for number in range(200):
            asked = lm(role=f"role-{number}")
            with cachectl.phase(f"phase-{number}", cachectl.Policy.FRESH):
                asked("one")
            state.say_once(f"topic-{number}", "said")
    stats = cachectl.stats()
    cachectl.uninstall()
    counted = FolderReader(tmp_path).usage()

    assert 200 == endpoint.requests == stats.requests == sum(tally.requests for tally in stats.by.values())
    assert len(stats.by) <= 21
    assert len(state._said) <= 20
    assert 200 == sum(counters.get("requests", 0) for counters in counted.values())
    assert len(counted) <= 20 + 2 * 10
    assert [] == state.open_runs


def test_closed_cassettes(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """Of a cassette that was closed long ago nothing is left."""
    asked = lm()
    for number in range(150):
        with cachectl.cassette(tmp_path / "answers.jsonl", "new"):
            asked("one")
        assert len(state.cassettes) <= 101, number
    assert 1 == endpoint.requests


def test_the_use_of_a_store_is_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First runs are told apart no further, then phases; nothing that was counted is lost."""
    monkeypatch.setattr(folders, "_MOST_LABELS", 10)
    monkeypatch.setattr(folders, "_EVERY", 1)
    store = DiskStore(tmp_path)
    for number in range(50):
        store.add_usage({Label("lm", "m", "eval", "", f"run-{number:03d}"): {"calls": 1}}, {})
    of_runs = store.usage()
    for number in range(50):
        store.add_usage({Label("lm", f"m{number}", f"p{number}"): {"calls": 1}}, {})
    assert 50 == sum(counters["calls"] for counters in of_runs.values())
    assert "run-049" in {label.run for label in of_runs}
    assert 100 == sum(counters["calls"] for counters in store.usage().values())
    assert len(store.usage()) <= 11


MANY = """
    import gc, json, logging, os, resource, sys, time
    from concurrent.futures import ThreadPoolExecutor

    import dspy_cachectl as cachectl

    logging.disable(logging.CRITICAL)
    address, store, calls, threads, names = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    cachectl.configure(store=store)
    lm = cachectl.LM("openai/test", api_base=address, api_key="x", cache=True)

    def ask(number):
        name = f"phase-{number}" if names else "request"
        with cachectl.phase(name, cachectl.Policy.FRESH):
            lm(f"question {number}")

    def fds():
        return len(os.listdir("/proc/self/fd"))

    spent, memory, open_files = [], [], []
    tenth = calls // 10
    for part in range(10):
        started = time.process_time()
        # Pools that come and go, as each Evaluate has one.
        for begin in range(part * tenth, (part + 1) * tenth, 100):
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(ask, range(begin, min(begin + 100, (part + 1) * tenth))))
        spent.append(time.process_time() - started)
        gc.collect()
        open_files.append(fds())
        memory.append(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize())
    stats = cachectl.stats()
    print(json.dumps([spent, memory, open_files, stats.requests, stats.failed_writes]))
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("threads", [1, 8, 32])
@pytest.mark.parametrize("names", [False, True], ids=["one name", "a name each"])
def test_many_calls(
    endpoint: Endpoint, child: Callable[..., Finished], tmp_path: Path, threads: int, names: bool
) -> None:
    """The last tenth of many phases costs what the first did, and all that was bought is counted and kept."""
    calls = 5_000
    done = child(MANY, endpoint.url, str(tmp_path), str(calls), str(threads), str(int(names)))
    spent, memory, open_files, requests, failed = done.data
    assert (calls, 0) == (requests, failed)
    assert calls == endpoint.requests
    assert spent[-1] < 2 * max(spent[1:3]) + 1
    assert open_files[-1] - open_files[1] <= 16
    # What is kept in memory on purpose, entries and DSPy's history, grows until it is full.
    assert memory[-1] - memory[5] < 16_000 * calls / 2
