"""How many tokens an answer took: what a provider says of them, read so that no sum breaks by it. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

MOST = 10**9
"""How many tokens one answer may have; a number above it counts something else."""

NAMES = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_creation_tokens", "reasoning_tokens")
"""The counts of tokens. The third and fourth are parts of the first, the fifth is one of the second."""

PARTS = NAMES[2:]
"""Those that are parts."""

_PROMPT, _COMPLETION = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
_CACHED = ("cached_tokens", "cache_read_input_tokens")
_REASONING = ("reasoning_tokens",)
_CREATED = ("cache_creation_tokens", "cache_write_tokens", "cache_creation_input_tokens")


class TokenCounts(NamedTuple):
    """The tokens of one answer; None where the provider did not say, or said what cannot be.

    Attributes:
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        cached_tokens: Those of the read ones that the provider had in its own cache.
        cache_creation_tokens: Those of the read ones that it wrote to its cache.
        reasoning_tokens: Those of the written ones that were its reasoning.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None


def read_counts(usage: Any) -> tuple[TokenCounts, bool]:
    """Read the tokens of an answer's usage, in OpenAI's, Anthropic's or LiteLLM's names for them.

    Returns:
        The counts, and whether all that is said can be: a price of numbers that cannot be is none.
    """
    reading = _Reading()
    read, written = reading.first(usage, _PROMPT), reading.first(usage, _COMPLETION)
    of_read, of_written = _details(usage, _PROMPT), _details(usage, _COMPLETION)
    cached, created = reading.first(of_read, _CACHED), reading.first(of_read, _CREATED)
    reasoning = reading.first(of_written, _REASONING)
    if cached is None and created is None:
        cached, created = reading.first(usage, _CACHED), reading.first(usage, _CREATED)
        if read is not None and field(usage, "prompt_tokens") is None:
            read += (cached or 0) + (created or 0)  # Anthropic counts them apart, everybody else within
    if (cached or 0) + (created or 0) > (read or 0):
        reading.is_sound, cached, created = False, None, None
    if (reasoning or 0) > (written or 0):
        reading.is_sound, reasoning = False, None
    if read == 0:  # LiteLLM puts 0 where the provider says nothing; nobody answers without having read
        reading.is_sound, read = False, None
        written = written or None
    return TokenCounts(read, written, cached, created, reasoning), reading.is_sound


def in_words(counts: Mapping[str, Any], suffix: str = "") -> str:
    """Write how many tokens there are; what was cached and what was reasoning apart, where there is any.

    Args:
        counts: The counts by name.
        suffix: What the names end in.
    """
    read, written, cached, created, reasoning = (counts.get(f"{name}{suffix}") or 0 for name in NAMES)
    if not (cached or created or reasoning):
        total = counts.get(f"tokens{suffix}", read + written)
        return f"{total:,} token{'' if total == 1 else 's'}"
    of_read = parts(cached, created)
    of_written = f" ({reasoning:,} reasoning)" if reasoning else ""
    return f"{read:,} tokens in{f' ({of_read})' if of_read else ''}, {written:,} out{of_written}"


def parts(cached: int, created: int, reasoning: int = 0) -> str:
    """Write which tokens have a price of their own; nothing where there are none."""
    found = (
        (cached, "cached by the provider"),
        (created, "written to its cache"),
        (reasoning, "reasoning"),
    )
    return ", ".join(f"{count:,} {what}" for count, what in found if count)


class _Reading:
    """Reads counts, and notes whether one of them cannot be. Strictly private."""

    def __init__(self) -> None:
        self.is_sound = True

    def first(self, usage: Any, names: tuple[str, ...]) -> int | None:
        """Return the first count that is said."""
        for name in names if usage is not None else ():
            value = field(usage, name)
            if value is None:
                continue
            if type(value) in (int, float) and 0 <= value <= MOST and value == int(value):
                return int(value)
            self.is_sound = False
        return None


def _details(usage: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if (found := field(usage, f"{name}_details")) is not None:
            return found
    return None


def field(value: Any, name: str) -> Any:
    """Return a field of what a provider sent: a mapping's, or an object's; None where there is none of that name."""
    if type(value) is dict:
        return value.get(name)
    held = getattr(value, "__dict__", None)
    if held is not None and name in held:
        return held[name]
    if value is None:
        return None
    kind: type = type(value)
    if hasattr(value, "__pydantic_extra__") and not _is_on(kind, name):
        extra = value.__pydantic_extra__
        return extra.get(name) if extra else None
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


@functools.lru_cache(maxsize=512)
def _is_on(kind: type, name: str) -> bool:
    """Tell whether a class of pydantic's has an attribute itself: it looks for what is not there at length."""
    return hasattr(kind, name)
