"""What is bought: what a call costs beside what the provider takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from benchmarks.bars import ENGINES
from benchmarks.figures import Clock, Figure, compared
from benchmarks.hits import compiling, resumed
from benchmarks.rounds import Block, interleaved
from benchmarks.rows import row
from benchmarks.scene import (
    DISK_BYTES,
    MEMORY_BYTES,
    SPARE,
    Scene,
    asking,
    dspys_cache,
    dspys_in_place,
    ours_in_place,
    prompts,
)
from dspy_cachectl.stores import open_stores

COUNT, DELAY = 10, 0.05


@row("bought")
def bought(scene: Scene) -> Iterator[Figure]:
    """A call that is bought in `eval`, of the client's processor, by DSPy's."""
    yield from _bought(scene, "bought", resumed, 2 * COUNT)


@row("bought-compile", is_long=True)
def bought_compile(scene: Scene) -> Iterator[Figure]:
    """A call that is bought in `compile`, of the client's processor, by DSPy's."""
    yield from _bought(scene, "bought-compile", compiling, 2 * COUNT)


@row("bought-50ms")
def bought_of_50_ms(scene: Scene) -> Iterator[Figure]:
    """A call of 50 ms that is bought in `eval`, by the clock, by DSPy's."""
    scene.endpoint.configure(delay=DELAY)
    yield from _bought(scene, "bought-50ms", resumed, COUNT, clock="wall")


def _bought(scene: Scene, name: str, within: Any, count: int, *, clock: Clock = "cpu") -> Iterator[Figure]:
    for engine in ENGINES:
        plain, governed = scene.plain(engine), scene.governed(engine)
        cache = dspys_cache(scene.new_folder())
        stores = open_stores(str(scene.new_folder()), memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES)
        theirs, ours = itertools.count(), itertools.count()
        sides = {
            "theirs": lambda lm=plain, cache=cache, seeds=theirs: _buying(
                dspys_in_place(cache), nullcontext(), lm, prompts(count, seed=next(seeds))
            ),
            "ours": lambda lm=governed, stores=stores, seeds=ours: _buying(
                ours_in_place(stores), within(), lm, prompts(count, seed=next(seeds))
            ),
        }
        taken = interleaved(sides, scene.rounds)
        yield compared(name, taken["ours"], taken["theirs"], case=engine, calls=count, clock=clock)


@contextmanager
def _buying(
    place: AbstractContextManager[Any], within: AbstractContextManager[Any], lm: Any, questions: list[Any]
) -> Iterator[Block]:
    with place, within:
        asking(lm, [SPARE])()  # opens what is not open
        yield asking(lm, questions)
