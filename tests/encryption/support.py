"""Keys, and what must not be readable."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

VARIABLE = "DSPY_CACHECTL_ENCRYPTION_KEY"
KEY, OTHER = "YSBzZWNyZXQgdGhhdCBoYXMganVzdCAzMiBieXRlcyE", "YW5vdGhlciB0aGF0IGhhcyBqdXN0IDMyIGJ5dGVzISE"
PROMPT = "Which Zwetschgendatschi is best"


def bytes_below(folder: Path) -> bytes:
    """Return all bytes of all files in a folder, however deep."""
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return b"\0".join(path.read_bytes() for path in paths)


def readable_in(data: bytes, texts: Iterable[str]) -> list[str]:
    """Return which texts stand in bytes, or in what is compressed there."""
    everything = b"\0".join([data, *_unpacked(data)])
    return [text for text in texts if text.encode() in everything]


def _unpacked(data: bytes) -> Iterator[bytes]:
    for found in re.finditer(re.escape(b"\x28\xb5\x2f\xfd"), data):
        with contextlib.suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(data[found.start() :])


def bytes_in(port: int, namespace: str) -> bytes:
    """Return all that a server of Redis keeps of a store, names and values."""
    import redis

    with redis.Redis(port=port, socket_timeout=60) as client:
        names = list(client.scan_iter(f"{namespace}:*", count=1000))
        dumped = [client.dump(name) or b"" for name in names]
        texts = [client.get(name) or b"" for name in names if client.type(name) == b"string"]
    return b"\0".join([*names, *dumped, *texts])
