"""What a request asks, whichever of the APIs it came by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(slots=True)
class Question:
    """One request, made alike for chat, completions, responses and embeddings.

    Attributes:
        api: `chat`, `text`, `responses` or `embeddings`.
        turns: (role, text) of every message, in order.
        prompt: The text of the last user message; what counts are kept by.
        system: The text of all system and developer messages.
        schema: The JSON schema that the answer must follow, or None.
        json_mode: Whether the answer must be a JSON object.
        answered_by: The model that says that it answers; None for the one that is named.
        fingerprint: What the state of the servers is called in the answer; None where it is not.
    """

    api: str
    body: dict[str, Any]
    turns: list[tuple[str, str]]
    prompt: str
    system: str
    temperature: float | None = None
    n: int = 1
    stream: bool = False
    schema: dict[str, Any] | None = None
    json_mode: bool = False
    answered_by: str | None = None
    fingerprint: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: Any = None

    @property
    def model(self) -> str:
        """The model named in the request."""
        return str(self.body.get("model", ""))

    @property
    def last_role(self) -> str:
        """The role of the last message."""
        return self.turns[-1][0] if self.turns else "user"

    @property
    def searched(self) -> str:
        """The text in which `match` of a fault and keys of `answers` are looked for."""
        return f"{self.system}\n{self.prompt}"

    def key(self) -> bytes:
        """The same for two requests that ask the same of the same model at the same temperature."""
        parts = [self.model, self.temperature, self.turns]
        return hashlib.blake2b(orjson.dumps(parts), digest_size=16).digest()

    def words(self) -> int:
        """Words of all messages: the prompt tokens of this endpoint."""
        return max(1, sum(len(text.split()) for _, text in self.turns))


def read(api: str, body: dict[str, Any]) -> Question:
    """The question that `body` asks through `api`."""
    if api == "chat":
        return _chat(body)
    if api == "responses":
        return _responses(body)
    source = body.get("prompt" if api == "text" else "input", "")
    texts = [str(item) for item in source] if isinstance(source, list) else [str(source)]
    prompt = "\n".join(texts)
    return Question(
        api,
        body,
        [("user", prompt)],
        prompt,
        "",
        temperature=body.get("temperature"),
        n=body.get("n") or 1,
        stream=bool(body.get("stream")),
    )


def _chat(body: dict[str, Any]) -> Question:
    turns = [(str(item.get("role")), _text(item.get("content"))) for item in body.get("messages", [])]
    wanted = body.get("response_format") or {}
    tools = [tool["function"] for tool in body.get("tools") or [] if "function" in tool]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = choice.get("function", choice)
    return Question(
        "chat",
        body,
        turns,
        _last_user(turns),
        _system(turns),
        temperature=body.get("temperature"),
        n=body.get("n") or 1,
        stream=bool(body.get("stream")),
        schema=(wanted.get("json_schema") or {}).get("schema"),
        json_mode=wanted.get("type") == "json_object",
        tools=tools,
        tool_choice=choice,
    )


def _responses(body: dict[str, Any]) -> Question:
    turns = [("system", str(body["instructions"]))] if body.get("instructions") else []
    source = body.get("input", "")
    for item in [{"role": "user", "content": source}] if isinstance(source, str) else source:
        if item.get("type") == "function_call_output":
            turns.append(("tool", _text(item.get("output"))))
        elif item.get("type") == "function_call":
            turns.append(("assistant", str(item.get("arguments"))))
        else:
            turns.append((str(item.get("role", "user")), _text(item.get("content"))))
    wanted = (body.get("text") or {}).get("format") or {}
    return Question(
        "responses",
        body,
        turns,
        _last_user(turns),
        _system(turns),
        temperature=body.get("temperature"),
        stream=bool(body.get("stream")),
        schema=wanted.get("schema"),
        json_mode=wanted.get("type") == "json_object",
        tools=[tool for tool in body.get("tools") or [] if tool.get("type") == "function"],
        tool_choice=body.get("tool_choice"),
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def _last_user(turns: list[tuple[str, str]]) -> str:
    return next((text for role, text in reversed(turns) if role == "user"), "")


def _system(turns: list[tuple[str, str]]) -> str:
    return "\n".join(text for role, text in turns if role in ("system", "developer"))
