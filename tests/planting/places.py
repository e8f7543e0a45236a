"""Where a secret may come in: a table of places, each with a secret of its own."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary import secret_names
from tests.planting.finder import find

_LETTERS = string.ascii_letters + string.digits


def drawn(place: str, *, size: int = 40) -> str:
    """Return what looks drawn by lot: the same for a place each time."""
    blocks = b"".join(hashlib.sha256(f"{place} {number}".encode()).digest() for number in range(size // 32 + 1))
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in blocks[:size])


class Places:
    """Plants secrets, and knows them.

    Args:
        most: How many names of a kind get a value of their own.

    Attributes:
        planted: The secrets, by their places.
    """

    def __init__(self, *, most: int | None = None) -> None:
        self._most = most
        self.planted: dict[str, str] = {}

    def value(self, place: str) -> str:
        """Plant a value that nothing but its name tells."""
        return self.planted.setdefault(place, drawn(place, size=24))

    def key(self, place: str) -> str:
        """Plant a key that is told by its shape: what is looked for is what was drawn of it."""
        return f"sk-proj-{self.planted.setdefault(place, drawn(place))}"

    def each(self, where: str, names: Iterable[str]) -> dict[str, Any]:
        """Plant a value under each of some names."""
        return {name: self.value(f"{where} {name}") for name in sorted(names)[: self._most]}

    def found_in(self, *folders: Path) -> dict[str, list[str]]:
        """Return the places whose secrets are found in the files of folders, and where."""
        names = {secret: place for place, secret in self.planted.items()}
        return {names[secret]: sorted(where) for secret, where in find(names, *folders).items()}

    def options(self) -> dict[str, Any]:
        """Return the options of an LM, with a secret wherever one may be."""
        # The address has its own login and key, and what OpenAI's client sets itself is not set twice.
        headers = secret_names.HEADERS - {"authorization", "sec-websocket-protocol", "cookie2"}
        return {
            "api_key": self.value("api_key"),
            "extra_headers": self.each("header", headers),
            "extra_query": self.each("query", secret_names.PARAMETERS),
            "extra_body": {
                "deeply": [{"nested": self.each("body", secret_names.OPTIONS)}],
                "metadata": {"note": self.key("metadata"), "tags": ["mine", self.key("tag")]},
                "server_url": f"http://me:{self.value('login')}@host/x?token={self.value('address')}&jwt={self.value('jwt')}",
                "fallback": f"Bearer {self.key('bearer')}",
            },
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "look",
                        "description": f"Use {self.key('tool description')} for it.",
                        "parameters": {
                            "type": "object",
                            "properties": {"where": {"type": "string", "default": self.key("tool default")}},
                        },
                    },
                },
                {
                    "type": "mcp",
                    "server_url": f"https://me:{self.value('mcp login')}@host/?api_key={self.value('mcp address')}",
                    "headers": self.each("mcp", secret_names.HEADERS),
                },
            ],
        }

    def messages(self) -> list[dict[str, Any]]:
        """Return messages with a key in each part."""
        call = {"name": "look", "arguments": f'{{"where": "{self.key("tool call")}"}}'}
        return [
            {"role": "system", "content": f"The key is {self.key('system')}."},
            {"role": "user", "content": f"colour? {self.key('few-shot question')}"},
            {"role": "assistant", "content": f'{{"answer": "{self.key("few-shot answer")}"}}'},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "1", "content": f"export OPENAI_API_KEY={self.key('tool result')}"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": f"colour?\n{self.key('part')}\n"},
                    {"type": "image_url", "image_url": {"url": f"https://host/a.png?sig=1#{self.key('image')}"}},
                ],
            },
        ]
