"""The response objects that DSPy's LiteLLM engine puts into the cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import EmbeddingResponse, ModelResponse, TextCompletionResponse

from dspy_cachectl.entries.answers import read
from dspy_cachectl.entries.records import Origin, decode, encode

ORIGIN = Origin("lm", "openai/gpt-4o-mini")

CHAT = {
    "id": "chatcmpl-1",
    "created": 1_790_000_000,
    "model": "gpt-4o-mini",
    "system_fingerprint": None,
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Grüße \ud800",
                "reasoning_content": "Because.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}}
                ],
                "provider_specific_fields": {"citations": ["https://example.com"]},
            },
            "logprobs": {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]},
        },
        {"index": 1, "finish_reason": "stop", "message": {"role": "assistant", "content": None}},
    ],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_790_000_000,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": "hello", "finish_reason": "length", "logprobs": None}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}
RESPONSES = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_790_000_000,
    "status": "completed",
    "model": "gpt-4o-mini",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Because."}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hello", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "search", "arguments": "{}"},
    ],
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "usage": {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 1},
    },
}
EMBEDDING = {
    "model": "text-embedding-3-small",
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.0, 1e-300]}],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}

MADE = [
    (ModelResponse, CHAT),
    (TextCompletionResponse, TEXT),
    (ResponsesAPIResponse, RESPONSES),
    (EmbeddingResponse, EMBEDDING),
]


@pytest.fixture(params=MADE, ids=lambda made: made[0].__name__)
def response(request: pytest.FixtureRequest) -> Any:
    kind, fields = request.param
    return kind(**fields)


def round_trip(answer: Any) -> Any:
    return decode(encode(ORIGIN, answer)).answer


def test_round_trip(response: Any) -> None:
    """A response comes back as the same class with the same fields, nested ones included."""
    back = round_trip(response)

    assert type(response) is type(back)
    assert response.model_dump() == back.model_dump()
    assert shape(response) == shape(back)


def test_a_second_trip_changes_nothing(response: Any) -> None:
    """Storing what was read gives the same bytes: nothing wears off from copy to copy."""
    assert encode(ORIGIN, response) == encode(ORIGIN, round_trip(response))


@pytest.mark.parametrize("cost", [None, 0.0, 0.000123, math.inf])
def test_the_cost_comes_back(response: Any, cost: float | None) -> None:
    """What the answer cost is kept where LiteLLM and DSPy look for it."""
    response._hidden_params = {"response_cost": cost}

    assert cost == round_trip(response)._hidden_params["response_cost"]


def test_of_the_hidden_parameters_only_the_cost_is_kept(response: Any) -> None:
    """Headers and addresses, which may hold secrets, are not part of an entry."""
    response._hidden_params = {
        "response_cost": 0.5,
        "additional_headers": {"authorization": "Bearer very-secret"},
        "api_base": "https://user:very-secret@example.com",
    }
    data = encode(ORIGIN, response)

    assert b"very-secret" not in data
    assert "very-secret" not in str(decode(data).answer._hidden_params)


def test_it_can_be_told_that_it_was_served(response: Any) -> None:
    """DSPy marks what it serves; a response from the store can be marked as well."""
    back = round_trip(response)

    object.__setattr__(back, "cache_hit", True)
    assert back.cache_hit is True


def test_a_response_within_a_record() -> None:
    """The native engine keeps a provider's response in its record."""
    record = {"raw": ModelResponse(**CHAT), "responses": []}

    assert shape(record["raw"]) == shape(round_trip(record)["raw"])


def shape(value: Any) -> Any:
    """The types of a response and of everything in it, by name."""
    if hasattr(type(value), "model_fields"):
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        return type(value).__name__, {name: shape(item) for name, item in sorted(fields.items())}
    if isinstance(value, (list, tuple)):
        return [shape(item) for item in value]
    return type(value).__name__


@pytest.mark.parametrize(
    ("hidden", "seconds"),
    [
        ({"_response_ms": 1500.0, "litellm_overhead_time_ms": 1400.0}, 0.1),
        ({"_response_ms": 1.0, "litellm_overhead_time_ms": 2.0}, 0.0),
        ({"_response_ms": 1500.0}, None),
        ({}, None),
    ],
)
def test_what_litellm_takes_for_itself_is_not_the_providers_time(hidden: dict[str, float], seconds: float) -> None:
    """The time of a request is the whole less LiteLLM's own part, where it says both."""
    response = ModelResponse(**CHAT)
    response._hidden_params = hidden
    assert read(response).seconds == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("field", ["model", "modelVersion"])
def test_who_answered_is_what_the_provider_sent(field: str) -> None:
    """Whatever a provider calls it in what it sends: DSPy notes the model that was asked."""
    answer = {"_dspy_format": "dspy-lm15-result-v1", "outputs": ["a"]}
    response = {"model": "asked", "provider_data": {field: "another"}}
    assert ("another",) == read({**answer, "responses": [response]}).answered_by
