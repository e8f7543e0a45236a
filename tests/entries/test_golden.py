"""An entry of format version 1, as it was written once, must be read for ever."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dspy_cachectl.entries.records import FORMAT_VERSION, Entry, Origin, decode, decode_request, encode
from tests.entries.strategies import same

GOLDEN = Path(__file__).parent / "data" / "entry-v1.bin"

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
)
ANSWER: dict[Any, Any] = {
    "_dspy_format": "dspy-lm15-result-v1",
    "outputs": [{"text": "Grüße, \ud800 " + "and so on " * 300}],
    "numbers": (math.nan, -math.inf, 2**100, -0.0, 1.5),
    "$": {"sets": frozenset({1, "a"}), "bytes": b"\x00\xff"},
    7: [None, True, {(): "empty"}],
}
REQUEST = b'{"request":{"messages":[{"role":"user","content":"' + b"Why? " * 200 + b'"}]},"version":null}'


def write_golden() -> None:
    """Write the file. Only for a new format version, and then beside the files of the old ones."""
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_bytes(encode(ORIGIN, ANSWER, REQUEST))


def test_version_1_is_read() -> None:
    """Every block of the old entry, tags and compression included, means what it meant."""
    entry = decode(GOLDEN.read_bytes())

    assert ORIGIN == entry.origin
    assert same(ANSWER, entry.answer)
    assert "Why? " * 200 == decode_request(GOLDEN.read_bytes())["request"]["messages"][0]["content"]


def test_the_file_is_of_version_1() -> None:
    """It is the old entry that is read here, and not one that was written anew; a reader of it is still at hand."""
    assert b"CCTL" == GOLDEN.read_bytes()[:4]
    assert 1 == GOLDEN.read_bytes()[8] <= FORMAT_VERSION


def test_what_is_written_today_is_read_alike() -> None:
    """Writing and reading agree with each other, as they do with the file."""
    assert same(ANSWER, decode(encode(ORIGIN, ANSWER, REQUEST)).answer)
    assert isinstance(decode(GOLDEN.read_bytes()), Entry)
