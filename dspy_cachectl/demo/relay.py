"""A relay on this machine, between the program and the model's server, that counts what passes.

Its numbers come from outside this package's own stats, and are what the demo shows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from dspy_cachectl.demo.environment import LOOPBACK

ANSWER_SECONDS = 300.0

_HANDED_ON = ("Authorization", "Content-Type")
_HANDED_BACK = ("Content-Type", "Retry-After")


class Relay:
    """Hands requests on to an OpenAI-compatible server and counts them; a context manager.

    Args:
        upstream: The server's base address, usually ending in `/v1`.
        waits: Whether the end of the block waits for the answers to what was handed on, so that all is counted.

    Attributes:
        upstream: The server's base address.
        on_request: Called with the number of requests, after each.
        failure: How the server failed last; None if it never did.
        requests: Requests that were handed on to the server so far.
        tokens: Tokens that the server says it read and wrote for them.
    """

    def __init__(
        self, upstream: str, *, on_request: Callable[[int], object] = lambda _: None, waits: bool = False
    ) -> None:
        self.upstream = upstream.rstrip("/")
        self.on_request = on_request
        self.failure: str | None = None
        self.requests = self.tokens = 0
        self._counting = threading.Lock()
        self._client = httpx.Client(timeout=ANSWER_SECONDS)
        self._server = ThreadingHTTPServer((LOOPBACK, 0), type("Handler", (_Handler,), {"relay": self}))
        self._server.daemon_threads = not waits
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def url(self) -> str:
        """What to give an LM as `api_base`."""
        return f"http://{LOOPBACK}:{self._server.server_port}"

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()

    def hand_on(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Hand one request on, and count it; return the answer, whatever its status."""
        with self._counting:
            self.requests += 1
            requests = self.requests
        self.on_request(requests)
        try:
            answer = self._client.post(self.upstream + path, content=body, headers=headers)
        except httpx.HTTPError as error:
            message = {"error": {"message": f"the server behind the relay failed: {error}"}}
            answer = httpx.Response(HTTPStatus.BAD_GATEWAY, json=message)
        if answer.status_code == HTTPStatus.OK:
            with self._counting:
                self.tokens += _tokens(answer.content)
        else:
            self.failure = f"status {answer.status_code}: {answer.text[:200]!r}"
        return answer


class _Handler(BaseHTTPRequestHandler):
    """One request to the relay, on a connection of its own. Strictly private."""

    relay: Relay

    def handle(self) -> None:
        # Who asked may have been killed; the answer was bought and counted all the same.
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = {name: self.headers[name] for name in _HANDED_ON if name in self.headers}
        answer = self.relay.hand_on(self.path, body, sent)
        self.send_response(answer.status_code)
        for name in _HANDED_BACK:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: what passes is counted."""


def _tokens(body: bytes) -> int:
    """Return the tokens that an answer says it used."""
    with suppress(ValueError, AttributeError):  # no answer of such a server, which is the asking program's to say
        usage = json.loads(body).get("usage") or {}
        return int(usage.get("prompt_tokens") or 0) + int(usage.get("completion_tokens") or 0)
    return 0
