"""An entry as bytes, and back: versioned, checked, compressed where that pays.

```
offset  size
0       4     magic, b"CCTL"
4       4     CRC-32 of everything after this field
8       1     format version
9       1     flags
10      2     reserved, 0
12      12    lengths: of the texts of the origin, and of the two blocks
24      ...   what a hit needs: numbers of the origin (see `origins`), its texts, the answer
...     ...   the request
```

Texts, answer and request are JSON, but for an answer that is a vector (see `numbers`) or of a shape that many have (see
`shapes`). Each of the two blocks may be zstd-compressed, the first as a whole: an answer says its id and its model as
well. One with a vector never is. Where the answer and the request are encrypted, the first block ends with the texts,
which everybody can read and nobody can change, and the second holds both, after the hash of the key that the entry is
filed under.

The first nine bytes mean the same in every version, so a flipped bit is told from a newer version. A hit decodes the
first block; the request is there for people, and to explain a miss. Nothing beside an entry is needed to read it, and
no version of it is changed by reading.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from array import array
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import orjson

from dspy_cachectl.boundary import encryption, packing
from dspy_cachectl.boundary.reading import LARGEST_VALUE, parsed, unpacked, unpacked_size
from dspy_cachectl.config import settings
from dspy_cachectl.entries import numbers, origins, shapes, values
from dspy_cachectl.entries.origins import Origin
from dspy_cachectl.entries.shapes import Shaped
from dspy_cachectl.entries.stored import Stored, stored, stored_json
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, FormatVersionError, StoreError

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
    "decrypted",
    "encode",
    "encrypted",
    "for_memory",
    "for_store",
    "is_encrypted",
    "open_answer",
    "put_together",
    "stored",
    "take_apart",
]

FORMAT_VERSION, _OLDEST_READ = 3, 2
MAGIC = b"CCTL"
"""How each entry begins. Four bytes of a checksum follow, and the version of its format."""
_HEADER = struct.Struct(">4sIBB2xIII")
_CHECKED = struct.Struct(">BBHIII")
_CHECKED_FROM, _FLAGS_AT = 8, 9
_TEXTS_FROM = origins.NUMBERS.size

_TAGGED, _PACKED, _PACKED_REQUEST, _ROOT_ONLY, _ENCRYPTED, _VECTOR, _SHAPED = 1, 2, 4, 8, 16, 32, 64
"""Flags: the answer holds tags; the first block, or the request, is compressed; the answer's root alone is tagged (see
`values`); the answer and the request are encrypted; the answer is a vector (see `numbers`), or a shape and leaves (see
`shapes`). The last two are of version 3."""

_FILED_BYTES, _LENGTH_BYTES = 16, 4

_PACK_ABOVE = 1024
_PACK_REQUEST_ABOVE = 512
_LITTLE = 4
"""Which part of an entry with a vector its request may be, and stay there in memory."""
_LOCAL = threading.local()


@dataclass(frozen=True)
class Entry:
    """A stored draw: where it came from, and the answer as DSPy expects it."""

    origin: Origin
    answer: Any


class Opened(NamedTuple):
    """An entry of which the answer is parsed, and nothing made of it.

    Attributes:
        origin: Where the answer came from.
        value: The answer in its stored form; None where it is a vector or of a known shape.
        vector: The numbers of the vector; None where it is none.
        shaped: Its shape and its leaves; None where it has none.
        tagged: Whether the stored form holds tags.
        is_root_only: Whether its root alone is one.
        most: How many objects it has at most.
    """

    origin: Origin
    value: Any
    vector: array[float] | None
    shaped: Shaped | None
    tagged: bool
    is_root_only: bool
    most: int

    def plain(self) -> Any:
        """Return the answer as JSON values, tags and all."""
        if self.shaped is not None:
            return self.shaped.plain()
        return self.value if self.vector is None else [self.vector.tolist()]

    def answer(self) -> Any:
        """Return the answer as it was put in; what is in here is used up. Raises as `decode` does."""
        return values.untagged(self.plain(), most=self.most) if self.tagged else self.plain()


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
    return _pack(origin, answer if type(answer) is Stored else stored(answer), request)


def _pack(origin: Origin, kept: Stored, request: bytes) -> bytes:
    counts, texts = origins.written(origin)
    answer, tagged, is_vector, shaped = kept
    flags = _VECTOR if is_vector else 0
    if tagged:
        flags = _TAGGED | (_ROOT_ONLY if values.is_root_only(answer) else 0)
    if shaped is not None:
        answer, flags = shaped, flags | _SHAPED
    body = b"".join((counts, texts, answer))
    if len(body) + len(request) > LARGEST_VALUE:
        request = b""  # it is there for people: rather without it than not at all
        if len(body) > LARGEST_VALUE:
            raise values.UnstorableError(f"it is too large: {len(body):,} bytes, and {LARGEST_VALUE:,} are read")
    if len(body) > _PACK_ABOVE and not is_vector:
        body, flags = packing.packed(body), flags | _PACKED
    if len(request) > _PACK_REQUEST_ABOVE:
        request, flags = packing.packed(request), flags | _PACKED_REQUEST
    return _sealed(flags, len(texts), body, request)


def _sealed(flags: int, texts: int, body: bytes, request: bytes) -> bytes:
    rest = b"".join((_CHECKED.pack(FORMAT_VERSION, flags, 0, texts, len(body), len(request)), body, request))
    return b"".join((MAGIC, zlib.crc32(rest).to_bytes(4, "big"), rest))


def is_encrypted(data: bytes) -> bool:
    """Tell whether the answer and the request of an entry are encrypted."""
    return len(data) > _FLAGS_AT and bool(data[_FLAGS_AT] & _ENCRYPTED)


def for_store(data: bytes, key: str) -> bytes:
    """Return an entry as stores are to keep it: encrypted where keys for that are given.

    Args:
        data: The entry.
        key: The key that it is filed under.
    """
    return data if settings().encryption_key is None or is_encrypted(data) else encrypted(data, key)


def encrypted(data: bytes, key: str) -> bytes:
    """Return an entry encrypted with the first of the keys that are given; as it is, where it is so already.

    Args:
        data: The entry, encrypted or not.
        key: The key that it is filed under: under another one nobody is served it.

    Raises:
        ConfigurationError: If no key is given.
        CorruptEntryError: If the bytes are damaged or are not an entry.
        FormatVersionError: If another version of this package wrote them, or the key that encrypted them is not given.
    """
    keys = settings().encryption_key
    if keys is None:
        raise ConfigurationError("no key is given to encrypt with: set DSPY_CACHECTL_ENCRYPTION_KEY")
    flags, _, _, box = _blocks(data)
    if flags & _ENCRYPTED and keys.is_newest(box[_FILED_BYTES:]):
        return data
    flags, texts, block, request = _open(data, key)
    answer_from, filed = _TEXTS_FROM + texts, _filed_under(key)
    body = _body(flags, block, answer_from)
    flags = (flags | _ENCRYPTED) & ~_PACKED
    head, answer = body[:answer_from], body[answer_from:]
    together = len(answer).to_bytes(_LENGTH_BYTES, "big") + answer + request
    box = keys.seal(packing.packed(together), bytes([flags]), head, filed)
    return _sealed(flags, texts, head, filed + box)


def decrypted(data: bytes) -> bytes:
    """Return an entry that is not encrypted. Raises as `decode` does."""
    return _sealed(*_open(data))


def decode(data: bytes, key: str | None = None) -> Entry:
    """Decode the origin and the answer of an entry.

    Args:
        data: The entry.
        key: The key that it is filed under, where that is known: an encrypted one that is filed where it does not
            belong is turned down then.

    Raises:
        CorruptEntryError: If the bytes are damaged or are not an entry.
        FormatVersionError: If another version of this package wrote them.
        EncryptedError: If they are encrypted, and the key for that is not given.
    """
    opened = open_answer(data, key)
    return Entry(origin=opened.origin, answer=opened.answer())


def open_answer(data: bytes, key: str | None = None) -> Opened:
    """Decode the origin of an entry, and parse its answer. Takes and raises what `decode` does."""
    flags, texts, block, _ = _open(data, key)
    answer_from = _TEXTS_FROM + texts
    body = _body(flags, block, answer_from)
    answer = body[answer_from:]
    origin = origins.read(body, body[_TEXTS_FROM:answer_from], are_many_alike=bool(flags & _VECTOR))
    if flags & _VECTOR:
        return Opened(origin, None, numbers.unpacked(answer), None, tagged=False, is_root_only=False, most=0)
    shaped = shapes.opened(answer) if flags & _SHAPED else None
    value, most = (parsed(answer), values.most_objects(answer)) if shaped is None else (None, 0)
    return Opened(origin, value, None, shaped, bool(flags & _TAGGED), bool(flags & _ROOT_ONLY), most)


def decode_origin(data: bytes) -> Origin:
    """Decode only where an entry came from. Raises as `decode` does."""
    flags, texts, block, _ = _blocks(data)
    answer_from = _TEXTS_FROM + texts
    body = _body(flags, block, answer_from)
    return origins.read(body, body[_TEXTS_FROM:answer_from])


def decode_request(data: bytes) -> dict[str, Any]:
    """Decode only the request of an entry; empty where it was not kept. Raises as `decode` does."""
    flags, _, body, block = _open(data)
    # Both of them together: who shows an entry has all of it in memory.
    size = unpacked_size(body) if flags & _PACKED else len(body)
    size += unpacked_size(block) if flags & _PACKED_REQUEST else len(block)
    if size > LARGEST_VALUE:
        raise CorruptEntryError(f"the entry claims more than {LARGEST_VALUE:,} bytes; none that is written has as many")
    text = unpacked(block) if flags & _PACKED_REQUEST else block
    request = parsed(text) if text else {}
    if not isinstance(request, dict):
        raise CorruptEntryError("the entry's request is not a mapping")
    return request


def for_memory(data: bytes, key: str) -> bytes:
    """Return an entry as a hit needs it, in the clear and without its request.

    As it is, where it cannot be read, has none, or holds a vector and a request that takes little room beside it.
    """
    if _is_nearly_a_vector(data):
        return data
    try:
        flags, texts, body, request = _open(data, key)
    except StoreError:
        return data
    if not request and not is_encrypted(data):
        return data
    if len(body) > _PACK_ABOVE and not flags & (_PACKED | _VECTOR):  # it was encrypted
        body, flags = packing.packed(body), flags | _PACKED
    flags &= ~_PACKED_REQUEST
    sealed = _sealed(flags, texts, body, b"")
    _LOCAL.sealed = sealed, (flags, texts, body, b"")  # it is opened next
    return sealed


def _is_nearly_a_vector(data: bytes) -> bool:
    if len(data) < _HEADER.size or data[_FLAGS_AT] & (_VECTOR | _ENCRYPTED) != _VECTOR:
        return False
    return bool(_HEADER.unpack_from(data)[-1] * _LITTLE < len(data))


def take_apart(data: bytes) -> tuple[dict[str, Any], Any, bool, dict[str, Any]]:
    """Return the blocks of an entry as JSON values, for cassettes: origin, answer, whether that is tagged, request.

    The answer is in its stored form (see `values`). Raises as `decode` does.
    """
    opened = open_answer(data)
    return origins.as_json(opened.origin), opened.plain(), opened.tagged, decode_request(data)


def put_together(origin: dict[str, Any], answer: Any, *, tagged: bool, request: dict[str, Any]) -> bytes:
    """Return the entry that `take_apart` took apart.

    Raises:
        CorruptEntryError: If the origin is not one.
    """
    kept = stored_json(answer, tagged=tagged)
    return _pack(origins.from_json(origin), kept, orjson.dumps(request) if request else b"")


_Blocks: TypeAlias = tuple[int, int, bytes, bytes]
"""What an entry consists of: its flags, how long the texts of its origin are, and its blocks."""


def _open(data: bytes, key: str | None = None) -> _Blocks:
    """Return what an entry consists of, in the clear."""
    sealed = getattr(_LOCAL, "sealed", None)
    if sealed is not None and sealed[0] is data:
        return sealed[1]  # type: ignore[no-any-return]
    blocks = _blocks(data)
    return _decrypted(blocks, key) if blocks[0] & _ENCRYPTED else blocks


def _blocks(data: bytes) -> _Blocks:
    """Return what an entry consists of, as it is written."""
    size = len(data)
    mark, checksum, version, flags, texts, body, request = _HEADER.unpack_from(data.ljust(_HEADER.size, b"\0"))
    if mark != MAGIC or size <= _CHECKED_FROM:
        raise CorruptEntryError("the bytes are not an entry of this package, or are cut short")
    if zlib.crc32(memoryview(data)[_CHECKED_FROM:]) != checksum:
        raise CorruptEntryError("the entry's checksum does not match; it is damaged")
    if not _OLDEST_READ <= version <= FORMAT_VERSION:
        raise _of_another_version(version)
    if size < _HEADER.size:
        raise CorruptEntryError("the entry is cut short")
    request_from = _HEADER.size + body
    if request_from + request != size:
        raise CorruptEntryError("the entry's blocks do not add up to its length")
    return flags, texts, data[_HEADER.size : request_from], data[request_from:]


def _body(flags: int, block: bytes, answer_from: int) -> bytes:
    """Return the first block of an entry as it was before it was packed: the origin, and from there on the answer."""
    body = unpacked(block) if flags & _PACKED else block
    if len(body) < answer_from:
        raise CorruptEntryError("the entry's origin is cut short")
    return body


def _decrypted(blocks: _Blocks, key: str | None) -> _Blocks:
    flags, texts, head, box = blocks
    filed = box[:_FILED_BYTES]
    if key is not None and filed != _filed_under(key):
        raise CorruptEntryError("the entry is filed where it does not belong")
    together = unpacked(encryption.opened(settings().encryption_key, box[_FILED_BYTES:], bytes([flags]), head, filed))
    request_from = _LENGTH_BYTES + int.from_bytes(together[:_LENGTH_BYTES], "big")
    body = head + together[_LENGTH_BYTES:request_from]
    return flags & ~_ENCRYPTED, texts, body, together[request_from:]


def _filed_under(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_FILED_BYTES).digest()


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
