"""An answer that is kept as a shape and leaves comes back as it was."""

from __future__ import annotations

import copy
import http
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from dspy_cachectl.entries.records import Origin, Stored, decode, encode, stored, take_apart
from dspy_cachectl.entries.shapes import opened, taken_apart
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import CorruptEntryError
from tests.entries.strategies import same

ORIGIN = Origin("lm", "m")
SCALARS = st.none() | st.booleans() | st.integers(-9, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.sampled_from(["", "stop", "a" * 15, "a" * 16, "\u00fc" * 100]) | st.text(max_size=3)
NAMES = st.sampled_from(["role", "model", "content", "$", "0", ""])
ANSWERS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=20,
    ),
)


@given(ANSWERS)
def test_what_is_taken_apart_is_put_together(answer: dict[str, Any]) -> None:
    """Types, names and their order included; a text that is said again stands in it once."""
    before = copy.deepcopy(answer)
    data = taken_apart(answer)

    assert data is not None
    assert same(before, answer)
    assert orjson.dumps(before) == orjson.dumps(opened(data).plain())
    assert same(before, opened(data).plain())
    assert 1 >= data.count(("\u00fc" * 100).encode())


@given(ANSWERS)
def test_in_an_entry(answer: dict[str, Any]) -> None:
    """Whoever reads it."""
    data = encode(ORIGIN, answer)

    assert same(answer, decode(data).answer)
    origin, plain, tagged, _ = take_apart(data)
    assert ("lm", "m") == (origin["kind"], origin["model"])
    assert tagged or same(answer, plain)


def test_answers_that_differ_in_leaves_have_one_shape() -> None:
    """So that it is read once for all of them; another role, or what is nothing, empty or 0, is another."""
    one, other = ({"role": "user", "said": text, "tokens": at} for text, at in (("a", 1), ("b", 2)))
    shapes = [
        opened(taken_apart(plain) or b"").shape
        for plain in (
            one,
            other,
            {**one, "role": "tool"},
            {**one, "said": None},
            {**one, "said": ""},
            {**one, "tokens": 1.0},
            *({**one, "tokens": zero} for zero in (0, 0.0, -0.0)),
        )
    ]

    assert shapes[0] is shapes[1]
    assert 8 == len(set(shapes))


@pytest.mark.parametrize(
    "answer",
    [
        {"logprobs": [[at] for at in range(300)]},
        {"name " * 300 + str(at): None for at in range(9)},
        {"of": {1}},
    ],
)
def test_what_is_seldom_alike_is_kept_as_it_is(answer: Any) -> None:
    """With its hundreds of leaves, or a shape that is longer than they are; or what is no JSON."""
    assert taken_apart(answer) is None
    assert same(answer, decode(encode(ORIGIN, answer)).answer)


@pytest.mark.parametrize(
    "part",
    [
        math.inf,
        -math.inf,
        2**64,
        -(2**63) - 1,
        "half \ud83d",
        b"bytes",
        (1,),
        {5: "a"},
        {None: "a"},
        {"half \ud83d": 1},
    ],
    ids=repr,
)
def test_what_json_has_not_has_no_shape(part: Any) -> None:
    """However deep it stands, and it comes back as it was, beside what JSON has."""
    answer = {"said": "a", "of": [{"it": part}]}

    assert taken_apart(answer) is None
    assert stored(answer).tagged
    assert same(answer, decode(encode(ORIGIN, answer)).answer)
    assert taken_apart({"of": math.nan}) is None


class Word(str):
    """A text that is more than one."""

    __slots__ = ()


@pytest.mark.parametrize("answer", [{"said": Word("a")}, {"said": Word()}, {"said": [http.HTTPStatus.OK]}], ids=repr)
def test_what_is_more_than_a_text_or_number_is_not_stored_as_one(answer: Any) -> None:
    """It would come back as less."""
    assert taken_apart(answer) is None
    with pytest.raises(UnstorableError):
        stored(answer)


def test_what_holds_itself_has_no_shape() -> None:
    """It has no stored form either."""
    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert taken_apart(endless) is None
    with pytest.raises(TypeError, match="holds itself"):
        stored(endless)


@pytest.mark.parametrize(
    ("shape", "leaves"),
    [
        (b'{"a":0}', b"[]"),
        (b'{"a":0}', b'["a","b"]'),
        (b'{"a":0}', b"[1]"),
        (b'{"a":1}', b"[true]"),
        (b'{"a":0}', b"{}"),
        (b'{"a":0}', b""),
        (b'{"a":3}', b'["a","b"]'),
        (b'{"a":[0,1]}', b'["a"]'),
        (b'{"a":-1}', b'["a"]'),
        (b'{"a":-4}', b"[]"),
        (b'{"a":1e99}', b'["a"]'),
        (b'{"a":', b'["a"]'),
        (b"", b"[]"),
        (b"[" * 300 + b"0" + b"]" * 300, b'["a"]'),
    ],
)
def test_a_shape_and_leaves_that_do_not_fit_are_damage(shape: bytes, leaves: bytes) -> None:
    """Whoever wrote them."""
    kept = len(shape).to_bytes(2, "big") + shape + leaves
    with pytest.raises(CorruptEntryError):
        decode(encode(ORIGIN, Stored(b"", tagged=False, shaped=kept)))
    for damaged in (b"", b"\x00", b"\xff\xff" + shape):
        with pytest.raises(CorruptEntryError):
            opened(damaged)


def test_a_long_shape_is_not_read() -> None:
    """Shapes are kept in mind, so nobody who writes a store fills the memory with them."""
    shape = b"[" + b"[]," * 5000 + b"[]]"
    with pytest.raises(CorruptEntryError, match="15,004 bytes"):
        opened(len(shape).to_bytes(2, "big") + shape + b"[]")
