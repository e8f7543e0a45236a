"""Single flight, without DSPy: who asks, who waits, who leads when a leader fails."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspy_cachectl.calls.flight import Flights
from tests.calls.support import until, waiters
from tests.limits import PATIENCE


class Asked:
    """Counts how often the provider is asked; holds the asking until it is let go."""

    def __init__(self, *outcomes: object, hold: bool = False) -> None:
        self.lock = threading.Lock()
        self.outcomes = list(outcomes)
        self.count = 0
        self.handed: list[object] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        if not hold:
            self.go.set()

    def ask(self, handed: str | None) -> str:
        if handed is not None:
            with self.lock:
                self.handed.append(handed)
            return handed
        with self.lock:
            number = self.count
            self.count += 1
        self.begun.set()
        assert self.go.wait(PATIENCE)
        outcome = self.outcomes[number] if number < len(self.outcomes) else "answer"
        if isinstance(outcome, BaseException):
            raise outcome
        return str(outcome)


def _waiting(flights: Flights[str], key: str) -> int:
    return sum(waiters(flight.ended) for (name, _), flight in flights._flights.items() if name == key)


def _run_threads(flights: Flights[str], asked: Asked, count: int) -> list[object]:
    """One leader and `count - 1` waiters, let go when all are in place."""
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(flights.run, "k", asked.ask, lambda: "handed") for _ in range(count)]
        until(lambda: _waiting(flights, "k") == count - 1)
        asked.go.set()
        return [future.exception() or future.result() for future in futures]


def test_identical_calls_share_one_answer() -> None:
    """The provider is asked once; the others get what the leader hands over."""
    flights, asked = Flights[str](), Asked(hold=True)
    assert ["answer"] + ["handed"] * 15 == sorted(map(str, _run_threads(flights, asked, 16)))
    assert 1 == asked.count
    assert {} == flights._flights


def test_different_keys_do_not_wait_for_each_other() -> None:
    """Two draws never coalesce."""
    flights, slow = Flights[str](), Asked(hold=True)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(flights.run, "a", slow.ask, lambda: None)
        assert slow.begun.wait(PATIENCE)
        assert "answer" == flights.run("b", Asked().ask, lambda: None)
        slow.go.set()
        assert "answer" == held.result()


def test_when_the_leader_fails_a_waiter_leads() -> None:
    """One caller gets the provider's error, the others an answer, for two requests in all."""
    flights, asked = Flights[str](), Asked(OSError("down"), hold=True)
    results = _run_threads(flights, asked, 8)
    assert 2 == asked.count
    assert 1 == sum(isinstance(result, OSError) for result in results)
    assert 6 == sum(result == "handed" for result in results)
    assert {} == flights._flights


def test_after_a_second_failure_nobody_waits_for_a_third() -> None:
    """Every caller gets the provider's own error, and in the time of three calls, not of eight."""
    flights, asked = Flights[str](), Asked(*[OSError(str(i)) for i in range(8)], hold=True)
    results = _run_threads(flights, asked, 8)
    assert 8 == asked.count
    assert 8 == len({str(result) for result in results})
    assert {} == flights._flights


def test_with_nothing_to_hand_over_each_asks_for_itself() -> None:
    """An answer that cannot be stored cannot be shared."""
    flights, asked = Flights[str](), Asked(hold=True)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(flights.run, "k", asked.ask, lambda: None) for _ in range(4)]
        until(lambda: _waiting(flights, "k") == 3)
        asked.go.set()
        assert ["answer"] * 4 == [future.result() for future in futures]
    assert 4 == asked.count


class AsyncAsked:
    """The same for coroutines."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.count = 0
        self.go = asyncio.Event()

    async def ask(self, handed: str | None) -> str:
        if handed is not None:
            return handed
        number = self.count
        self.count += 1
        await self.go.wait()
        outcome = self.outcomes[number] if number < len(self.outcomes) else "answer"
        if isinstance(outcome, BaseException):
            raise outcome
        return str(outcome)


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_coroutines_share_one_answer() -> None:
    """200 coroutines ask once, and hold no thread while they wait."""
    flights, asked = Flights[str](), AsyncAsked()
    tasks = [asyncio.create_task(flights.run_async("k", asked.ask, lambda: "handed")) for _ in range(200)]
    await _settle()
    assert 199 == _waiting(flights, "k")
    asked.go.set()
    assert {"answer", "handed"} == set(await asyncio.gather(*tasks))
    assert 1 == asked.count


async def test_a_cancelled_leader_passes_the_lead_on() -> None:
    """Cancelling is no failure of the provider: the next one leads, however often it happens."""
    flights, asked = Flights[str](), AsyncAsked()
    tasks = [asyncio.create_task(flights.run_async("k", asked.ask, lambda: "handed")) for _ in range(5)]
    await _settle()
    for task in tasks[:3]:
        task.cancel()
        await _settle()
    asked.go.set()
    assert ["answer", "handed"] == sorted(await asyncio.gather(*tasks[3:]))
    assert 4 == asked.count
    assert {} == flights._flights


async def test_a_waiter_that_is_cancelled_as_it_comes_to_lead_passes_the_lead_on() -> None:
    """The lead is not lost between being given and being taken."""
    flights, asked = Flights[str](), AsyncAsked(OSError("down"))
    tasks = [asyncio.create_task(flights.run_async("k", asked.ask, lambda: "handed")) for _ in range(3)]
    await _settle()
    heir = tasks[1]
    # Runs between the leader's failure, which gives the lead, and the heir's next step, which would take it.
    tasks[0].add_done_callback(lambda _: heir.cancel())
    asked.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [OSError, asyncio.CancelledError, str] == [type(result) for result in results]
    assert {} == flights._flights


async def test_a_thread_never_waits_for_a_coroutine() -> None:
    """A coroutine may need the very thread that would wait for it, as DSPy's default executor shows."""
    flights, asked = Flights[str](), AsyncAsked()
    leader = asyncio.create_task(flights.run_async("k", asked.ask, lambda: "handed"))
    await _settle()
    threaded = Asked()
    assert "answer" == await asyncio.to_thread(flights.run, "k", threaded.ask, lambda: None)
    asked.go.set()
    assert "answer" == await leader
    assert (1, 1) == (asked.count, threaded.count)


async def test_a_call_on_the_event_loops_thread_never_waits() -> None:
    """It would stop the loop that its leader needs."""
    flights, held = Flights[str](), Asked(hold=True)
    leader = asyncio.get_running_loop().run_in_executor(None, flights.run, "k", held.ask, lambda: "handed")
    await asyncio.to_thread(held.begun.wait, 30)
    assert "answer" == flights.run("k", Asked().ask, lambda: None)
    held.go.set()
    assert "answer" == await leader


async def test_coroutines_wait_for_a_thread() -> None:
    """A thread needs no loop, so everybody may wait for it; when it fails, a coroutine can lead."""
    flights, held = Flights[str](), Asked(OSError("down"), hold=True)
    leader = asyncio.get_running_loop().run_in_executor(None, flights.run, "k", held.ask, lambda: "handed")
    await asyncio.to_thread(held.begun.wait, 30)
    asked = AsyncAsked()
    asked.go.set()
    tasks = [asyncio.create_task(flights.run_async("k", asked.ask, lambda: "handed")) for _ in range(4)]
    await _settle()
    held.go.set()
    with pytest.raises(OSError, match="down"):
        await leader
    assert ["answer"] + ["handed"] * 3 == sorted(await asyncio.gather(*tasks))
    assert 1 == asked.count


def test_loops_of_several_threads_share_one_answer() -> None:
    """As with `syncify`, where every thread runs a loop of its own."""
    flights, asked = Flights[str](), Asked(hold=True)

    async def ask(handed: str | None) -> str:
        return await asyncio.to_thread(asked.ask, handed)

    def work() -> str:
        return asyncio.run(flights.run_async("k", ask, lambda: "handed"))

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(work) for _ in range(6)]
        until(lambda: _waiting(flights, "k") == 5)
        asked.go.set()
        assert ["answer"] + ["handed"] * 5 == sorted(future.result() for future in futures)
    assert 1 == asked.count
