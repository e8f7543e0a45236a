"""Which keys there are in a shared store, and what is in them.

    NS:{S}:e:KEY      an entry: a head of fixed size, its label, its mark, its bytes; it expires
    NS:{S}:z:LABEL    the entries of a label, by when they were stored (LABEL: the hash of it)
    NS:{S}:labels     the labels, by when something was put under them last: so the newest entries are found soon
    NS:{S}:served     how often entries were served, and when last; of those only that ever were
    NS:{S}:i:NAME     the marks of a name, with the entries that have them; it expires (NAME: the hash of it)
    NS:{S}:l:KEY      who asks for an entry at the moment; it expires in seconds
    NS:{S}:r:NAME     a record that all who use the store change together; it expires after months
    NS:{S}:usage      what is counted of the use of the store, in one slot

S is one of 16 tags, by the key: each has its own slot in a cluster, and all that one script uses has one tag.
"""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.boundary.reading import LARGEST_VALUE, unpacked
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError
from dspy_cachectl.stores.base import Label, name_of

VERSION = 1
"""What is written by another version has other names: stores of several versions may be in one server."""
TAGS = tuple(f"{number:x}" for number in range(16))
USAGE = TAGS[0]
"""The tag of what is counted."""

HEAD = struct.Struct("<BBd8sII")
"""Version, flags, when it was stored in Unix seconds, the hash of the bytes, and how long label and mark are."""
FLAGS = (1, 1)
"""Where the flags are: whether the bytes are packed, and in the upper half the version that they say in their ninth."""
_PACKED, _VERSION_IN, _VERSION_FROM = 1, 8, 4
_WORTH_PACKING = 256
_LEVEL = 3
_HASHED = re.compile(r"[0-9a-f]{64}")
TEXT = b"="
"""What stands before the member of a key that is a text, where it would be taken for a hash."""
_LOCAL = threading.local()


@dataclass(frozen=True)
class Kept:
    """An entry as the server has it.

    Attributes:
        label: What it is filed under.
        mark: What it is known by again, or "".
        stored: When it was stored, in Unix seconds.
        value: The bytes.
    """

    label: Label
    mark: str
    stored: float
    value: bytes


class Names:
    """The names of the keys of one store.

    Args:
        namespace: What all begin with.
    """

    def __init__(self, namespace: str) -> None:
        self.space = f"{namespace}:v{VERSION}"

    def base(self, tag: str) -> bytes:
        """Return what the names of all keys with a tag begin with."""
        return f"{self.space}:{{{tag}}}:".encode()

    def entry(self, key: str) -> bytes:
        """Return the name of an entry."""
        return self.base(tag_of(key)) + b"e:" + key.encode("utf-8", "surrogatepass")

    def lease(self, name: str) -> bytes:
        """Return the name of a lease."""
        return self.base(tag_of(name)) + b"l:" + name.encode("utf-8", "surrogatepass")

    def record(self, name: str) -> bytes:
        """Return the name of a record."""
        return self.base(tag_of(name)) + b"r:" + name.encode("utf-8", "surrogatepass")

    def marks(self, name: str) -> tuple[str, bytes]:
        """Return under which tag and name the marks of a name are."""
        hashed = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20]
        return tag_of_hash(hashed), self.base(tag_of_hash(hashed)) + b"i:" + hashed.encode()

    def filed(self, tag: str, label: bytes) -> bytes:
        """Return the name under which the entries of a label are that have a tag."""
        return self.base(tag) + b"z:" + hashlib.sha1(label, usedforsecurity=False).hexdigest()[:20].encode()

    def pattern(self, part: str = "") -> bytes:
        """Return the pattern of the names of all keys; or of a part of them, such as `e:`."""
        return re.sub(r"([\[\]*?\\])", r"\\\1", self.space).encode() + b":{?}:" + part.encode() + b"*"

    def key_in(self, name: bytes) -> str:
        """Return the key of the entry that has a name."""
        return name[len(self.base(TAGS[0])) + 2 :].decode("utf-8", "surrogatepass")


def tag_of(key: str) -> str:
    """Return the tag of an entry. Keys that are hashes and begin alike, for two digits, have one."""
    hashed = key if _HASHED.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return tag_of_hash(hashed)


def tag_of_hash(hashed: str) -> str:
    """Return the tag of what has a hash."""
    return hashed[1]


def member_of(key: str) -> bytes:
    """Return a key as it stands in lists: a hash takes half the room."""
    if _HASHED.fullmatch(key):
        return bytes.fromhex(key)
    text = key.encode("utf-8", "surrogatepass")
    return TEXT + text if len(text) == 32 or text.startswith(TEXT) else text


def key_of(member: bytes) -> str:
    """Return the key that stands in a list."""
    if len(member) == 32:
        return member.hex()
    return member.removeprefix(TEXT).decode("utf-8", "surrogatepass")


def label_of(text: bytes) -> Label:
    """Return the label that stands in a list."""
    return Label.decode(text.decode("utf-8", "replace"))


def text_of(label: Label) -> bytes:
    """Return a label as it stands in lists."""
    return label.encode().encode("utf-8", "surrogatepass")


def hash_of(value: bytes | None) -> bytes:
    """Return by which an entry's bytes are told from others, whatever they are packed with; nothing for none."""
    return b"" if value is None else hashlib.blake2b(value, digest_size=8).digest()


def pack(value: bytes, label: Label, mark: str, stored: float) -> bytes:
    """Return an entry as the server is to have it."""
    flags, body = (min(value[_VERSION_IN], 15) << _VERSION_FROM if len(value) > _VERSION_IN else 0), value
    if _WORTH_PACKING < len(value) <= LARGEST_VALUE:
        packed = _compressed(value)
        if len(packed) < len(value):
            flags, body = flags | _PACKED, packed
    filed, marked = text_of(label), mark.encode("utf-8", "surrogatepass")
    return HEAD.pack(VERSION, flags, stored, hash_of(value), len(filed), len(marked)) + filed + marked + body


def unpack(data: bytes) -> Kept:
    """Return an entry that the server has.

    Raises:
        CorruptEntryError: If it is damaged, or nothing that this package wrote.
        FormatVersionError: If a newer version wrote it.
    """
    try:
        version, flags, stored, told, filed, marked = HEAD.unpack_from(data)
    except struct.error:
        raise CorruptEntryError("the store holds an entry that is too short to be one") from None
    if version > VERSION:
        raise FormatVersionError(f"the store holds an entry of format {version}, and this version reads {VERSION}")
    at = HEAD.size + filed
    body = data[at + marked :]
    value = unpacked(body) if flags & _PACKED else body
    if hash_of(value) != told:
        raise CorruptEntryError("the store holds an entry that was changed after it was written")
    mark = data[at : at + marked].decode("utf-8", "replace")
    return Kept(label_of(data[HEAD.size : at]), mark, stored, value)


def version_in(flags: bytes) -> int:
    """Return the version that flags tell; 0 where there are none."""
    return flags[0] >> _VERSION_FROM if flags else 0


def mark_member(key: str, mark: str) -> bytes:
    """Return how an entry stands in the list of a name's marks."""
    rest = mark[len(name_of(mark)) + 1 :].replace("\0", "")
    return rest.encode("utf-8", "surrogatepass") + b"\0" + member_of(key)


def marked_entry(name: str, member: bytes) -> tuple[str, str]:
    """Return the mark and the key of what stands in the list of a name's marks."""
    rest, _, its = member.partition(b"\0")
    return f"{name}.{rest.decode('utf-8', 'surrogatepass')}", key_of(its)


def _compressed(value: bytes) -> bytes:
    import zstandard

    if not hasattr(_LOCAL, "compressor"):
        _LOCAL.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    compressor: Any = _LOCAL.compressor
    packed: bytes = compressor.compress(value)
    return packed
