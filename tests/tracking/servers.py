"""Tracking servers that fail, each in its own way, and a proxy that stops at a chosen request."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from dspy_cachectl.tracking import delivery
from dspy_cachectl.tracking.deadline import DeadlineError, TimeLimiter
from tests.limits import PATIENCE


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with _listener() as listener:
        kept: list[socket.socket] = []
        threading.Thread(target=_accept, args=(listener, kept.append), daemon=True).start()
        yield _url(listener)
        _close(kept)


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """Does not even accept: its queue of connections is full, and further ones get no answer at all."""
    with _listener(backlog=0) as listener:
        fill = [socket.socket() for _ in range(4)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield _url(listener)
        _close(fill)


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """A port where nobody listens, kept so that nobody else takes it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield _url(bound)


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """Answers at once, and then sends a byte a second."""

    def drip(connection: socket.socket) -> None:
        def send() -> None:
            with connection:
                connection.recv(65536)
                _drip(connection)

        threading.Thread(target=send, daemon=True).start()

    with _listener() as listener:
        threading.Thread(target=_accept, args=(listener, drip), daemon=True).start()
        yield _url(listener)


@contextlib.contextmanager
def answering(status: int, **headers: str) -> Iterator[str]:
    """Answers everything with one status."""

    class Handler(_Quiet):
        def answer(self) -> None:
            self.reply(status, b'{"error_code": "INTERNAL_ERROR", "message": "no"}', headers)

    with _serve(Handler) as server:
        yield _url(server.socket)


@contextlib.contextmanager
def endless(*, packed: bool) -> Iterator[str]:
    """Answers with JSON that does not end: packed, so that a megabyte becomes a thousand; or as it is."""

    class Handler(_Quiet):
        def answer(self) -> None:
            self.close_connection = True
            self.send_response(200)
            if packed:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            packer = zlib.compressobj(wbits=31)
            with contextlib.suppress(OSError):  # whoever asked has had enough
                while True:
                    piece = b" " * 2**20
                    self.wfile.write(packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else piece)

    with _serve(Handler) as server:
        yield _url(server.socket)


@contextlib.contextmanager
def no_good() -> Iterator[dict[str, str]]:
    """Servers that are no good, each in its own way, by what they do; Databricks is at the address that hangs."""
    with contextlib.ExitStack() as stack:
        yield {
            "hang": stack.enter_context(hanging()),
            "black hole": stack.enter_context(black_hole()),
            "refused": stack.enter_context(refusing()),
            "500": stack.enter_context(answering(500)),
            "429": stack.enter_context(answering(429, Retry_After="20")),
            "drip": stack.enter_context(dripping()),
            "databricks": "databricks",
        }


class Proxy:
    """Passes requests on to a real server, and can hold, repeat or refuse chosen ones.

    Attributes:
        url: Where it listens.
        seen: The calls that came in, in their order (`runs/create`, ..., and `upload` for a file).
        holds: A call that is passed on, and whose answer is withheld until `let_go()`. `upload:2` is the second of
            that name; so it is for the others.
        delays: A call that is not passed on until `let_go()`, as when a client's late retry gets through.
        cuts: A call of which half is passed on, before the connection to the server breaks.
        drips: A call that is answered a byte a second.
        dies: A call after whose answer nobody listens any more.
        calls: What to do before a call is passed on.
        repeats: Calls that are passed on twice, as when a client gave up on the first and tried again.
        answers: What the proxy answers by itself, as a login proxy does: status and content, by a part of the call.
        unknown: The beginning of calls that are answered as by a server that is too old to know them.
        stopped: Set when something has been done to a call.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.seen: list[str] = []
        self.holds: str | None = None
        self.delays: str | None = None
        self.cuts: str | None = None
        self.drips: str | None = None
        self.dies: str | None = None
        self.calls: dict[str, Callable[[], None]] = {}
        self.repeats: set[str] = set()
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.unknown: str | None = None
        self.stopped = threading.Event()
        self._let_go = threading.Event()
        self._dead = False

    @classmethod
    @contextlib.contextmanager
    def to(cls, upstream: str) -> Iterator[Proxy]:
        """Run one."""
        proxy = cls(upstream)

        class Handler(_Quiet):
            def answer(self) -> None:
                proxy._pass_on(self)

        with _serve(Handler) as server:
            proxy.url = _url(server.socket)
            try:
                yield proxy
            finally:
                proxy._let_go.set()

    def let_go(self) -> None:
        """Send the answers that were withheld."""
        self._let_go.set()

    def _pass_on(self, handler: _Quiet) -> None:
        if self._dead:
            handler.close_connection = True
            return
        call = _call_of(handler)
        self.seen.append(call)
        names = {call, f"{call}:{self.seen.count(call)}"}
        body = handler.body()
        if self.unknown is not None and call.startswith(self.unknown):
            handler.reply(404, b"<!doctype html><title>404 Not Found</title>", {"Content-Type": "text/html"})
            return
        for status, data in (answer for part, answer in self.answers.items() if any(part in name for name in names)):
            handler.reply(status, data, {"Content-Type": "text/html" if data.startswith(b"<") else "application/json"})
            return
        for name in names & self.calls.keys():
            self.calls[name]()
            self.stopped.set()
        if self.delays in names:
            self._wait()
        if self.cuts in names:
            self._cut(handler, body)
            self._wait()
            handler.close_connection = True
            return
        status, data = self._ask(handler, body)
        if call in self.repeats:
            status, data = self._ask(handler, body)
        self._answer(handler, names, status, data)

    def _answer(self, handler: _Quiet, names: set[str], status: int, data: bytes) -> None:
        if self.holds in names:
            self._wait()
        if self.drips in names:
            self.stopped.set()
            _drip(handler.connection)
        handler.reply(status, data, {"Content-Type": "application/json"})
        if self.dies in names:
            self._dead = handler.close_connection = True
            handler.server.shutdown()
            handler.server.server_close()
            self.stopped.set()

    def _wait(self) -> None:
        self.stopped.set()
        self._let_go.wait()

    def _cut(self, handler: _Quiet, body: bytes) -> None:
        host, port = urlsplit(self.upstream).netloc.split(":")
        head = f"{handler.command} {handler.path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(head.encode() + body[: len(body) // 2])

    def _ask(self, handler: _Quiet, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(handler.command, handler.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()


def _call_of(handler: _Quiet) -> str:
    """Return which of the REST calls a request is; every upload is "upload", every listing of files "listing"."""
    call = handler.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
    if not call.startswith("/api/2.0/mlflow-artifacts/"):
        return call
    return "listing" if handler.command == "GET" else "upload"


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def _serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def _listener(backlog: int = 64) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield listener


def _drip(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(1)


def _accept(listener: socket.socket, take: object) -> None:
    with contextlib.suppress(OSError):
        while True:
            take(listener.accept()[0])  # type: ignore[operator]


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _url(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


@contextlib.contextmanager
def ends_the_limit(proxy: Proxy) -> Iterator[list[Future[Any]]]:
    """Let limits end when a proxy has stopped a request, and not before; what goes on all the same."""
    late: list[Future[Any]] = []

    class Limiter(TimeLimiter):
        def run(self, function: Callable[[], Any], *, limit: float, target: str, patience: float | None = None) -> Any:
            late.append(self.start(function, target))
            assert proxy.stopped.wait(PATIENCE), proxy.seen
            raise DeadlineError(f"{target} did not answer")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delivery, "limiter", Limiter())
        yield late
