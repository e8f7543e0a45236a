"""An entry as bytes, and back: versioned, checked, compressed where that pays.

```
offset  size
0       4     magic, b"CCTL"
4       4     CRC-32 of everything after this field
8       1     format version
9       1     flags
10      2     reserved, 0
12      12    lengths of the three blocks: texts of the origin, answer, request
24      92    numbers of the origin (see `origins`)
116     ...   the blocks: JSON, the last two each perhaps zstd-compressed
```

The first nine bytes mean the same in every version, so a flipped bit is told from a newer version. A hit decodes the
origin and the answer; the request is there for people, and to explain a miss. Nothing beside an entry is needed to read
it, and no version of it is changed by reading.
"""

from __future__ import annotations

import struct
import threading
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import zstandard

from dspy_cachectl.boundary.reading import LARGEST_VALUE, parsed, unpacked, unpacked_size
from dspy_cachectl.entries import origins, values
from dspy_cachectl.entries.origins import Origin
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreError

__all__ = [
    "FORMAT_VERSION",
    "MAGIC",
    "Entry",
    "Opened",
    "Origin",
    "Stored",
    "decode",
    "decode_origin",
    "decode_request",
    "encode",
    "for_memory",
    "open_answer",
    "put_together",
    "take_apart",
]

FORMAT_VERSION = 2
MAGIC = b"CCTL"
"""How each entry begins. Four bytes of a checksum follow, and the version of its format."""
_HEADER = struct.Struct(">9xB2xIII")
_CHECKED = struct.Struct(">BBHIII")
_CHECKED_FROM = 8
_BLOCKS_FROM = _HEADER.size + origins.NUMBERS.size

_TAGGED, _PACKED_ANSWER, _PACKED_REQUEST, _ROOT_ONLY, _ENCRYPTED = 1, 2, 4, 8, 16
"""Flags: the answer holds tags; it, or the request, is compressed; the answer's root alone is tagged (see `values`);
both are encrypted, which is for a later version to do, and for this one to leave alone."""

_PACK_ANSWER_ABOVE = 2048
_PACK_REQUEST_ABOVE = 512
_LOCAL = threading.local()


@dataclass(frozen=True)
class Entry:
    """A stored draw: where it came from, and the answer as DSPy expects it."""

    origin: Origin
    answer: Any


class Stored(NamedTuple):
    """An answer in its stored form: JSON, and whether it holds tags (see `values.dumps`)."""

    body: bytes
    tagged: bool


class Opened(NamedTuple):
    """An entry of which the answer is parsed, and nothing made of it.

    Attributes:
        origin: Where the answer came from.
        value: The answer in its stored form.
        tagged: Whether that holds tags.
        is_root_only: Whether its root alone is one.
        most: How many objects it has at most.
    """

    origin: Origin
    value: Any
    tagged: bool
    is_root_only: bool
    most: int

    def answer(self) -> Any:
        """Return the answer as it was put in; what is in here is used up. Raises as `decode` does."""
        return values.untagged(self.value, most=self.most) if self.tagged else self.value


def encode(origin: Origin, answer: Any, request: bytes = b"") -> bytes:
    """Encode an entry.

    Args:
        origin: Where the answer came from.
        answer: What DSPy put into the cache; or its stored form, where that was made already.
        request: The request as JSON (`draws.canonical`); empty where it is not kept.

    Returns:
        The bytes of the entry.

    Raises:
        values.UnstorableError: If the answer, or its origin, holds something that has no stored form.
    """
    stored = answer if type(answer) is Stored else Stored(*values.dumps(answer))
    return _pack(origin, stored, request)


def _pack(origin: Origin, stored: Stored, request: bytes) -> bytes:
    numbers, texts = origins.written(origin)
    body, tagged = stored
    flags = 0
    if tagged:
        flags = _TAGGED | (_ROOT_ONLY if values.is_root_only(body) else 0)
    if len(texts) + len(body) + len(request) > LARGEST_VALUE:
        request = b""  # it is there for people: rather without it than not at all
        if len(texts) + len(body) > LARGEST_VALUE:
            raise values.UnstorableError(f"it is too large: {len(body):,} bytes, and {LARGEST_VALUE:,} are read")
    if len(body) > _PACK_ANSWER_ABOVE:
        body, flags = _compressor().compress(body), flags | _PACKED_ANSWER
    if len(request) > _PACK_REQUEST_ABOVE:
        request, flags = _compressor().compress(request), flags | _PACKED_REQUEST
    return _sealed(flags, (numbers, texts, body, request))


def _sealed(flags: int, parts: tuple[bytes, bytes, bytes, bytes]) -> bytes:
    _, texts, body, request = parts
    rest = b"".join((_CHECKED.pack(FORMAT_VERSION, flags, 0, len(texts), len(body), len(request)), *parts))
    return MAGIC + zlib.crc32(rest).to_bytes(4, "big") + rest


def decode(data: bytes) -> Entry:
    """Decode the origin and the answer of an entry.

    Raises:
        CorruptEntryError: If the bytes are damaged or are not an entry.
        FormatVersionError: If another version of this package wrote them.
    """
    opened = open_answer(data)
    return Entry(origin=opened.origin, answer=opened.answer())


def open_answer(data: bytes) -> Opened:
    """Decode the origin of an entry, and parse its answer. Raises as `decode` does."""
    flags, texts, answer, _ = _open(data)
    body = _unpack(answer, flags & _PACKED_ANSWER)
    origin = origins.read(data, _HEADER.size, texts)
    return Opened(origin, parsed(body), bool(flags & _TAGGED), bool(flags & _ROOT_ONLY), body.count(b"{"))


def decode_origin(data: bytes) -> Origin:
    """Decode only where an entry came from. Raises as `decode` does."""
    return origins.read(data, _HEADER.size, _open(data)[1])


def decode_request(data: bytes) -> dict[str, Any]:
    """Decode only the request of an entry; empty where it was not kept. Raises as `decode` does."""
    flags, _, _, packed = _open(data)
    text = _unpack(packed, flags & _PACKED_REQUEST)
    request = parsed(text) if text else {}
    if not isinstance(request, dict):
        raise CorruptEntryError("the entry's request is not a mapping")
    return request


def for_memory(data: bytes) -> bytes:
    """Return an entry without its request, as a hit needs it; as it is, where it is damaged or of another version."""
    try:
        flags, texts, answer, request = _open(data)
    except StoreError:
        return data
    if not request:
        return data
    return _sealed(flags & ~_PACKED_REQUEST, (data[_HEADER.size : _BLOCKS_FROM], texts, answer, b""))


def take_apart(data: bytes) -> tuple[dict[str, Any], Any, bool, dict[str, Any]]:
    """Return the blocks of an entry as JSON values, for cassettes: origin, answer, whether that is tagged, request.

    The answer is in its stored form (see `values`). Raises as `decode` does.
    """
    opened = open_answer(data)
    return origins.as_json(opened.origin), opened.value, opened.tagged, decode_request(data)


def put_together(origin: dict[str, Any], answer: Any, *, tagged: bool, request: dict[str, Any]) -> bytes:
    """Return the entry that `take_apart` took apart.

    Raises:
        CorruptEntryError: If the origin is not one.
    """
    stored = Stored(orjson.dumps(answer), tagged)
    return _pack(origins.from_json(origin), stored, orjson.dumps(request) if request else b"")


def _open(data: bytes) -> tuple[int, bytes, bytes, bytes]:
    """Return the flags and the blocks of an entry."""
    if len(data) <= _CHECKED_FROM or data[:4] != MAGIC:
        raise CorruptEntryError("the bytes are not an entry of this package, or are cut short")
    if zlib.crc32(memoryview(data)[_CHECKED_FROM:]) != int.from_bytes(data[4:8], "big"):
        raise CorruptEntryError("the entry's checksum does not match; it is damaged")
    if data[_CHECKED_FROM] != FORMAT_VERSION:
        raise _of_another_version(data[_CHECKED_FROM])
    if len(data) < _BLOCKS_FROM:
        raise CorruptEntryError("the entry is cut short")
    flags, texts, answer, request = _HEADER.unpack_from(data)
    if flags & _ENCRYPTED:
        raise FormatVersionError("the entry is encrypted, which this dspy-cachectl does not read; it is left as it is")
    answer_from = _BLOCKS_FROM + texts
    request_from = answer_from + answer
    if request_from + request != len(data):
        raise CorruptEntryError("the entry's blocks do not add up to its length")
    packed_answer, packed_request = data[answer_from:request_from], data[request_from:]
    # All of them together: who shows an entry has all of it in memory.
    size = unpacked_size(packed_answer) if flags & _PACKED_ANSWER else answer
    size += unpacked_size(packed_request) if flags & _PACKED_REQUEST else request
    if texts + size > LARGEST_VALUE:
        raise CorruptEntryError(f"the entry claims more than {LARGEST_VALUE:,} bytes; none that is written has as many")
    return flags, data[_BLOCKS_FROM:answer_from], packed_answer, packed_request


def _of_another_version(version: int) -> CorruptEntryError | FormatVersionError:
    if version < 1:
        return CorruptEntryError("the entry has no format version, so this package did not write it")
    if version > FORMAT_VERSION:
        return FormatVersionError(
            f"the entry has format version {version}; this dspy-cachectl reads up to {FORMAT_VERSION}. "
            "Upgrade dspy-cachectl to read it; it is left as it is"
        )
    return FormatVersionError(
        f"the entry has format version {version}, of before the first release; it is left as it is"
    )


def _unpack(block: bytes, is_packed: int) -> bytes:
    return unpacked(block) if is_packed else block


def _compressor() -> zstandard.ZstdCompressor:
    # It may not be shared between threads.
    if not hasattr(_LOCAL, "compressor"):
        _LOCAL.compressor = zstandard.ZstdCompressor(level=1)
    compressor: zstandard.ZstdCompressor = _LOCAL.compressor
    return compressor
