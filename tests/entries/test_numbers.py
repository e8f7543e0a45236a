"""Vectors as bytes: every number comes back as it was, and what is none of them is as before."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

import dspy_cachectl as cachectl
from dspy_cachectl.entries import numbers, records, values
from dspy_cachectl.entries.decoded import Decoded
from dspy_cachectl.entries.records import Origin, decode, encode, for_memory, put_together, take_apart
from dspy_cachectl.errors import CorruptEntryError
from tests.encryption.support import KEY
from tests.entries.test_golden import DATA

GOLDEN = DATA / "entry-v3-vector.bin"
ORIGIN = Origin("embedding", "openai/text-embedding-3-small", seconds=0.25, prompt_tokens=4, cost=1e-7)
REQUEST = b'{"request":{"batch_inputs":["Why?"]}}'
LONG_REQUEST = orjson.dumps({"request": {"batch_inputs": list(map(str, range(70)))}})
WHOLE = [0.1, -0.0, 1e300, 5e-324, -(2.0**-1074), 1.7976931348623157e308, 3.0]
HALF = [0.5, -0.0, 1.0, struct.unpack("<f", b"\x01\x00\x00\x00")[0], -3.4028234663852886e38]


def of_json(answer: Any) -> bytes:
    """Return an entry as it was written before vectors were bytes."""
    return encode(ORIGIN, records.Stored(*values.dumps(answer)), REQUEST)


def write_golden() -> None:
    """Write the file. Only for a new format version, and then beside the files of the old ones."""
    GOLDEN.write_bytes(encode(ORIGIN, [WHOLE], REQUEST))


def test_a_vector_that_was_written_once_is_read() -> None:
    """Every bit of it means what it meant."""
    assert repr([WHOLE]) == repr(decode(GOLDEN.read_bytes()).answer)
    assert GOLDEN.read_bytes() == encode(ORIGIN, [WHOLE], REQUEST)


@given(st.lists(st.floats() | st.floats(width=32) | st.integers(), max_size=20))
def test_whatever_numbers(vector: list[float]) -> None:
    """Each number comes back as it was, a whole one as a whole one, whether it is served, moved or read in memory."""
    data = encode(ORIGIN, [vector], REQUEST)
    for one in (data, for_memory(data, "key"), of_json([vector])):
        assert repr([vector]) == repr(decode(one).answer) == repr(Decoded(one).answer())
        origin, answer, tagged, request = take_apart(one)
        moved = put_together(origin, orjson.loads(orjson.dumps(answer)), tagged=tagged, request=request)
        assert repr([vector]) == repr(decode(moved).answer)


@pytest.mark.parametrize(("vector", "size"), [(WHOLE, 8), (HALF, 4)], ids=["whole", "half"])
def test_as_few_bytes_as_hold_it(vector: list[float], size: int) -> None:
    """Numbers that a half of the bytes hold exactly take a half of them."""
    written = numbers.packed([vector])
    assert written is not None
    assert 1 + size * len(vector) == len(written)
    assert repr(vector) == repr(numbers.unpacked(written).tolist())


@pytest.mark.parametrize(
    "answer",
    [[], [[]], [[1]], [[0.5, 1]], [[True]], [[0.5], [0.5]], [(0.5,)], ([0.5],), [["a"]], [[math.nan]]],
    ids=str,
)
def test_what_is_no_vector(answer: Any) -> None:
    """Anything else, and what JSON has no number for, is written as before."""
    assert numbers.packed(answer) is None
    assert of_json(answer) == encode(ORIGIN, answer, REQUEST)


def test_smaller_than_json() -> None:
    """A vector takes less room than its digits did, compressed as they were."""
    vector = [[random.Random(at).uniform(-1, 1) for at in range(1536)]]
    assert len(encode(ORIGIN, vector, REQUEST)) < len(of_json(vector))


@pytest.mark.parametrize("damage", [b"", b"x", b"d", b"D" + bytes(8), b"d" + bytes(7), b"f" + bytes(6)], ids=str)
def test_damage_is_noticed(damage: bytes) -> None:
    """What does not add up to numbers is damage, whatever its checksum says; nothing but a vector is one number."""
    data = encode(ORIGIN, records.Stored(damage, tagged=False, is_vector=True), REQUEST)
    if damage == b"d":
        assert decode(data).answer == [[]]
        return
    with pytest.raises(CorruptEntryError, match="vector cannot be decoded"):
        decode(data)
    with pytest.raises(CorruptEntryError, match="vector cannot be decoded"):
        Decoded(data)


def test_more_than_is_read() -> None:
    """A vector of more numbers than are read of JSON is written as before, and not read where somebody wrote one."""
    most = numbers._MOST
    assert numbers.packed([[0.5] * most]) is not None
    assert numbers.packed([[0.5] * (most + 1)]) is None
    with pytest.raises(CorruptEntryError, match="more than"):
        numbers.unpacked(b"f" + bytes(4 * (most + 1)))


def test_encrypted() -> None:
    """An encrypted vector can be read by nobody else, and is in memory as any other."""
    data = encode(ORIGIN, [WHOLE], LONG_REQUEST)
    with cachectl.configure(encryption_key=lambda: [KEY]):
        closed = records.for_store(data, "key")
        assert numbers.packed([WHOLE]) not in closed
        assert repr([WHOLE]) == repr(decode(closed, "key").answer)
        assert for_memory(data, "key") == for_memory(closed, "key")


def test_in_memory() -> None:
    """What a hit does not need takes no room there to speak of."""
    long = encode(ORIGIN, [[0.1] * 100], REQUEST)
    assert long == for_memory(long, "key")
    short = for_memory(encode(ORIGIN, [[0.1]], LONG_REQUEST), "key")
    assert {} == records.decode_request(short)
    assert [[0.1]] == decode(short).answer
