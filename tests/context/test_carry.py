"""`carry()` and decorated functions: whatever a function is, its body runs in the phase, or it is refused."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.context import shapes
from tests.context.shapes import SHAPES, run
from tests.context.workers import Answer, make_lm
from tests.endpoint import Endpoint

QUICK = ("generator", "returns a coroutine", "async generator", "returns a map")


@pytest.fixture(autouse=True)
def _on_the_endpoint(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_URL", endpoint.url)


def some(shapes: Any) -> list[Any]:
    """Shapes, all but one of each kind for the whole suite."""
    return [pytest.param(shape, marks=[] if shape in QUICK else [pytest.mark.exhaustive]) for shape in shapes]


@pytest.mark.parametrize("shape", some(SHAPES))
def test_what_is_carried_runs_in_the_phase(endpoint: Endpoint, shape: str) -> None:
    """In a thread, and run there after it was called: each asking is a draw of the phase, and none is stray."""
    with cachectl.phase("eval") as phase, ThreadPoolExecutor(1) as pool:
        answers = pool.submit(run, cachectl.carry(SHAPES[shape])).result()

    assert 2 == len(set(answers)) == endpoint.requests
    assert (2, 0) == (phase.stats.fresh, phase.stats.stray)
    assert cachectl.current_phase() is None


@pytest.mark.parametrize("shape", some(SHAPES))
def test_what_is_carried_buys_nothing_in_a_replay(endpoint: Endpoint, shape: str) -> None:
    """What a call returns and runs later obeys the replay, also where the guard is off."""
    with (
        pytest.raises(cachectl.ReplayIncompleteError),
        cachectl.phase("replay", Policy.REPLAY, guard=False),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(cachectl.CacheMissError),
    ):
        pool.submit(run, cachectl.carry(SHAPES[shape])).result()
    assert 0 == endpoint.requests


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["spawn", "loky"])
def test_every_shape_goes_to_processes(child: Any, endpoint: Endpoint, kind: str) -> None:
    """Awaited functions, too: each asking in a worker is a draw that is counted in the parent."""
    ran = child(
        """
        import json, sys, dspy_cachectl as cachectl
        from tests.context.shapes import SHAPES, run
        from tests.context.workers import pool

        if __name__ == "__main__":
            found = {}
            with pool(sys.argv[1], 1) as executor:
                for shape, function in SHAPES.items():
                    with cachectl.phase("eval") as phase:
                        answers = executor.submit(run, cachectl.carry(function)).result()
                    found[shape] = [len(set(answers)), phase.stats.fresh]
            print(json.dumps(found))
        """,
        kind,
    )
    assert {shape: [2, 2] for shape in SHAPES} == ran.data
    assert 2 * len(SHAPES) == endpoint.requests


def test_a_carried_function_is_known_for_what_it_is() -> None:
    """Its name, its parameters, and whether it is awaited or gone through."""
    for function in (shapes.ask, shapes.coroutine, shapes.generator, shapes.async_generator):
        carried: Any = cachectl.carry(function)
        assert (function.__name__, inspect.signature(function)) == (carried.__name__, inspect.signature(carried))
        for is_kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            assert is_kind(function) == is_kind(carried)
        assert asyncio.iscoroutinefunction(function) == asyncio.iscoroutinefunction(carried)


def test_a_carried_generator_is_one() -> None:
    """It takes what is sent and thrown, returns what it returns, and is closed; outside of its steps no phase rules."""
    told: list[Any] = []

    def conversing() -> Iterator[Any]:
        try:
            told.append((yield cachectl.current_phase()))
            try:
                yield
            except KeyError as error:
                told.append(error)
            yield "last"
        finally:
            told.append("closed")
        return "result"

    with cachectl.phase("compile") as phase:
        carried: Callable[[], Any] = cachectl.carry(conversing)
    talk = carried()
    assert next(talk) is phase
    assert cachectl.current_phase() is None
    talk.send("sent")
    error = KeyError()
    assert "last" == talk.throw(error)
    with pytest.raises(StopIteration, match="result"):
        next(talk)
    assert ["sent", error, "closed"] == told

    left = carried()
    next(left)
    left.close()
    assert "closed" == told[-1]


async def test_a_carried_async_generator_is_one() -> None:
    """The same, awaited."""
    told: list[Any] = []

    async def conversing() -> AsyncIterator[Any]:
        try:
            told.append((yield cachectl.current_phase()))
            try:
                yield
            except KeyError as error:
                told.append(error)
            yield "last"
        finally:
            await asyncio.sleep(0)
            told.append("closed")

    with cachectl.phase("compile") as phase:
        carried: Callable[[], Any] = cachectl.carry(conversing)
    talk = carried()
    assert await anext(talk) is phase
    assert cachectl.current_phase() is None
    await talk.asend("sent")
    error = KeyError()
    assert "last" == await talk.athrow(error)
    await talk.aclose()
    assert ["sent", error, "closed"] == told


@pytest.mark.parametrize("shape", some(list(SHAPES)[1:]))
def test_a_decorated_function_runs_in_its_phase_or_is_refused(endpoint: Endpoint, shape: str) -> None:
    """What is awaited runs in it; what would run after its end is refused, with what to do, and asks nothing."""
    function = SHAPES[shape]
    is_awaited = "coroutine" in shape or "awaited" in shape
    if is_awaited and not shape.startswith("returns"):
        assert 2 == len(set(run(cachectl.phase("eval")(function)))) == endpoint.requests
        assert (last := cachectl.last_phase()) is not None
        assert 2 == last.stats.fresh
        return
    with pytest.raises(cachectl.ConfigurationError, match="inside it"):
        run(cachectl.phase("eval")(function))
    assert 0 == endpoint.requests


def test_what_is_configured_in_a_carried_function_takes_effect(endpoint: Endpoint) -> None:
    """`dspy.configure()` there is for the next call, as in a phase; also in a coroutine."""

    def configuring(temperature: float) -> str:
        dspy.configure(lm=make_lm(temperature=temperature))
        return str(dspy.Predict(Answer)(question=f"{temperature}?").answer)

    async def configuring_async(temperature: float) -> str:
        return configuring(temperature)

    with cachectl.phase("eval"):
        dspy.configure(lm=make_lm(temperature=0.9))
        cachectl.carry(configuring)(0.3)
        asyncio.run(cachectl.carry(configuring_async)(0.4))  # type: ignore[arg-type]
        cachectl.carry(functools.partial(configuring, 0.5))()
    assert [0.3, 0.4, 0.5] == [request["body"]["temperature"] for request in endpoint.log()]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_worker_may_configure_dspy(child: Any, endpoint: Endpoint, kind: str) -> None:
    """In a carried function, in a process that knew no LM."""
    ran = child(
        """
        import json, sys, dspy, dspy_cachectl as cachectl
        from tests.context.workers import Answer, make_lm, pool

        def work(number):
            dspy.configure(lm=make_lm())
            return dspy.Predict(Answer)(question="Q?").answer

        if __name__ == "__main__":
            with cachectl.phase("eval") as phase, pool(sys.argv[1], 1) as executor:
                answers = list(executor.map(cachectl.carry(work), range(2)))
            print(json.dumps([len(set(answers)), phase.stats.fresh]))
        """,
        kind,
    )
    assert [2, 2] == ran.data
