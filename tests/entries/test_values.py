"""Values as JSON: what goes in comes out, and nothing else comes out of damaged bytes."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import enum
import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pydantic
import pytest
from hypothesis import given, settings, strategies as st

from dspy_cachectl.entries.values import UnstorableError, dumps, loads
from dspy_cachectl.errors import CorruptEntryError
from tests.entries.strategies import VALUES, same
from tests.processes import Finished


def round_trip(value: Any) -> Any:
    data, tagged = dumps(value)
    assert data.isascii() or data.decode()
    return loads(data, tagged=tagged)


@settings(max_examples=200)
@given(VALUES)
def test_round_trip(value: Any) -> None:
    """Numbers of any size, NaN, lone surrogates, tuples, sets, bytes, keys of any kind come back as they went in."""
    assert same(value, round_trip(value))


NATIVE = {
    "_dspy_format": "dspy-lm15-result-v1",
    "outputs": [{"text": "größe \ud83d", "logprobs": [-0.0, -math.inf, math.nan]}],
    "usage": {"prompt_tokens": 2**70, "ratio": (1, 2)},
    "$": {"$": "tuple", "v": [1]},
    1: {None: b"\x00\xff", (1, "a"): {frozenset({1}), "b"}},
}


def test_what_a_provider_may_send() -> None:
    """A record with everything that JSON alone would change or refuse, nested."""
    assert same(NATIVE, round_trip(NATIVE))


def test_plain_values_need_no_second_walk() -> None:
    """What JSON holds by itself is written as it is, and not walked when it is read."""
    plain = {"a": [1, 2.5, None, True, "größe"], "b": {"c": ""}}

    assert (orjson.dumps(plain), False) == dumps(plain)


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_that_python_does_not_print(sign: int) -> None:
    """Python refuses to write integers of more than 4,300 digits as decimals; they come back all the same."""
    assert same([sign * 7**20_000], round_trip([sign * 7**20_000]))


ARRAYS = [
    np.array([[0, 1, 2], [3, 4, 0]], dtype)
    for dtype in ("int8", "uint64", "float16", ">f4", "float64", "complex64", "bool", "longdouble")
] + [
    np.array([]),
    np.zeros((0, 3), "float32"),
    np.zeros((2, 0, 2), "int8"),
    np.array(3.5),
    np.array([math.nan, -0.0, math.inf]),
    np.arange(10)[::-2],
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.broadcast_to(np.arange(3), (2, 3)),
    np.array(["a", "größe", ""]),
    np.array([b"a", b""]),
    np.array(["2026-01-01", "NaT"], "datetime64[s]"),
    np.array([1, 2], "timedelta64[ms]"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_arrays(array: Any) -> None:
    """An array of numbers, times or texts comes back with its type, its shape and every bit, and can be written to."""
    back = round_trip({"vectors": [array]})["vectors"][0]

    assert same(array, back)
    assert back.flags.writeable


SCALARS = [np.float32(1.1), np.int64(-3), np.bool_(True), np.str_("größe \ud800"), np.str_(""), np.bytes_(b"ab")]
SCALARS += [np.datetime64("2026-01-01"), np.timedelta64(3, "s"), np.complex128(1j), np.float64("nan")]


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_scalars_of_numpy(scalar: Any) -> None:
    """A number of NumPy stays one."""
    back = round_trip([scalar])[0]

    assert type(scalar) is type(back)
    assert scalar.dtype == back.dtype
    assert scalar.tobytes() == back.tobytes()


class Colour(str, enum.Enum):
    RED = "red"


class Theirs(pydantic.BaseModel):
    name: str = "x"


class ModelResponse(pydantic.BaseModel):
    """Somebody's own class of a name that is known."""


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def holding_itself() -> Any:
    value: list[Any] = []
    value.append({"self": value})
    return value


UNSTORABLE = [
    object(),
    object,
    len,
    Colour.RED,
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    decimal.Decimal(1),
    1j,
    range(3),
    Theirs(),
    ModelResponse(),
    nested(300),
    nested(100_000),
    holding_itself(),
    np.array([object()]),
    np.ma.array([1, 2], mask=[True, False]),
    np.zeros(2, [("a", "i4"), ("b", "i4")]),
    np.void(b"ab"),
    np.str_("a\x00"),
    np.bytes_(b"a\x00"),
]
if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
    UNSTORABLE.append(np.array(["a"], np.dtypes.StringDType()))


@pytest.mark.parametrize("value", UNSTORABLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("place", [lambda value: value, lambda value: {"a": [(value,)]}], ids=["bare", "nested"])
def test_what_cannot_be_kept_exactly_is_not_kept(value: Any, place: Any) -> None:
    """A value that would come back as something else is refused, and the message says why."""
    with pytest.raises(UnstorableError, match=r"stored form|nested too deeply|as JSON|NumPy"):
        dumps(place(value))


def test_subclasses_of_mappings_come_back_as_mappings() -> None:
    """Of a mapping its items are kept."""
    assert {"b": 1, "a": 2} == round_trip(OrderedDict(b=1, a=2))


TAGS = ["map", "tuple", "set", "frozenset", "int", "float", "str", "bytes", "bytearray", "array", "scalar", "response"]
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.fixed_dictionaries(
            {"$": st.one_of(st.sampled_from(TAGS), inner), "v": inner},
            optional={
                "of": st.one_of(st.sampled_from(["ModelResponse", "os.system", "builtins.eval"]), inner),
                "cost": inner,
                "dtype": st.one_of(st.sampled_from(["<f8", "O", "|V8", "<U2", "int"]), inner),
                "shape": inner,
            },
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(JSON)
def test_planted_tags_are_a_value_or_an_error(planted: Any) -> None:
    """Whatever somebody writes into a store, reading it gives a value or a CorruptEntryError, and nothing else."""
    with contextlib.suppress(CorruptEntryError):
        loads(orjson.dumps(planted), tagged=True)


@pytest.mark.parametrize("name", ["os.system", "Theirs", "builtins.eval", "", 3, None, ["ModelResponse"]])
def test_no_module_is_imported_by_a_stored_name(name: Any) -> None:
    """Only the classes of a fixed table are made from an entry."""
    loaded = set(sys.modules)

    with pytest.raises(CorruptEntryError):
        loads(orjson.dumps({"$": "response", "v": {}, "of": name, "cost": None}), tagged=True)
    assert loaded == set(sys.modules)


def test_an_array_where_numpy_is_missing_is_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that a machine with NumPy filled costs a machine without it a hit, and no call."""
    data, tagged = dumps(np.arange(3))
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(CorruptEntryError, match="numpy"):
        loads(data, tagged=tagged)


PLANTED = """
    import json
    from dspy_cachectl.entries import values
    from dspy_cachectl.errors import CorruptEntryError

    said = []
    for dtype, shape in (
        ("|S0", [10**10]), ("|S0", [-1]), ("<f8", [-1]), ("<U0", [1]), ("<f8", [10**12]), ("|O", []), ("<f8,<f8", [])
    ):
        planted = {"$": "array", "v": "", "dtype": dtype, "shape": shape}
        for use in (values.check, lambda value: values.loads(json.dumps(value).encode(), tagged=True)):
            try:
                use(planted)
            except CorruptEntryError as error:
                said.append(str(error))
    print(json.dumps(said))
"""


def test_planted_arrays(child: Callable[..., Finished]) -> None:
    """An array that is not made of its bytes is an error; NumPy would end the process for it, or fill the memory."""
    said = child(PLANTED).data

    assert 14 == len(said)
    assert all("the entry's array" in message for message in said)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[" + b"[]," * 2_000_000 + b"[]]", id="lists", marks=pytest.mark.exhaustive),
        pytest.param(b"[" + b"1," * 9_000_000 + b"1]", id="numbers"),
    ],
)
def test_more_values_than_are_ever_written(text: bytes) -> None:
    """A few bytes each, some gigabytes in all: it is refused before anything is made of it, and never written."""
    with pytest.raises(CorruptEntryError, match="more than"):
        loads(text, tagged=False)
    with pytest.raises(UnstorableError, match="more than"):
        dumps(orjson.loads(text))
