"""Programs and metrics that are coroutines, awaited in the threads of the evaluation."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.evaluation import awaiting
from tests.calls.support import MakeLM, exact, examples, gold, qa
from tests.endpoint import Endpoint


class OnlyAsync(dspy.Module):  # type: ignore[misc]
    """Asks three times at once, and answers with one of them, whichever came first."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = qa()

    async def aforward(self, question: str) -> Any:
        """Ask."""
        answers = await asyncio.gather(*(self.ask.acall(question=question) for _ in range(3)))
        return min(answers, key=lambda one: str(one.answer))


class Both(OnlyAsync):
    """Has a way of its own to be called."""

    def forward(self, question: str) -> Any:
        """Ask once."""
        return self.ask(question=question)


async def function(question: str) -> Any:
    """A program that is a coroutine function."""
    return await qa().acall(question=question)


class Judge:
    """An object that is called as a coroutine function, with an LM of its own."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm

    async def __call__(self, example: Any, prediction: Any) -> float:
        await self.lm.acall(f"right: {prediction.answer}?")
        return exact(example, prediction)


async def awaited(example: Any, prediction: Any) -> Any:
    """A metric that is a coroutine function."""
    await asyncio.sleep(0)
    return exact(example, prediction)


def evaluated(program: Any, metric: Any = awaited, **options: Any) -> cachectl.EvalReport:
    options = {"num_threads": 4, "repeats": 2, "predictions": False, "display_progress": False, **options}
    return cachectl.evaluate(program, examples(4), metric, **options)


class Recording:
    """asyncio, which notes the loops that are made."""

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        self.loops.append(asyncio.new_event_loop())
        return self.loops[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


@pytest.fixture(autouse=True)
def _leaves_nothing(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> Any:
    """No coroutine is forgotten, and every loop that was made is closed."""
    made = Recording()
    monkeypatch.setattr(awaiting, "asyncio", made)
    yield
    gc.collect()
    forgotten = [str(one.message) for one in recwarn if "never awaited" in str(one.message)]
    assert [] == [one for one in forgotten if "LoggingWorker" not in one]  # LiteLLM's own
    assert made.loops
    assert [] == [loop for loop in made.loops if not loop.is_closed()]


@pytest.mark.parametrize(("make", "calls"), [(OnlyAsync, 3), (Both, 1), (lambda: function, 1)])
def test_programs(endpoint: Endpoint, lm: MakeLM, make: Callable[[], Any], calls: int) -> None:
    """Each answer is drawn by as many calls as the program makes, scored, and resumed by draws that are the same."""
    endpoint.configure(gold=gold(4), accuracy=0.5)
    dspy.configure(lm=lm())

    first = evaluated(make(), run_id="one")
    assert (8 * calls, 0) == (endpoint.requests, first.failures)
    assert (8 * calls, 8 * calls) == (
        first.provenance.counters["fresh"],
        sum(one.calls for one in first.provenance.models),
    )
    assert 8 == first.distinct.distinct

    again = evaluated(make(), exact, run_id="one")
    assert (8 * calls, first.score) == (endpoint.requests, again.score)
    assert [draw.draw for draw in again.draws] == [draw.draw for draw in first.draws]


@pytest.mark.parametrize("program", [qa, OnlyAsync])
def test_metrics(endpoint: Endpoint, lm: MakeLM, program: Callable[[], Any]) -> None:
    """An object's coroutine is awaited, and its calls are the judge's."""
    endpoint.configure(gold=gold(4), accuracy=0.5)
    dspy.configure(lm=lm())
    calls = 3 if program is OnlyAsync else 1

    report = evaluated(program(), Judge(lm("openai/judge", role="judge")))
    assert 8 * calls + 8 == endpoint.requests
    assert {"openai/test-model"} == {one.model for one in report.provenance.models}
    assert report.score == evaluated(program(), exact, run_id=report.run_id).score


def test_kept_predictions_are_served_and_scored_anew(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """What a coroutine answered is kept like any other answer."""
    endpoint.configure(gold=gold(4), accuracy=0.5)
    dspy.configure(lm=lm())

    reports = [
        evaluated(OnlyAsync(), metric, predictions=str(tmp_path / "kept")) for metric in (exact, awaited, awaited)
    ]
    assert 24 == endpoint.requests
    assert 1 == len({report.score for report in reports})
    assert [0, 8, 8] == [sum(draw.loaded for draw in report.draws) for report in reports]


async def test_inside_a_loop_that_runs(endpoint: Endpoint, lm: MakeLM) -> None:
    """In a notebook or a server, whose thread runs a loop already, it is awaited all the same."""
    dspy.configure(lm=lm())
    for threads in (1, 4):
        assert 0 == evaluated(OnlyAsync(), num_threads=threads).failures
    assert 48 == endpoint.requests


def test_failures_have_their_reasons(endpoint: Endpoint, lm: MakeLM) -> None:
    """A coroutine that raises fails its question, with what it raised."""
    dspy.configure(lm=lm())

    async def raising(example: Any, prediction: Any) -> float:
        raise ValueError("no taste")

    async def failing(question: str) -> Any:
        raise KeyError("no idea")

    assert {"the metric raised ValueError: no taste"} == {
        draw.failed for draw in evaluated(qa(), raising, repeats=1).draws
    }
    assert {"the program raised KeyError: 'no idea'"} == {
        draw.failed for draw in evaluated(failing, max_errors=99).draws
    }


def test_one_that_is_given_up(endpoint: Endpoint, lm: MakeLM) -> None:
    """A coroutine that takes too long is given up; what it left behind ends with it."""
    dspy.configure(lm=lm())
    release = threading.Event()

    async def slow(question: str) -> Any:
        while not release.is_set():
            await asyncio.sleep(0.01)
        return dspy.Prediction(answer="late")

    report = evaluated(slow, repeats=1, timeout=0.2, max_errors=99)
    release.set()
    assert 4 == report.failures
    for thread in threading.enumerate():
        if thread.name == "dspy-cachectl-question":
            thread.join(30)


def test_what_a_program_leaves_running_is_cancelled(endpoint: Endpoint, lm: MakeLM) -> None:
    """A task that nobody awaits ends with the evaluation, and is told."""
    dspy.configure(lm=lm())
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    tasks = []

    async def leaving(question: str) -> Any:
        tasks.append(asyncio.create_task(endless()))
        await asyncio.sleep(0)
        return dspy.Prediction(answer="x")

    assert 0 == evaluated(leaving).failures
    assert len(ended) == len(tasks) == 8
