"""Few file descriptors: many threads are served from the store without opening more than a process may."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.faults.evaluating import evaluated
from tests.processes import Finished

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")

ASKING = """
    import json, os, resource, sys, threading
    from concurrent.futures import ThreadPoolExecutor

    import dspy_cachectl as cachectl

    cachectl.configure(memory_bytes=int(sys.argv[1]))
    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret")
    barrier = threading.Barrier(48)

    def ask(thread):
        barrier.wait()
        return [lm(f"question {at}")[0] for at in range(60)]

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    with cachectl.phase("compile", everywhere=True) as run, ThreadPoolExecutor(48) as pool:
        answers = list(pool.map(ask, range(48)))
    assert all(found == answers[0] for found in answers)
    print(json.dumps([answers[0], run.stats.as_dict()]))
"""


@pytest.mark.parametrize("memory_bytes", [2**20, 0], ids=["memory in front", "disk only"])
def test_48_threads_of_cached_calls(
    endpoint: Endpoint, lm: Callable[..., cachectl.LM], child: Callable[..., Finished], memory_bytes: int
) -> None:
    """48 threads that ask what is stored make no request and see no failed read, with 256 descriptors at most."""
    model = lm()
    with cachectl.phase("compile"):
        answers = [model(f"question {at}")[0] for at in range(60)]
    assert 60 == endpoint.requests

    with endpoint.counting() as seen:
        again, stats = child(ASKING, str(memory_bytes)).data

    assert 0 == seen.requests
    assert answers == again
    assert (48 * 60, 0, 0) == (stats["calls"], stats["failed_reads"], stats["failed_writes"])
    assert 48 * 60 == stats["reused"] + stats["coalesced"]


EVALUATING = """
    import json, os, resource

    import dspy, dspy_cachectl as cachectl
    from tests.faults.evaluating import evaluated

    cachectl.configure(memory_bytes=0)
    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    score, run = evaluated(lm)
    print(json.dumps([score, run.stats.as_dict()]))
"""


def test_48_threads_of_a_resumed_evaluation(
    endpoint: Endpoint, lm: Callable[..., cachectl.LM], child: Callable[..., Finished]
) -> None:
    """An evaluation on 48 threads is resumed whole, without a request, with 256 descriptors at most."""
    score, run = evaluated(lm())
    assert 96 == run.stats.fresh == endpoint.requests

    with endpoint.counting() as seen:
        again, stats = child(EVALUATING).data

    assert 0 == seen.requests
    assert score == again
    assert (96, 96, 0) == (stats["calls"], stats["resumed"], stats["failed_reads"])


POOLS = """
    import json, os, resource
    from concurrent.futures import ThreadPoolExecutor

    import dspy_cachectl as cachectl

    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret")

    def rounds(number):
        for at in range(number):
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lm, [f"question {at}-{asked}" for asked in range(16)]))

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    cachectl.configure(memory_bytes=0)
    with cachectl.phase("compile", everywhere=True) as run:
        rounds(3)
        before = len(os.listdir("/proc/self/fd"))
        rounds(60)
        print(json.dumps([len(os.listdir("/proc/self/fd")) - before, run.stats.as_dict()]))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_thread_pools_that_come_and_go(endpoint: Endpoint, child: Callable[..., Finished]) -> None:
    """However many threads have come and gone, no descriptor is left behind, and all that was bought is kept."""
    more, stats = child(POOLS).data

    assert 60 * 16 <= endpoint.requests
    assert (0, 0) == (stats["failed_reads"], stats["failed_writes"])
    assert more < 16


SPENT = """
    import json, os, resource, sys

    import dspy_cachectl as cachectl
    from dspy_cachectl.errors import StoreUnavailableError
    from dspy_cachectl.stores import Label
    from dspy_cachectl.stores.disk import DiskStore

    store = DiskStore(sys.argv[1])
    store.put("small", b"value", Label())
    store.put("large", bytes(600_000), Label())
    # What is left is not enough to open a file.
    soft = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    seen = []
    for read in (store, DiskStore(sys.argv[1])):
        for key in ("small", "large", "missing"):
            try:
                value = read.get(key)
                seen.append(None if value is None else len(value))
            except StoreUnavailableError as error:
                seen.append("unavailable")
    print(json.dumps(seen))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_descriptor_left_is_not_a_miss(tmp_path: Path, child: Callable[..., Finished]) -> None:
    """A store that cannot open a file says so: it does not claim that the entry is not there."""
    seen = child(SPENT, str(tmp_path / "entries")).data

    assert [5, 600_000, None, "unavailable", "unavailable", "unavailable"] == seen
