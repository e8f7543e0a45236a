"""The file of a page: its content packed, its style and script inline, and a policy that allows these and nothing else.

The browser runs the one script and uses the one style whose hashes the policy names. It may load, send and embed
nothing, so that no text on the page could, even if it became markup. It does not: the content is a block of data that
no parser of HTML looks into, and the script puts it in place as text.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from functools import cache
from importlib.resources import files
from string import Template

from dspy_cachectl.page.content import Page

_SCRIPTS = ("parts.js", "pictures.js", "questions.js", "answer.js", "page.js")
"""One script, in the order in which its parts need each other."""
_LEVEL = 6


def document(page: Page) -> bytes:
    """Return the file of a page."""
    # The same content is the same file: no time of writing is in it.
    packed = base64.b64encode(gzip.compress(page.as_json(), _LEVEL, mtime=0)).decode()
    style, script = _asset("page.css"), "\n".join(map(_asset, _SCRIPTS))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    written = Template(_asset("page.html")).substitute(
        policy=policy, title=html.escape(page.title), style=style, script=script, content=packed
    )
    return written.encode("utf-8", "backslashreplace")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")
