"""What a page holds, taken out of its file again."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

_CONTENT = re.compile(rb'<script type="application/json" id="content">("[^"<]*")</script>')


def packed(page: bytes) -> bytes:
    """Return the content of a page's file as it is packed."""
    found = _CONTENT.search(page)
    assert found is not None
    return base64.b64decode(json.loads(found[1]))


def content(page: bytes) -> dict[str, Any]:
    """Return the content of a page's file."""
    found: dict[str, Any] = json.loads(gzip.decompress(packed(page)))
    return found
