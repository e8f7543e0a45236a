"""What is awaited: evaluations on an event loop, and streamed answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy

import dspy_cachectl as cachectl
from benchmarks.evaluations import QUESTIONS, exact, questions
from benchmarks.figures import Figure, compared
from benchmarks.rounds import Block, Round, interleaved
from benchmarks.rows import row
from benchmarks.scene import DISK_BYTES, MEMORY_BYTES, Scene, Sides, dspys_cache, dspys_in_place, ours_in_place
from dspy_cachectl.stores import open_stores

CONCURRENCY, DELAY, STREAMED = 20, 0.05, 20


class Waits(dspy.Module):  # type: ignore[misc]
    """Takes its time for an answer, and asks no LM."""

    async def aforward(self, question: str) -> Any:
        """Wait."""
        await asyncio.sleep(DELAY)
        return dspy.Prediction(answer=question)


class Asks(dspy.Module):  # type: ignore[misc]
    """Asks the LM once."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> Any:
        """Ask."""
        return await self.answer.acall(question=question)


def evaluated(program: Any, devset: list[dspy.Example]) -> object:
    """Evaluate, awaited."""
    options: dict[str, Any] = {"concurrency": CONCURRENCY, "predictions": False, "display_progress": False}
    return asyncio.run(cachectl.aevaluate(program, devset, exact, **options))


async def gathered(program: Any, devset: list[dspy.Example]) -> None:
    """Ask all, by hand."""
    bound = asyncio.Semaphore(CONCURRENCY)

    async def one(example: dspy.Example) -> None:
        async with bound:
            exact(example, await program.acall(**example.inputs()))

    await asyncio.gather(*map(one, devset))


@row("aevaluate-50ms")
def aevaluate_of_50_ms(scene: Scene) -> Iterator[Figure]:
    """`aevaluate(concurrency=20)` of 1,000 questions that take 50 ms, by the clock, by 50 rounds of 50 ms."""
    devset, taken = questions(), []
    with ours_in_place(_stores(scene)), dspy.context(lm=scene.governed("native")):
        taken = interleaved({"ours": lambda: _ready(lambda: evaluated(Waits(), devset))}, scene.few)["ours"]
    ideal = Round(0.0, QUESTIONS / CONCURRENCY * DELAY)
    yield compared("aevaluate-50ms", taken, [ideal] * len(taken), calls=QUESTIONS, clock="wall")


@row("aevaluate-bought", is_long=True)
def aevaluate_bought(scene: Scene) -> Iterator[Figure]:
    """`aevaluate(concurrency=20)` of 1,000 questions that are bought, by a plain LM's in a gather."""
    plain, governed, seeds = scene.plain("native"), scene.governed("native"), itertools.count()
    cache, stores = dspys_cache(scene.new_folder()), _stores(scene)

    @contextmanager
    def theirs() -> Iterator[Block]:
        devset = questions(next(seeds))
        with dspys_in_place(cache), dspy.context(lm=plain):
            yield lambda: asyncio.run(gathered(Asks(), devset))

    @contextmanager
    def ours() -> Iterator[Block]:
        devset = questions(next(seeds))
        with ours_in_place(stores), dspy.context(lm=governed):
            yield lambda: evaluated(Asks(), devset)

    taken = interleaved({"theirs": theirs, "ours": ours}, scene.few)
    yield compared("aevaluate-bought", taken["ours"], taken["theirs"], calls=QUESTIONS)


@row("streamed")
def streamed(scene: Scene) -> Iterator[Figure]:
    """A streamed program that is served 1 kB in pieces, by the same on DSPy's hits, which stream none."""
    devset = questions()[:STREAMED]

    def reading(lm: Any) -> Block:
        async def read() -> None:
            for example in devset:
                listener = dspy.streaming.StreamListener(signature_field_name="answer")
                program = dspy.streamify(Asks(), stream_listeners=[listener], is_async_program=True)
                async for _ in program(**example.inputs()):
                    pass

        def block() -> None:
            with dspy.context(lm=lm):
                asyncio.run(read())

        return block

    for engine in ("native", "litellm"):
        sides = Sides(scene, reading(scene.plain(engine)), reading(scene.governed(engine)))
        taken = scene.hits({"theirs": sides.theirs(), "ours": sides.hot()}, scene.few)
        yield compared("streamed", taken["ours"], taken["theirs"], case=engine, state="hot", calls=STREAMED)


@contextmanager
def _ready(block: Block) -> Iterator[Block]:
    yield block


def _stores(scene: Scene) -> Any:
    return open_stores(str(scene.new_folder()), memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES)
