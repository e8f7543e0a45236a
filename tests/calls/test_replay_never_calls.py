"""A replay makes no request, in whatever way the program asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dspy
import pytest
from dspy.utils.dummies import DummyLM
from pydantic import BaseModel

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.engines import ForwardingLM, LegacyLM, OwnAsyncEngine, OwnEngine
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, qa
from tests.endpoint import Endpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@dataclass
class Makers:
    """What a way of calling is made of."""

    lm: MakeLM
    plain_lm: MakeLM
    url: str

    def engined(self, make: MakeLM) -> Any:
        return make("custom/own", engine=OwnEngine(self.url), async_engine=OwnAsyncEngine(self.url), **NO_CLIENT)

    def embedder(self, **options: Any) -> dspy.Embedder:
        return dspy.Embedder("openai/test-embedding", api_base=self.url, api_key="sk-test-secret", **options)


class Size(BaseModel):
    """A structured output."""

    height: int


NO_CLIENT = {"api_base": None, "api_key": None}


class Sized(dspy.Signature):
    """Tell the size."""

    question: str = dspy.InputField()
    size: Size = dspy.OutputField()


def structured() -> Any:
    with dspy.context(adapter=dspy.JSONAdapter()):
        return dspy.Predict(Sized)(question="Q?")


def using(lm: Any, ask: Callable[[], Any]) -> Any:
    with dspy.context(lm=lm):
        return ask()


def ask() -> Any:
    return qa()(question="Q?")


def streamed(lm: Any) -> list[Any]:
    async def read() -> list[Any]:
        program = dspy.streamify(qa(), stream_listeners=[dspy.streaming.StreamListener(signature_field_name="answer")])
        with dspy.context(lm=lm):
            return [item async for item in program(question="Q?")]

    return asyncio.run(read())


def in_pool(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(max_workers=2) as pool:
        return [future.result() for future in [pool.submit(function) for _ in range(2)]]


def typed(lm: Any) -> dspy.lm15.Request:
    return dspy.lm15.Request(model=lm.model, messages=(dspy.lm15.Message.user("hello"),))


def agent() -> Any:
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    return dspy.ReAct("question -> answer", tools=[weather])(question="Rain?")


def best_of_two() -> Any:
    return dspy.BestOfN(qa(), N=2, reward_fn=lambda *_: 0.0, threshold=1.0)(question="Q?")


def syncified() -> Any:
    return dspy.syncify(qa())(question="Q?")


async def asyncified() -> Any:
    return await dspy.asyncify(qa())(question="Q?")


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
LM_WAYS: dict[str, Callable[[Any], Any]] = {
    "call": lambda lm: lm("hello"),
    "messages": lambda lm: lm(messages=[{"role": "user", "content": "hello"}]),
    "acall": lambda lm: asyncio.run(lm.acall("hello")),
    "no cache": lambda lm: lm("hello", cache=False),
    "acall, no cache": lambda lm: asyncio.run(lm.acall("hello", cache=False)),
    "typed": lambda lm: lm(typed(lm)),
    "typed, async": lambda lm: asyncio.run(lm.acall(request=typed(lm))),
    "typed, no cache": lambda lm: lm(typed(lm), cache=False),
    "forward": lambda lm: lm.forward("hello"),
    "aforward": lambda lm: asyncio.run(lm.aforward("hello")),
    "copy": lambda lm: lm.copy(rollout_id=1, temperature=1.0)("hello"),
    "several": lambda lm: lm("hello", n=3, temperature=1.0),
    "tools": lambda lm: lm("hello", tools=TOOLS, tool_choice="auto"),
    "no key": lambda lm: lm("hello", strange=object()),
    "program": lambda lm: using(lm, ask),
    "program, no cache": lambda lm: using(lm, lambda: qa()(question="Q?", config={"cache": False})),
    "structured": lambda lm: using(lm, structured),
    "acall of a program": lambda lm: using(lm, lambda: asyncio.run(qa().acall(question="Q?"))),
    "asyncify": lambda lm: using(lm, lambda: asyncio.run(asyncified())),
    "syncify": lambda lm: using(lm, syncified),
    "streamify": streamed,
    "agent": lambda lm: using(lm, agent),
    "evaluate": lambda lm: using(lm, lambda: evaluate(qa(), examples(3), threads=2)),
    "parallel": lambda lm: using(lm, lambda: dspy.Parallel(num_threads=2)([(qa(), one) for one in examples(3)])),
    "batch": lambda lm: using(lm, lambda: qa().batch(examples(3), num_threads=2)),
    "bare pool": lambda lm: in_pool(lambda: lm("hello")),
    "bare pool, no cache": lambda lm: in_pool(lambda: lm("hello", cache=False)),
    "carried": lambda lm: in_pool(cachectl.carry(lambda: lm("hello"))),
    "best of n": lambda lm: using(lm, best_of_two),
}


LMS: dict[str, Callable[[Makers], Any]] = {
    "ours": lambda make: make.lm(),
    "ours, no cache": lambda make: make.lm(cache=False),
    "ours, litellm": lambda make: make.lm(engine="litellm"),
    "ours, engine": lambda make: make.engined(make.lm),
    "plain": lambda make: make.plain_lm(),
    "plain, no cache": lambda make: make.plain_lm(cache=False),
    "plain, engine": lambda make: make.engined(make.plain_lm),
    "wrapped": lambda make: cachectl.wrap(make.plain_lm(cache=False)),
    "legacy": lambda make: LegacyLM(make.url),
    "wrapped legacy": lambda make: cachectl.wrap(LegacyLM(make.url)),
    "forwarding": lambda make: ForwardingLM("openai/test-model", api_base=make.url, api_key="sk-test"),
    "wrapped forwarding": lambda make: cachectl.wrap(
        ForwardingLM("openai/test-model", api_base=make.url, api_key="sk-test")
    ),
    "dummy": lambda make: DummyLM([{"answer": "red"}] * 9),
    "wrapped dummy": lambda make: cachectl.wrap(DummyLM([{"answer": "red"}] * 9)),
}
NOT_FOR = {
    # They take no Request, or no async engine, or are called past any cache by their own name.
    "legacy": ("typed", "forward", "aforward"),
    "forwarding": ("forward",),
    # It answers what it was told, from memory.
    "dummy": ("typed", "aforward", "no key"),
}


def cases() -> list[Any]:
    found = []
    for which in LMS:
        for way in LM_WAYS:
            excluded = NOT_FOR.get(which.removeprefix("wrapped "), ())
            if not any(way == name or way.startswith(f"{name},") for name in excluded):
                marks = [pytest.mark.exhaustive] if which.startswith("wrapped ") and len(found) % 4 else []
                found.append(pytest.param(which, way, id=f"{which}-{way}", marks=marks))
    return found


@pytest.fixture
def make(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> Makers:
    return Makers(lm, plain_lm, endpoint.url)


@pytest.mark.parametrize(("which", "way"), cases())
def test_no_request(endpoint: Endpoint, make: Makers, which: str, way: str) -> None:
    """With nothing stored, every call misses, is counted as missed, and is raised at the end at the latest."""
    asked = LMS[which](make)
    with pytest.raises(cachectl.CachectlError), cachectl.phase("replay", Policy.REPLAY) as run:
        LM_WAYS[way](asked)
    assert endpoint.requests == 0
    assert_counted(run.stats, missed=run.stats.calls, requests=0)
    assert run.stats.calls > 0
    assert ("bare" in way) == (run.stats.stray > 0)


EMBEDDER_WAYS: dict[str, Callable[[dspy.Embedder], Any]] = {
    "call": lambda embedder: embedder(["a b", "c"]),
    "call, no cache": lambda embedder: embedder("a b", caching=False),
    "acall": lambda embedder: asyncio.run(embedder.acall(["a b"])),
    "acall, no cache": lambda embedder: asyncio.run(embedder.acall(["a b"], caching=False)),
    "retriever": lambda embedder: dspy.Embeddings(corpus=["a b", "c"], embedder=embedder, k=1)("a"),
    "bare pool": lambda embedder: in_pool(lambda: embedder(["a b"])),
    "bare pool, no cache": lambda embedder: in_pool(lambda: embedder(["a b"], caching=False)),
}


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("way", EMBEDDER_WAYS)
def test_no_embedding(endpoint: Endpoint, make: Makers, way: str, caching: bool) -> None:
    """Nor is anything embedded."""
    embedder = make.embedder(caching=caching)
    with pytest.raises(cachectl.CachectlError), cachectl.phase("replay", Policy.REPLAY) as run:
        EMBEDDER_WAYS[way](embedder)
    assert endpoint.requests == 0
    assert_counted(run.stats, missed=run.stats.calls, requests=0)
    assert ("bare" in way) == (run.stats.stray > 0)


def test_no_retrieval(endpoint: Endpoint) -> None:
    """Nor does anything else call that DSPy caches, such as its retriever over HTTP."""
    retriever = dspy.ColBERTv2(url=endpoint.url)
    with pytest.raises(cachectl.CacheMissError), cachectl.phase("replay", Policy.REPLAY) as run:
        retriever("where?")
    assert_counted(run.stats, missed=1)


def test_no_optimizer(endpoint: Endpoint, lm: MakeLM) -> None:
    """An optimizer that swallows every error makes no request either, and the misses are raised at its end."""
    dspy.configure(lm=lm())
    optimizer = dspy.BootstrapFewShot(metric=lambda *_: True, max_errors=100)
    with pytest.raises(cachectl.ReplayIncompleteError), cachectl.phase("replay", Policy.REPLAY):
        optimizer.compile(qa(), trainset=examples(4))
    assert endpoint.requests == 0


def replace_cache_and_ask(lms: list[Any]) -> None:
    dspy.configure_cache(enable_disk_cache=False)
    for one in lms:
        with pytest.raises(cachectl.CacheMissError):
            one("hello")


def test_after_configure_cache_inside(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> None:
    """Replacing DSPy's cache inside a replay does not open it."""
    lms = [lm(), lm(cache=False), plain_lm(), plain_lm(cache=False)]
    with pytest.raises(cachectl.ReplayIncompleteError), cachectl.phase("replay", Policy.REPLAY) as run:
        replace_cache_and_ask(lms)
    assert endpoint.requests == 0
    assert_counted(run.stats, missed=4)
