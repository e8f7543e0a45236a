"""Engines and LMs that somebody else might write, all asking the endpoint."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage


def completion(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """One chat completion by hand."""
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


class OwnEngine:
    """A custom engine of DSPy's protocol, sync."""

    def __init__(self, url: str) -> None:
        self.url = url

    def complete(self, request: Request) -> Response:
        turns = [{"role": "system", "content": str(request.system)}] if request.system else []
        turns += [{"role": message.role, "content": message.text} for message in request.messages]
        body = {"model": "test-model", "messages": turns, "temperature": request.config.temperature}
        answer = completion(self.url, body)
        return Response(
            id=answer["id"],
            model="test-model",
            message=Message.assistant([TextPart(answer["choices"][0]["message"]["content"])]),
            finish_reason="stop",
            usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7),
        )

    def stream(self, request: Request) -> Any:
        return dspy.lm15.response_to_events(self.complete(request))

    def close(self) -> None:
        pass


class OwnAsyncEngine:
    """Its async counterpart."""

    def __init__(self, url: str) -> None:
        self.engine = OwnEngine(url)

    async def complete(self, request: Request) -> Response:
        return self.engine.complete(request)

    async def stream(self, request: Request) -> Any:
        for event in self.engine.stream(request):
            yield event

    async def aclose(self) -> None:
        pass


class LegacyLM(dspy.BaseLM):
    """An LM of the old kind, with a `forward` of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__("legacy/test-model", **options)
        self.url = url

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        turns = messages or [{"role": "user", "content": prompt}]
        body = completion(self.url, {"model": "test-model", "messages": turns})
        return dspy.clients.call_result.attributes({**body, "usage": dict(body["usage"])})

    async def aforward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return self.forward(prompt, messages, **kwargs)


class ForwardingLM(dspy.LM):
    """A `dspy.LM` whose `forward` somebody replaced."""

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        turns = messages or [{"role": "user", "content": prompt}]
        body = completion(self.kwargs["api_base"], {"model": "test-model", "messages": turns})
        return dspy.clients.call_result.attributes({**body, "usage": dict(body["usage"])})
