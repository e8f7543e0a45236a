"""An entry as bytes, and back: versioned, checked, compressed where that pays.

```
offset  size
0       4     magic, b"CCTL"
4       4     CRC-32 of everything after this field
8       1     format version
9       1     flags
10      2     reserved, 0
12      12    lengths of the three blocks: origin, answer, request
24      ...   the blocks: JSON, each perhaps zstd-compressed
```

The first nine bytes mean the same in every version, so a flipped bit is told from a newer version. A hit
decodes the origin and the answer; the request is there for people, and to explain a miss.
"""

from __future__ import annotations

import struct
import threading
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import orjson
import pydantic
import zstandard

from dspy_cachectl.boundary.reading import LARGEST_VALUE, parsed, unpacked, unpacked_size
from dspy_cachectl.entries import values
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError

FORMAT_VERSION = 1
MAGIC = b"CCTL"
"""How each entry begins. Four bytes of a checksum follow, and the version of its format."""
_HEADER = struct.Struct(">9xB2xIII")
_CHECKED_FROM = 8

_TAGGED = 1
_PACKED = (2, 4, 8)  # origin, answer, request

_PACK_ANSWER_ABOVE = 2048
_PACK_REQUEST_ABOVE = 512
_LOCAL = threading.local()


@dataclass(frozen=True)
class Origin:
    """Where an answer came from and what it cost.

    Attributes:
        kind: What was asked for (`policy.Kind`'s values).
        model: The model's name.
        endpoint: The endpoint's identity, or None for the provider's own.
        phase: The phase that bought it.
        role: The LM's role in the program, or None.
        run_id: The run that it is a draw of, or None.
        rollout_id: The rollout id in the key, or None.
        ordinal: Which asking of this request it was within the run, from 0; None outside runs.
        temperature: The temperature that was sent, or None.
        lent: Whether the phase lent that temperature.
        created: When it was bought, in Unix seconds.
        seconds: How long the provider took, retries included.
        requests: How many responses of the provider it is made of.
        prompt_tokens: Tokens read, or None where the provider did not say.
        completion_tokens: Tokens written, or None.
        cached_tokens: Those of the read ones that the provider had in its own cache, or None.
        cache_creation_tokens: Those of the read ones that it wrote to its cache, or None.
        reasoning_tokens: Those of the written ones that were its reasoning, or None.
        cost: US dollars, or None where the price is not known.
        response_ids: The provider's ids of the responses.
        truncated: Whether an answer was cut at the token limit.
        content: A hash of what it says (see `AnswerFacts`).
        known: Whether it was another draw's already when it was bought: then something on the way to the model caches.
            None where that cannot be known.
        answered_by: The names of the models that answered, as the provider says them.
    """

    kind: str
    model: str
    endpoint: str | None = None
    phase: str = ""
    role: str | None = None
    run_id: str | None = None
    rollout_id: Any = None
    ordinal: int | None = None
    temperature: float | None = None
    lent: bool = False
    created: float = 0.0
    seconds: float = 0.0
    requests: int = 1
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None
    response_ids: tuple[str, ...] = ()
    truncated: bool = False
    content: str = ""
    known: bool | None = False
    answered_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A stored draw: where it came from, and the answer as DSPy expects it."""

    origin: Origin
    answer: Any


def encode(origin: Origin, answer: Any, request: bytes = b"") -> bytes:
    """Encode an entry.

    Args:
        origin: Where the answer came from.
        answer: What DSPy put into the cache.
        request: The request as JSON (`draws.canonical`); empty where it is not kept.

    Returns:
        The bytes of the entry.

    Raises:
        values.UnstorableError: If the answer, or its origin, holds something that has no stored form.
    """
    body, tagged = values.dumps(answer)
    return _pack(_origin_block(origin), body, request, tagged=tagged)


def _pack(*contents: bytes, tagged: bool) -> bytes:
    flags = _TAGGED if tagged else 0
    blocks = list(contents)
    if sum(map(len, blocks)) > LARGEST_VALUE:
        blocks[2] = b""  # it is there for people: rather without it than not at all
        if sum(map(len, blocks)) > LARGEST_VALUE:
            raise values.UnstorableError(f"it is too large: {len(blocks[1]):,} bytes, and {LARGEST_VALUE:,} are read")
    for index, above in ((1, _PACK_ANSWER_ABOVE), (2, _PACK_REQUEST_ABOVE)):
        if len(blocks[index]) > above:
            blocks[index] = _compressor().compress(blocks[index])
            flags |= _PACKED[index]
    rest = struct.pack(">BBHIII", FORMAT_VERSION, flags, 0, *map(len, blocks)) + b"".join(blocks)
    return MAGIC + struct.pack(">I", zlib.crc32(rest)) + rest


def decode(data: bytes) -> Entry:
    """Decode the origin and the answer of an entry.

    Raises:
        CorruptEntryError: If the bytes are damaged or are not an entry.
        FormatVersionError: If a newer version of this package wrote them.
    """
    flags, blocks = _open(data)
    answer = values.loads(_unpack(blocks[1], flags, 1), tagged=bool(flags & _TAGGED))
    return Entry(origin=_origin(_unpack(blocks[0], flags, 0)), answer=answer)


def decode_origin(data: bytes) -> Origin:
    """Decode only where an entry came from. Raises as `decode` does."""
    flags, blocks = _open(data)
    return _origin(_unpack(blocks[0], flags, 0))


def decode_request(data: bytes) -> dict[str, Any]:
    """Decode only the request of an entry; empty where it was not kept. Raises as `decode` does."""
    flags, blocks = _open(data)
    text = _unpack(blocks[2], flags, 2)
    request = parsed(text) if text else {}
    if not isinstance(request, dict):
        raise CorruptEntryError("the entry's request is not a mapping")
    return request


def answer_block(data: bytes) -> bytes:
    """Return the answer of an entry in its stored form, as JSON. Raises as `decode` does."""
    flags, blocks = _open(data)
    return _unpack(blocks[1], flags, 1)


def take_apart(data: bytes) -> tuple[dict[str, Any], Any, bool, dict[str, Any]]:
    """Return the blocks of an entry as JSON values, for cassettes: origin, answer, whether that is tagged, request.

    The answer is in its stored form (see `values`). Raises as `decode` does.
    """
    flags, blocks = _open(data)
    origin, answer = (parsed(_unpack(blocks[index], flags, index)) for index in (0, 1))
    return origin, answer, bool(flags & _TAGGED), decode_request(data)


def put_together(origin: dict[str, Any], answer: Any, *, tagged: bool, request: dict[str, Any]) -> bytes:
    """Return the entry that `take_apart` took apart.

    Raises:
        CorruptEntryError: If the origin is not one.
    """
    block = _origin_block(_origin(orjson.dumps(origin)))
    return _pack(block, orjson.dumps(answer), orjson.dumps(request) if request else b"", tagged=tagged)


def _open(data: bytes) -> tuple[int, tuple[bytes, bytes, bytes]]:
    if len(data) <= _CHECKED_FROM or data[:4] != MAGIC:
        raise CorruptEntryError("the bytes are not an entry of this package, or are cut short")
    version = data[_CHECKED_FROM]
    if zlib.crc32(memoryview(data)[_CHECKED_FROM:]) != int.from_bytes(data[4:8], "big"):
        raise CorruptEntryError("the entry's checksum does not match; it is damaged")
    if version < 1:
        raise CorruptEntryError("the entry has no format version, so this package did not write it")
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"the entry has format version {version}; this dspy-cachectl reads up to {FORMAT_VERSION}. "
            "Upgrade dspy-cachectl to read it; it is left as it is"
        )
    if len(data) < _HEADER.size:
        raise CorruptEntryError("the entry is cut short")
    flags, *lengths = _HEADER.unpack_from(data)
    if _HEADER.size + sum(lengths) != len(data):
        raise CorruptEntryError("the entry's blocks do not add up to its length")
    first, second = _HEADER.size + lengths[0], _HEADER.size + lengths[0] + lengths[1]
    blocks = data[_HEADER.size : first], data[first:second], data[second:]
    # All of them together: who shows an entry has all of it in memory.
    if sum(unpacked_size(one) if flags & packed else len(one) for one, packed in zip(blocks, _PACKED, strict=True)) > (
        LARGEST_VALUE
    ):
        raise CorruptEntryError(f"the entry claims more than {LARGEST_VALUE:,} bytes; none that is written has as many")
    return flags, blocks


def _unpack(block: bytes, flags: int, index: int) -> bytes:
    return unpacked(block) if flags & _PACKED[index] else block


def _origin_block(origin: Origin) -> bytes:
    try:
        return orjson.dumps(asdict(origin), default=_plain_rollout)
    except TypeError as error:
        raise values.UnstorableError(f"where the answer came from cannot be written as JSON: {error}") from error


def _origin(block: bytes) -> Origin:
    try:
        return _origins().validate_json(block, strict=True)
    except pydantic.ValidationError as error:
        # Without what is in it: a message is shown, and an origin may be anybody's.
        wrong = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, wrong["loc"])) or "it"
        raise CorruptEntryError(f"the entry's origin cannot be decoded: {where}: {wrong['msg']}") from error


@lru_cache(maxsize=1)
def _origins() -> pydantic.TypeAdapter[Origin]:
    # Made when it is needed: commands that decode no entry start without it.
    return pydantic.TypeAdapter(Origin)


def _plain_rollout(value: Any) -> str:
    # A program may use any value as its rollout id; people only need to recognise it.
    return repr(value)


def _compressor() -> zstandard.ZstdCompressor:
    # It may not be shared between threads.
    if not hasattr(_LOCAL, "compressor"):
        _LOCAL.compressor = zstandard.ZstdCompressor(level=1)
    compressor: zstandard.ZstdCompressor = _LOCAL.compressor
    return compressor
