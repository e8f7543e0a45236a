"""A relay on this machine, between the program and the model's server, that counts what passes.

Its numbers come from outside this package's own stats, and are what the demo shows.
"""

from __future__ import annotations

import hmac
import http.client
import json
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, urlsplit

from dspy_cachectl.errors import ConfigurationError

PREFIX = "/v1"
ANSWER_SECONDS = 300.0

# What belongs to one connection, or is set anew, is not passed on.
_NOT_FORWARDED = frozenset({"host", "connection", "authorization", "content-length", "accept-encoding", "user-agent"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_RETURNED = ("Content-Type", "Retry-After")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed so far.

    Attributes:
        requests: Requests that were handed on to the server.
        tokens: Tokens that the server says it read and wrote for them.
    """

    requests: int = 0
    tokens: int = 0

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.requests - earlier.requests, self.tokens - earlier.tokens)


class Relay:
    """Hands requests on to an OpenAI-compatible server and counts them; a context manager.

    Only callers with the relay's own `token` are served, so that a key for the server, which stays in here, is
    not lent to whoever else is on this machine.

    Args:
        upstream: The server's base address, usually ending in `/v1`.
        api_key: The key to show to the server, or None.
        on_request: Called with the number of requests, after each.

    Attributes:
        token: The key that its callers show.
        failure: How the server failed last; None if it never did.
    """

    def __init__(
        self, upstream: str, *, api_key: str | None = None, on_request: Callable[[int], None] | None = None
    ) -> None:
        self._upstream = _checked(upstream)
        # The environment's proxies are for servers elsewhere.
        local = self._upstream.hostname in _LOOPBACK
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        self._api_key = api_key
        self._on_request = on_request
        self._changed = threading.Condition()
        self._traffic = Traffic()
        self._let_through: int | None = None
        self._held = 0
        self.failure: str | None = None
        self.token = secrets.token_urlsafe(24)
        handler = type("Handler", (_Handler,), {"relay": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def url(self) -> str:
        """What to give an LM as `api_base`."""
        return f"http://127.0.0.1:{self._server.server_port}{PREFIX}"

    @property
    def traffic(self) -> Traffic:
        """What passed so far."""
        with self._changed:
            return self._traffic

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def check(self, model: str) -> None:
        """Ask the server one question, which is not counted.

        Raises:
            ConfigurationError: It does not answer as an OpenAI-compatible server does.
        """
        question = {"model": model, "messages": [{"role": "user", "content": "Say yes."}]}
        address = self._upstream.geturl()
        try:
            status, _, body = self.ask("/chat/completions", json.dumps(question).encode(), {})
        except (OSError, http.client.HTTPException) as error:
            raise ConfigurationError(
                f"no answer from {address!r} ({error}); check the address, and that it runs"
            ) from error
        if status != HTTPStatus.OK or _tokens(body) is None:
            raise ConfigurationError(
                f"{address!r} answered a first question to model {model!r} with status {status}: {_shortened(body)!r}. "
                "Check the address, the model's name and the key"
            )

    def hold_after(self, requests: int) -> None:
        """Let so many more requests through, and keep those that follow waiting."""
        with self._changed:
            self._let_through, self._held = requests, 0

    def wait_held(self, requests: int, *, alive: Callable[[], bool], seconds: float) -> bool:
        """Wait until so many requests are held; False if their sender dies before, or the time is up."""
        with self._changed:
            for _ in range(int(seconds / 0.2)):
                if self._held >= requests or not alive():
                    break
                self._changed.wait(0.2)
            return self._held >= requests

    def release(self) -> None:
        """Hold no more. What was held is dropped without an answer, and never reaches the server."""
        with self._changed:
            self._let_through = None
            self._changed.notify_all()

    def admit(self) -> bool:
        """Count one request, or hold it until `release`; tell whether it may go on."""
        with self._changed:
            if self._let_through == 0:
                self._held += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._let_through is None)
                return False
            if self._let_through is not None:
                self._let_through -= 1
            self._traffic = Traffic(self._traffic.requests + 1, self._traffic.tokens)
            requests = self._traffic.requests
        if self._on_request is not None:
            self._on_request(requests)
        return True

    def note_answer(self, status: int, body: bytes) -> None:
        """Count the tokens of an answer, or keep what it says of a failure."""
        tokens = _tokens(body) or 0
        if status != HTTPStatus.OK:
            self.failure = f"status {status}: {_shortened(body)!r}"
        with self._changed:
            self._traffic = Traffic(self._traffic.requests, self._traffic.tokens + tokens)

    def ask(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Hand one request on; return the answer's status, headers and body.

        Raises:
            OSError: The server cannot be reached.
            http.client.HTTPException: It does not speak HTTP.
        """
        sent = {"Content-Type": "application/json", **headers}
        if self._api_key is not None:
            sent["Authorization"] = f"Bearer {self._api_key}"
        address = self._upstream.geturl().rstrip("/") + path
        request = urllib.request.Request(address, body, sent, method="POST")  # noqa: S310 - http or https, checked
        try:
            response = self._opener.open(request, timeout=ANSWER_SECONDS)
        except urllib.error.HTTPError as error:
            # An answer with an error status is an answer: the program is to see it.
            response = error
        with response:
            kept = {name: value for name in _RETURNED if (value := response.headers.get(name)) is not None}
            return int(response.status), kept, response.read()


class _Handler(BaseHTTPRequestHandler):
    """One connection to the relay. Strictly private."""

    relay: Relay
    protocol_version = "HTTP/1.1"
    # Small answers in two packets would wait for the other side's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {self.relay.token}"):
            self._answer(HTTPStatus.FORBIDDEN, {}, b'{"error": {"message": "this relay serves its own demo only"}}')
            return
        if not self.relay.admit():
            self.close_connection = True
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_FORWARDED}
        try:
            status, kept, answer = self.relay.ask(self.path.removeprefix(PREFIX), body, headers)
        except (OSError, http.client.HTTPException) as error:
            message = json.dumps({"error": {"message": f"the server behind the relay failed: {error}"}})
            status, kept, answer = int(HTTPStatus.BAD_GATEWAY), {}, message.encode()
        self.relay.note_answer(status, answer)
        self._answer(status, kept, answer)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            # Who asked was killed; the answer was bought and counted all the same.
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: what passes is counted."""


def _checked(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(f"the endpoint is an address such as 'http://127.0.0.1:8000/v1', not {address!r}")
    return parts


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
