"""What a cassette may show: texts without secrets, and without what its owner redacts.

A request is kept for people to read and is cleaned thoroughly; its key was made before. An answer is served again,
so of it only what is surely a secret goes, and what the owner redacts. The program that is being recorded is given
the cleaned answer as well: the calls that follow from it would otherwise not be found in a replay.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from dspy_cachectl.boundary.secrets import HIDDEN, is_secret_header, is_secret_name, scrub, scrub_keys
from dspy_cachectl.entries import records
from dspy_cachectl.entries.values import TAG, dumped_text, loaded_text
from dspy_cachectl.errors import ConfigurationError

Redact = Callable[[str], str]

_SHORTEST_SECRET = 8
"""Shorter values of secret options ("none", "EMPTY") are no secrets, and occur in texts."""

_NOT_TEXT = frozenset(
    {"$", "_dspy_format", "_fn_identifier", "id", "call_id", "created", "created_at", "dtype", "finish_reason", "index"}
    | {"key", "model", "object", "of", "provider", "role", "status", "system_fingerprint", "tool_call_id", "type"}
)
"""The fields of answers and requests that say what is what; everything else that is a string is text."""

_ENCODED = frozenset({"array", "scalar", "bytes", "bytearray", "int", "float"})
"""The tags of numbers and bytes (see `values`)."""

_CONTENT = frozenset({"args", "arguments", "input"})
"""What a tool is called with. Whatever the names of its parameters are, it is text."""


class Cleaner:
    """Removes secrets from what a cassette keeps. Thread-safe.

    Args:
        redact: Applied to each text of requests and answers; returns the text to keep.
    """

    def __init__(self, redact: Redact | None = None) -> None:
        self._redact = redact
        self._lock = threading.Lock()
        self._secrets: frozenset[str] = frozenset(
            value
            for name, value in os.environ.items()
            if len(value) >= _SHORTEST_SECRET and (is_secret_name(name) or name.lower().endswith(("_key", "_token")))
        )

    def learn(self, options: Mapping[str, Any]) -> None:
        """Learn the secrets among the options of a call: they are kept nowhere."""
        found = {value for value in _secrets_of(options, headers=False) if value not in self._secrets}
        if found:
            with self._lock:
                self._secrets |= found

    def entry(self, data: bytes) -> bytes:
        """Return an entry with clean texts."""
        origin, answer, tagged, request = records.take_apart(data)
        return records.put_together(origin, self._walk(answer, self.text), tagged=tagged, request=self.request(request))

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the description of a request with clean texts."""
        cleaned: dict[str, Any] = self._walk(dict(request), lambda text: scrub(self.text(text)))
        return cleaned

    def outputs(self, outputs: Any) -> Any:
        """Return what an LM gives its program, with clean texts."""
        return self._walk(outputs, self.text, encoded=False)

    def text(self, text: str) -> str:
        """Return a text without secrets, and redacted.

        Raises:
            ConfigurationError: If the user's function returned anything but a text.
        """
        text = self._hidden(text)
        if self._redact is None:
            return text
        redacted = self._redact(text)
        if not isinstance(redacted, str):
            raise ConfigurationError(
                f"redact= takes a text and returns one; it returned {type(redacted).__name__} ({redacted!r})"
            )
        return redacted

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return scrub_keys(text)

    def _walk(self, value: Any, clean: Callable[[str], str], *, encoded: bool = True, content: bool = False) -> Any:
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, (list, tuple)) and type(value) in {list, tuple}:
            return type(value)(self._walk(item, clean, encoded=encoded, content=content) for item in value)
        if type(value) is not dict:
            return value
        tag = value.get(TAG) if encoded else None
        if tag == "str" and isinstance(value.get("v"), str):
            return dumped_text(clean(loaded_text(value["v"])))
        if isinstance(tag, str) and tag in _ENCODED:
            return value
        return {
            name: self._hidden(item)
            if name in _NOT_TEXT and not content and isinstance(item, str)
            else self._walk(item, clean, encoded=encoded, content=content or name in _CONTENT)
            for name, item in value.items()
        }


def _secrets_of(options: Mapping[str, Any], *, headers: bool) -> set[str]:
    found: set[str] = set()
    is_secret = is_secret_header if headers else is_secret_name
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _secrets_of(value, headers=headers or "headers" in str(name))
        elif isinstance(value, str) and len(value) >= _SHORTEST_SECRET and is_secret(str(name)):
            found.add(value)
            scheme, _, credential = value.partition(" ")
            if scheme.lower() in {"bearer", "basic"} and len(credential) >= _SHORTEST_SECRET:
                found.add(credential)
    return found
