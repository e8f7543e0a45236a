"""A caller asks a server by itself where it can: a whole reply to its own question, in time, or nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspy_cachectl.stores.base import Label
from dspy_cachectl.stores.redis.lanes import Lanes
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.redis.workers import Times, TooLateError, Workers
from tests.stores.faulty import Faulty
from tests.stores.servers import Server

ASK = b"*2\r\n$3\r\nGET\r\n$4\r\nname\r\n"


class Pool:
    """A pool with one connection, whose other end says what a test says."""

    def __init__(self) -> None:
        ours, self.server = socket.socketpair()
        self.connection = SimpleNamespace(_sock=ours, disconnect=ours.close)
        self.released = 0

    def get_connection(self) -> Any:
        return self.connection

    def release(self, connection: Any) -> None:
        assert connection is self.connection
        self.released += 1


def asked(pool: Pool, pieces: Sequence[bytes], seconds: float = 5.0) -> Any:
    """Ask by a lane, and let the server send some pieces, each when the one before was taken."""

    def serve() -> None:
        assert ASK == pool.server.recv(100)
        for piece in pieces:
            pool.server.sendall(piece)

    lanes = Lanes()
    lanes.keep(pool)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return lanes.ask(("GET", b"name"), seconds, Times())
    finally:
        thread.join()
        pool.server.close()


@pytest.mark.parametrize(
    ("pieces", "reply"),
    [
        ([b"$-1\r\n"], None),
        ([b"$0\r\n\r\n"], b""),
        ([b"$5\r\na\r\nbc\r\n"], b"a\r\nbc"),
        ([b"$", b"3", b"\r", b"\n", b"a", b"bc", b"\r", b"\n"], b"abc"),
        ([b"$1000000\r\n", b"x" * 600_000, b"x" * 400_000 + b"\r\n"], b"x" * 1_000_000),
    ],
    ids=["nothing", "empty", "whole", "in pieces", "large"],
)
def test_a_whole_reply(pieces: Sequence[bytes], reply: bytes | None) -> None:
    """It is what the server has, in however many pieces it comes; the connection is kept for the next."""
    pool = Pool()
    assert (reply,) == asked(pool, pieces)
    assert 0 == pool.released


@pytest.mark.parametrize(
    "said",
    [
        *(b"+OK\r\n", b"-LOADING soon\r\n", b":1\r\n", b"$x\r\n", b"$-2\r\n", b"$9999999999\r\n", b"$1\r\nabc\r\n"),
        *(b"$-1\r\n$-1\r\n", b"$1\r\nabc", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 100),
    ],
    ids=str,
)
def test_anything_else(said: bytes) -> None:
    """It is nobody's answer, and nothing more is asked on that connection."""
    pool = Pool()
    assert asked(pool, [said]) is None
    assert 1 == pool.released


@pytest.mark.parametrize("said", [b"", b"$", b"$5\r\nab"], ids=str)
def test_a_reply_that_does_not_end(said: bytes) -> None:
    """It is waited for no longer than it may take, and what comes of it later is nobody's answer."""
    pool = Pool()
    lanes = Lanes()
    lanes.keep(pool)
    pool.server.sendall(said)
    with pytest.raises(TooLateError):
        lanes.ask(("GET", b"name"), 0.05, Times())
    assert 1 == pool.released
    assert lanes.ask(("GET", b"name"), 0.05, Times()) is None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of one's own."""
    made = Server(tmp_path / "server")
    yield made
    made.kill()


def test_the_second_question_needs_no_other_thread(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first, a caller asks by itself, in as many threads as there are; writes go their way as before."""
    store = RedisStore(server.url)
    for key in "ab":
        store.put(key, key.encode() * 100, Label("lm", "m", "p"))
        store.get(key)
    began: list[int] = []
    run = Workers.run

    def noted(self: Workers, *args: Any) -> Any:
        began.append(threading.get_ident())
        return run(self, *args)

    monkeypatch.setattr(Workers, "run", noted)
    assert [b"a" * 100, b"b" * 100, None] == [store.get(key) for key in ("a", "b", "c")]
    assert [] == began
    store.put("c", b"c", Label("lm", "m", "p"))
    assert began
    assert b"c" == store.get("c")
    store.close()


def test_a_connection_that_was_cut_is_made_anew(server: Server) -> None:
    """A server that lets go of idle connections is asked by another, and nothing has failed."""
    way = Faulty(server.port)
    store = RedisStore(f"redis://127.0.0.1:{way.port}/0")
    store.put("a", b"a", Label("lm", "m", "p"))
    for _ in range(2):
        assert [b"a"] * 3 == [store.get("a") for _ in range(3)]
        way._cut_all()
    assert b"a" == store.get("a")
    store.close()
    way.close()
