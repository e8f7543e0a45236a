"""Two calls share a key where the provider receives the same, and only there."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import dspy
import pydantic
import pytest
from hypothesis import assume, given, settings, strategies as st

from tests.endpoint import Endpoint
from tests.keys.asking import CREDENTIALS, ENGINES, is_shared, sent

_TEXTS = itertools.count()
_WORDS = st.sampled_from(["a", "b", "eu"])
_NAMES = st.one_of(
    st.sampled_from(["a", "token", "password", "api_key", "auth", "session", "max_tokens_per_key", "provider"]),
    st.sampled_from(["headers", "query", "input", "properties", "$order"]),
)
_NUMBERS = st.sampled_from([0, 1, 1.0, 0.5, 2, True, None])
_ADDRESSES = [
    "http://u:p@h/x?key=1",
    "http://u:q@h/x?key=2",
    "http://me@h",
    "x:y@h",
    "a:b@h",
    "//h?session=1",
    "h#key=2",
]
_JSON = st.recursive(
    st.one_of(_NUMBERS, _WORDS, st.sampled_from(_ADDRESSES)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_NAMES, inner, max_size=3)),
    max_leaves=4,
)


@st.composite
def _schemas(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.permutations(["reasoning", "answer", "password", "token"]))[: draw(st.integers(1, 4))]
    kinds = st.sampled_from([{"type": "string"}, {"type": "number"}])
    return {"type": "object", "properties": {name: draw(kinds) for name in names}}


_HEADERS = st.dictionaries(
    st.sampled_from(["x-portkey-provider", "X-Tokenizer", "x-keyword-filter", "x-session-kind", "X-Region"]),
    st.sampled_from(["openai", "azure", "Bearer of-news"]),
    max_size=2,
)
_BODIES = st.dictionaries(_NAMES, _JSON, min_size=1, max_size=3)
_ANY: dict[str, Any] = {
    "temperature": st.sampled_from([0.5, 1, 1.0]),
    "extra_headers": _HEADERS,
    "headers": _HEADERS,
    "extra_body": st.one_of(_BODIES, st.builds(lambda schema: {"guided_json": schema}, _schemas())),
    "timeout": st.sampled_from([20, 30.0]),
    "max_retries": st.just(0),
}
_CHAT: dict[str, Any] = {
    "response_format": st.builds(
        lambda schema: {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}, _schemas()
    ),
    "tools": st.builds(
        lambda schema: [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
        _schemas(),
    ),
    "logit_bias": st.sampled_from([{"50": 1}, {"50": 1.0}, {"50": 2}]),
    "seed": st.sampled_from([1, 2]),
}
_REASONING = st.sampled_from([{}, {"effort": "low"}, {"effort": "low", "summary": "auto"}])
_TYPED: dict[str, Any] = {
    **{name: _ANY[name] for name in ("extra_headers", "headers", "timeout")},
    "organization": _WORDS,
    "project": _WORDS,
    "extra_query": st.dictionaries(_WORDS, _WORDS, min_size=1, max_size=2),
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "typed": _TYPED,
    "typed, as DSPy chooses": _TYPED,
    "typed, plain": _TYPED,
    "chat": {**_ANY, **_CHAT, "metadata": st.sampled_from([{"a": 1}, {}]), "organization": _WORDS},
    "wrap": {**_ANY, **_CHAT, "metadata": st.sampled_from([{"a": 1}, {}]), "organization": _WORDS},
    "chat, as DSPy chooses": {**_ANY, **_CHAT, "reasoning": _REASONING},
    "plain": {**_ANY, **_CHAT, "reasoning": _REASONING},
    "text": {**_ANY, "metadata": st.sampled_from([{"a": 1}, {}]), "seed": _CHAT["seed"]},
    "responses": {**_ANY, "text": st.builds(lambda schema: {"format": {"schema": schema}}, _schemas())},
    "responses, as DSPy chooses": {**_ANY, "reasoning": _REASONING},
    "embedder": {
        **{name: one for name, one in _ANY.items() if name != "temperature"},
        "extra_body": _BODIES.filter(lambda body: "input" not in body),  # it would be what is embedded
        "dimensions": st.integers(1, 2),
    },
}


@st.composite
def _pairs(draw: st.DrawFn, engine: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two calls' options: the second has up to two others of the first's, in another order, with other credentials."""
    known = _OPTIONS[engine]
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True))
    one = {name: draw(known[name]) for name in names}
    other = dict(draw(st.permutations(list(one.items()))))
    for name in draw(st.lists(st.sampled_from(sorted(known)), max_size=2, unique=True)):
        if draw(st.booleans()):
            other[name] = draw(known[name])
        else:
            other.pop(name, None)
    for options, key in ((one, "one"), (other, draw(st.sampled_from(["one", "another"])))):
        options["api_key"] = f"key-{key}"
        if draw(st.booleans()) and engine != "responses, as DSPy chooses":
            options["extra_headers"] = {**options.get("extra_headers", {}), draw(st.sampled_from(CREDENTIALS)): key}
    return one, other


_LIKE_ANOTHER = ("typed, plain", "wrap")
_IN_TURN = [
    pytest.param(one, marks=[pytest.mark.exhaustive] if "as DSPy chooses" in one or one in _LIKE_ANOTHER else [])
    for one in ENGINES
]


@pytest.mark.parametrize("examples", [25, pytest.param(400, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("engine", _IN_TURN)
def test_what_is_sent_decides(endpoint: Endpoint, engine: str, examples: int) -> None:
    """Where what is sent differs the keys differ, where it is equal they are equal, credentials and order aside."""
    seen = Counter[bool]()

    @settings(max_examples=examples)
    @given(_pairs(engine))
    def check(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        one, other = ({"api_base": endpoint.url, **options} for options in pair)
        text = f"question {next(_TEXTS)}"
        wires = [sent(endpoint, engine, options, text) for options in (one, other)]
        assume(None not in wires)
        seen[wires[0] == wires[1]] += 1
        assert (wires[0] == wires[1]) == is_shared(endpoint, engine, one, other, text), (one, other)

    check()
    assert {True, False} == set(seen)  # it was put to the test both ways


def _two(properties: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in properties.split()}}


def _answer(properties: str) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": _two(properties)}}


def _tool(properties: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "description": "d", "parameters": _two(properties)}}]


class _Own(pydantic.BaseModel):
    """What somebody gives as a value."""

    n: int = 1


class _Renamed(pydantic.BaseModel):
    """It is sent under another name."""

    n: int = pydantic.Field(alias="M")


_DIFFER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *[
        ("any", {"extra_headers": {name: "a"}}, {"extra_headers": {name: "b"}})
        for name in (
            *("x-portkey-provider", "x-portkey-virtual-key", "x-tokenizer", "x-keyword-filter", "x-session-kind"),
            *("x-auth-mode", "x-secretary", "x-cookie-policy"),
        )
    ],
    *[
        ("any", {"extra_body": {name: "a"}}, {"extra_body": {name: "b"}})
        for name in ("password", "token", "api_key", "auth", "secret", "headers_key")
    ],
    ("any", {"extra_body": {"token": {"a": 1, "b": 2}}}, {"extra_body": {"token": {"a": 1, "b": 3}}}),
    ("any", {"extra_body": {"guided_json": _two("a password")}}, {"extra_body": {"guided_json": _two("a")}}),
    ("any", {"extra_body": {"guided_json": _two("a b")}}, {"extra_body": {"guided_json": _two("b a")}}),
    ("any", {"extra_body": {"format": _two("a token")}}, {"extra_body": {"format": _two("a")}}),
    ("any", {"extra_body": {"deep": [{"t": _two("a b")}]}}, {"extra_body": {"deep": [{"t": _two("b a")}]}}),
    ("any", {"extra_body": {"a": None}}, {"extra_body": {"a": False}}),
    ("any", {"extra_body": {"a": 1}}, {"extra_body": {"a": True}}),
    ("any", {"extra_body": {"query": {"key": "a"}}}, {"extra_body": {"query": {"key": "b"}}}),
    ("any", {"extra_body": {"stop": "a:b@c"}}, {"extra_body": {"stop": "x:y@c"}}),
    ("any", {"extra_body": {"u": "http://h/?session=a"}}, {"extra_body": {"u": "http://h/?session=b"}}),
    ("chat", {"reasoning": {}}, {}),
    ("chat", {"response_format": _answer("reasoning answer")}, {"response_format": _answer("answer reasoning")}),
    ("chat", {"tools": _tool("a b")}, {"tools": _tool("b a")}),
    ("chat", {"tools": _tool("a password")}, {"tools": _tool("a")}),
    ("chat", {"organization": "a"}, {"organization": "b"}),
    (
        "responses",
        {"text": {"format": {**_two("a token"), "name": "n"}}},
        {"text": {"format": {**_two("a"), "name": "n"}}},
    ),
    ("responses", {"reasoning": {}}, {}),
    ("responses", {"metadata": {"a": "b"}}, {}),
]
_DIFFER += [
    ("chat", {"extra_body": {"at": one}}, {"extra_body": {"at": other}})
    for one, other in [
        ("https://h/doc?key=1", "https://h/doc?key=2"),
        ("https://one@h/doc", "https://another@h/doc"),
        ("https://h/doc;key=1", "https://h/doc;key=2"),
        ({"headers": {"cookie": "a"}}, {"headers": {"cookie": "b"}}),
        ({"properties": {"headers": {"x-token": {"type": "string"}}}}, {"properties": {"headers": {}}}),
        ({"token": _Own(n=1)}, {"token": _Own(n=2)}),
        ({"token": "1"}, {"token": 1}),
        (_Own(n=1), _Own()),
        (_Own(n=1), _Renamed(M=1)),
        ({"input": _two("a b")}, {"input": _two("b a")}),
        ({"properties": {"a": {}, "b": "x"}}, {"properties": {"b": "x", "a": {}}}),
        ({"properties": {"a": {}, "b": {}}, "$order": ["b", "a"]}, {"properties": {"b": {}, "a": {}}}),
        ({"properties": {"b": {}, "a": {}}, "$order": 1}, {"properties": {"b": {}, "a": {}}, "$order": 2}),
    ]
]
_DIFFER += [
    ("chat", {name: "one-of-these"}, {name: "another-of-these"})
    for name in (
        "hf_token",
        "azure_ad_token",
        "openai_key",
        "oci_tenancy",
        "oci_user",
        "watsonx_token",
        "gemini_api_key",
    )
]
_DIFFER += [
    ("chat", {name: {"key": "one"}}, {name: {"key": "another"}}) for name in ("query", "query_params", "http_headers")
]
_EQUAL: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("any", {"extra_headers": {"X-A": "a"}}, {"extra_headers": {"x-a": "a"}}),
    ("any", {"extra_headers": {"x-a": "a"}}, {"headers": {"X-A": "a"}}),
    ("any", {"extra_headers": {"Authorization": "Bearer a", "x-b": "b"}}, {"extra_headers": {"x-b": "b"}}),
    ("any", {"extra_headers": {"x-b": "b", "x-api-key": "a"}}, {"extra_headers": {"x-api-key": "b", "x-b": "b"}}),
    ("any", {"extra_body": {"a": {"b": 1, "c": [2.0]}}}, {"extra_body": {"a": {"c": [2], "b": 1.0}}}),
    ("any", {"api_key": "a"}, {"api_key": "b", "timeout": 31, "max_retries": 0}),
    ("chat", {"response_format": _answer("a b")}, {"response_format": _answer("a b")}),
    ("chat", {"extra_body": {"input": {"a": 2.0}}}, {"extra_body": {"input": {"a": 2}}}),
    ("chat", {"extra_body": {"a": 2**60}}, {"extra_body": {"a": float(2**60)}}),
    ("chat", {"extra_body": {"a": 2**70}}, {"extra_body": {"a": 2**70}}),
    (
        "any",
        {"headers": {"x-a": "1"}, "extra_headers": {"x-a": "2"}},
        {"extra_headers": {"X-A": "2"}, "headers": {"x-a": "1"}},
    ),
    ("chat", {"metadata": {"trace": "a"}, "tags": ["a"], "input_cost_per_token": 1.0}, {"metadata": {"trace": "b"}}),
    *[
        (f"{api}, as DSPy chooses", {"reasoning": said}, {"reasoning": said, "extra_headers": {}})
        for api, said in [("chat", {}), ("responses", {}), ("responses", {"effort": "low", "summary": "auto"})]
    ],
    ("embedder", {"metadata": {"trace": "a"}}, {}),
    ("text", {"metadata": {"trace": "a"}}, {}),
]


def _cases(pairs: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[Any]:
    return [
        pytest.param(engine, one, other, id=f"{engine}-{number}", marks=[pytest.mark.exhaustive] if rest else [])
        for number, (kind, one, other) in enumerate(pairs)
        for rest, engine in enumerate(_asked(kind, number))
    ]


def _asked(kind: str, number: int) -> list[str]:
    """What asks for a pair; the first, each in its turn, in the quick suite too."""
    if kind != "any":
        return [kind]
    engines = [name for name in ENGINES if not name.startswith("typed")]
    return engines[number % len(engines) :] + engines[: number % len(engines)]


def _both(endpoint: Endpoint, engine: str, one: dict[str, Any], other: dict[str, Any]) -> tuple[bool, bool]:
    """Whether what is sent is the same, and whether the second is served what the first bought."""
    pair = [{"api_base": endpoint.url, "api_key": "none", **options} for options in (one, other)]
    text = f"question {next(_TEXTS)}"
    wires = [sent(endpoint, engine, options, text) for options in pair]
    assert None not in wires
    return wires[0] == wires[1], is_shared(endpoint, engine, pair[0], pair[1], text)


@pytest.mark.parametrize(("engine", "one", "other"), _cases(_DIFFER))
def test_two_models(endpoint: Endpoint, engine: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    """What the provider tells apart is bought twice."""
    assert (False, False) == _both(endpoint, engine, one, other)


@pytest.mark.parametrize(("engine", "one", "other"), _cases(_EQUAL))
def test_one_question(endpoint: Endpoint, engine: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    """What the provider cannot tell apart is bought once."""
    assert (True, True) == _both(endpoint, engine, one, other)


def test_a_class_and_its_schema(endpoint: Endpoint) -> None:
    """A class of pydantic's counts as the schema that is sent of it: in its order, and as it is after a rebuild."""

    class Inner(pydantic.BaseModel):
        a: str

    class Answer(pydantic.BaseModel):
        reasoning: str
        inner: Inner

    class Turned(pydantic.BaseModel):
        inner: Inner
        reasoning: str

    Turned.__name__ = "Answer"
    plain = {"openai": Answer, "turned": Turned}
    assert (False, False) == _both(endpoint, "chat", *({"response_format": each} for each in plain.values()))
    options = {"api_base": endpoint.url, "api_key": "none", "response_format": Answer}
    before = sent(endpoint, "chat", options, "rebuilt")
    ENGINES["chat"](dict(options), "rebuilt")
    Inner.model_fields["a"].annotation = int
    Inner.model_rebuild(force=True)
    Answer.model_rebuild(force=True)
    assert before != sent(endpoint, "chat", options, "rebuilt")
    endpoint.reset_counts()
    ENGINES["chat"](dict(options), "rebuilt")
    assert endpoint.requests == 1


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_that_json_has_not(endpoint: Endpoint, value: float) -> None:
    """They are not `null`: what such a call gets is nobody else's."""
    options = {"api_base": endpoint.url, "api_key": "none"}
    ENGINES["chat"]({**options, "extra_body": {"a": None}}, "odd")
    with pytest.raises(dspy.LMError):
        ENGINES["chat"]({**options, "extra_body": {"a": value}}, "odd")
    assert endpoint.requests == 1
