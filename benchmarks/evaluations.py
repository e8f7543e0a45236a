"""Evaluations of 1,000 questions: bought, served, and again from kept predictions, by `dspy.Evaluate`'s."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dspy

import dspy_cachectl as cachectl
from benchmarks.figures import Figure, compared
from benchmarks.hits import compiling, resumed
from benchmarks.rounds import Block, Side, interleaved
from benchmarks.rows import row
from benchmarks.scene import (
    DISK_BYTES,
    MEMORY_BYTES,
    Scene,
    Sides,
    dspys_cache,
    dspys_in_place,
    ours_in_place,
)
from benchmarks.timed_process import timed_process
from dspy_cachectl.stores import open_stores

QUESTIONS, THREADS, HISTORY, DELAY = 1000, 8, 10_000, 0.05


def exact(example: Any, prediction: Any, trace: Any = None) -> bool:  # noqa: ARG001 - DSPy's signature
    """Tell whether the answer is the one in the data."""
    return bool(example.answer == prediction.answer)


def questions(seed: int = 0) -> list[dspy.Example]:
    """Return as many questions as an evaluation has, others for each seed."""
    return [
        dspy.Example(question=f"What is {at} and {seed}?", answer="yes").with_inputs("question")
        for at in range(QUESTIONS)
    ]


def program() -> Any:
    """Return the program that is evaluated, without a history."""
    return dspy.Predict("question -> answer")


def evaluated(made: Any, devset: list[dspy.Example]) -> object:
    """Evaluate as DSPy does."""
    return dspy.Evaluate(devset=devset, metric=exact, num_threads=THREADS, display_progress=False)(made)


def evaluated_by_ours(made: Any, devset: list[dspy.Example], kept: Path, threads: int = THREADS) -> object:
    """Evaluate as this package does, and keep the predictions."""
    report = cachectl.evaluate(made, devset, exact, predictions=str(kept), num_threads=threads, display_progress=False)
    return report.score


@row("evaluate-again")
def evaluate_again(scene: Scene) -> Iterator[Figure]:
    """`evaluate()` of 1,000 questions again from kept predictions, by `dspy.Evaluate` on DSPy's hits.

    Once of a program that has not run yet, and once of one whose history has 10,000 calls.
    """
    devset, kept, plain, governed = questions(), scene.new_folder(), scene.plain("native"), scene.governed("native")
    cache, stores = dspys_cache(scene.new_folder()), _stores(scene)
    with dspys_in_place(cache), dspy.context(lm=plain):
        grown = program()
        for _ in range(1 + HISTORY // QUESTIONS):
            evaluated(grown, devset)
    with ours_in_place(stores), dspy.context(lm=governed):
        evaluated_by_ours(program(), devset, kept)

    @contextmanager
    def side(place: AbstractContextManager[Any], lm: Any, evaluate: Callable[[], object]) -> Iterator[Block]:
        with place, dspy.context(lm=lm):
            yield evaluate

    def ours(make: Callable[[], Any]) -> Side:
        return lambda: side(ours_in_place(stores), governed, lambda: evaluated_by_ours(make(), devset, kept))

    sides: dict[str, Side] = {
        "theirs": lambda: side(dspys_in_place(cache), plain, lambda: evaluated(program(), devset)),
        "new": ours(program),
        "history": ours(lambda: grown),
    }
    taken = scene.hits(sides, scene.few)
    for case in ("new", "history"):
        yield compared("evaluate-again", taken[case], taken["theirs"], case=case, calls=QUESTIONS)


@row("evaluate-bought", is_long=True)
def evaluate_bought(scene: Scene) -> Iterator[Figure]:
    """`evaluate()` of 1,000 questions that are bought, predictions kept, by `dspy.Evaluate`, bought."""
    plain, governed, kept = scene.plain("native"), scene.governed("native"), scene.new_folder()
    cache, stores = dspys_cache(scene.new_folder()), _stores(scene)
    of_theirs, of_ours = itertools.count(), itertools.count()

    @contextmanager
    def theirs() -> Iterator[Block]:
        devset = questions(next(of_theirs))
        with dspys_in_place(cache), dspy.context(lm=plain):
            yield lambda: evaluated(program(), devset)

    @contextmanager
    def ours() -> Iterator[Block]:
        devset = questions(next(of_ours))
        with ours_in_place(stores), dspy.context(lm=governed):
            yield lambda: evaluated_by_ours(program(), devset, kept)

    taken = interleaved({"theirs": theirs, "ours": ours}, scene.few)
    yield compared("evaluate-bought", taken["ours"], taken["theirs"], calls=QUESTIONS)


@row("evaluate-compile", is_long=True)
def evaluate_compile(scene: Scene) -> Iterator[Figure]:
    """`dspy.Evaluate` of 1,000 questions in `compile`, hits, by the same on DSPy's hits."""
    yield from _evaluated_in(scene, "evaluate-compile", compiling)


@row("evaluate-eval")
def evaluate_eval(scene: Scene) -> Iterator[Figure]:
    """`dspy.Evaluate` of 1,000 questions in `eval`, resumed, by the same on DSPy's hits."""
    yield from _evaluated_in(scene, "evaluate-eval", resumed)


def _evaluated_in(scene: Scene, name: str, within: Callable[[], Any]) -> Iterator[Figure]:
    devset, plain, governed = questions(), scene.plain("native"), scene.governed("native")

    def evaluating(lm: Any) -> Block:
        def evaluate() -> None:
            with dspy.context(lm=lm):
                evaluated(program(), devset)

        return evaluate

    sides = Sides(scene, evaluating(plain), evaluating(governed), within=within)
    taken = scene.hits({"theirs": sides.theirs(), "ours": sides.hot()}, scene.few)
    yield compared(name, taken["ours"], taken["theirs"], calls=QUESTIONS)


@row("evaluate-process", is_long=True)
def evaluate_process(scene: Scene) -> Iterator[Figure]:
    """`evaluate()` of 1,000 questions of 50 ms again in a new process, by the clock, by the first time."""
    scene.endpoint.configure(delay=DELAY)
    first, again = [], []
    for _ in range(scene.few):
        store, kept = scene.new_folder(), scene.new_folder()
        command = [sys.executable, "-m", "benchmarks.evaluations", scene.endpoint.url, str(store), str(kept)]
        first.append(timed_process(command))
        before = scene.endpoint.requests
        again.append(timed_process(command))
        if scene.endpoint.requests != before:
            raise RuntimeError("the provider was asked for what was to be served")
    yield compared("evaluate-process", again, first, clock="wall")


def _stores(scene: Scene) -> Any:
    return open_stores(str(scene.new_folder()), memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES)


if __name__ == "__main__":
    with ours_in_place(sys.argv[2]):
        dspy.configure(lm=cachectl.LM("openai/model", api_base=sys.argv[1], api_key="none"))
        evaluated_by_ours(program(), questions(), Path(sys.argv[3]), 32)
