"""A block that is left in another context than it was entered in: what begins afterwards is outside of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import MakeLM, evaluate, exact, examples, gold, qa
from tests.endpoint import Endpoint

_questions = (f"Question number {number:04}?" for number in itertools.count())


def opened(policy: Policy) -> Iterator[cachectl.PhaseRun]:
    with cachectl.phase("odd", policy) as run:
        yield run


async def opened_async(policy: Policy) -> AsyncIterator[cachectl.PhaseRun]:
    async with cachectl.phase("odd", policy) as run:
        yield run


async def by_break(policy: Policy) -> cachectl.PhaseRun:
    runs = []
    async for run in opened_async(policy):
        runs.append(run)
        break
    gc.collect()
    while not runs[0].closed:
        await asyncio.sleep(0)
    return runs[0]


async def in_a_task(policy: Policy) -> cachectl.PhaseRun:
    generator = opened_async(policy)
    run = await anext(generator)
    await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
    return run


async def by_a_thread(policy: Policy) -> cachectl.PhaseRun:
    generator = opened(policy)
    run = next(generator)
    thread = threading.Thread(target=generator.close)  # type: ignore[attr-defined]
    thread.start()
    thread.join()
    return run


async def in_a_copied_context(policy: Policy) -> cachectl.PhaseRun:
    generator = opened(policy)
    run = next(generator)
    contextvars.copy_context().run(generator.close)  # type: ignore[attr-defined]
    return run


async def in_settings_that_end(policy: Policy) -> cachectl.PhaseRun:
    generator = opened(policy)
    run = next(generator)
    with dspy.context(max_errors=3):
        generator.close()  # type: ignore[attr-defined]
    return run


async def out_of_order(policy: Policy) -> cachectl.PhaseRun:
    outer, inner = cachectl.phase("odd", policy), cachectl.phase("compile")
    run = outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    return run


async def by_hand(program: Any) -> None:
    question = next(_questions)
    await program.acall(question=question)
    await program.acall(question=question)


def threaded(program: Any) -> None:
    question = {"question": next(_questions)}
    for _ in range(2):
        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(program, question)])


async def in_parallel(program: Any) -> None:
    threaded(program)


async def in_an_evaluation(program: Any) -> None:
    question = [dspy.Example(question=next(_questions), answer="?").with_inputs("question")]
    for _ in range(2):
        evaluate(program, question)


async def gathered(program: Any) -> None:
    question = next(_questions)
    for _ in range(2):
        await asyncio.gather(program.acall(question=question))


async def in_a_thread(program: Any) -> None:
    question = next(_questions)
    for _ in range(2):
        await asyncio.to_thread(program, question=question)


async def asyncified(program: Any) -> None:
    question = next(_questions)
    for _ in range(2):
        await dspy.asyncify(program)(question=question)


AFTERWARDS = (gathered, in_a_thread, in_parallel, in_an_evaluation, asyncified, by_hand)
"""What a program does then; who asks itself comes last, since that might mend something."""

LEFT = (
    by_break,
    *(
        pytest.param(how, marks=pytest.mark.exhaustive)
        for how in (in_a_task, by_a_thread, in_a_copied_context, in_settings_that_end, out_of_order)
    ),
)


@pytest.mark.parametrize(
    "first", [gathered, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in AFTERWARDS[1:])]
)
@pytest.mark.parametrize("left", LEFT)
def test_what_begins_afterwards_is_outside(
    endpoint: Endpoint,
    lm: MakeLM,
    left: Callable[[Policy], Awaitable[cachectl.PhaseRun]],
    first: Callable[[Any], Awaitable[None]],
) -> None:
    """However it asks: twice the same is one request, and none of it is counted in the phase."""
    dspy.configure(lm=lm(temperature=1.0))
    program = qa()

    async def story() -> cachectl.PhaseRun:
        run = await left(Policy.FRESH)
        for ask in (first, *AFTERWARDS):
            before = endpoint.requests
            await ask(program)
            assert endpoint.requests - before == 1, ask.__name__
            assert cachectl.current_phase() is None
        return run

    assert asyncio.run(story()).stats.calls == 0


@pytest.mark.parametrize("left", LEFT)
def test_a_replay_is_over(
    endpoint: Endpoint, lm: MakeLM, left: Callable[[Policy], Awaitable[cachectl.PhaseRun]]
) -> None:
    """An evaluation that begins after it asks and scores, and that is how it stays, however many phases come after."""
    dspy.configure(lm=lm())
    endpoint.configure(gold=gold(2), accuracy=1.0)

    async def story() -> None:
        await left(Policy.REPLAY)
        assert evaluate(qa(), examples(1)) == 100.0
        for _ in range(1100):
            with cachectl.phase("compile"):
                pass
        assert evaluate(qa(), examples(2)) == 100.0
        assert cachectl.current_phase() is None

    asyncio.run(story())
    assert endpoint.requests == 2


def test_what_was_under_way_is_late(endpoint: Endpoint, lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
    """What was in the midst of a program when the block was left elsewhere is counted as late; it is said once."""
    model = lm(temperature=1.0)
    under_way, over = threading.Event(), threading.Event()

    class Slow(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            model(question)
            under_way.set()
            over.wait()
            return model(question)

    async def story() -> cachectl.PhaseRun:
        generator = opened(Policy.FRESH)
        run = next(generator)
        begun = asyncio.create_task(asyncio.to_thread(Slow(), question="slow"))
        await asyncio.to_thread(under_way.wait)
        await asyncio.create_task(asyncio.to_thread(generator.close))  # type: ignore[attr-defined]
        over.set()
        await begun
        for _ in range(2):
            await asyncio.gather(model.acall("after"))
        return run

    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        run = asyncio.run(story())
    assert (run.stats.calls, run.stats.late) == (2, 1)
    assert endpoint.counts() == {"slow": 2, "after": 1}
    assert sum("was not left where it was entered" in record.getMessage() for record in caplog.records) == 1


def test_stragglers_of_what_was_left_in_its_place_are_late(endpoint: Endpoint, lm: MakeLM) -> None:
    """Where it is certain that a task began inside, its first question may come after the end."""
    model = lm(temperature=1.0)

    async def story() -> cachectl.PhaseRun:
        with cachectl.phase("eval") as run:
            with cachectl.phase("compile"):
                pass
            begun = asyncio.create_task(model.acall("hello"))
        await begun
        return run

    run = asyncio.run(story())
    assert (run.stats.calls, run.stats.late) == (1, 1)


def test_entered_in_a_copied_context(endpoint: Endpoint, lm: MakeLM) -> None:
    """It rules where it is meant for, and DSPy's threads there."""
    dspy.configure(lm=lm(temperature=1.0))
    generator = opened(Policy.FRESH)
    run = contextvars.copy_context().run(next, generator)
    threaded(qa())
    assert endpoint.requests == 2
    generator.close()  # type: ignore[attr-defined]
    assert (run.stats.fresh, run.stats.stray) == (2, 0)
    threaded(qa())
    assert endpoint.requests == 3


def test_a_block_that_rules_nothing_says_so(lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
    """Entered in a thread that goes on without it, no call is in it."""
    model = lm(temperature=1.0)

    async def story() -> None:
        block = contextlib.contextmanager(opened)(Policy.FRESH)
        await asyncio.to_thread(block.__enter__)
        await model.acall("hello")
        await asyncio.to_thread(block.__exit__, None, None, None)

    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        asyncio.run(story())
    assert ["no call was made in it" in record.getMessage() for record in caplog.records] == [True]


def test_those_who_look_for_a_phase_find_none(endpoint: Endpoint, lm: MakeLM) -> None:
    """After it `AutoPhase` enters its own, and `evaluate()` draws in a run of its own."""
    auto = cachectl.AutoPhase()
    dspy.configure(lm=lm(temperature=1.0), callbacks=[auto])
    block = opened(Policy.FRESH)
    left = next(block)
    contextvars.copy_context().run(block.close)  # type: ignore[attr-defined]
    evaluate(qa(), examples(1))
    assert [run.name for run in auto.runs] == ["eval"]
    report = cachectl.evaluate(qa(), examples(1), exact, predictions=False, display_progress=False)
    assert report.run_id != left.run_id
    assert left.stats.calls == 0
    assert endpoint.requests == 2
