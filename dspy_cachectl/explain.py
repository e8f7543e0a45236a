"""Why two requests are not the same one. Pure; works on what is stored beside an entry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

_SHOWN = 60


def differences(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """Say what differs between what was asked and what is stored, most telling first.

    Args:
        asked: A description of a request: `endpoint`, `version`, `rollout_id`, `scope` and `request`.
        stored: The same of a stored entry.

    Returns:
        One line a difference; empty where there is none.
    """
    lines: list[str] = []
    wanted, kept = _request(asked), _request(stored)
    if wanted.get("model") != kept.get("model"):
        lines.append(f"model: asked {wanted.get('model')!r}, stored {kept.get('model')!r}")
    lines += _fields(asked, stored, ("endpoint", "version", "scope"))
    lines += _fields(wanted, kept, sorted((wanted.keys() | kept.keys()) - {"model", "messages"}))
    lines += _messages(wanted.get("messages"), kept.get("messages"))
    if asked.get("rollout_id") != stored.get("rollout_id"):
        lines.append(f"draw: asked for {_draw(asked.get('rollout_id'))}, stored {_draw(stored.get('rollout_id'))}")
    return lines


def similarity(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> float:
    """Return how alike two requests are, between 0 and 1: by model, options and the words of the messages."""
    wanted, kept = _request(asked), _request(stored)
    words, others = set(_text(wanted).split()), set(_text(kept).split())
    shared = len(words & others) / max(len(words | others), 1)
    same_model: bool = wanted.get("model") == kept.get("model")
    options = (wanted.keys() | kept.keys()) - {"model", "messages"}
    same: float = sum(wanted.get(name) == kept.get(name) for name in options) / max(len(options), 1)
    return 0.7 * shared + 0.2 * same_model + 0.1 * same


def _fields(asked: Mapping[str, Any], stored: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [
        f"{name}: asked {_short(asked.get(name))}, stored {_short(stored.get(name))}"
        for name in names
        if asked.get(name) != stored.get(name)
    ]


def _request(description: Mapping[str, Any]) -> Mapping[str, Any]:
    request = description.get("request")
    return request if isinstance(request, Mapping) else {}


def _messages(asked: Any, stored: Any) -> list[str]:
    wanted, kept = asked or [], stored or []
    if not isinstance(wanted, list) or not isinstance(kept, list):
        return [] if wanted == kept else [f"messages: asked {_short(wanted)}, stored {_short(kept)}"]
    lines = []
    if len(wanted) != len(kept):
        lines.append(f"messages: asked with {len(wanted)}, stored with {len(kept)}")
    for index, (one, other) in enumerate(zip(wanted, kept, strict=False)):
        if one != other:
            lines.append(f"message {index} ({_role(one)}): {_words(_content(one), _content(other))}")
    return lines


def _words(asked: str, stored: str) -> str:
    one, other = asked.split(), stored.split()
    for kind, a, b, c, d in difflib.SequenceMatcher(a=one, b=other, autojunk=False).get_opcodes():
        if kind != "equal":
            before = " ".join(one[max(a - 3, 0) : a])
            return f"after {_short(before)}: asked {_short(' '.join(one[a:b]))}, stored {_short(' '.join(other[c:d]))}"
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
