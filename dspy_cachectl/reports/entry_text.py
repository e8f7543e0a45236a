"""What was asked and answered, as people read it. Pure, over what an entry keeps; nothing of a provider is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.entries.values import readable
from dspy_cachectl.reports.texts import cut, plural

_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")


@dataclass(frozen=True)
class Part:
    """A piece of a request or an answer.

    Attributes:
        title: Whose it is, or what: `user`, `text`, `tool call search`.
        text: What it says.
    """

    title: str
    text: str


def messages(description: Mapping[str, Any]) -> list[Part]:
    """Return the messages of a request by role; of a request without messages, its texts.

    Args:
        description: What an entry keeps of its request (`records.decode_request`).
    """
    request = _mapping(description.get("request"))
    found = request.get("messages", _mapping(request.get("request")).get("messages"))
    if isinstance(found, list):
        return [part for message in found for part in _message(_mapping(message))]
    for name in ("prompt", "batch_inputs", "input", "arguments", "request"):
        if request.get(name) is not None:
            return [Part(name, _text(request[name]))]
    return []


def options(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request asked for beside its messages: its options, and what else is in its key."""
    request = _mapping(description.get("request"))
    said = {"messages", "prompt", "batch_inputs", "input", "arguments", "_fn_identifier", "model"}
    found = {name: value for name, value in request.items() if name not in said}
    found |= {name: description.get(name) for name in ("version", "scope")}
    return {name: value for name, value in found.items() if value is not None}


def opening(description: Mapping[str, Any], *, length: int) -> str:
    """Return the beginning of what was asked, in one line: of the last message, since the first are often alike."""
    parts = messages(description)
    # DSPy writes the name of each field above it, between marks that take as much room as a short answer.
    return cut(_FIELD.sub(r"\1: ", parts[-1].text[: 8 * length]), length) if parts else ""


def answer(stored: Any) -> list[Part]:
    """Return the pieces of an answer.

    Args:
        stored: The answer in its stored form (`records.take_apart`).
    """
    value = readable(stored)
    if isinstance(value, Mapping) and isinstance(value.get("outputs"), list) and value["outputs"]:
        return [part for output in value["outputs"] for part in _output(output)]
    found = value.get("raw") if isinstance(value, Mapping) and value.get("raw") is not None else value
    parts = list(_response(found)) if isinstance(found, Mapping) else []
    return parts or [Part("value", _text(value))]


def _message(message: Mapping[str, Any]) -> Iterator[Part]:
    role = str(message.get("role", "?"))
    content = message.get("content", message.get("parts"))
    if content is not None:
        yield Part(role, _text(content))
    yield from map(_tool_call, _list(message.get("tool_calls")))


def _output(output: Any) -> Iterator[Part]:
    said = output if isinstance(output, Mapping) else {"text": output}
    if said.get("reasoning_content"):
        yield Part("reasoning", _text(said["reasoning_content"]))
    if said.get("text") is not None:
        yield _answered(said["text"])
    yield from map(_tool_call, _list(said.get("tool_calls")))
    if not {"text", "tool_calls"} & said.keys():
        yield Part("value", _text(said))


def _response(response: Mapping[str, Any]) -> Iterator[Part]:
    for choice in map(_mapping, _list(response.get("choices"))):
        # A completion without messages has its text in the choice itself.
        message = _mapping(choice.get("message"))
        text = message.get("content", choice.get("text"))
        yield from _output({**message, "text": text, "tool_calls": _list(message.get("tool_calls"))})
    for item in map(_mapping, _list(response.get("output"))):
        yield from _item(item)


def _item(item: Mapping[str, Any]) -> Iterator[Part]:
    if item.get("type") == "message":
        yield _answered(_text(item.get("content")))
    elif item.get("type") == "function_call":
        yield _tool_call(item)
    elif item:
        yield Part(str(item.get("type", "value")), _text(item.get("summary") or item))


def _tool_call(call: Any) -> Part:
    function = _mapping(_mapping(call).get("function")) or _mapping(call)
    arguments = function.get("arguments", function.get("input"))
    return Part(f"tool call {function.get('name', '?')}", _indented(arguments) or _text(arguments))


def _answered(text: Any) -> Part:
    structured = _indented(text)
    return Part("text", _text(text)) if structured is None else Part("structured", structured)


def _indented(text: Any) -> str | None:
    try:
        parsed = json.loads(text) if isinstance(text, str) else text
        return json.dumps(parsed, indent=2, ensure_ascii=False) if isinstance(parsed, (dict, list)) else None
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, (str, Mapping)) for item in value):
        return "\n".join(_piece(item) for item in value)
    return json.dumps(value, indent=None, ensure_ascii=False)


def _piece(item: Any) -> str:
    text = item if isinstance(item, str) else item.get("text")
    if isinstance(text, str):
        return text
    # A picture is a megabyte of letters.
    whole = json.dumps(item, ensure_ascii=False)
    return f"[{item.get('type', 'part')} of {plural(len(whole), 'character')}: {cut(whole, 120)}]"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
