"""What is made of an answer's shape and leaves is what DSPy and LiteLLM make of the answer, whatever it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import dspy
import pytest
from dspy.clients.call_result import CACHE_FORMAT, CallResult
from hypothesis import given, settings, strategies as st
from litellm.types.utils import ModelResponse

from dspy_cachectl.entries.decoded import Decoded
from dspy_cachectl.entries.records import Origin, encode, stored
from dspy_cachectl.errors import CorruptEntryError
from tests.entries.test_moulds import _seen

ORIGIN = Origin("lm", "m")
LM = dspy.LM("openai/m")
TEXTS = st.sampled_from(["", "yes", "a text that is longer than others", "0", "\u00fc"])
COUNTS = st.sampled_from([0, 1, 7])


@st.composite
def messages(draw: Any) -> dict[str, Any]:
    """Return a message with reasoning or without, which may be empty."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(TEXTS | st.none())}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXTS | st.none())
    return message


@st.composite
def responses(draw: Any) -> ModelResponse:
    """Return one of LiteLLM's responses, with a cost or without."""
    choices = [
        {"index": at, "finish_reason": draw(st.sampled_from(["stop", "length"])), "message": message}
        for at, message in enumerate(draw(st.lists(messages(), min_size=1, max_size=2)))
    ]
    response = ModelResponse(
        id=draw(TEXTS), model="m", created=draw(COUNTS), choices=choices, usage={"prompt_tokens": draw(COUNTS)}
    )
    response._hidden_params = {"response_cost": draw(st.sampled_from([None, 0.0, 0.25]))}
    return response


@st.composite
def records(draw: Any) -> dict[str, Any]:
    """Return one of DSPy's records of its own engine's answers."""
    text, thought, tokens = draw(TEXTS), draw(TEXTS | st.none()), draw(COUNTS)
    parts = [{"type": "thinking", "text": thought}] if thought else []
    message = {"role": "assistant", "parts": [*parts, {"type": "text", "text": text}]}
    output = {"text": text, "reasoning_content": thought} if thought else text
    return {
        "_dspy_format": CACHE_FORMAT,
        "responses": [
            {
                "id": draw(TEXTS),
                "model": "m",
                "message": message,
                "finish_reason": "stop",
                "usage": {"input_tokens": tokens, "output_tokens": draw(COUNTS), "total_tokens": tokens},
                "provider_data": {"content": text, "tokens": tokens, "nothing": {}},
            }
        ],
        "outputs": [output],
        "usage": {"prompt_tokens": tokens},
        "cost": draw(st.sampled_from([None, 0, 0.0, 0.25])),
        "cost_details": {"kind": draw(TEXTS)},
        "raw": None,
        "response_model": "m",
    }


def _results(answer: Any, *, is_shaped: bool) -> list[Any]:
    """All that is given to two hits on an answer, kept as its shape and its leaves or as it is."""
    kept = stored(answer)
    assert kept.shaped is not None
    try:
        entry = Decoded(encode(ORIGIN, kept if is_shaped else kept._replace(shaped=None))).checked()
    except CorruptEntryError as error:
        return [str(error)]  # as of one without an id
    return [_all_of(entry.result(LM, {}, lambda: {"model": "m", "messages": []})) for _ in range(2)]


def _all_of(result: CallResult) -> list[Any]:
    values = (getattr(result, field.name) for field in dataclasses.fields(result))
    return [(type(value), _seen(value)) for value in values]


@settings(max_examples=200, deadline=None)
@given(st.lists(responses() | records(), min_size=1, max_size=8))
def test_leaves_become_what_the_answer_would(answers: list[Any]) -> None:
    """Also where a text is empty or a number 0, of which packages make something else than of others."""
    for answer in answers:
        assert _results(answer, is_shaped=False) == _results(answer, is_shaped=True)


@pytest.mark.parametrize("text", ["half a character: \ud800", "whole"])
@pytest.mark.parametrize("where", ["London", "\ud800", 10**30])
@pytest.mark.parametrize("provider_data", [{"id": 1}, {"$": "their own"}, {"tokens": 10**30}])
def test_what_json_lacks_is_given_as_it_was_bought(text: str, where: Any, provider_data: dict[str, Any]) -> None:
    """A record that has no form in JSON alone is kept with tags, of which DSPy must see none."""
    call = {"type": "tool_call", "id": "call_1", "name": "look", "input": {"where": where}}
    record = {
        "_dspy_format": CACHE_FORMAT,
        "responses": [
            {
                "id": "1",
                "model": "m",
                "message": {"role": "assistant", "parts": [{"type": "text", "text": text}, call]},
                "finish_reason": "tool_call",
                "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
                "provider_data": provider_data,
            }
        ],
        "outputs": [{"text": text}],
        "usage": {},
        "cost": None,
        "raw": None,
        "response_model": "m",
    }
    entry = Decoded(encode(ORIGIN, record)).checked()
    for _ in range(4):
        assert _all_of(CallResult.load(record)) == _all_of(entry.result(LM, {}, dict))
