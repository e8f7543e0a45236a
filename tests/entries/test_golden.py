"""Entries of format versions 2 and 3, as they were written once, must be read for ever; 1 never was released."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.entries.records import (
    FORMAT_VERSION,
    Origin,
    decode,
    decode_origin,
    decode_request,
    encode,
    open_answer,
    take_apart,
)
from dspy_cachectl.errors import FormatVersionError
from tests.entries.strategies import same

DATA = Path(__file__).parent / "data"
OLD, TAGGED, SHAPED = (DATA / f"entry-v{version}.bin" for version in (1, 2, 3))

ORIGIN = Origin(
    kind="lm",
    model="openai/gpt-4o-mini",
    endpoint="https://api.example.com/v1",
    phase="eval",
    role="judge",
    run_id="baseline",
    rollout_id=4_503_599_627_370_497,
    ordinal=2,
    temperature=1.0,
    lent=True,
    created=1_790_000_000.5,
    seconds=1.25,
    requests=1,
    prompt_tokens=12,
    completion_tokens=34,
    cost=0.00056,
    response_ids=("chatcmpl-golden",),
    truncated=False,
    answered_by=("gpt-4o-mini-2024-07-18",),
    system_fingerprints=("fp_golden",),
)
ANSWER: dict[Any, Any] = {
    "_dspy_format": "dspy-lm15-result-v1",
    "outputs": [{"text": "Grüße, \ud800 " + "and so on " * 300}],
    "numbers": (math.nan, -math.inf, 2**100, -0.0, 1.5),
    "$": {"sets": frozenset({1, "a"}), "bytes": b"\x00\xff"},
    7: [None, True, {(): "empty"}],
}
SAID = "What an answer says, DSPy's record of it says up to three times. \u00fc"
RECORD = {
    "_dspy_format": "dspy-lm15-result-v1",
    "responses": [{"message": {"parts": [{"type": "text", "text": SAID}]}, "provider_data": {"content": SAID}}],
    "outputs": [SAID],
    "cost": 0.25,
    "usage": {"prompt_tokens": 3, "cached": False, "details": None},
}
REQUEST = b'{"request":{"messages":[{"role":"user","content":"' + b"Why? " * 200 + b'"}]},"version":null}'


def write_golden() -> None:
    """Write the file. Only for a new format version, and then beside the files of the old ones."""
    SHAPED.parent.mkdir(exist_ok=True)
    SHAPED.write_bytes(encode(ORIGIN, RECORD, REQUEST))


@pytest.mark.parametrize(("path", "answer"), [(TAGGED, ANSWER), (SHAPED, RECORD)])
def test_older_versions_are_read(path: Path, answer: Any) -> None:
    """Every part of the entry, tags, compression and shapes included, means what it meant."""
    entry = decode(path.read_bytes())

    assert ORIGIN == entry.origin
    assert same(answer, entry.answer)
    assert "Why? " * 200 == decode_request(path.read_bytes())["request"]["messages"][0]["content"]


def test_the_files_are_of_their_versions() -> None:
    """It is what was written once that is read here, and not what is written anew."""
    files = [path.read_bytes() for path in (OLD, TAGGED, SHAPED)]

    assert [(b"CCTL", 1), (b"CCTL", 2), (b"CCTL", 3)] == [(data[:4], data[8]) for data in files]
    assert 3 <= FORMAT_VERSION


@pytest.mark.parametrize("decoding", [decode, decode_origin, decode_request, open_answer, take_apart])
def test_version_1_is_recognised(decoding: Any) -> None:
    """What was written before the first release is no damage, and says what it is."""
    with pytest.raises(FormatVersionError, match="format version 1, of before the first release"):
        decoding(OLD.read_bytes())


def test_what_is_written_today_is_read_alike() -> None:
    """Writing and reading agree with each other, as they do with the file."""
    for answer in (ANSWER, RECORD):
        assert same(answer, decode(encode(ORIGIN, answer, REQUEST)).answer)
