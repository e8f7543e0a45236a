"""HTTP/1.1 on an asyncio transport: bytes in, replies out, nothing about language models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, cast

_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """One HTTP request; header names are lower case, the query string is cut off the path."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Reply:
    """What to send, and how badly.

    Attributes:
        chunks: The body; more than one piece, or `stream`, goes out in chunked encoding.
        delay: Seconds before the first byte.
        ready: Nothing is sent before this future is done.
        end: After the last piece: `keep` the connection, `close` it, or leave the body unfinished (`hang`).
        silent: Send nothing at all, only `end`.
        done: Called once, when the reply is over or the client has gone.
    """

    chunks: list[bytes] = field(default_factory=list)
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: bool = False
    delay: float = 0.0
    ready: asyncio.Future[None] | None = None
    end: Literal["keep", "close", "hang"] = "keep"
    silent: bool = False
    done: Callable[[], None] | None = None

    def head(self) -> bytes:
        """The status line and headers, up to and with the empty line."""
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}",
            f"content-type: {self.content_type}",
        ]
        if self.stream:
            lines.append("transfer-encoding: chunked")
        else:
            lines.append(f"content-length: {sum(map(len, self.chunks))}")
        if self.end == "close":
            lines.append("connection: close")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class HttpProtocol(asyncio.Protocol):
    """Reads requests off one connection and answers them one after the other."""

    def __init__(self, handle: Callable[[Request], Reply], loop: asyncio.AbstractEventLoop) -> None:
        self._handle = handle
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._reply: Reply | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, so there is nothing to check here.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read_next()

    def _read_next(self) -> None:
        while self._reply is None and self._transport is not None:
            request = self._take_request()
            if request is None:
                return
            self._start(self._handle(request))

    def _take_request(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body, size = self._take_chunked(end + 4)
        else:
            size = end + 4 + int(headers.get("content-length", 0))
            body = bytes(self._buffer[end + 4 : size]) if len(self._buffer) >= size else None
        if body is None:
            if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) == end + 4:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        del self._buffer[:size]
        path, _, query = target.partition("?")
        return Request(method, path, query, headers, body)

    def _take_chunked(self, start: int) -> tuple[bytes | None, int]:
        parts: list[bytes] = []
        at = start
        while True:
            line_end = self._buffer.find(b"\r\n", at)
            if line_end < 0:
                return None, 0
            size = int(bytes(self._buffer[at:line_end]).split(b";")[0], 16)
            at = line_end + 2 + size + 2
            if len(self._buffer) < at:
                return None, 0
            if size == 0:
                return b"".join(parts), at
            parts.append(bytes(self._buffer[line_end + 2 : line_end + 2 + size]))

    def _start(self, reply: Reply) -> None:
        self._reply = reply
        if reply.ready is not None:
            reply.ready.add_done_callback(lambda _: self._after_ready(reply))
        else:
            self._after_ready(reply)

    def _after_ready(self, reply: Reply) -> None:
        if reply.delay > 0:
            self._loop.call_later(reply.delay, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        if self._transport is None or self._reply is not reply:
            return
        if reply.silent:
            self._end(reply)
            return
        pieces = map(_framed, reply.chunks) if reply.stream else reply.chunks
        self._write(reply.head() + b"".join(pieces))
        self._end(reply)

    def _end(self, reply: Reply) -> None:
        if reply.end == "hang":
            return
        if reply.stream:
            self._write(b"0\r\n\r\n")
        self._finish()
        if reply.end == "close":
            assert self._transport is not None
            self._transport.close()
            return
        if self._buffer:
            self._loop.call_soon(self._read_next)

    def _finish(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None and reply.done is not None:
            reply.done()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)
