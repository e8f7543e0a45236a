"""A way to a server that fails as networks and servers do: slow, cut in mid-reply, dripping, silent, with garbage, or
with replies to something else; and a Redis that is broken in one way or another, with a store that uses it."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from dspy_cachectl.stores.redis.store import RedisStore
from tests.stores.servers import Server, program

Fault = Literal["none", "silent", "slow", "cut", "drip", "garbage", "other", "refused"]

_SLOW = 0.05
"""By how many seconds a reply is late, and a dripping byte."""


class Faulty:
    """A proxy on loopback, in threads of this process.

    Attributes:
        fault: What is wrong at the moment, with what is under way too.

    Args:
        port: The server's port on loopback.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self.fault: Fault = "none"
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._ways: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Its own port."""
        return int(self._listener.getsockname()[1])

    def begin(self, fault: Fault) -> None:
        """Let something be wrong from now on."""
        self.fault = fault
        if fault == "refused":
            self._cut_all()

    def close(self) -> None:
        """Let nobody in any more."""
        self.fault = "refused"
        self._listener.close()
        self._cut_all()

    def _cut_all(self) -> None:
        for way in self._ways:
            with contextlib.suppress(OSError):
                way.shutdown(socket.SHUT_RDWR)
        self._ways.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.fault == "refused":
                    raise ConnectionError
                server = socket.create_connection(("127.0.0.1", self._server))
            except OSError:
                client.close()
                continue
            self._ways += [client, server]
            for source, target, replies in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._carry, args=(source, target, replies), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                if not replies:
                    target.sendall(data)
                elif not self._reply(target, data):
                    return

    def _reply(self, target: socket.socket, data: bytes) -> bool:
        """Send a reply as it is at the moment. Tell whether there can be more."""
        if self.fault == "silent":
            while self.fault == "silent":
                time.sleep(0.01)
            return False
        if self.fault in {"cut", "garbage", "other"}:
            cut = data[: max(len(data) // 2, 1)]
            sent = {"cut": cut, "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n", "other": b"+OK\r\n"}
            target.sendall(sent[self.fault])
            return self.fault == "other"
        if self.fault == "drip":
            for at in range(len(data)):
                target.sendall(data[at : at + 1])
                time.sleep(_SLOW if self.fault == "drip" else 0)
            return True
        if self.fault == "slow":
            time.sleep(_SLOW)
        target.sendall(data)
        return True


class Broken:
    """A server, the way to it, and a store that uses it with some options in its address."""

    def __init__(self, folder: Path, **options: float) -> None:
        program("redis")
        self.server = Server(folder)
        self.way = Faulty(self.server.port)
        self.store = RedisStore(f"redis://127.0.0.1:{self.way.port}?{urlencode(options)}")

    def close(self) -> None:
        self.store.close()
        self.way.close()
        self.server.kill()


def killed(broken: Broken) -> Callable[[], None]:
    broken.server.kill()
    return broken.server.start


def stopped(broken: Broken) -> Callable[[], None]:
    broken.server.signal(signal.SIGSTOP)
    return lambda: broken.server.signal(signal.SIGCONT)


def full(broken: Broken) -> Callable[[], None]:
    broken.server.say("CONFIG", "SET", "maxmemory", 1)
    return lambda: _ok(broken.server.say("CONFIG", "SET", "maxmemory", 0))


def read_only(broken: Broken) -> Callable[[], None]:
    broken.server.say("REPLICAOF", "127.0.0.1", 1)
    return lambda: _ok(broken.server.say("REPLICAOF", "NO", "ONE"))


def on_the_way(fault: str) -> Callable[[Broken], Callable[[], None]]:
    def begin(broken: Broken) -> Callable[[], None]:
        broken.way.begin(fault)  # type: ignore[arg-type]
        return lambda: broken.way.begin("none")

    return begin


def _ok(reply: bytes) -> None:
    assert reply.startswith(b"+OK")


FAULTS = {"killed": killed, "stopped": stopped, "full": full, "read-only": read_only} | {
    fault: on_the_way(fault) for fault in ("silent", "slow", "cut", "drip", "garbage", "other", "refused")
}
"""What begins each fault, and returns what ends it."""
