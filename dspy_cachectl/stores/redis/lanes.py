"""Connections on which a caller asks for a value by itself: the way to a worker's thread and back takes most of a hit.

It waits no longer than it may all the same. A reply may come in pieces, and all of them have to be there in time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from dspy_cachectl.stores.redis.commands import Command
from dspy_cachectl.stores.redis.workers import Times, TooLateError

_MOST = 4
"""How many there are at most: a server has so many connections for all."""
_PIECE = 256 * 1024
_LONGEST_HEAD, _LARGEST = 32, 512 * 1024 * 1024
"""Bytes before a value, and of one: what claims more is no reply of a server's."""
_AT_ONCE, _UTMOST = 0.0005, 1.0
"""When the time is over, what is there already is taken: for so many seconds a piece, and at most."""


class Lanes:
    """Open connections, each of one caller at a time. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._idle: list[tuple[Any, Any]] = []

    def keep(self, pool: Any) -> None:
        """Keep one of a pool's connections, where there is room. In a worker's thread: it may have to connect."""
        with self._lock:
            if self._count >= _MOST:
                return
            self._count += 1
        try:
            self._idle.append((pool, pool.get_connection()))
        except Exception:  # noqa: BLE001 - whatever it is, who asks next is told
            self._count_down()

    def ask(self, command: Command, seconds: float, times: Times) -> tuple[bytes | None] | None:
        """Return the reply to a command that asks for a value.

        Args:
            command: The command.
            seconds: How long it may take.
            times: Told when it was begun and ended.

        Returns:
            The reply in a tuple; None where nobody was asked, or what came is no such reply: then others are to ask.

        Raises:
            TooLateError: If there is no whole reply within the time.
        """
        if command[0] != "GET" or not self._idle:
            return None
        times.begun = time.monotonic()
        found = self._get(command[1], seconds)
        if found is None:
            times.begun = 0.0
        else:
            times.ended = time.monotonic()
        return found

    def _get(self, name: bytes, seconds: float) -> tuple[bytes | None] | None:
        try:
            pool, connection = self._idle.pop()
        except IndexError:
            return None
        found = None
        try:
            socket = connection._sock  # noqa: SLF001 - nothing of the client's ends what comes in pieces
            found = None if socket is None else (_asked(socket, name, seconds),)
        except TimeoutError:
            raise TooLateError(begun=True) from None
        except (OSError, ValueError):
            pass  # the server has let go of it, or says something else
        finally:
            if found is not None:
                self._idle.append((pool, connection))
            else:
                self._drop(pool, connection)
        return found

    def _drop(self, pool: Any, connection: Any) -> None:
        """Give a connection back, closed: there may be a reply on it that nobody has read."""
        self._count_down()
        with contextlib.suppress(Exception):
            connection.disconnect()
            pool.release(connection)

    def _count_down(self) -> None:
        with self._lock:
            self._count -= 1


def _asked(socket: Any, name: bytes, seconds: float) -> bytes | None:
    until = time.monotonic() + seconds
    socket.settimeout(seconds)
    socket.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name))
    data = _more(socket, until, _PIECE)
    while b"\r\n" not in data and len(data) < _LONGEST_HEAD:
        data += _more(socket, until, _PIECE)
    head, end, rest = data.partition(b"\r\n")
    if head == b"$-1" and not rest:
        return None
    size = int(head[1:]) if end and head[:1] == b"$" else -1
    if not 0 <= size <= _LARGEST:
        raise ValueError
    pieces, missing = [rest], size + len(end) - len(rest)
    while missing > 0:
        pieces.append(_more(socket, until, min(missing, _PIECE)))
        missing -= len(pieces[-1])
    value = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if missing or not value.endswith(end):
        raise ValueError
    return value[:size]


def _more(socket: Any, until: float, most: int) -> bytes:
    left = until - time.monotonic()
    if left < -_UTMOST:
        raise TimeoutError
    socket.settimeout(max(left, _AT_ONCE))
    piece: bytes = socket.recv(most)
    if not piece:
        raise ConnectionError
    return piece
