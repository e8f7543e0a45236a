"""A response that is made as one of its shape was: what its package would make of the fields, without asking it."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pydantic
import pytest
from dspy._vendor.lm15.serde import response_from_dict, response_to_dict
from dspy.lm15 import CitationPart, Message, Response, TextPart, ThinkingPart, ToolCallPart, Usage
from litellm.types.utils import EmbeddingResponse, ModelResponse

from dspy_cachectl.entries.moulds import Mould, is_same
from dspy_cachectl.entries.shapes import Shape, opened, plain_at, taken_apart
from tests.entries.test_responses import CHAT, MADE, shape

PLAIN_CHAT = {
    **CHAT,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
    "citations": ["https://example.com"],
}
LITELLM = {kind.__name__: kind(**fields) for kind, fields in MADE if kind is not EmbeddingResponse}  # no LM's answer
LITELLM["ModelResponse of texts"] = ModelResponse(**PLAIN_CHAT)  # type: ignore[arg-type]

PARTS: dict[str, tuple[Any, ...]] = {
    "text": (TextPart(text="hello"),),
    "reasoning": (ThinkingPart(text="Because."), TextPart(text="hello")),
    "citations": (TextPart(text="hello"), CitationPart(text="a", url="https://example.com", title=None)),
    "tools": (ToolCallPart(id="call_1", name="look", input={"where": ["here", {"or": "there"}]}),),
}
NATIVE = {
    name: Response(
        id="resp_1",
        model="m",
        message=Message(role="assistant", parts=parts),
        finish_reason="tool_call" if name == "tools" else "stop",
        usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7),
        provider_data={"choices": [{"message": {"content": "hello"}}], "id": 1},
    )
    for name, parts in PARTS.items()
}


class Pouring:
    """Makes answers of their shapes and leaves, and counts what it makes by their package."""

    def __init__(self, make: Any) -> None:
        self.calls, self._make = 0, make
        self._moulds: dict[Shape, Mould] = {}

    def __call__(self, plain: dict[str, Any]) -> Any:
        data = taken_apart(plain)
        assert data is not None
        shape, leaves = opened(data)
        return self._moulds.setdefault(shape, Mould(shape.root)).pour(
            leaves, lambda: self._made(plain_at(shape.root, leaves))
        )

    def _made(self, plain: dict[str, Any]) -> Any:
        self.calls += 1
        return self._make(plain)


def _seen(response: Any) -> Any:
    """All that a response is, in its order: fields, which of them were set, what is beside them and what is private."""
    if isinstance(response, pydantic.BaseModel):
        parts = (response.__dict__, response.__pydantic_extra__, response.__pydantic_private__)
        return type(response), response.__pydantic_fields_set__, [_seen(part) for part in parts]
    if dataclasses.is_dataclass(response):
        return type(response), [_seen(getattr(response, field.name)) for field in dataclasses.fields(response)]
    if isinstance(response, dict):
        return [(name, _seen(value)) for name, value in response.items()]
    return (type(response), list(map(_seen, response))) if isinstance(response, (list, tuple)) else response


def _other(value: Any) -> Any:
    """A value of the same shape that says something else."""
    if isinstance(value, dict):
        return {
            name: value[name] if name in {"type", "role", "object", "model", "status"} else _other(value[name])
            for name in value
        }
    if isinstance(value, list):
        return [_other(one) for one in value]
    if isinstance(value, str):
        return (
            value
            if value in {"stop", "length", "tool_calls", "tool_call", "completed", "auto", "function"}
            else f"{value} too"
        )
    return value + 1 if type(value) in {int, float} and value else value  # 0 is of another shape


def _litellm(kind: type[Any]) -> Any:
    def make(plain: dict[str, Any]) -> Any:
        made = kind(**{name: value for name, value in plain.items() if name != "usage"})
        made.usage, made._hidden_params = {}, {}
        return made

    return make


def _dumped(response: Any) -> dict[str, Any]:
    dumped = (
        response.model_dump()
        if isinstance(response, pydantic.BaseModel)
        else response_to_dict(response, include_provider_data=True)
    )
    plain: dict[str, Any] = json.loads(json.dumps(dumped).replace("\\ud800", ""))  # which has a tag
    if isinstance(response, pydantic.BaseModel) and "usage" in plain:
        plain["usage"] = {}  # as for each hit: what was used now is nothing
    return plain


@pytest.mark.parametrize("name", [*LITELLM, *NATIVE])
def test_it_is_what_its_package_makes(name: str) -> None:
    """The third of a shape, with other texts and numbers, is made without its package, and equal in all that it is."""
    first = LITELLM[name] if name in LITELLM else NATIVE[name]
    make = _litellm(type(first)) if name in LITELLM else response_from_dict
    pour = Pouring(make)
    one, two, three = _dumped(first), _other(_dumped(first)), _other(_other(_dumped(first)))
    for plain in (one, one, two, three, one):
        poured = pour(plain)
        assert _seen(poured) == _seen(make(copy.deepcopy(plain)))
        assert shape(poured) == shape(make(copy.deepcopy(plain)))
        assert is_same(poured, make(copy.deepcopy(plain)))
    assert 3 == pour.calls  # an answer is no second of its shape to itself


def test_of_another_shape_it_is_made_by_its_package() -> None:
    """A tool call in the place of a text: each is made so twice, and then known beside the other."""
    pour = Pouring(_litellm(ModelResponse))
    kinds = [_dumped(LITELLM["ModelResponse"]), _dumped(LITELLM["ModelResponse of texts"])]
    for plain in [*kinds, *map(_other, kinds), *kinds, *map(_other, kinds)]:
        assert _seen(pour(plain)) == _seen(_litellm(ModelResponse)(copy.deepcopy(plain)))
    assert 4 == pour.calls


def test_two_share_nothing_that_can_be_changed() -> None:
    """What a program does to one response is not seen in the next."""
    pour = Pouring(_litellm(ModelResponse))
    plain = _dumped(LITELLM["ModelResponse of texts"])
    made = [pour(one) for one in (plain, _other(plain), plain, plain, plain)]
    *_, one, two, three = made
    two.choices[0].message.content = "spoilt"
    two.citations.append("spoilt")
    two._hidden_params["spoilt"] = True
    two.__pydantic_fields_set__.add("spoilt")
    assert _seen(one) == _seen(three)


class Odd(pydantic.BaseModel):
    number: int
    twice: int = 0

    def model_post_init(self, _: Any) -> None:
        """Make a field of another."""
        self.twice = self.number * 2


def test_what_is_no_copy_of_the_fields_is_never_poured() -> None:
    """A field that is made of another by its class is not always the same, and is left to the class."""
    pour = Pouring(lambda plain: Odd(**plain))
    assert [0, 2, 4, 6, 8] == [pour({"number": at}).twice for at in range(5)]
    assert 5 == pour.calls


NAMES = ("'}); raise SystemExit #", "{0}\n", "leaves", "__class__", "")


def test_whatever_its_names_say() -> None:
    """Nothing that an answer says is run."""
    pour = Pouring(lambda plain: {**plain, "made": NAMES})
    first = {name: {name: f"{at} leaves"} for at, name in enumerate(NAMES)}
    for plain in (first, _other(first), first, _other(_other(first))):
        assert {**plain, "made": NAMES} == pour(plain)
    assert 2 == pour.calls


@pytest.mark.parametrize(("deep", "calls"), [(5, 2), (120, 3)])
def test_however_deep_it_is(deep: int, calls: int) -> None:
    """What Python does not compile is left to its package."""
    pour = Pouring(lambda plain: plain)
    for at in range(3):
        plain: Any = {"said": f"{at} times"}
        for _ in range(deep):
            plain = {"in": [plain]}
        assert plain == pour(plain)
    assert calls == pour.calls
