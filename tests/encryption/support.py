"""Keys, and what must not be readable."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "DSPY_CACHECTL_ENCRYPTION_KEY"
KEY, OTHER = "YSBzZWNyZXQgdGhhdCBoYXMganVzdCAzMiBieXRlcyE", "YW5vdGhlciB0aGF0IGhhcyBqdXN0IDMyIGJ5dGVzISE"
PROMPT = "Which Zwetschgendatschi is best"


def bytes_below(folder: Path) -> bytes:
    """Return all bytes of all files in a folder, however deep."""
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return b"\0".join(path.read_bytes() for path in paths)


def readable_in(data: bytes, texts: Iterable[str]) -> list[str]:
    """Return which texts stand in bytes."""
    return [text for text in texts if text.encode() in data]
