"""A relay on this machine, between the program and the model's server, that counts what passes.

Its numbers come from outside this package's own stats, and are what the demo shows.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dspy_cachectl.demo.environment import LOOPBACK
from dspy_cachectl.errors import ConfigurationError

PREFIX = "/v1"
ANSWER_SECONDS = 300.0

_HANDED_ON = ("Authorization", "Content-Type")
_HANDED_BACK = ("Content-Type", "Retry-After")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed so far.

    Attributes:
        requests: Requests that were handed on to the server.
        tokens: Tokens that the server says it read and wrote for them.
    """

    requests: int = 0
    tokens: int = 0

    def __add__(self, more: Traffic) -> Traffic:
        return Traffic(self.requests + more.requests, self.tokens + more.tokens)

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.requests - earlier.requests, self.tokens - earlier.tokens)


class Relay:
    """Hands requests on to an OpenAI-compatible server and counts them; a context manager.

    Args:
        upstream: The server's base address, usually ending in `/v1`.
        on_request: Called with the number of requests, after each.
        waits: Whether the end of the block waits for the answers to what was handed on, so that all is counted.

    Raises:
        ConfigurationError: The address is none.

    Attributes:
        upstream: The server's base address.
        failure: How the server failed last; None if it never did.
    """

    def __init__(self, upstream: str, *, on_request: Callable[[int], None] | None = None, waits: bool = False) -> None:
        if not upstream.startswith(("http://", "https://")):
            raise ConfigurationError(f"the endpoint is an address such as 'http://127.0.0.1:8000/v1', not {upstream!r}")
        self.upstream = upstream.rstrip("/")
        self.failure: str | None = None
        self._on_request = on_request
        self._passed = threading.Condition()
        self._traffic = Traffic()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), type("Handler", (_Handler,), {"relay": self}))
        self._server.daemon_threads = not waits
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def url(self) -> str:
        """What to give an LM as `api_base`."""
        return f"http://{LOOPBACK}:{self._server.server_port}{PREFIX}"

    @property
    def traffic(self) -> Traffic:
        """What passed so far."""
        with self._passed:
            return self._traffic

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def check(self, model: str, api_key: str | None) -> None:
        """Ask the server one question, which is not counted.

        Raises:
            ConfigurationError: It does not answer as an OpenAI-compatible server does.
        """
        question = {"model": model, "messages": [{"role": "user", "content": "Say yes."}]}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {api_key}"}
        try:
            status, _, body = self._ask("/chat/completions", json.dumps(question).encode(), headers)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ConfigurationError(
                f"no answer from {self.upstream!r} ({error}); check the address, and that it runs"
            ) from error
        if status != HTTPStatus.OK or _tokens(body) is None:
            raise ConfigurationError(
                f"{self.upstream!r} answered a first question to model {model!r} with status {status}: "
                f"{_shortened(body)!r}. Check the address, the model's name and the key"
            )

    def wait_for(self, requests: int, *, alive: Callable[[], bool]) -> bool:
        """Wait until so many requests have passed; False if their sender dies before."""
        with self._passed:
            while self._traffic.requests < requests and alive():
                self._passed.wait(0.2)
            return self._traffic.requests >= requests

    def hand_on(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """Hand one request on, and count it; return the answer's status, headers and body."""
        requests = self._count(Traffic(requests=1))
        if self._on_request is not None:
            self._on_request(requests)
        try:
            status, kept, answer = self._ask(path.removeprefix(PREFIX), body, headers)
        except (OSError, http.client.HTTPException) as error:
            message = {"error": {"message": f"the server behind the relay failed: {error}"}}
            status, kept, answer = HTTPStatus.BAD_GATEWAY, {}, json.dumps(message).encode()
        if status != HTTPStatus.OK:
            self.failure = f"status {status}: {_shortened(answer)!r}"
        self._count(Traffic(tokens=_tokens(answer) or 0))
        return status, kept, answer

    def _count(self, more: Traffic) -> int:
        with self._passed:
            self._traffic += more
            self._passed.notify_all()
            return self._traffic.requests

    def _ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        request = urllib.request.Request(self.upstream + path, body, dict(headers))  # noqa: S310 - http or https, checked
        try:
            response = urllib.request.urlopen(request, timeout=ANSWER_SECONDS)  # noqa: S310
        except urllib.error.HTTPError as error:
            # An answer with an error status is an answer: the program is to see it.
            response = error
        with response:
            kept = {name: value for name in _HANDED_BACK if (value := response.headers.get(name)) is not None}
            return response.status, kept, response.read()


class _Handler(BaseHTTPRequestHandler):
    """One request to the relay, on a connection of its own. Strictly private."""

    relay: Relay

    def handle(self) -> None:
        # Who asked may have been killed; the answer was bought and counted all the same.
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = {name: value for name in _HANDED_ON if (value := self.headers.get(name)) is not None}
        status, headers, answer = self.relay.hand_on(self.path, body, sent)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: what passes is counted."""


def _shortened(body: bytes) -> str:
    return body[:200].decode(errors="replace")


def _tokens(body: bytes) -> int | None:
    """Return the tokens that an answer says it used; None if it is no answer."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    if not isinstance(answer, dict) or not answer.get("choices"):
        return None
    usage = answer.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0) + int(usage.get("completion_tokens") or 0)
