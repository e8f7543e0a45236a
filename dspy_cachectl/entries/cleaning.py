"""What may be kept and shown: texts without secrets, and in a cassette without what its owner redacts.

A request is kept for people to read; its key was made before. An answer is served again. Of both only what is surely a
secret goes, and what the owner redacts: names and words that look a little like one stay. The program that is being
recorded is given the cleaned answer as well: the calls that follow from it would otherwise not be found in a replay.
Elsewhere an answer is served as it was bought or not at all: one with a secret in it is written to no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from dspy_cachectl.boundary.held import HELD, SHORTEST
from dspy_cachectl.boundary.reading import parsed
from dspy_cachectl.boundary.secrets import scrub_surely, shows_secret
from dspy_cachectl.entries import records, shapes
from dspy_cachectl.entries.stored import Stored
from dspy_cachectl.entries.values import TAG, dumped_text, loaded_text
from dspy_cachectl.errors import ConfigurationError

Redact = Callable[[str], str]

_NOT_TEXT = frozenset(
    {"$", "_dspy_format", "_fn_identifier", "id", "call_id", "created", "created_at", "dtype", "finish_reason", "index"}
    | {"key", "model", "object", "of", "provider", "role", "status", "system_fingerprint", "tool_call_id", "type"}
)
"""The fields of answers and requests that say what is what; everything else that is a string is text."""

_ENCODED = frozenset({"array", "scalar", "bytes", "bytearray", "int", "float"})
"""The tags of numbers and bytes (see `values`)."""

_CONTENT = frozenset({"args", "arguments", "input", "result"})
"""What a tool is called with, and what it returns. Whatever the names in there are, it is text."""


class Cleaner:
    """Removes secrets from what a cassette keeps. Thread-safe.

    Args:
        redact: Applied to each text of requests and answers; returns the text to keep.
    """

    def __init__(self, redact: Redact | None = None) -> None:
        self._redact = redact

    def learn(self, options: Mapping[str, Any]) -> None:
        """Learn the secrets among the options of a call: they are kept nowhere."""
        HELD.learn(options)

    def entry(self, data: bytes) -> bytes:
        """Return an entry with clean texts."""
        origin, answer, tagged, request = records.take_apart(data)
        return records.put_together(origin, self.stored(answer), tagged=tagged, request=self.request(request))

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the description of a request with clean texts."""
        clean: dict[str, Any] = self._walk(dict(request), self.text)
        return clean

    def stored(self, value: Any) -> Any:
        """Return a value in its stored form (see `values`) with clean texts."""
        return self._walk(value, self.text)

    def outputs(self, outputs: Any) -> Any:
        """Return what an LM gives its program, with clean texts."""
        return self._walk(outputs, self.text, encoded=False)

    def text(self, text: str) -> str:
        """Return a text without secrets, and redacted.

        Raises:
            ConfigurationError: If the user's function returned anything but a text.
        """
        text = scrub_surely(text)
        if self._redact is None:
            return text
        redacted = self._redact(text)
        if not isinstance(redacted, str):
            raise ConfigurationError(
                f"redact= takes a text and returns one; it returned {type(redacted).__name__} ({redacted!r})"
            )
        return redacted

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
            _name(name): scrub_surely(item)
            if name in _NOT_TEXT and not content and isinstance(item, str)
            else self._walk(item, clean, encoded=encoded, content=content or name in _CONTENT)
            for name, item in value.items()
        }


def _name(name: Any) -> Any:
    return scrub_surely(name) if isinstance(name, str) and len(name) >= SHORTEST else name


_CLEANER = Cleaner()


def cleaned(text: bytes) -> Any | None:
    """Return what a text of JSON holds, without its secrets; None where there is none in it."""
    if not _may_hold_secret(text):
        return None
    value = parsed(text)
    clean = _CLEANER.stored(value)
    return None if clean == value else clean


def holds_secret(kept: Stored) -> bool:
    """Tell whether there is a secret in an answer: each text of it is in its leaves or its shape, mostly once."""
    if kept.shaped is None:
        return cleaned(kept.body) is not None
    shape, leaves = shapes.parts(kept.shaped)
    may_hold = _shape_shows_secret(shape) or shows_secret(_text(leaves)) or HELD.is_in(_text(kept.shaped))
    return may_hold and cleaned(kept.body) is not None


def _may_hold_secret(text: bytes) -> bool:
    whole = _text(text)
    return HELD.is_in(whole) or shows_secret(whole)


@lru_cache(maxsize=256)
def _shape_shows_secret(shape: bytes) -> bool:
    # Most answers have one of a few, in which what is held may stand too: that changes.
    return shows_secret(_text(shape))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
