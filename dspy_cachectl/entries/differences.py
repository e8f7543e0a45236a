"""Why two requests are not the same one. Pure; works on what is stored beside an entry."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_SHOWN = 60
_KEPT_WORDS = 12
"""Of a longer stretch of equal words only the two ends are shown."""
_MOST_WORDS = 5_000
"""Comparing word by word takes time that grows with the square of the length."""

ENGINE = "_engine"
"""Under which name it is part of what is asked that LiteLLM sends it, where that makes a difference."""
_NATIVE = "DSPy's native engine"
_CHOSEN_BY = 'DSPy takes LiteLLM where a variable such as OPENAI_BASE_URL is set, or engine="litellm"'

Names = tuple[str, str]
_ASKED: Names = ("asked", "stored")


def between(asked: Mapping[str, Any], stored: Mapping[str, Any], *, names: Names = _ASKED) -> list[str]:
    """Say what differs between what was asked and what is stored, most telling first.

    Args:
        asked: A description of a request: `endpoint`, `version`, `rollout_id`, `scope` and `request`.
        stored: The same of a stored entry.
        names: What the two are called.

    Returns:
        One line a difference; empty where there is none.
    """
    lines: list[str] = []
    wanted, kept = _request(asked), _request(stored)
    if wanted.get("model") != kept.get("model"):
        lines.append(f"model: {names[0]} {wanted.get('model')!r}, {names[1]} {kept.get('model')!r}")
    lines += fields(asked, stored, ("endpoint", "version", "scope"), names=names)
    lines += fields(wanted, kept, sorted((wanted.keys() | kept.keys()) - {"model", "messages", ENGINE}), names=names)
    if wanted.get(ENGINE) != kept.get(ENGINE):
        one, other = (_NATIVE if request.get(ENGINE) is None else "LiteLLM" for request in (wanted, kept))
        lines.append(f"engine: {names[0]} by {one}, {names[1]} by {other}; {_CHOSEN_BY}")
    lines += _messages(wanted.get("messages"), kept.get("messages"), names)
    if asked.get("rollout_id") != stored.get("rollout_id"):
        first = "asked for" if names == _ASKED else names[0]
        one, other = _draw(asked.get("rollout_id")), _draw(stored.get("rollout_id"))
        lines.append(f"draw: {first} {one}, {names[1]} {other}")
    return lines


@dataclass(frozen=True)
class Span:
    """A stretch of words in two texts.

    Attributes:
        of: Whether both texts have it, or which one; `cut` for equal words that are left out.
        text: The words.
    """

    of: Literal["both", "first", "second", "cut"]
    text: str


def word_diff(first: str, second: str) -> list[Span]:
    """Return two texts as one, word by word: what both have, and what only one has.

    White space belongs to the word before it, so that nothing is lost but long stretches of equal words.
    """
    one, other = (re.findall(r"\s*\S+\s*|\s+", text) for text in (first, second))
    if max(len(one), len(other)) > _MOST_WORDS:
        return [Span("first", first), Span("second", second)]
    spans: list[Span] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(a=one, b=other, autojunk=False).get_opcodes():
        if kind == "equal":
            spans += _equal(one[a:b], begins=a == 0, ends=b == len(one))
            continue
        spans += [Span(of, "".join(words)) for of, words in (("first", one[a:b]), ("second", other[c:d])) if words]  # type: ignore[arg-type]
    return spans


def _equal(words: list[str], *, begins: bool, ends: bool) -> list[Span]:
    if len(words) <= 2 * _KEPT_WORDS:
        return [Span("both", "".join(words))]
    head = [] if begins else words[:_KEPT_WORDS]
    tail = [] if ends else words[-_KEPT_WORDS:]
    left_out = len(words) - len(head) - len(tail)
    spans = [Span("both", "".join(head)), Span("cut", f"{left_out} equal words"), Span("both", "".join(tail))]
    return [span for span in spans if span.text]


def similarity(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> float:
    """Return how alike two requests are, between 0 and 1: by model, options and the words of the messages."""
    wanted, kept = _request(asked), _request(stored)
    words, others = set(_text(wanted).split()), set(_text(kept).split())
    shared = len(words & others) / max(len(words | others), 1)
    same_model: bool = wanted.get("model") == kept.get("model")
    options = (wanted.keys() | kept.keys()) - {"model", "messages"}
    same: float = sum(wanted.get(name) == kept.get(name) for name in options) / max(len(options), 1)
    return 0.7 * shared + 0.2 * same_model + 0.1 * same


def fields(
    asked: Mapping[str, Any], stored: Mapping[str, Any], wanted: Iterable[str], *, names: Names = _ASKED
) -> list[str]:
    """Say which fields of two mappings differ, one line each.

    Args:
        asked: The first.
        stored: The second.
        wanted: The fields to look at.
        names: What the two are called.
    """
    return [
        f"{name}: {names[0]} {_short(asked.get(name))}, {names[1]} {_short(stored.get(name))}"
        for name in wanted
        if asked.get(name) != stored.get(name)
    ]


def _request(description: Mapping[str, Any]) -> Mapping[str, Any]:
    request = description.get("request")
    return request if isinstance(request, Mapping) else {}


def _messages(asked: Any, stored: Any, names: Names) -> list[str]:
    wanted, kept = asked or [], stored or []
    if not isinstance(wanted, list) or not isinstance(kept, list):
        return [] if wanted == kept else [f"messages: {names[0]} {_short(wanted)}, {names[1]} {_short(kept)}"]
    lines = []
    if len(wanted) != len(kept):
        lines.append(f"messages: {names[0]} with {len(wanted)}, {names[1]} with {len(kept)}")
    for index, (one, other) in enumerate(zip(wanted, kept, strict=False)):
        if one != other:
            lines.append(f"message {index} ({_role(one)}): {_words(_content(one), _content(other), names)}")
    return lines


def _words(asked: str, stored: str, names: Names) -> str:
    one, other = asked.split(), stored.split()
    for kind, a, b, c, d in difflib.SequenceMatcher(a=one, b=other, autojunk=False).get_opcodes():
        if kind != "equal":
            before = " ".join(one[max(a - 3, 0) : a])
            mine, theirs = _short(" ".join(one[a:b])), _short(" ".join(other[c:d]))
            return f"after {_short(before)}: {names[0]} {mine}, {names[1]} {theirs}"
    return "the white space or the parts differ"


def _role(message: Any) -> str:
    return str(message.get("role", "?")) if isinstance(message, Mapping) else "?"


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else message
    return content if isinstance(content, str) else str(content)


def _text(request: Mapping[str, Any]) -> str:
    messages = request.get("messages")
    if isinstance(messages, list):
        return " ".join(_content(message) for message in messages)
    return str(messages or request.get("request") or request.get("batch_inputs") or "")


def _draw(rollout: Any) -> str:
    return "the plain draw" if rollout is None else f"rollout {rollout!r}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
