"""Entries as bytes: whole, or recognised as damaged, or recognised as newer."""

from __future__ import annotations

import math
import os
import random
import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from dspy_cachectl.entries.records import (
    Entry,
    Origin,
    decode,
    decode_origin,
    decode_request,
    encode,
    for_memory,
    open_answer,
    put_together,
)
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError
from tests.entries.strategies import VALUES, same

ORIGIN = Origin(
    kind="lm",
    model="openai/gpt-4o-mini",
    endpoint="https://example.com/v1",
    phase="eval",
    role="judge",
    run_id="run-1",
    rollout_id=2**53 - 1,
    ordinal=3,
    temperature=1.0,
    lent=True,
    created=1_800_000_000.25,
    seconds=0.125,
    requests=2,
    prompt_tokens=11,
    completion_tokens=0,
    cost=0.000123,
    response_ids=("chatcmpl-1", "chatcmpl-2"),
    truncated=True,
    known=None,
    answered_by=("gpt-4o-mini-2024-07-18",),
    system_fingerprints=("fp_1",),
)
REQUEST = b'{"request":{"messages":[{"role":"user","content":"hi"}]},"endpoint":null}'
LONG = "".join(random.Random(0).choices("abcdefgh \u00e4", k=9000))

ENTRIES = {
    "plain": encode(ORIGIN, {"outputs": ["hello"]}, REQUEST),
    "tagged": encode(ORIGIN, {"outputs": ("hello", math.nan)}, REQUEST),
    "packed": encode(ORIGIN, {"outputs": [LONG]}, REQUEST * 100),
    "json": encode(ORIGIN, ["hello"], REQUEST),
    "empty": encode(Origin("lm", "m"), None),
}


DECODINGS = (decode, decode_origin, decode_request, open_answer)


def every_decoding(data: bytes) -> list[Any]:
    return [one(data) for one in DECODINGS]


@given(VALUES)
def test_round_trip(value: Any) -> None:
    """The origin, the answer and the request of an entry come back as they went in."""
    data = encode(ORIGIN, value, REQUEST)

    assert ORIGIN == decode(data).origin == decode_origin(data)
    assert same(value, decode(data).answer)
    assert {"request": {"messages": [{"role": "user", "content": "hi"}]}, "endpoint": None} == decode_request(data)


NUMBERS = {
    name: st.none() | st.integers(0, 2**62)
    for name in ("ordinal", "prompt_tokens", "cached_tokens", "reasoning_tokens")
}
FACTS = {
    "kind": st.text(),
    "model": st.text(),
    "role": st.none() | st.text(),
    "run_id": st.none() | st.text(),
    "rollout_id": st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.lists(st.integers(0, 9)),
    "created": st.floats(0, 1e12),
    "cost": st.none() | st.floats(0, 1e3),
    "temperature": st.none() | st.floats(0, 2),
    "lent": st.booleans(),
    "truncated": st.booleans(),
    "known": st.none() | st.booleans(),
    "response_ids": st.lists(st.text(), max_size=3).map(tuple),
    "system_fingerprints": st.lists(st.text(), max_size=2).map(tuple),
    **NUMBERS,
}
NUMERIC = {name: FACTS[name] for name in (*NUMBERS, "created", "cost", "temperature", "lent", "truncated", "known")}


@given(st.builds(Origin, **FACTS))
def test_round_trip_of_origins(origin: Origin) -> None:
    """Names of any text, and what was not known, come back."""
    assert Entry(origin, "answer") == decode(encode(origin, "answer"))


@given(st.builds(Origin, st.just("embedding"), st.just("model"), seconds=st.floats(0, 1e3), **NUMERIC))
def test_round_trip_of_origins_of_vectors(origin: Origin) -> None:
    """Of origins that have their texts in common each is what it was."""
    data = encode(origin, [[0.5]])
    assert Entry(origin, [[0.5]]) == decode(data) == decode(data)
    later = replace(origin, created=origin.created + 1, seconds=2.5)
    assert later == decode(encode(later, [[0.5]])).origin


@pytest.mark.parametrize("answer", [LONG, "short", {"a": (LONG, 1)}])
def test_large_blocks_are_compressed(answer: Any) -> None:
    """Long answers and requests take less room than they are long."""
    data = encode(ORIGIN, answer, REQUEST * 200)

    assert len(data) < 500 + 0.8 * len(str(answer)) + len(REQUEST) * 20
    assert same(answer, decode(data).answer)


def test_a_request_that_is_not_kept_is_empty() -> None:
    """An entry without its request is whole all the same."""
    assert {} == decode_request(ENTRIES["empty"])


@pytest.mark.parametrize("name", ENTRIES)
def test_every_truncation_is_noticed(name: str) -> None:
    """An entry cut at any byte is damaged, and never another value."""
    data = ENTRIES[name]
    for length in range(len(data)):
        with pytest.raises(CorruptEntryError):
            every_decoding(data[:length])


@pytest.mark.parametrize("name", ENTRIES)
def test_every_single_flipped_bit_is_noticed(name: str) -> None:
    """An entry with any one bit changed is damaged, and never another value or a newer version."""
    data = ENTRIES[name]
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            for decoding in DECODINGS:
                with pytest.raises(CorruptEntryError):
                    decoding(bytes(flipped))


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("more", [b"\x00", b"more", b"CCTL"])
def test_bytes_behind_an_entry_are_noticed(name: str, more: bytes) -> None:
    """Nothing is ignored."""
    with pytest.raises(CorruptEntryError):
        decode(ENTRIES[name] + more)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_not_an_entry(data: bytes) -> None:
    """Bytes that somebody else wrote are damaged, whatever they begin with."""
    for planted in (data, b"CCTL" + data, sealed(data)):
        with pytest.raises((CorruptEntryError, FormatVersionError)):
            every_decoding(planted)


def sealed(rest: bytes) -> bytes:
    """Bytes with this package's mark and a right checksum before them."""
    return b"CCTL" + struct.pack(">I", zlib.crc32(rest)) + rest


@pytest.mark.parametrize("version", [4, 5, 255])
def test_a_newer_version_is_told_from_damage(version: int) -> None:
    """Its version, and what to do, are in the message; whatever follows the version may mean something else there."""
    for rest in (ENTRIES["plain"][9:], b"", os.urandom(50)):
        with pytest.raises(FormatVersionError, match=f"version {version};.*Upgrade"):
            decode(sealed(bytes([version]) + rest))


def test_version_0_was_never_written() -> None:
    """Zeros with a checksum are no entry."""
    with pytest.raises(CorruptEntryError):
        decode(sealed(bytes([0]) + ENTRIES["plain"][9:]))


def test_a_block_that_claims_to_be_huge_is_not_unpacked() -> None:
    """A few bytes cannot make a reader fill its memory."""
    import zstandard

    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(2**20)))
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**20))
    # Bytes 5 to 8 hold the length that a frame of this size claims.
    frame[4] = 0xA0
    frame[5:9] = struct.pack("<I", 2**32 - 1)
    for block in (bytes(frame), bomb):
        rest = struct.pack(">BBHIII", 2, 2, 0, 100, len(block), 0) + block
        with pytest.raises(CorruptEntryError, match=r"claims|decompress|does not say"):
            decode(sealed(rest))


@pytest.mark.parametrize("answer", [object(), {"a": {1: object}}])
def test_an_unstorable_answer_is_an_unstorable_entry(answer: Any) -> None:
    """The caller learns that there is nothing to store."""
    with pytest.raises(UnstorableError):
        encode(ORIGIN, answer)


@pytest.mark.parametrize("origin", [Origin("lm", "\ud800"), Origin("lm", "m", rollout_id=2**70)])
def test_an_origin_without_a_stored_form_is_an_unstorable_entry(origin: Origin) -> None:
    """So does what cannot be written of where it came from."""
    with pytest.raises(UnstorableError):
        encode(origin, "answer")


def test_a_rollout_id_of_any_kind_is_recognisable() -> None:
    """A program may choose any value; it is kept as people would read it."""
    assert "frozenset({1})" == decode_origin(encode(Origin("lm", "m", rollout_id=frozenset({1})), "a")).rollout_id


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_without_its_request_is_whole(name: str) -> None:
    """What is kept in memory has the same origin and answer, nothing of the request, and a checksum of its own."""
    data = ENTRIES[name]
    bare = for_memory(data, "key")

    assert same(decode(data).answer, decode(bare).answer)
    assert decode_origin(data) == decode_origin(bare)
    assert {} == decode_request(bare)
    assert len(bare) < len(data) or name == "empty"
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    assert damaged == for_memory(damaged, "key")


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", 5), ("kind", 7), ("endpoint", 7), ("response_ids", ["1", None]), ("response_ids", "chatcmpl-1")],
)
def test_an_origin_of_wrong_types_is_damage(name: str, value: Any) -> None:
    """What is shown has to be a text, whoever wrote the entry."""
    data = encode(replace(ORIGIN, **{name: value}), "answer")
    for decoding in (decode, decode_origin):
        with pytest.raises(CorruptEntryError, match=f"origin cannot be decoded: {name}"):
            decoding(data)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [28, 36, 44, 52])
@pytest.mark.parametrize("entry", [ENTRIES["plain"], encode(ORIGIN, [[0.5]])], ids=["plain", "vector"])
def test_a_number_that_cannot_be_added_up_is_damage(entry: bytes, at: int, number: float) -> None:
    """Times and prices are summed, and one that is infinite would be the sum; NaN is that they are not known."""
    data = bytearray(entry)
    data[at : at + 8] = struct.pack(">d", number)
    planted = sealed(bytes(data[8:]))
    for origin_of in (decode_origin, lambda data: decode(data).origin):
        if at > 36 and math.isnan(number):
            assert None in {origin_of(planted).cost, origin_of(planted).temperature}
            continue
        with pytest.raises(CorruptEntryError, match="added up"):
            origin_of(planted)


@pytest.mark.parametrize(
    "name", ["created", "seconds", "requests", "prompt_tokens", "completion_tokens", "cost", "temperature"]
)
def test_a_number_of_another_type_is_not_written(name: str) -> None:
    """Nor can it be put together of what a cassette says."""
    with pytest.raises(UnstorableError, match="came from"):
        encode(replace(ORIGIN, **{name: "x"}), "answer")
    with pytest.raises(CorruptEntryError, match=f"origin cannot be decoded: {name}"):
        put_together({"kind": "lm", "model": "m", name: "x"}, "answer", tagged=False, request={})
