"""Eight processes that write at once, and 32 threads that ask the same at once."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dspy

from benchmarks.figures import Figure, compared, counted
from benchmarks.puts import New, Puts
from benchmarks.rounds import Block, Round, interleaved
from benchmarks.rows import row
from benchmarks.scene import SPARE, Scene, dspys_cache, dspys_in_place, ours_in_place

PROCESSES, COUNT, HERD, DELAY = 8, 200, 32, 1.0


@row("writers")
def writers(scene: Scene) -> Iterator[Figure]:
    """Puts a second of 8 processes that write into one store, by the clock, by DSPy's: more is better."""
    new = New(scene, "native")

    @contextmanager
    def side(place: Callable[[], AbstractContextManager[Any]]) -> Iterator[Block]:
        puts = [new(COUNT) for _ in range(PROCESSES)]
        yield lambda: _written(place, puts)

    theirs, ours = scene.new_folder(), scene.new_folder()
    sides = {
        "theirs": lambda: side(lambda: dspys_in_place(dspys_cache(theirs))),
        "ours": lambda: side(lambda: ours_in_place(str(ours))),
    }
    taken = interleaved(sides, scene.few)
    yield compared("writers", taken["theirs"], taken["ours"], calls=PROCESSES * COUNT, clock="wall")


def _written(place: Callable[[], AbstractContextManager[Any]], puts: list[Puts]) -> Round:
    fork = multiprocessing.get_context("fork")
    barrier, times = fork.Barrier(len(puts)), fork.SimpleQueue()

    def write(of_one: Puts) -> None:
        with place():
            first, *rest = of_one
            dspy.cache.put(*first)  # opens what is not open
            barrier.wait()
            began, used = time.perf_counter(), time.process_time()
            for request, value, ignored in rest:
                dspy.cache.put(request, value, ignored)
            times.put((began, time.perf_counter(), time.process_time() - used))

    children = [fork.Process(target=write, args=(of_one,)) for of_one in puts]
    for child in children:
        child.start()
    took = [times.get() for _ in children]
    for child in children:
        child.join()
    return Round(sum(used for _, _, used in took), max(end for _, end, _ in took) - min(began for began, _, _ in took))


@row("herd")
def herd(scene: Scene) -> Iterator[Figure]:
    """What 32 threads buy that ask the same at once, by what they buy with DSPy's cache."""
    asked = []
    scene.endpoint.configure(delay=DELAY)
    for place, lm in (
        (ours_in_place(str(scene.new_folder())), scene.governed("native")),
        (dspys_in_place(dspys_cache(scene.new_folder())), scene.plain("native")),
    ):
        with place:
            lm(messages=SPARE)  # opens what is not open
            before = scene.endpoint.requests
            threads = [
                threading.Thread(target=lm, kwargs={"messages": [{"role": "user", "content": "one and the same"}]})
                for _ in range(HERD)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            asked.append(scene.endpoint.requests - before)
    yield counted("herd", *asked)
