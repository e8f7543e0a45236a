"""A limit is kept by whoever shares the store: threads, coroutines and processes, retries included."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.processes import Finished
from tests.stores.servers import free_port, running

CHILD = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import dspy_cachectl as cachectl

name, rate, threads, calls = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
free = cachectl.LM("openai/another", api_base=os.environ["ENDPOINT_URL"], api_key="x")
lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="x", requests_per_minute=rate)
free(f"{name} is ready")
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(lm, [f"{name} {at}" for at in range(calls)]))
"""


def limited(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return what arrived, without what was asked before the others were let go."""
    return [request for request in endpoint.log() if not request["prompt"].endswith("is ready")]


def ask_in_processes(
    child: Callable[..., Finished],
    endpoint: Endpoint,
    rate: float,
    processes: int,
    threads: int,
    calls: int,
    store: str | None = None,
) -> float:
    """Ask from the threads of processes that begin together. Return when they did, in Unix seconds."""
    endpoint.hold("is ready")
    given = [str(one) for one in (rate, threads, calls)]
    env = {} if store is None else {"DSPY_CACHECTL_STORE": store}
    with ThreadPoolExecutor(processes) as pool:
        asked = [pool.submit(child, CHILD, f"process {at}", *given, env=env) for at in range(processes)]
        assert endpoint.wait_for(processes)
        began = time.time()
        endpoint.release()
        for one in asked:
            one.result()
    assert processes * calls == len(limited(endpoint))
    return began


def kept(endpoint: Endpoint, rate: float, began: float) -> bool:
    """Whether no request has come before its time, from the beginning on, at so many a minute."""
    times = sorted(request["at"] for request in limited(endpoint))
    return all(at >= began + number * 60 / rate for number, at in enumerate(times))


def let_through(endpoint: Endpoint, rate: float) -> bool:
    """Whether at its best half of the limit was let through: of some requests in a row, by the provider's clock.

    The limit is low enough for a machine that is five times slower, too, and a pause of it is in none of these rows.
    """
    times = sorted(request["at"] for request in limited(endpoint))
    return min(last - first for first, last in zip(times, times[_IN_A_ROW:], strict=False)) <= 2 * _IN_A_ROW * 60 / rate


_IN_A_ROW = 4


def test_a_limit_is_reached_and_kept(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """No more is let through than a limit allows, and not much less, for threads."""
    governed, began = lm(requests_per_minute=300), time.time()
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(governed, [f"question {at}" for at in range(12)]))
    assert 12 == endpoint.requests
    assert kept(endpoint, 300, began)
    assert let_through(endpoint, 300)


def test_threads_and_a_plain_lm(lm: Callable[..., Any], plain_lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """The calls of a phase go at its pace, whatever LM they are of."""
    governed, plain, began = lm(), plain_lm(), time.time()
    with cachectl.phase("eval", requests_per_minute=1200):
        ask = cachectl.carry(lambda at: (governed if at % 2 else plain)(f"question {at}"))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(30)))
    assert 30 == endpoint.requests
    assert kept(endpoint, 1200, began)


@pytest.mark.parametrize(
    ("rate", "processes", "threads", "calls"),
    [(300, 2, 4, 6), pytest.param(600, 4, 32, 200, marks=pytest.mark.exhaustive)],
)
def test_processes(
    child: Callable[..., Finished], endpoint: Endpoint, rate: int, processes: int, threads: int, calls: int
) -> None:
    """Processes that share a store share a limit: no minute has more than it says, and a busy one not much less."""
    began = ask_in_processes(child, endpoint, rate, processes, threads, calls)
    assert kept(endpoint, rate, began)
    assert let_through(endpoint, rate)
    if processes * calls > rate:
        times = sorted(request["at"] for request in limited(endpoint))
        assert rate / 2 <= max(sum(at <= other < at + 60 for other in times) for at in times) <= rate


@pytest.mark.parametrize("kind", ["redis", pytest.param("cluster", marks=pytest.mark.exhaustive)])
def test_machines(child: Callable[..., Finished], endpoint: Endpoint, tmp_path: Path, kind: str) -> None:
    """Those who share a server share a limit, by the server's clock."""
    with running(tmp_path / "server", kind) as server:
        began = ask_in_processes(child, endpoint, 300, 2, 4, 6, store=f"{server.url}?patience=60")
    assert kept(endpoint, 300, began)
    assert let_through(endpoint, 300)


def test_a_server_that_is_away(lm: Callable[..., Any], endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """Without its server each process keeps the limit by itself, and says so."""
    with cachectl.configure(store=f"redis://127.0.0.1:{free_port()}"):
        governed, began = lm(requests_per_minute=1200), time.time()
        for at in range(3):
            governed(f"question {at}")
    assert kept(endpoint, 1200, began)
    assert 1 == sum("keeps them by itself" in record.message for record in caplog.records)


def test_what_is_stored_waits_for_nothing(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """A limit is for what is sent: hits go at once, and the limit is neither in the key nor in the request."""
    slow, free = lm(requests_per_minute=0.001, tokens_per_minute=10_000), lm()
    answers = [slow("What?") for _ in range(3)]  # at this pace the second request would go after 16 hours
    assert [free("What?")] * 3 == answers
    assert 1 == endpoint.requests
    assert not any("per_minute" in name for name in endpoint.log()[0]["body"])


def test_coroutines(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """Coroutines go at the pace of their LM, those of several loops together."""
    governed, began = lm(requests_per_minute=1200), time.time()

    async def ask(name: str) -> None:
        await asyncio.gather(*(governed.acall(f"{name} {at}") for at in range(20)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: asyncio.run(ask(name)), ["one", "two"]))
    assert 40 == endpoint.requests
    assert kept(endpoint, 1200, began)


def test_a_coroutine_holds_up_nobody(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """One that waits for its turn lets the loop go on, and when it is cancelled the provider is not asked."""

    async def main() -> None:
        slow, free = lm(requests_per_minute=0.001), lm("openai/another")
        await slow.acall("first")
        second = asyncio.create_task(slow.acall("second"))
        for at in range(5):
            await free.acall(f"meanwhile {at}")
        assert not second.done()
        second.cancel()

    asyncio.run(main())
    assert 6 == endpoint.requests


@pytest.mark.parametrize("is_async", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("caching", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_embeddings(endpoint: Endpoint, caching: bool, is_async: bool) -> None:
    """Embeddings go at the pace of their phase, and what is stored of them waits for nothing."""
    embedder = dspy.Embedder(
        "openai/embedding", api_base=endpoint.url, api_key="sk-test", batch_size=2, caching=caching
    )
    texts = [f"text {at}" for at in range(12)]
    embedder(["warm"])  # LiteLLM takes a moment to begin
    endpoint.reset_counts()
    began = time.time()
    with cachectl.phase("compile", requests_per_minute=240, tokens_per_minute=1_000_000):
        made = asyncio.run(embedder.acall(texts)) if is_async else embedder(texts)
    assert (12, 6) == (len(made), endpoint.requests)
    assert kept(endpoint, 240, began)
    if caching:
        with cachectl.phase("compile", requests_per_minute=0.001):
            embedder(texts)
        assert 6 == endpoint.requests


def test_retries_wait_too(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """Each request that is sent counts, also those that the provider refuses."""
    endpoint.fail(status=429, retry_after=0, times=5)
    governed, began = lm(requests_per_minute=1200, num_retries=5), time.time()
    governed("What?")
    assert 6 == endpoint.requests
    assert kept(endpoint, 1200, began)


def test_tokens(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """What answers have used holds up the next, however few were expected."""
    endpoint.configure(usage={"": {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100}})
    governed, began = lm(tokens_per_minute=60_000), time.time()
    for at in range(5):
        governed(f"question {at}")
    times = [request["at"] for request in endpoint.log()]
    assert all(at >= began + number * 0.1 for number, at in enumerate(times))


def test_a_phase_within_another(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """A limit holds for all that is done within its block, evaluations too."""
    program = dspy.Predict("question -> answer")
    devset = [dspy.Example(question=f"question {at}").with_inputs("question") for at in range(6)]
    dspy.configure(lm=lm())
    began = time.time()
    with cachectl.phase("compile", requests_per_minute=1200):
        cachectl.evaluate(program, devset, lambda *_: 1.0, num_threads=6, display_progress=False)
    assert 6 == endpoint.requests
    assert kept(endpoint, 1200, began)


@pytest.mark.parametrize("limit", [0, -1, True, "60", math.nan, math.inf])
def test_no_limit_at_all(lm: Callable[..., Any], limit: Any) -> None:
    """What is no number above 0 is refused, by the name under which it was given."""
    with pytest.raises(cachectl.ConfigurationError, match="requests_per_minute is a number above 0"):
        lm(requests_per_minute=limit)
    with pytest.raises(cachectl.ConfigurationError, match="tokens_per_minute is a number above 0"):
        cachectl.phase("eval", tokens_per_minute=limit)


def test_an_lm_keeps_its_limit(lm: Callable[..., Any], plain_lm: Callable[..., Any]) -> None:
    """Copies have it, and `wrap()` gives it to an LM that exists."""
    assert 60 == lm(requests_per_minute=60).copy(temperature=0.5).requests_per_minute
    wrapped: Any = cachectl.wrap(plain_lm(), requests_per_minute=30, tokens_per_minute=1000)
    assert (30, 1000) == (wrapped.requests_per_minute, wrapped.tokens_per_minute)
    assert wrapped.requests_per_minute == cachectl.wrap(wrapped).requests_per_minute
