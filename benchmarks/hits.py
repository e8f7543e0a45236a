"""What is served: `lm()`, `acall`, `Predict` and embedders, in memory and from disk, in every phase."""

from __future__ import annotations

import asyncio
import functools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import dspy
import pydantic

import dspy_cachectl as cachectl
from benchmarks.bars import ENGINES
from benchmarks.figures import Figure, compared
from benchmarks.rounds import Block
from benchmarks.rows import row
from benchmarks.scene import SPARE, Scene, Sides, Within, asking, prompts, text

COUNT = 50
"""Questions of a row, all different."""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Looks up what is known of {name}, and says where it is from.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
                "required": ["query"],
            },
        },
    }
    for name in ("people", "places", "books", "songs", "films")
]


class Answer(pydantic.BaseModel):
    """What a typed answer is made of."""

    title: str
    reasons: list[str]
    score: float


def compiling() -> Any:
    """Return the phase in which a program is compiled."""
    return cachectl.phase("compile")


def resumed() -> Any:
    """Return a passage of one and the same evaluation."""
    return cachectl.phase("eval", run_id="bench")


@row("lm-compile")
def lm_compile(scene: Scene) -> Iterator[Figure]:
    """`lm()` from memory in `compile`, by DSPy's."""
    yield from _lm(scene, "lm-compile", compiling)


@row("lm-outside")
def lm_outside(scene: Scene) -> Iterator[Figure]:
    """`lm()` from memory outside of phases, by DSPy's."""
    yield from _lm(scene, "lm-outside")


@row("lm-eval")
def lm_eval(scene: Scene) -> Iterator[Figure]:
    """`lm()` from memory in `eval`, resumed, by DSPy's."""
    yield from _lm(scene, "lm-eval", resumed)


@row("lm-disk")
def lm_disk(scene: Scene) -> Iterator[Figure]:
    """`lm()` from disk in `compile`, each prompt once, by DSPy's."""
    yield from _lm(scene, "lm-disk", compiling, from_disk=True)


@row("lm-disk-eval")
def lm_disk_eval(scene: Scene) -> Iterator[Figure]:
    """`lm()` from disk in `eval`, resumed, by DSPy's."""
    yield from _lm(scene, "lm-disk-eval", resumed, from_disk=True)


@row("lm-pydantic")
def lm_pydantic(scene: Scene) -> Iterator[Figure]:
    """`lm()` with a pydantic `response_format` from memory, by DSPy's."""
    yield from _lm(scene, "lm-pydantic", compiling, response_format=Answer)


@row("lm-pydantic-disk")
def lm_pydantic_disk(scene: Scene) -> Iterator[Figure]:
    """`lm()` with a pydantic `response_format` from disk, by DSPy's."""
    yield from _lm(scene, "lm-pydantic-disk", compiling, from_disk=True, response_format=Answer)


@row("lm-plain")
def lm_plain(scene: Scene) -> Iterator[Figure]:
    """A plain `dspy.LM` from memory under the managed cache, by DSPy's."""
    yield from _lm(scene, "lm-plain", ours=scene.plain)


@row("lm-tools")
def lm_tools(scene: Scene) -> Iterator[Figure]:
    """`lm()` with 5 tools and a tool call for an answer from memory, by DSPy's."""
    yield from _lm(scene, "lm-tools", compiling, tools=TOOLS, tool_choice="required")


@row("lm-tools-disk")
def lm_tools_disk(scene: Scene) -> Iterator[Figure]:
    """`lm()` with 5 tools and a tool call for an answer from disk, by DSPy's."""
    yield from _lm(scene, "lm-tools-disk", compiling, from_disk=True, tools=TOOLS, tool_choice="required")


@row("lm-long")
def lm_long(scene: Scene) -> Iterator[Figure]:
    """`lm()` with 100 kB of prompt from memory, by DSPy's."""
    yield from _lm(scene, "lm-long", compiling, questions=prompts(30, 25_000))


@row("lm-rounds", is_long=True)
def lm_rounds(scene: Scene) -> Iterator[Figure]:
    """`lm()` of 5,000 prompts that go round, from memory in `compile`, by DSPy's."""
    yield from _lm(scene, "lm-rounds", compiling, questions=prompts(5000, 500), engines=("native",), states=("hot",))


def _lm(
    scene: Scene,
    name: str,
    within: Within = nullcontext,
    *,
    ours: Callable[[str], Any] | None = None,
    questions: Sequence[Any] = (),
    from_disk: bool = False,
    engines: Sequence[str] = ENGINES,
    states: Sequence[str] = ("hot", "first"),
    **options: Any,
) -> Iterator[Figure]:
    questions = questions or prompts(COUNT)
    for engine in engines:
        plain, governed = scene.plain(engine), (ours or scene.governed)(engine)
        sides = Sides(
            scene,
            asking(plain, questions, **options),
            asking(governed, questions, **options),
            spare=(asking(plain, [SPARE]), asking(governed, [SPARE])),
            within=within,
        )
        yield from figures_of(scene, name, sides, engine, len(questions), from_disk=from_disk, states=states)


def figures_of(
    scene: Scene,
    name: str,
    sides: Sides,
    case: str,
    calls: int,
    *,
    from_disk: bool = False,
    states: Sequence[str] = ("hot", "first"),
) -> Iterator[Figure]:
    """Time a row's sides in turn, and yield a figure for each state; from disk there is none but the first."""
    ours = {"first": sides.first(from_disk=True)} if from_disk else {"hot": sides.hot(), "first": sides.first()}
    ours = {state: side for state, side in ours.items() if from_disk or state in states}
    rounds = scene.rounds if calls < 1000 else scene.few
    taken = scene.hits({"theirs": sides.theirs(from_disk=from_disk), **ours}, rounds)
    for state in ours:
        yield compared(name, taken[state], taken["theirs"], case=case, state=state, calls=calls)


@row("lm-disk-process")
def lm_disk_process(scene: Scene) -> Iterator[Figure]:
    """`lm()` from disk in a new process, beyond imports, by DSPy's."""
    from benchmarks import disk_once

    for engine in ENGINES:
        plain, governed = scene.plain(engine), scene.governed(engine)
        sides = Sides(
            scene,
            asking(plain, [SPARE, *disk_once.QUESTIONS]),
            asking(governed, [SPARE, *disk_once.QUESTIONS]),
        )
        before, ours, theirs = scene.endpoint.requests, [], []
        folders = [str(sides.cache.disk_cache_dir), sides.stores[-1].location]
        for at in range(scene.few):
            command = [sys.executable, "-m", "benchmarks.disk_once", scene.endpoint.url, engine, str(at % 2), *folders]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            took = disk_once.read(printed)
            ours.append(took["ours"])
            theirs.append(took["theirs"])
        if scene.endpoint.requests != before:
            raise RuntimeError("the provider was asked for what was to be served")
        yield compared("lm-disk-process", ours, theirs, case=engine, state="first", calls=len(disk_once.QUESTIONS))


@row("acall")
def acall(scene: Scene) -> Iterator[Figure]:
    """`acall` from memory, one after another, by DSPy's."""
    yield from _acall(scene, "acall", _one_after_another)


@row("acall-gather")
def acall_gather(scene: Scene) -> Iterator[Figure]:
    """`acall` from memory, 50 in a gather, by DSPy's."""
    yield from _acall(scene, "acall-gather", _in_a_gather)


@row("acall-disk")
def acall_disk(scene: Scene) -> Iterator[Figure]:
    """`acall` from disk, one after another, by DSPy's."""
    yield from _acall(scene, "acall-disk", _one_after_another, from_disk=True)


async def _one_after_another(lm: Any, questions: Sequence[Any]) -> None:
    for messages in questions:
        await lm.acall(messages=messages)


async def _in_a_gather(lm: Any, questions: Sequence[Any]) -> None:
    for at in range(0, len(questions), 50):
        await asyncio.gather(*(lm.acall(messages=messages) for messages in questions[at : at + 50]))


def _acall(scene: Scene, name: str, ask: Callable[..., Any], *, from_disk: bool = False) -> Iterator[Figure]:
    loop, questions = _loop(), prompts(COUNT)

    def asking_all(lm: Any, questions: Sequence[Any]) -> Block:
        return lambda: loop.run_until_complete(ask(lm, questions))

    for engine in ENGINES:
        plain, governed = scene.plain(engine), scene.governed(engine)
        sides = Sides(
            scene,
            asking_all(plain, questions),
            asking_all(governed, questions),
            spare=(asking_all(plain, [SPARE]), asking_all(governed, [SPARE])),
            within=compiling,
        )
        yield from figures_of(scene, name, sides, engine, COUNT, from_disk=from_disk)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the one loop of the process: LiteLLM leaves a task in it."""
    return asyncio.new_event_loop()


@row("predict-compile")
def predict_compile(scene: Scene) -> Iterator[Figure]:
    """`Predict` from memory in `compile`, by DSPy's."""
    yield from _predict(scene, "predict-compile", compiling)


@row("predict-eval")
def predict_eval(scene: Scene) -> Iterator[Figure]:
    """`Predict` from memory in `eval`, resumed, by DSPy's."""
    yield from _predict(scene, "predict-eval", resumed)


@row("predict-disk")
def predict_disk(scene: Scene) -> Iterator[Figure]:
    """`Predict` from disk in `compile`, by DSPy's."""
    yield from _predict(scene, "predict-disk", compiling, from_disk=True)


def _predict(scene: Scene, name: str, within: Within, *, from_disk: bool = False) -> Iterator[Figure]:
    predict, rng = dspy.Predict("question -> answer"), random.Random(0)
    questions = [text(rng, 8000) for _ in range(COUNT)]

    def asking_all(lm: Any, questions: Sequence[str]) -> Block:
        def ask() -> None:
            with dspy.context(lm=lm):
                for question in questions:
                    predict(question=question)
            predict.history.clear()

        return ask

    for engine in ENGINES:
        plain, governed = scene.plain(engine), scene.governed(engine)
        sides = Sides(
            scene,
            asking_all(plain, questions),
            asking_all(governed, questions),
            spare=(asking_all(plain, ["spare"]), asking_all(governed, ["spare"])),
            within=within,
        )
        yield from figures_of(scene, name, sides, engine, COUNT, from_disk=from_disk)


@row("embedder")
def embedder(scene: Scene) -> Iterator[Figure]:
    """An embedder's hit from memory, 4 texts of 256 numbers, by DSPy's."""
    yield from _embedder(scene, "embedder")


@row("embedder-disk")
def embedder_disk(scene: Scene) -> Iterator[Figure]:
    """An embedder's hit from disk, 4 texts of 256 numbers, by DSPy's."""
    yield from _embedder(scene, "embedder-disk", from_disk=True)


def _embedder(scene: Scene, name: str, *, from_disk: bool = False) -> Iterator[Figure]:
    rng, options = random.Random(0), {**scene.options, "dimensions": 256}
    texts = [[text(rng, 500) for _ in range(4)] for _ in range(COUNT)]

    def asking_all(embed: Any, texts: Sequence[Any]) -> Block:
        def ask() -> None:
            for four in texts:
                embed(four)

        return ask

    plain, governed = (kind("openai/text-embedding-3-small", **options) for kind in (dspy.Embedder, cachectl.Embedder))
    sides = Sides(
        scene,
        asking_all(plain, texts),
        asking_all(governed, texts),
        spare=(asking_all(plain, [["spare"]]), asking_all(governed, [["spare"]])),
        within=compiling,
    )
    yield from figures_of(scene, name, sides, "", COUNT, from_disk=from_disk)


@row("cache-get")
def cache_get(scene: Scene) -> Iterator[Figure]:
    """`Cache.get` from memory, by DSPy's."""
    yield from _cache_get(scene, "cache-get")


@row("cache-get-disk")
def cache_get_disk(scene: Scene) -> Iterator[Figure]:
    """`Cache.get` from disk, by DSPy's."""
    yield from _cache_get(scene, "cache-get-disk", from_disk=True)


def _cache_get(scene: Scene, name: str, *, from_disk: bool = False) -> Iterator[Figure]:
    for engine in ENGINES:
        kept = scene.kept(engine, prompts(COUNT))

        def getting(kept: Any = kept) -> None:
            for request, value, ignored in kept:
                if dspy.cache.get(dict(request), ignored) is None:
                    dspy.cache.put(dict(request), value, ignored)

        sides = Sides(scene, getting, getting)
        yield from figures_of(scene, name, sides, engine, COUNT, from_disk=from_disk)
