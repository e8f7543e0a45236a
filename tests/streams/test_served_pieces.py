"""A stored answer reaches the listeners of a streamed program in pieces, as one that is bought does."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.streaming import StatusMessage, StatusMessageProvider, StreamListener, StreamResponse

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint

ANSWER = "Twice (or more), it's “fine”: see §3, naïve 漢字 and so on.\nThen a line of its own; 1 + 1 = 2."
ENGINES = ["auto", "litellm"]
ADAPTERS = [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter]


class Says(StatusMessageProvider):  # type: ignore[misc]
    """Says all that there is to say."""

    def lm_start_status_message(self, instance: Any, inputs: Any) -> str:
        """Before a call."""
        return "asking"

    def lm_end_status_message(self, outputs: Any) -> str:
        """After it."""
        return "asked"

    def module_start_status_message(self, instance: Any, inputs: Any) -> str:
        """Before a module."""
        return type(instance).__name__


Read = Callable[..., Any]


async def read_async(program: Any, **options: Any) -> list[Any]:
    """What a stream yields, of a program that is awaited."""
    streamed = dspy.streamify(program, is_async_program=True, status_message_provider=Says(), **options)
    return [item async for item in streamed(question="Q?")]


async def read_threaded(program: Any, **options: Any) -> list[Any]:
    """What a stream yields, of a program that runs in a thread."""
    streamed = dspy.streamify(program, status_message_provider=Says(), **options)
    return [item async for item in streamed(question="Q?")]


async def read_sync(program: Any, **options: Any) -> list[Any]:
    """What a generator yields."""
    streamed = dspy.streamify(program, async_streaming=False, status_message_provider=Says(), **options)
    return list(streamed(question="Q?"))


READERS: list[Read] = [read_async, read_threaded, read_sync]


def listening(*fields: str, **options: Any) -> dict[str, Any]:
    return {"stream_listeners": [StreamListener(signature_field_name=field, **options) for field in fields]}


def joined(items: list[Any], field: str = "answer") -> str:
    pieces = [item for item in items if isinstance(item, StreamResponse) and item.signature_field_name == field]
    assert len(pieces) > 1
    assert [True] == [one.is_last_chunk for one in pieces if one.is_last_chunk]
    return "".join(one.chunk or "" for one in pieces)


def read(items: list[Any], field: str, adapter: Any) -> str:
    """What the pieces of a field say: those of JSON are JSON, and end where DSPy has seen that the field does."""
    text = joined(items, field)
    return str(json.JSONDecoder().raw_decode(text.strip())[0] if adapter is dspy.JSONAdapter else text)


def told(items: list[Any]) -> list[Any]:
    """What comes between the pieces, in order: status messages, and runs of pieces of a field."""
    kinds = [
        item.message if isinstance(item, StatusMessage) else getattr(item, "signature_field_name", type(item).__name__)
        for item in items
    ]
    return [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind]


QUICK = {("auto", dspy.ChatAdapter, read_async), ("auto", dspy.JSONAdapter, read_threaded)} | {
    ("litellm", dspy.XMLAdapter, read_sync)
}


@pytest.mark.parametrize(
    ("engine", "adapter", "reading"),
    [
        pytest.param(*ways, marks=() if ways in QUICK else pytest.mark.exhaustive)
        for ways in itertools.product(ENGINES, ADAPTERS, READERS)
    ],
)
async def test_pieces_of_a_stored_answer(
    endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, engine: str, adapter: Any, reading: Read
) -> None:
    """By each engine, adapter and way to read: what was bought and what is served say the same, in the same order."""
    endpoint.configure(answers={"Q?": [ANSWER]})
    program = dspy.ChainOfThought("question -> answer")
    seen = []
    for made in (lm, lm, lm, plain_lm):
        with dspy.context(lm=made(engine=engine), adapter=adapter()):
            seen.append(await reading(program, **listening("reasoning", "answer")))
        if len(seen) == 2:
            dspy.cache.reset_memory_cache()  # from the disk
    assert 1 == endpoint.requests
    bought = seen[0]
    assert ANSWER == bought[-1].answer
    for served in seen:
        assert told(bought) == told(served)
        assert bought[-1].toDict() == served[-1].toDict()
        for field in ("reasoning", "answer"):
            assert served[-1][field] == read(served, field, adapter)


@pytest.mark.parametrize("engine", ENGINES)
async def test_without_listeners(endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
    """The chunks themselves are of the engine's class, end as its do, and join to what the model said."""
    dspy.configure(lm=lm(engine=engine))
    program = dspy.streamify(dspy.Predict("question -> answer"))
    bought = [item async for item in program(question="Q?")]
    served = [item async for item in program(question="Q?")]
    assert bought[-1].answer == dspy.Predict("question -> answer")(question="Q?").answer  # without a stream
    assert 1 == endpoint.requests

    def said(items: list[Any]) -> tuple[Any, ...]:
        chunks = items[:-1]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
        return {type(chunk) for chunk in chunks}, text, ends, {chunk.model for chunk in chunks}

    assert said(bought) == said(served)
    assert len(served) > 5
    assert all(chunk.json() for chunk in served[:-1])


class Asks(dspy.Module):  # type: ignore[misc]
    """Asks the LM itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    async def aforward(self, question: str) -> Any:
        """Ask."""
        said = await dspy.settings.lm.acall(question, **self.options)
        return dspy.Prediction(said=said)


async def deltas_of_a_hit(endpoint: Endpoint, program: Any) -> list[Any]:
    """What the chunks say that a stored answer is streamed in, after it was bought without a stream."""
    await program.acall(question="Q?")
    items = [item async for item in dspy.streamify(program, is_async_program=True)(question="Q?")]
    assert 1 == endpoint.requests
    return [chunk.choices[0] for chunk in items[:-1]]


@pytest.mark.parametrize("engine", ENGINES)
async def test_reasoning(endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
    """What a model thought comes before what it said."""
    endpoint.configure(beside={"reasoning_content": "first this, then that"}, answers={"": ["and so on"]})
    dspy.configure(lm=lm(engine=engine))
    choices = await deltas_of_a_hit(endpoint, Asks())
    thought = [getattr(choice.delta, "reasoning_content", None) for choice in choices]
    assert "first this, then that" == "".join(filter(None, thought))
    assert thought == sorted(thought, key=lambda piece: piece is None)
    assert "and so on" == "".join(choice.delta.content or "" for choice in choices)


@pytest.mark.parametrize("engine", ENGINES)
async def test_tool_calls(endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
    """The tools that a stored answer calls are in its chunks."""
    endpoint.configure(call_tools=True)
    dspy.configure(lm=lm(engine=engine))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "description": "Tell it.", "parameters": schema}}]
    choices = await deltas_of_a_hit(endpoint, Asks(tools=tools))
    calls = [call for choice in choices for call in getattr(choice.delta, "tool_calls", None) or ()]
    assert [("weather", 0)] == [(call.function.name, call.index) for call in calls]
    assert "tool_calls" == choices[-1].finish_reason


async def test_several_candidates(endpoint: Endpoint, lm: MakeLM) -> None:
    """Of several, a listener hears the first."""
    endpoint.configure(answers={"Q?": [f"answer {at} of three" for at in range(3)]})
    dspy.configure(lm=lm(temperature=1.0))
    program = dspy.Predict("question -> answer", n=3)
    seen = [await read_async(program, **listening("answer")) for _ in range(2)]
    requests = endpoint.requests
    seen.append(await read_sync(program, **listening("answer")))
    assert requests == endpoint.requests
    assert {seen[0][-1].answer} == {joined(items) for items in seen}


async def test_from_a_cassette(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """A streaming page replays in a test: the same pieces, no request."""
    program = dspy.Predict("question -> answer")
    seen = []
    for mode in ("record", "replay"):
        with cachectl.cassette(tmp_path / "page.jsonl", mode=mode), dspy.context(lm=lm()):
            seen.append(await read_threaded(program, **listening("answer")))
        assert 1 == endpoint.requests
    assert joined(seen[0]) == joined(seen[1]) == seen[1][-1].answer
    assert told(seen[0]) == told(seen[1])


async def test_where_no_stream_can_be_written(endpoint: Endpoint, lm: MakeLM) -> None:
    """What DSPy cannot stream from is answered from the store without pieces: threads, and blocking calls in a loop."""
    dspy.configure(lm=lm())
    asked = dspy.Predict("question -> answer")
    asked(question="Q?")

    class Blocks(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = asked

        def forward(self, question: str) -> Any:
            return dspy.Parallel(num_threads=2)([(self.ask, {"question": question})] * 2)[0]

        async def aforward(self, question: str) -> Any:
            return self.ask(question=question)

    for reading in (read_async, read_threaded):
        items = await reading(Blocks(), **listening("answer", predict=asked))
        assert items[-1].answer
    assert 1 == endpoint.requests
