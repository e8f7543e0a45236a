"""Why two requests are not the same one, in words."""

from __future__ import annotations

import pytest

from dspy_cachectl.entries.differences import Span, between, similarity, word_diff

BASE = {
    "request": {
        "model": "m",
        "temperature": 0.0,
        "messages": [{"role": "user", "content": "What is the capital of France ?"}],
    },
    "endpoint": "http://a",
    "version": None,
    "rollout_id": None,
    "scope": None,
}


def _with(**changes: object) -> dict[str, object]:
    description = {**BASE, "request": dict(BASE["request"])}  # type: ignore[call-overload]
    for name, value in changes.items():
        target = description if name in BASE else description["request"]
        target[name] = value
    return description


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (_with(model="n"), "model: asked 'm', stored 'n'"),
        (_with(endpoint="http://b"), "endpoint: asked 'http://a', stored 'http://b'"),
        (_with(version="2"), "version: asked None, stored '2'"),
        (_with(temperature=1.0), "temperature: asked 0.0, stored 1.0"),
        (_with(max_tokens=9), "max_tokens: asked None, stored 9"),
        (
            _with(_engine="litellm"),
            "engine: asked by DSPy's native engine, stored by LiteLLM; DSPy takes LiteLLM where a variable such as "
            'OPENAI_BASE_URL is set, or engine="litellm"',
        ),
        (_with(rollout_id=7), "draw: asked for the plain draw, stored rollout 7"),
        (
            _with(messages=[{"role": "user", "content": "What is the capital of Spain ?"}]),
            "message 0 (user): after 'the capital of': asked 'France', stored 'Spain'",
        ),
        (_with(messages=[]), "messages: asked with 1, stored with 0"),
    ],
)
def test_each_kind_of_difference_is_named(changed: dict[str, object], line: str) -> None:
    """One line says what was asked and what is stored."""
    assert [line] == between(BASE, changed)


def test_equal_requests_have_no_difference() -> None:
    """Nothing is said where nothing differs."""
    assert [] == between(BASE, _with())
    assert 1.0 == pytest.approx(similarity(BASE, _with()))


def test_the_nearest_is_the_one_with_most_in_common() -> None:
    """A changed word is nearer than another question, and the same model nearer than another."""
    word = _with(messages=[{"role": "user", "content": "What is the capital of Spain ?"}])
    other = _with(messages=[{"role": "user", "content": "Translate this text into Latin"}])
    assert similarity(BASE, word) > similarity(BASE, other)
    assert similarity(BASE, word) > similarity(BASE, {**word, "request": {**word["request"], "model": "n"}})  # type: ignore[dict-item]


def test_two_entries_have_names_of_their_own() -> None:
    """Of two stored entries neither is the one that is asked for."""
    changed = _with(model="n", rollout_id=7, messages=[{"role": "user", "content": "What is the capital of Spain ?"}])
    assert [
        "model: first 'm', second 'n'",
        "message 0 (user): after 'the capital of': first 'France', second 'Spain'",
        "draw: first the plain draw, second rollout 7",
    ] == between(BASE, changed, names=("first", "second"))


@pytest.mark.parametrize(
    ("first", "second", "spans"),
    [
        ("", "", []),
        ("a b", "a b", [("both", "a b")]),
        ("a b c", "a x c", [("both", "a "), ("first", "b "), ("second", "x "), ("both", "c")]),
        ("", "new", [("second", "new")]),
        ("a\n\nb", "a b", [("first", "a\n\n"), ("second", "a "), ("both", "b")]),
        (
            "w " * 40 + "x",
            "w " * 40 + "y",
            [("cut", "28 equal words"), ("both", "w " * 12), ("first", "x"), ("second", "y")],
        ),
        (
            "x " + "w " * 40,
            "y " + "w " * 40,
            [("first", "x "), ("second", "y "), ("both", "w " * 12), ("cut", "28 equal words")],
        ),
        (
            "x " + "w " * 40 + "x",
            "y " + "w " * 40 + "y",
            [
                ("first", "x "),
                ("second", "y "),
                ("both", "w " * 12),
                ("cut", "16 equal words"),
                ("both", "w " * 12),
                ("first", "x"),
                ("second", "y"),
            ],
        ),
    ],
)
def test_words_that_differ(first: str, second: str, spans: list[tuple[str, str]]) -> None:
    """Two texts are one, word by word; of a long stretch of equal words only the ends are kept."""
    assert [Span(of, text) for of, text in spans] == word_diff(first, second)  # type: ignore[arg-type]


def test_texts_too_long_to_compare_are_given_whole() -> None:
    """Comparing them word by word would take minutes."""
    assert [Span("first", "a " * 6000), Span("second", "b")] == word_diff("a " * 6000, "b")
