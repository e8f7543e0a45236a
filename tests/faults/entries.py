"""Changing what is in a store's folder behind its back, with SQLite alone."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from dspy_cachectl.stores.reader import kept


@contextlib.contextmanager
def table(folder: Path) -> Iterator[sqlite3.Connection]:
    """The store's database, and what is changed in it committed."""
    with contextlib.closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        yield connection


def stored(folder: Path, key: str) -> bytes:
    """The bytes that are kept under a key."""
    with table(folder) as connection:
        ((value,),) = connection.execute("SELECT value FROM Cache WHERE key = ?", (kept(key),)).fetchall()
    return bytes(value)


def change(folder: Path, key: str, how: Callable[[bytes], bytes]) -> None:
    """Put something else in the place of an entry's bytes."""
    value = how(stored(folder, key))
    with table(folder) as connection:
        connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (value, kept(key)))


def cut(value: bytes) -> bytes:
    """All but the last bytes."""
    return value[:-7]


def flip(value: bytes) -> bytes:
    """One bit changed, in the middle."""
    at = len(value) // 2
    return value[:at] + bytes([value[at] ^ 4]) + value[at + 1 :]


def of_version(version: int) -> Callable[[bytes], bytes]:
    """The same entry, as a version of the package would have written it whose format has this number."""

    def rewrite(value: bytes) -> bytes:
        rest = bytes([version]) + value[9:]
        return value[:4] + struct.pack(">I", zlib.crc32(rest)) + rest

    return rewrite
