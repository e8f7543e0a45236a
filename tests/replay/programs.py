"""Programs of every kind that DSPy runs, recorded into cassettes or replayed from them: run as a script.

A replay is another process in another folder, with an empty environment, no key and no network: each attempt to
connect or to look up a name raises and is reported.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dspy
from dspy.utils.dummies import DummyLM
from pydantic import BaseModel

import dspy_cachectl as cachectl
from tests.calls.support import evaluate, exact, examples, qa, question

KEY = "sk-recorded-secret-0123456789"


@dataclass
class Scene:
    """Where the programs play: two servers, and the key of both, which a replay has not."""

    url: str
    second: str
    key: str | None

    def lm(self, model: str = "openai/test-model", **options: Any) -> Any:
        return cachectl.LM(model, **self.connection(), **{"temperature": 1.0, **options})

    def plain_lm(self, **options: Any) -> Any:
        return dspy.LM("openai/test-model", **self.connection(), **{"temperature": 1.0, **options})

    def connection(self, *, second: bool = False) -> dict[str, Any]:
        key = {} if self.key is None else {"api_key": self.key}
        return {"api_base": self.second if second else self.url, **key}


class Part(BaseModel):
    """A nested output."""

    name: str
    sizes: list[int]
    note: str | None


class Everything(dspy.Signature):
    """Fill all fields."""

    question: str = dspy.InputField()
    count: int = dspy.OutputField()
    label: Literal["yes sir", "no"] = dspy.OutputField()
    parts: list[Part] = dspy.OutputField()


class Ask(dspy.Signature):
    """Answer with the tools."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    calls: dspy.ToolCalls = dspy.OutputField()


def weather(city: str, days: int = 1) -> str:
    """Tell the weather."""
    return f"sunny in {city} for {days}"


def answer(text: str) -> str:
    return str(qa()(question=text).answer)


def sync(_: Scene) -> Any:
    return [
        answer("One?"),
        answer("Two?"),
        answer("One?"),
        dspy.ChainOfThought("question -> answer")(question="Q?").toDict(),
    ]


def gathered(_: Scene) -> Any:
    async def ask() -> list[str]:
        texts = [question(at) for at in range(6)] + ["Equal?"] * 3
        return [one.answer for one in await asyncio.gather(*(qa().acall(question=text) for text in texts))]

    answers = asyncio.run(ask())
    return [answers[:6], sorted(answers[6:])]


def parallel(_: Scene) -> Any:
    pairs = [(qa(), example) for example in examples(8)]
    return [one.answer for one in dspy.Parallel(num_threads=4, disable_progress_bar=True)(pairs)]


def evaluated(_: Scene) -> Any:
    return [evaluate(qa(), examples(6, 3), threads=4), evaluate(qa(), examples(6), threads=4)]


def bare_threads(_: Scene) -> Any:
    with ThreadPoolExecutor(4) as pool:
        different = list(pool.map(answer, [question(at) for at in range(8)]))
        equal = sorted(pool.map(answer, ["Equal?"] * 6))
    return [different, equal, len(set(equal))]


def streamed(scene: Scene) -> Any:
    async def read() -> str:
        listener = dspy.streaming.StreamListener(signature_field_name="answer", allow_reuse=True)
        program = dspy.streamify(qa(), stream_listeners=[listener])
        items = [item async for item in program(question="Stream?")]
        assert scene.key is None or len(items) > 1
        return str(items[-1].answer)

    return [asyncio.run(read()) for _ in range(2)]


def agent(_: Scene) -> Any:
    return dspy.ReAct("question -> answer", tools=[weather])(question="Rain?").toDict()


def native_tools(_: Scene) -> Any:
    with dspy.context(adapter=dspy.ChatAdapter(use_native_function_calling=True)):
        calls = dspy.Predict(Ask)(question="Rain?", tools=[dspy.Tool(weather)]).calls.tool_calls
    return [(call.name, call.args) for call in calls]


def structured(_: Scene) -> Any:
    found = []
    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter()):
        with dspy.context(adapter=adapter):
            filled = dspy.Predict(Everything)(question="Q?")
        found.append([filled.count, filled.label, [part.model_dump() for part in filled.parts]])
    return found


def typed(scene: Scene) -> Any:
    request = dspy.lm15.Request(
        model="openai/test-model",
        messages=(dspy.lm15.Message.user("hello"),),
        config=dspy.lm15.Config(temperature=1.0),
    )
    lm = scene.lm()
    return [str(lm(request)), str(lm(request)), str(asyncio.run(lm.acall(request)))]


def several(scene: Scene) -> Any:
    lm = scene.lm()
    return [
        lm("hello", n=3),
        lm("hello", n=3),
        dspy.Predict("question -> answer", n=2)(question="Q?").completions.answer,
    ]


def model_types(scene: Scene) -> Any:
    lms = [
        scene.lm("text-completion-openai/test-model", model_type="text"),
        scene.lm(model_type="responses"),
        scene.lm(engine="litellm"),
        scene.lm(engine="litellm", model_type="responses", rollout_id=5),
    ]
    return [lm("hello") for lm in lms for _ in range(2)]


def embedded(scene: Scene) -> Any:
    embedder = dspy.Embedder("openai/test-embedding", **scene.connection())
    first = embedder(["a b", "c"]).tolist()
    return [first, asyncio.run(embedder.acall(["a b", "c"])).tolist(), asyncio.run(embedder.acall("Zürich")).tolist()]


def plain(scene: Scene) -> Any:
    lm = scene.plain_lm()
    with dspy.context(lm=lm):
        return [lm("hello"), answer("Plain?"), evaluate(qa(), examples(6), threads=4), asyncio.run(lm.acall("async"))]


def dummy(_: Scene) -> Any:
    names = [{"answer": name} for name in ("red", "green", "blue", "grey")]
    with dspy.context(lm=cachectl.wrap(DummyLM(names))):
        return [answer("Colour?"), answer("Colour?"), answer("Other?")]


def uncached(scene: Scene) -> Any:
    lm, off = scene.lm(), scene.lm(cache=False)
    found: list[Any] = [off("hello"), off("hello"), lm("hello", cache=False), lm("hello")]
    found += [lm("hello", rollout_id=1), lm("hello", rollout_id=2), lm("hello", rollout_id=1)]
    with cachectl.phase("compile"):
        found += [off("hello"), off("hello"), lm("hello"), lm("hello")]
        found += [qa()(question="Q?", config={"cache": False}).answer for _ in range(2)]
    return found


def sampling(_: Scene) -> Any:
    best = dspy.BestOfN(qa(), N=3, reward_fn=lambda _, found: len(found.answer) / 100, threshold=1.0)
    return [best(question="Best?").answer, best(question="Best?").answer]


def measured(_: Scene) -> Any:
    report = cachectl.evaluate(qa(), examples(6), exact, repeats=3, num_threads=4, display_progress=False)
    return [report.score, [[draw.score for draw in row.draws] for row in report.questions]]


def phases_twice(_: Scene) -> Any:
    found: list[Any] = []
    for _round in range(2):
        with cachectl.phase("compile"):
            found.append(evaluate(qa(), examples(6), threads=4))
        with cachectl.phase("eval"):
            found.append(evaluate(qa(), examples(6, 2), threads=4))
            found.append([dspy.settings.lm("again"), dspy.settings.lm("again")])
    return found


def automatic(_: Scene) -> Any:
    with dspy.context(callbacks=[cachectl.AutoPhase()]):
        optimizer = dspy.BootstrapFewShot(metric=exact, max_bootstrapped_demos=2)
        compiled = optimizer.compile(qa(), trainset=examples(6))
        return [compiled.dump_state(), evaluate(compiled, examples(6)), evaluate(compiled, examples(6))]


def two_endpoints(scene: Scene) -> Any:
    first, second = scene.lm(), cachectl.LM("openai/test-model", **scene.connection(second=True), temperature=1.0)
    found = [lm("hello") for lm in (first, second, second, first)]
    with cachectl.phase("compile"):
        found += [lm("hello") for lm in (second, first)]
    vectors = [
        dspy.Embedder("openai/test-embedding", **scene.connection(second=other))("a b").tolist()
        for other in (False, True)
    ]
    return [found, vectors]


PROGRAMS: dict[str, Callable[[Scene], Any]] = {
    function.__name__: function
    for function in (
        *(sync, gathered, parallel, evaluated, bare_threads, streamed, agent, native_tools, structured, typed, several),
        *(model_types, embedded, plain, dummy, uncached, sampling, measured, phases_twice, automatic, two_endpoints),
    )
}


def play(mode: str, folder: Path, scene: Scene) -> dict[str, Any]:
    """Run every program in a cassette of its own; what each returned, counted and left unused, or its error."""
    found: dict[str, Any] = {}
    for name, program in PROGRAMS.items():
        try:
            # Not `dspy.context`, which a bare thread does not see.
            dspy.configure(lm=scene.lm())
            with cachectl.cassette(folder / f"{name}.jsonl", mode) as opened:
                result = program(scene)
            tally = opened.stats
            found[name] = {
                "result": result,
                "requests": tally.requests,
                "served": tally.served,
                "calls": tally.calls,
                "unused": len(opened.unused),
            }
        except Exception:  # noqa: BLE001 - one program's failure is its own test's
            found[name] = {"error": traceback.format_exc()[-3000:]}
    return found


def cut_off() -> list[str]:
    """Refuse the network to this process from here on. Return the list of what it tries."""
    tried: list[str] = []

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}:
            tried.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[:2]}")
            raise OSError(f"the network is cut off: {tried[-1]}")

    sys.addaudithook(refuse)
    return tried


def main(mode: str, folder: str, url: str, second: str) -> None:
    """Play and print the results as the last line."""
    tried = cut_off() if mode == "replay" else []
    scene = Scene(url, second, None if mode == "replay" else KEY)
    found = play(mode, Path(folder), scene)
    print(json.dumps({"programs": found, "tried": tried}))


if __name__ == "__main__":
    main(*sys.argv[1:])
