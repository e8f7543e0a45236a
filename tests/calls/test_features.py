"""Everything a DSPy program can ask of an LM works in a phase, fresh and served alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import dspy
import pytest
from dspy.utils.dummies import DummyLM
from pydantic import BaseModel

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.engines import ForwardingLM, LegacyLM, OwnAsyncEngine, OwnEngine
from tests.calls.support import MakeLM, assert_counted, qa
from tests.endpoint import Endpoint

ENGINES = ["auto", "litellm"]
PHASES = ["compile", "eval"]


def again(phase: str) -> dict[str, str]:
    """The options under which a phase is served what it bought before."""
    return {"run_id": "features"} if phase == "eval" else {}


class Part(BaseModel):
    """A nested output."""

    name: str
    sizes: list[int]
    note: str | None


class Everything(dspy.Signature):
    """Fill all fields."""

    question: str = dspy.InputField()
    count: int = dspy.OutputField()
    sure: bool = dspy.OutputField()
    label: Literal["yes sir", "no"] = dspy.OutputField()
    parts: list[Part] = dspy.OutputField()
    table: dict[str, int] = dspy.OutputField()


def weather(city: str, days: int = 1) -> str:
    """Tell the weather."""
    return f"sunny in {city} for {days}"


class Ask(dspy.Signature):
    """Answer with the tools."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    calls: dspy.ToolCalls = dspy.OutputField()


def structured(adapter: dspy.Adapter) -> Callable[[], Any]:
    def ask() -> Any:
        with dspy.context(adapter=adapter):
            return dspy.Predict(Everything)(question="Q?").toDict()

    return ask


def native_tools() -> Any:
    with dspy.context(adapter=dspy.ChatAdapter(use_native_function_calling=True)):
        calls = dspy.Predict(Ask)(question="Rain?", tools=[dspy.Tool(weather)]).calls.tool_calls
    assert isinstance(calls[0].args["days"], int)
    return [(call.name, call.args) for call in calls]


def agent() -> Any:
    return dspy.ReAct("question -> answer", tools=[weather])(question="Rain?").toDict()


PROGRAMS: dict[str, Callable[[], Any]] = {
    "structured, JSON": structured(dspy.JSONAdapter()),
    "structured, chat": structured(dspy.ChatAdapter()),
    "structured, XML": structured(dspy.XMLAdapter()),
    "native tools": native_tools,
    "agent": agent,
    "several": lambda: dspy.Predict("question -> answer", n=2)(question="Q?").completions.answer,
    "chain": lambda: dspy.ChainOfThought("question -> answer")(question="Q?").toDict(),
    "comparison": lambda: dspy.MultiChainComparison("question -> answer", M=2)(
        [dspy.Prediction(reasoning=text, answer=text) for text in "ab"], question="Q?"
    ).toDict(),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(endpoint: Endpoint, lm: MakeLM, name: str, phase: str, engine: str) -> None:
    """A program gives the same typed result when it is served, sync or in another phase's copy of the run."""
    endpoint.configure(call_tools=name == "native tools")
    dspy.configure(lm=lm("openai/gpt-4o-mini", engine=engine))
    with cachectl.phase(phase, **again(phase)) as run:
        first = PROGRAMS[name]()
    bought = endpoint.requests
    assert bought == run.stats.requests > 0
    dspy.cache.reset_memory_cache()
    with cachectl.phase(phase, **again(phase)) as run:
        assert first == PROGRAMS[name]()
    assert bought == endpoint.requests
    assert run.stats.calls == run.stats.served


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("engine", ENGINES)
class TestStreaming:
    """`dspy.streamify` in a phase."""

    def program(self, endpoint: Endpoint, lm: MakeLM, engine: str, **options: Any) -> Any:
        endpoint.configure(answers={"Q?": ["one two three four five six", "seven eight nine ten eleven twelve"]})
        # Through LiteLLM, a stream's usage is asked for only where DSPy tracks it.
        dspy.configure(lm=lm(engine=engine), track_usage=True)
        listener = dspy.streaming.StreamListener(signature_field_name="answer", allow_reuse=True)
        return dspy.streamify(qa(), stream_listeners=[listener], **options)

    async def test_pieces_then_the_prediction(self, endpoint: Endpoint, lm: MakeLM, engine: str, phase: str) -> None:
        """A bought answer streams in pieces, and so does a served one."""
        program = self.program(endpoint, lm, engine)

        async def read() -> tuple[list[str], str]:
            items = [item async for item in program(question="Q?")]
            assert isinstance(items[-1], dspy.Prediction)
            pieces = [item.chunk for item in items if isinstance(item, dspy.streaming.StreamResponse)]
            return pieces, items[-1].answer

        with cachectl.phase(phase, **again(phase)) as run:
            pieces, answer = await read()
        assert len(pieces) > 1
        assert answer == "".join(pieces).strip() == "one two three four five six"
        assert_counted(run.stats, fresh=1, requests=1)
        assert run.stats.tokens_spent > 0
        with cachectl.phase(phase, **again(phase)):
            pieces, again_answer = await read()
        assert len(pieces) > 1
        assert again_answer == answer == "".join(pieces).strip()
        assert endpoint.requests == 1

    def test_sync_streaming(self, endpoint: Endpoint, lm: MakeLM, engine: str, phase: str) -> None:
        """The synchronous stream reads in a thread of its own, and the phase holds there too."""
        program = self.program(endpoint, lm, engine, async_streaming=False)
        with cachectl.phase(phase, **again(phase)) as run:
            answers = [list(program(question="Q?"))[-1].answer for _ in range(2)]
        expected = 2 if phase == "eval" else 1
        assert expected == len(set(answers)) == endpoint.requests
        assert run.stats.stray == 0
        with cachectl.phase(phase, **again(phase)):
            assert answers == [list(program(question="Q?"))[-1].answer for _ in range(2)]
        assert expected == endpoint.requests

    async def test_two_streams_at_once(self, endpoint: Endpoint, lm: MakeLM, engine: str, phase: str) -> None:
        """Two that stream the same at once: in `compile` one request, in `eval` two draws."""
        program = self.program(endpoint, lm, engine)

        async def read() -> str:
            return [item async for item in program(question="Q?")][-1].answer

        with cachectl.phase(phase):
            answers = await asyncio.gather(read(), read())
        assert (2 if phase == "eval" else 1) == len(set(answers)) == endpoint.requests


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("model", "model_type", "path"),
    [
        (None, "chat", "/v1/chat/completions"),
        ("text-completion-openai/test-model", "text", "/v1/completions"),
        (None, "responses", "/v1/responses"),
    ],
)
async def test_model_types(
    endpoint: Endpoint, lm: MakeLM, engine: str, phase: str, model: str | None, model_type: str, path: str
) -> None:
    """Chat, text and responses, through both engines: fresh draws, served again, sync and async."""
    options = {"engine": engine, "model_type": model_type, "temperature": 1.0}
    asked = lm(**options) if model is None else lm(model, **options)
    dspy.configure(lm=asked)
    with cachectl.phase(phase, **again(phase)) as run:
        answers = [qa()(question="Q?").answer, (await qa().acall(question="Q?")).answer]
    expected = 2 if phase == "eval" else 1
    assert expected == len(set(answers)) == run.stats.requests
    assert {path: expected} == endpoint.state["paths"]
    dspy.cache.reset_memory_cache()
    with cachectl.phase(phase, **again(phase)):
        assert answers == [(await qa().acall(question="Q?")).answer, qa()(question="Q?").answer]
    assert {path: expected} == endpoint.state["paths"]


class TestEngines:
    """Engines of one's own, and LMs of other kinds."""

    @pytest.mark.parametrize("phase", PHASES)
    @pytest.mark.parametrize("wrapped", [False, True])
    async def test_custom_engine(
        self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, phase: str, wrapped: bool
    ) -> None:
        """An engine of one's own is drawn from, served and resumed, sync and async."""
        made = (plain_lm if wrapped else lm)(
            "own/model",
            engine=OwnEngine(endpoint.url),
            async_engine=OwnAsyncEngine(endpoint.url),
            api_base=None,
            api_key=None,
            temperature=1.0,
        )
        asked = cachectl.wrap(made) if wrapped else made
        with cachectl.phase(phase, **again(phase)) as run:
            answers = [asked("hello")[0], (await asked.acall("hello"))[0]]
        expected = 2 if phase == "eval" else 1
        assert expected == len(set(answers)) == endpoint.requests == run.stats.requests
        assert run.stats.tokens_spent == 7 * expected
        with cachectl.phase(phase, **again(phase)):
            assert answers == [(await asked.acall("hello"))[0], asked("hello")[0]]
        assert expected == endpoint.requests

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("kind", [LegacyLM, ForwardingLM])
    async def test_legacy_lms(self, endpoint: Endpoint, kind: Any, caplog: pytest.LogCaptureFixture) -> None:
        """An LM with its own `forward` asks each time: counted as uncacheable, with its tokens, and said once."""
        theirs = (
            LegacyLM(endpoint.url)
            if kind is LegacyLM
            else ForwardingLM("openai/test-model", api_base=endpoint.url, api_key="sk-test")
        )
        asked, _ = cachectl.wrap(theirs), cachectl.wrap(theirs)
        with cachectl.phase("eval") as run:
            assert "draw-" in asked("hello")[0]
            assert "draw-" in asked("hello")[0]
        assert endpoint.requests == 2
        assert_counted(run.stats, uncacheable=2, requests=2)
        assert run.stats.tokens_spent > 0
        assert len([line for line in caplog.messages if "own forward()" in line]) == 1

    def test_dummy_lm(self) -> None:
        """A wrapped DummyLM hands its answers out one by one; they are resumed and replayed like any others."""
        dummy = DummyLM([{"answer": name} for name in ("red", "green", "blue")])
        dspy.configure(lm=cachectl.wrap(dummy, endpoint="scripted"))
        with cachectl.phase("eval", run_id="scripted"):
            assert ["red", "green"] == [qa()(question="Q?").answer for _ in range(2)]
        with cachectl.phase("eval", run_id="scripted") as run:
            assert ["red", "green", "blue"] == [qa()(question="Q?").answer for _ in range(3)]
        assert_counted(run.stats, resumed=2, fresh=1)
        with cachectl.phase("check", Policy.REPLAY, run_id="scripted"):
            assert ["red", "green", "blue"] == [qa()(question="Q?").answer for _ in range(3)]


@pytest.mark.parametrize("phase", PHASES)
def test_cache_off_by_the_program(endpoint: Endpoint, lm: MakeLM, phase: str) -> None:
    """cache=False is the program's own wish and is kept: asked each time, stored nowhere, counted as uncacheable."""
    asked = lm(cache=False)
    with cachectl.phase(phase, **again(phase)) as run:
        asked("hello")
        lm()("hello", cache=False)
        with dspy.context(lm=lm()):
            qa()(question="Q?", config={"cache": False})
    assert endpoint.requests == 3
    assert_counted(run.stats, uncacheable=3, requests=3)
    assert run.stats.tokens_spent > 0
    with cachectl.phase(phase, **again(phase)):
        asked("hello")
    assert endpoint.requests == 4


def test_a_request_without_a_key(endpoint: Endpoint, lm: MakeLM) -> None:
    """A request that has no canonical form is asked all the same, and counted."""
    with cachectl.phase("eval") as run:
        lm(engine="litellm")("hello", user_continue_message={"strange": object()})
    assert endpoint.requests == 1
    assert_counted(run.stats, uncacheable=1, requests=1)
