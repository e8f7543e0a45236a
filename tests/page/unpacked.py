"""What a page holds, taken out of its file again."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

_CONTENT = re.compile(rb'<script type="application/json" id="content">("[^"<]*")</script>')


def content(page: bytes) -> dict[str, Any]:
    """Return the content of a page's file."""
    packed = _CONTENT.search(page)
    assert packed is not None
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(json.loads(packed[1]))))
    return found
