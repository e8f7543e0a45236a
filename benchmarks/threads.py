"""Eight threads that are served from memory: how many calls a second they get, and how long the slowest wait."""

from __future__ import annotations

import contextvars
import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.bars import ENGINES
from benchmarks.figures import Figure, compared
from benchmarks.hits import compiling
from benchmarks.rounds import Block, Round, Side
from benchmarks.rows import row
from benchmarks.scene import Scene, Sides, asking, prompts

THREADS, COUNT, TURNS = 8, 50, 5


@row("threads")
def threads(scene: Scene) -> Iterator[Figure]:
    """Calls a second of 8 threads from memory, by the clock, by DSPy's: more is better. And their slowest hundredth."""
    questions = prompts(COUNT)
    for engine in ENGINES:
        plain, governed = scene.plain(engine), scene.governed(engine)
        sides = Sides(scene, asking(plain, questions), asking(governed, questions), within=compiling)
        slowest: dict[str, list[Round]] = {"ours": [], "theirs": []}
        taken = scene.hits(
            {
                "theirs": _threaded(sides.theirs(), plain, questions, slowest["theirs"]),
                "ours": _threaded(sides.hot(), governed, questions, slowest["ours"]),
            }
        )
        # The seconds of a round turned round: ours by theirs is then how many more calls a second there are.
        calls = THREADS * TURNS * COUNT
        yield compared("threads", taken["theirs"], taken["ours"], case=engine, calls=calls, clock="wall")
        yield compared("threads", slowest["ours"], slowest["theirs"], case=engine, state="p99", clock="wall")


def _threaded(side: Side, lm: Any, questions: list[Any], slowest: list[Round]) -> Side:
    """Let threads ask what a side has made ready, and note the slowest hundredth of the calls of each round."""

    @contextmanager
    def threaded() -> Iterator[Block]:
        took: list[list[float]] = [[] for _ in range(THREADS)]
        with side():
            workers = [
                threading.Thread(target=contextvars.copy_context().run, args=(_ask, lm, questions, at, took[at]))
                for at in range(THREADS)
            ]
            yield lambda: _all(workers)
        seconds = statistics.quantiles(itertools.chain(*took), n=100)[-1]
        slowest.append(Round(seconds, seconds))

    return threaded


def _ask(lm: Any, questions: list[Any], begin: int, took: list[float]) -> None:
    for turn in range(TURNS):
        for at in range(len(questions)):
            messages = questions[(at + begin * 13 + turn) % len(questions)]
            began = time.perf_counter()
            lm(messages=messages)
            took.append(time.perf_counter() - began)


def _all(workers: list[threading.Thread]) -> None:
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
