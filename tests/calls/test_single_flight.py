"""Identical calls in the air at once: one request, an answer for everybody, and no deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.calls.lm import _FLIGHTS
from dspy_cachectl.stores import MemoryStore
from dspy_cachectl.stores.disk import DiskStore
from tests.calls.support import until, waiters
from tests.endpoint import Endpoint
from tests.limits import PATIENCE

MakeLM = Callable[..., cachectl.LM]
QUESTION = "What is asked by all?"


def waiting() -> int:
    """How many calls wait for another one's answer."""
    return sum(waiters(flight.ended) for flight in list(_FLIGHTS._flights.values()))


def ask_in_threads(lm: cachectl.LM, endpoint: Endpoint, count: int) -> list[Any]:
    """Ask the same in many threads; the endpoint answers when one asks and all the others wait."""
    endpoint.hold()
    with ThreadPoolExecutor(count) as pool:
        carried = cachectl.carry(lambda: lm(QUESTION))
        futures = [pool.submit(carried) for _ in range(count)]
        try:
            until(lambda: waiting() == count - 1)
        finally:
            endpoint.release()
        return [future.exception() or future.result() for future in futures]


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_32_threads_make_one_request(lm: MakeLM, endpoint: Endpoint, engine: str) -> None:
    """All get the same answer; one was bought, and 31 joined it."""
    asked = lm(engine=engine)
    with cachectl.phase("compile") as run:
        answers = ask_in_threads(asked, endpoint, 32)
    assert 1 == endpoint.requests == len({str(answer) for answer in answers})
    assert (32, 1, 31) == (run.stats.calls, run.stats.fresh, run.stats.coalesced)


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_200_coroutines_make_one_request(lm: MakeLM, endpoint: Endpoint, engine: str) -> None:
    """One `asyncio.gather` of 200 `acall`s: one request."""
    asked = lm(engine=engine)
    endpoint.hold()

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(asked.acall(QUESTION)) for _ in range(200)]
        while waiting() < 199:
            await asyncio.sleep(0)
        await asyncio.to_thread(endpoint.release)
        return list(await asyncio.gather(*tasks))

    with cachectl.phase("compile") as run:
        answers = asyncio.run(main())
    assert 1 == endpoint.requests == len({str(answer) for answer in answers})
    assert (200, 199) == (run.stats.calls, run.stats.coalesced)


def test_draws_never_coalesce(lm: MakeLM, endpoint: Endpoint) -> None:
    """In `eval` every call is a draw of its own, however many ask at once."""
    asked = lm()

    async def main() -> list[Any]:
        return list(await asyncio.gather(*(asked.acall(QUESTION) for _ in range(50))))

    with cachectl.phase("eval") as run:
        answers = asyncio.run(main())
    assert 50 == endpoint.requests == run.stats.fresh == len({str(answer) for answer in answers})


def test_when_the_leader_fails_a_waiter_leads(lm: MakeLM, endpoint: Endpoint) -> None:
    """One caller gets the provider's own error, the others an answer: two requests."""
    endpoint.fail(status=500, times=1)
    results = ask_in_threads(lm(num_retries=0), endpoint, 16)
    errors = [result for result in results if isinstance(result, Exception)]
    assert 2 == endpoint.requests
    assert ["LMServerError"] == [type(error).__name__ for error in errors]
    assert 1 == len({str(result) for result in results if not isinstance(result, Exception)})


def test_when_the_provider_is_down_everybody_gets_its_error(lm: MakeLM, endpoint: Endpoint) -> None:
    """Nobody waits for ever, and nobody gets another's exception."""
    endpoint.fail(status=500)
    results = ask_in_threads(lm(num_retries=0), endpoint, 8)
    assert {"LMServerError"} == {type(result).__name__ for result in results}
    assert 8 == len({id(result) for result in results}) == endpoint.requests


def test_threads_and_coroutines_with_a_full_default_executor(lm: MakeLM, endpoint: Endpoint) -> None:
    """DSPy's async path stores through the default executor; those who wait must not keep it from doing so."""
    asked = lm()
    endpoint.configure(delay=0.05)

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        calls = [asked.acall(QUESTION) for _ in range(100)]
        calls += [asyncio.to_thread(asked, QUESTION) for _ in range(20)]
        return list(await asyncio.wait_for(asyncio.gather(*calls), timeout=PATIENCE))

    with cachectl.phase("compile"):
        answers = asyncio.run(main())
    assert 120 == len(answers)
    # A thread does not wait for a coroutine, so the two kinds may ask once each.
    assert endpoint.requests <= 2


def test_a_folder_is_looked_into_no_oftener_than_need_be(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread has just looked for is looked for again when it has its turn, since another may have had it."""
    looks: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        method = getattr(DiskStore, name)

        def look(self: DiskStore, *args: Any) -> Any:
            looks.append(name)
            return method(self, *args)

        return look

    for name in ("glance", "get_filed"):
        monkeypatch.setattr(DiskStore, name, noted(name))
    cachectl.install([MemoryStore(), DiskStore(tmp_path / "looked")])
    asked = lm()
    asked("What opens the folder?")
    looks.clear()
    asked(QUESTION)
    assert ["glance", "get_filed"] == looks
    assert 2 == endpoint.requests
    cachectl.install([MemoryStore(), DiskStore(tmp_path / "looked")])
    with cachectl.phase("compile") as run:
        asked(QUESTION)  # which opens the folder
    assert (2, 1) == (endpoint.requests, run.stats.reused)
