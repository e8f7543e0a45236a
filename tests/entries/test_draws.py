"""Fingerprints, rollout ids, ordinals and keys."""

from __future__ import annotations

import threading

import pydantic
import pytest
from hypothesis import given, strategies as st

from dspy_cachectl.entries.draws import (
    Ordinals,
    UncacheableError,
    cache_key,
    clean_endpoint,
    clean_request,
    fingerprint,
    rollout_id,
)

MESSAGES = [{"role": "user", "content": "hi"}]


def _print(**request: object) -> str:
    return fingerprint(clean_request({"model": "m", "messages": MESSAGES, **request}), endpoint=None)


def test_mappings_are_sorted_and_lists_are_not() -> None:
    """Order is meaning in a list, and nothing in a mapping."""
    assert _print(a=1, b=2) == _print(b=2, a=1)
    assert _print(stop=["a", "b"]) != _print(stop=["b", "a"])


@pytest.mark.parametrize(
    "option",
    [
        {"api_key": "sk-1"},
        {"api_base": "http://a"},
        {"rollout_id": 3},
        {"cache": False},
        {"num_retries": 9},
        {"timeout": 5},
        {"temperature": None},
        {"azure_ad_token_provider": object()},
        {"aws_session_token": "x"},
        {"extra_headers": {"Authorization": "Bearer x", "X-Api-Key": "y"}, "drop": None},
    ],
)
def test_what_is_no_part_of_the_question_is_not_in_the_fingerprint(option: dict[str, object]) -> None:
    """Secrets, transport and unset options do not make another question."""
    base, asked = (
        clean_request({"model": "m", "messages": MESSAGES, **given}, by_litellm=True) for given in ({}, option)
    )
    assert fingerprint(base, endpoint=None) == fingerprint(asked, endpoint=None)


@pytest.mark.parametrize(
    "option",
    [{"temperature": 0}, {"max_tokens": 5}, {"n": 2}, {"prompt_cache_key": "k"}, {"extra_headers": {"X-Beta": "1"}}],
)
def test_what_is_part_of_the_question_is_in_the_fingerprint(option: dict[str, object]) -> None:
    """An option that can change the answer makes another question; `max_tokens` is no secret."""
    assert _print() != _print(**option)


def test_a_tools_parameter_named_password_is_no_secret() -> None:
    """Two tools that differ in a parameter's name are two questions, whatever it is called."""
    tools = [{"function": {"name": "login", "parameters": {"properties": {"password": {"type": "string"}}}}}]
    other = [{"function": {"name": "login", "parameters": {"properties": {}}}}]
    assert _print(tools=tools) != _print(tools=other)


def test_a_response_model_counts_by_its_schema() -> None:
    """A pydantic class is its JSON schema; two classes with one name and other fields are two questions."""

    def make(field: str) -> type[pydantic.BaseModel]:
        return pydantic.create_model("Answer", **{field: (str, ...)})  # type: ignore[call-overload,no-any-return]

    assert _print(response_format=make("a")) == _print(response_format=make("a"))
    assert _print(response_format=make("a")) != _print(response_format=make("b"))


def test_endpoint_and_version_are_in_the_fingerprint() -> None:
    """Two servers with one model name are two models."""
    request = clean_request({"model": "m", "messages": MESSAGES})
    prints = {
        fingerprint(request, endpoint=endpoint, version=version)
        for endpoint in (None, "http://a", "http://b")
        for version in (None, "1", "2")
    }
    assert 9 == len(prints)


@pytest.mark.parametrize("value", [object(), {object(): 1}, "\ud800"])
def test_what_has_no_canonical_form_is_uncacheable(value: object) -> None:
    """It is one error that the caller counts, whatever the value."""
    with pytest.raises(UncacheableError):
        _print(option=value)


def test_a_request_that_holds_itself_is_uncacheable() -> None:
    """Recursion is no way to crash a paid call."""
    option: list[object] = []
    option.append(option)
    with pytest.raises(UncacheableError):
        _print(option=option)


@pytest.mark.parametrize(
    ("url", "identity"),
    [
        (None, None),
        ("", None),
        ("http://HOST:80/v1/", "http://host:80/v1"),
        ("https://user:pass@host/v1", "https://host/v1"),
        ("https://host/v1?api-key=s3cret&version=2#frag", "https://host/v1?version=2#frag"),
        ("my-endpoint", "my-endpoint"),
    ],
)
def test_an_endpoints_identity_holds_no_credentials(url: str | None, identity: str | None) -> None:
    """User, password, keys in the query and a trailing slash are no part of an endpoint's identity."""
    assert identity == clean_endpoint(url)


def test_a_part_of_an_address_that_was_drawn_by_lot_cannot_be_read() -> None:
    """A gateway may have its key in the path: two are two, and neither is written down."""
    drawn = "q8Zx" + "V3nT7pLw2RkY9sBd4HfC"
    one, other = (str(clean_endpoint(f"https://host/{part}/openai/deployments/v1")) for part in (drawn, drawn[::-1]))
    assert one != other
    assert drawn not in one
    assert "https://host/openai-compatible-gateway/v1" == clean_endpoint("https://host/openai-compatible-gateway/v1")


@given(
    st.text(min_size=1),
    st.one_of(st.none(), st.integers(-(2**31), 2**31), st.text()),
    st.one_of(st.none(), st.text()),
    st.integers(0, 1000),
)
def test_rollout_ids_are_stable_integers_of_53_bits(run: str, own: object, unit: str | None, ordinal: int) -> None:
    """The same draw has the same id for ever, and it survives JSON."""
    try:
        first = rollout_id(run, program_rollout_id=own, unit=unit, request="r", ordinal=ordinal)
    except UncacheableError:
        return  # a lone surrogate in a name: no id can be made of it
    assert first == rollout_id(run, program_rollout_id=own, unit=unit, request="r", ordinal=ordinal)
    assert 0 < first < 2**53


def test_each_part_of_a_draw_changes_its_id() -> None:
    """Run, own rollout, unit, request and ordinal each make another draw; the program's rollout is enclosed."""
    base = {"program_rollout_id": 0, "unit": "e1/0", "request": "r", "ordinal": 0}
    changes = [
        *({}, {"program_rollout_id": 1}, {"program_rollout_id": None}, {"program_rollout_id": "0"}),
        *({"unit": "e2/0"}, {"request": "q"}, {"ordinal": 1}),
    ]
    ids = [rollout_id("run", **{**base, **change}) for change in changes]  # type: ignore[arg-type]
    ids.append(rollout_id("other", **base))  # type: ignore[arg-type]
    assert len(ids) == len(set(ids))


def test_a_rollout_id_is_the_same_on_every_machine() -> None:
    """A run begun elsewhere is resumed here: the derivation is part of the format."""
    assert 1808449071881794 == rollout_id("baseline", program_rollout_id=1, unit="q7/2", request="abc", ordinal=3)


def test_ordinals_count_each_request_apart() -> None:
    """Retries of a request are draws 0, 1, 2; another request, unit or own rollout begins at 0."""
    ordinals = Ordinals()
    counted = [ordinals.next("r") for _ in range(3)]
    assert [0, 1, 2] == counted
    assert 0 == ordinals.next("r", unit="u")
    assert 0 == ordinals.next("r", program_rollout_id=0)
    assert 0 == ordinals.next("q")


def test_ordinals_are_given_once_each_to_many_threads() -> None:
    """No two threads draw the same ordinal."""
    ordinals, found = Ordinals(), []

    def draw() -> None:
        found.extend(ordinals.next("r") for _ in range(200))

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(range(1600)) == sorted(found)


def test_keys_differ_by_rollout_and_scope() -> None:
    """The plain call's key is its fingerprint; a rollout or a scope makes another."""
    keys = {
        cache_key("f"),
        cache_key("f", rollout_id=1),
        cache_key("f", scope=(("a", "b"),)),
        cache_key("f", rollout_id="1"),
    }
    assert 4 == len(keys)
    assert "f" == cache_key("f")
