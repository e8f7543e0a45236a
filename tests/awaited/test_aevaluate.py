"""`aevaluate()`: what `evaluate` reports, on the loop of whoever awaits it, bounded, and cancelled without loss."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.awaited import evaluating
from tests.calls.support import MakeLM, exact, examples, gold, qa, until
from tests.endpoint import Endpoint

QUESTIONS = 12


class Both(dspy.Module):  # type: ignore[misc]
    """Can be called and awaited, and notes the loop that it is awaited on."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = qa()
        self.loops: list[Any] = []

    def forward(self, question: str) -> Any:
        """Ask."""
        return self.ask(question=question)

    async def aforward(self, question: str) -> Any:
        """Ask."""
        self.loops.append(asyncio.get_running_loop())
        return await self.ask.acall(question=question)


async def awaited(example: Any, prediction: Any) -> float:
    """A metric that is a coroutine function."""
    await asyncio.sleep(0)
    return exact(example, prediction)


OPTIONS: dict[str, Any] = {"predictions": False, "display_progress": False}


def aevaluate(program: Any, metric: Any = awaited, **options: Any) -> Any:
    return evaluating.aevaluate(program, examples(QUESTIONS), metric, **{**OPTIONS, **options})


def told(report: Any) -> Any:
    """All that a report says but for when and where it was made."""
    made = report.provenance
    return (
        [(one.question, one.cluster, one.draws) for one in report.questions],
        (report.score, report.interval, report.failures, report.distinct, made.run_id, made.metric, made.models),
        {name: value for name, value in made.counters.items() if "seconds" not in name},
    )


async def test_it_reports_what_evaluate_does(endpoint: Endpoint, lm: MakeLM) -> None:
    """To the digit, of the same draws; in one thread as in many."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=0.5)
    dspy.configure(lm=lm(temperature=1.0))
    program = Both()
    bought = await aevaluate(program, run_id="one", repeats=2, concurrency=4)
    assert (2 * QUESTIONS, 0, 4) == (endpoint.requests, bought.failures, 4)
    assert {asyncio.get_running_loop()} == set(program.loops)

    again = [await aevaluate(program, run_id="one", repeats=2, concurrency=at) for at in (1, 3)]
    options = {**OPTIONS, "run_id": "one", "repeats": 2}
    called = await asyncio.to_thread(cachectl.evaluate, Both(), examples(QUESTIONS), exact, **options)
    assert 2 * QUESTIONS == endpoint.requests
    assert told(again[0]) == told(again[1])
    assert told(again[0])[0] == told(called)[0]
    assert (bought.score, bought.interval) == (called.score, called.interval)


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_no_more_are_in_the_air(endpoint: Endpoint, lm: MakeLM, concurrency: int) -> None:
    """The provider sees so many requests at once, and no more; the loop goes on meanwhile."""
    dspy.configure(lm=lm())
    endpoint.hold()
    task = asyncio.ensure_future(aevaluate(Both(), exact, concurrency=concurrency))
    assert await asyncio.to_thread(endpoint.wait_for, concurrency)
    endpoint.release()
    assert 0 == (await task).failures
    assert (concurrency, QUESTIONS) == (endpoint.state["peak"], endpoint.requests)


def a_function() -> Callable[..., Any]:
    """A program that is a function; its signature is read once, since CPython 3.11 may fail to in threads."""
    module = qa()
    return lambda question: module(question=question)


@pytest.mark.parametrize("program", [qa, a_function])
async def test_what_is_not_awaited(endpoint: Endpoint, lm: MakeLM, program: Any) -> None:
    """A module of DSPy's is awaited, and a function runs in a thread."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=1.0)
    dspy.configure(lm=lm())
    assert 1.0 == (await aevaluate(program(), exact, concurrency=4)).score


async def test_what_belongs_to_the_loop(endpoint: Endpoint, lm: MakeLM) -> None:
    """A lock of this loop, which another would refuse, is used by all questions."""
    dspy.configure(lm=lm())
    lock = asyncio.Lock()
    await lock.acquire()

    async def program(question: str) -> Any:
        async with lock:
            return await qa().acall(question=question)

    task = asyncio.ensure_future(aevaluate(program, exact, concurrency=3))
    await asyncio.sleep(0)
    lock.release()
    assert 0 == (await task).failures


async def test_cancelled(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """What is in the air is waited for and kept, no question is begun, and the next evaluation goes on."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=1.0)
    dspy.configure(lm=lm())
    release, begun = asyncio.Event(), []

    async def program(question: str) -> Any:
        begun.append(question)
        if len(begun) > 3:
            await release.wait()
        return await qa().acall(question=question)

    async def ends() -> Any:
        options = {"concurrency": 2, "predictions": str(tmp_path / "kept"), "name": "cut"}
        return await aevaluate(program, exact, **options)

    task = asyncio.ensure_future(ends())
    await asyncio.to_thread(until, lambda: len(begun) == 5)
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    report = raised.value.report  # type: ignore[attr-defined]
    assert report is cachectl.last_report()
    assert (5, 5, QUESTIONS - 5) == (len(begun), len(report.draws), report.provenance.missing)
    assert (5, 1.0) == (endpoint.requests, report.score)

    assert 1.0 == (await ends()).score
    assert QUESTIONS == endpoint.requests


async def test_cancelled_twice(endpoint: Endpoint, lm: MakeLM) -> None:
    """Whoever does not wait ends what is in the air, and what it was answered by then stays."""
    dspy.configure(lm=lm())
    begun, ended = [], []

    async def program(question: str) -> Any:
        begun.append(question)
        try:
            await (qa().acall(question=question) if len(begun) < 3 else asyncio.Event().wait())
        finally:
            ended.append(question)

    task = asyncio.ensure_future(aevaluate(program, exact, concurrency=2))
    await asyncio.to_thread(until, lambda: len(begun) == 4)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for thread in threading.enumerate():
        if thread.name == "dspy-cachectl-evaluation":
            await asyncio.to_thread(thread.join, 30)
    await asyncio.to_thread(until, lambda: sorted(begun) == sorted(ended))
    assert (4, 2) == (len(begun), endpoint.requests)


async def test_what_is_refused() -> None:
    """What it has not, and what it cannot use, is said before anything is asked."""
    for options, said in (
        ({"num_threads": 3}, "write concurrency"),
        ({"executor": object()}, "asyncio.to_thread"),
        ({"concurrency": 0}, "above 0"),
        ({"repeat": 3}, "repeats"),
    ):
        with pytest.raises(cachectl.ConfigurationError, match=said):
            await aevaluate(qa(), **options)


async def test_an_evaluation_in_a_question(endpoint: Endpoint, lm: MakeLM) -> None:
    """What evaluates while the loop waits for it does not wait for the loop."""
    dspy.configure(lm=lm())

    async def program(question: str) -> Any:
        report = cachectl.evaluate(Both(), examples(2), awaited, num_threads=2, **OPTIONS)
        return dspy.Prediction(answer=str(report.n))

    report = await cachectl.aevaluate(program, examples(2), exact, concurrency=1, **OPTIONS)
    assert 0 == report.failures


async def test_calls_from_elsewhere(endpoint: Endpoint, lm: MakeLM) -> None:
    """A bare thread of the program's strays, as from `evaluate`; other tasks of the loop, and their threads, do not."""
    dspy.configure(lm=lm())

    def bare(question: str) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(qa()(question=question)))
        thread.start()
        thread.join()
        return found[0]

    report = await aevaluate(bare, exact, concurrency=3)
    assert (QUESTIONS, 0) == (report.provenance.counters["stray"], report.provenance.counters["calls"])

    async def beside(question: str) -> Any:
        async def another() -> None:
            await qa().acall(question=f"beside {question}")
            await asyncio.to_thread(qa(), question=f"in a thread beside {question}")

        await contextvars.Context().run(asyncio.ensure_future, of_the_server(another))
        return await qa().acall(question=question)

    loop = asyncio.get_running_loop()
    requests: asyncio.Queue[Any] = asyncio.Queue()

    async def of_the_server(another: Any) -> None:
        done = loop.create_future()
        await requests.put((another, done))
        await done

    async def serving() -> None:
        while True:
            another, done = await requests.get()
            await another()
            done.set_result(None)

    server = asyncio.ensure_future(serving())
    report = await aevaluate(beside, exact, concurrency=3)
    server.cancel()
    assert (0, QUESTIONS) == (report.provenance.counters["stray"], report.provenance.counters["calls"])
    assert 4 * QUESTIONS == endpoint.requests
