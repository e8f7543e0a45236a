"""Whose a file is: what this package may rename, count, write over and remove.

A file is ours by its name and by how it begins, and only where it is a file: of a link, a pipe or a folder nothing is
ever made or removed. Whoever is not sure leaves it alone.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sqlite3
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dspy_cachectl.boundary.forks import inside_sqlite
from dspy_cachectl.errors import ConfigurationError

STORE, OUTBOX, JOURNAL, UNSAVED, MISSED = "store", "outbox", "predictions", "unsaved recordings", "missed"
"""What our databases are for."""

SNAPSHOT_HEAD = b'{\n"metadata": {"kind":"dspy_cachectl.predictions",'
"""How each snapshot begins, once unpacked."""
PACKED_SNAPSHOT_HEAD = b"\x50\x2a\x4d\x18" + (25).to_bytes(4, "little") + b"dspy_cachectl.predictions"
"""How each compressed snapshot begins: with a frame that zstd passes over."""
CASSETTE_HEAD = b'{"cassette":'
"""How each cassette begins, once unpacked."""

SNAPSHOT, PACKED_SNAPSHOT, DAMAGED = ".json", ".json.zst", ".damaged"
"""How the names of snapshots end: plain ones, compressed ones, and of either what was set aside as damaged."""
UNFINISHED_SNAPSHOT = ".tmp"
UNFINISHED = ".new"
"""How the name of a file ends that is being written: of a snapshot, and of any other."""

SNAPSHOT_NAME = re.compile(r"(?P<stem>[a-z0-9-]{1,60}_[0-9a-f]{16})(-\d+)?\.json(\.zst)?(?P<damaged>\.damaged)?")
_UNFINISHED_SNAPSHOT_NAME = re.compile(r"[0-9a-f]{32}\.tmp")
_JOURNAL_NAME = re.compile(r"unfinished-\d+\.db")
_DATABASE_NAMES = frozenset({"cache.db", "missed.db", "outbox.db"})

_ZSTD = b"\x28\xb5\x2f\xfd"
_BEGINNING = 4096
"""So much of a file is looked at, at most; in bytes."""

_SQLITE, _SQLITE_HEAD = b"SQLite format 3\0", 100
_HEADS_BESIDE = {
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", bytes(8)),
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", bytes(4)),
}
"""How what SQLite keeps beside a database begins; with zeros where it was killed before it wrote that."""
_SHARED = "-shm"
"""What the connections to a database share. They lock it, so where there is a database it is not opened: see
`database_head`."""
_SHARED_HEADS = (b"\x18\xe2\x2d\x00", b"\x00\x2d\xe2\x18", bytes(4))


@dataclass(frozen=True)
class DatabaseHead:
    """What stands in the head of one of our databases.

    Attributes:
        kind: What it is for.
        version: The version of its schema.
    """

    kind: str
    version: int


def mark_of(kind: str) -> int:
    """Return the mark of our databases of a kind: SQLite's `application_id`, which is kept as a signed number."""
    return zlib.crc32(f"dspy_cachectl {kind}".encode()) >> 1


_KINDS = {mark_of(kind): kind for kind in (STORE, OUTBOX, JOURNAL, UNSAVED, MISSED)}


def what_is(mode: int) -> str:
    """Return in words what a file is by its mode; "" where it is a regular one."""
    kinds = {
        stat.S_IFREG: "",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a link that leads nowhere",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading, through links. What is no file is an error at once: a named pipe would be waited for.

    Raises:
        OSError: If it cannot be opened, or is no file.
    """
    _check_regular(Path(path).stat())  # first: whoever waits at a pipe for a reader must not be given one
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def beginning(path: Path) -> bytes | None:
    """Return how a file begins, through links; None where there is no file that can be read."""
    with contextlib.suppress(OSError), open_regular(path) as file:
        return file.read(_BEGINNING)
    return None


def is_plain_file(path: Path) -> bool:
    """Tell whether a file is there, and neither a link to one nor anything else: we make no links."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_there(path: Path) -> bool:
    """Tell whether a name is taken, if only by a link that leads nowhere."""
    return os.path.lexists(path)


def is_snapshot(path: Path, *, through_links: bool = False) -> bool:
    """Tell whether a file is one of our snapshots, be it set aside as damaged.

    Args:
        path: The file.
        through_links: Whether a link to one will do: it may be read and written, but the link is somebody's own.
    """
    if SNAPSHOT_NAME.fullmatch(path.name) is None:
        return False
    head = PACKED_SNAPSHOT_HEAD if PACKED_SNAPSHOT in path.name else SNAPSHOT_HEAD
    return (through_links or is_plain_file(path)) and (beginning(path) or b"").startswith(head)


def is_unfinished_snapshot(path: Path) -> bool:
    """Tell whether a file is a snapshot that a killed process has not written to its end."""
    if _UNFINISHED_SNAPSHOT_NAME.fullmatch(path.name) is None or not is_plain_file(path):
        return False
    head = beginning(path)
    return head is not None and any(_agree(head, ours) for ours in (SNAPSHOT_HEAD, PACKED_SNAPSHOT_HEAD))


def is_unfinished_cassette(path: Path, *, of: Path) -> bool:
    """Tell whether a file is what a killed process has left that wrote a cassette.

    Args:
        path: The file.
        of: The cassette.
    """
    name = rf"\.{re.escape(of.name)}\.[0-9a-f]{{8}}{re.escape(UNFINISHED)}"
    if re.fullmatch(name, path.name) is None or not is_plain_file(path):
        return False
    return _unpacked(beginning(path) or b"", len(CASSETTE_HEAD)) == CASSETTE_HEAD


def is_lock(path: Path) -> bool:
    """Tell whether a file may be a lock of ours, which holds nothing: who takes a lock empties its file."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


def is_journal_name(name: str) -> bool:
    """Tell whether a name is that of a library's journal, of whatever version."""
    return _JOURNAL_NAME.fullmatch(name) is not None


def database_head(path: Path) -> DatabaseHead | None:
    """Return what stands in the head of a database of ours, through links; None where it is none of ours.

    SQLite itself reads it. Whoever opens a file and closes it again gives up all locks that his process has on it, so
    that another process would write into what a thread of this one is writing.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with inside_sqlite, contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            found = connection.execute("SELECT * FROM pragma_application_id, pragma_user_version").fetchone()
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return None
    except sqlite3.Error:  # none, or one that was cut short: then nobody has a lock on it
        found = _numbers_of(beginning(path) or b"")
    kind = _KINDS.get(found[0])
    return None if kind is None else DatabaseHead(kind, found[1])


def is_ours(path: Path) -> bool:
    """Tell whether a file is a database of ours, a part of one, a snapshot, or one that is being written."""
    if not is_plain_file(path):
        return False
    name = _base(path)
    head = database_head(path.with_name(name))
    return head is not None or is_snapshot(path) or is_unfinished_snapshot(path)


def foreign_beside(database: Path) -> Path | None:
    """Return a file beside a database that SQLite would take for its own and remove, and that is not SQLite's."""
    home = Path(os.path.realpath(database))
    heads_beside = _HEADS_BESIDE if home.exists() else {**_HEADS_BESIDE, _SHARED: _SHARED_HEADS}
    beside = [(home.with_name(home.name + ending), heads) for ending, heads in heads_beside.items()]
    return next((path for path, heads in beside if _is_foreign(path, heads)), None)


_held: list[Path] = []


@contextlib.contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Say that a file is in use in this process, while the block lasts: it is no place for the output of anything."""
    held = Path(os.path.realpath(path))
    _held.append(held)
    try:
        yield
    finally:
        _held.remove(held)


def check_output(path: Path, *, what: str, is_recording: bool = False) -> None:
    """Look at where something is to be written that people named: it must not be what this package works with.

    Args:
        path: The file, which need not be there; links are followed.
        what: What is to be written, for the error.
        is_recording: Whether it is what a cassette records: several may record the same one.

    Raises:
        ConfigurationError: If it is a database or a snapshot of ours, or a cassette in use.
    """
    place = Path(os.path.realpath(path))
    ours = _what_of_ours(place) or ("" if is_recording else _cassette_in_use(place))
    if ours:
        raise ConfigurationError(f"{what} cannot be written to {path}: that is {ours}; name another file")


def _cassette_in_use(path: Path) -> str:
    if any(path == held or _is_same(path, held) for held in _held):
        return "a cassette in use"
    if any(map(database_head, path.parent.glob(f".{glob.escape(path.name)}.????????.unsaved"))):
        return "a cassette that is being recorded, or whose recording was cut"
    return ""


def _what_of_ours(path: Path) -> str:
    name = _base(path)
    if name in _DATABASE_NAMES or is_journal_name(name) or database_head(path):
        return "a database of dspy_cachectl, or the name of one"
    if path.name != name and database_head(path.with_name(name)):
        return "a part of a database of dspy_cachectl"
    head = beginning(path) or b""
    if head and any(head.startswith(one) for heads in _HEADS_BESIDE.values() for one in heads if any(one)):
        return "a part of a database"
    if head.startswith((SNAPSHOT_HEAD, PACKED_SNAPSHOT_HEAD)):
        return "a snapshot of predictions"
    return ""


def _base(path: Path) -> str:
    """Return the name of the database that a file lies beside by its name; its own for any other."""
    endings = (*_HEADS_BESIDE, _SHARED)
    return next((path.name.removesuffix(ending) for ending in endings if path.name.endswith(ending)), path.name)


def _is_same(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return False


def _check_regular(found: os.stat_result) -> None:
    if other := what_is(found.st_mode):
        raise OSError(f"it is {other}, and only files are read")


def _is_foreign(path: Path, heads: Sequence[bytes]) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return not stat.S_ISDIR(found.st_mode)  # which SQLite neither reads nor removes
    head = beginning(path)  # None where SQLite has removed it this moment
    return head is not None and not any(_agree(head, one) for one in heads)


def _numbers_of(head: bytes) -> tuple[int, int]:
    """Return a database's mark and version, given how its file begins; (0, 0) where it is none."""
    if len(head) < _SQLITE_HEAD or not head.startswith(_SQLITE):
        return 0, 0
    return int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big")


def _agree(head: bytes, ours: bytes) -> bool:
    """Tell whether a file begins as ours do, or was cut while it was beginning so."""
    return head[: len(ours)] == ours[: len(head)]


def _unpacked(head: bytes, size: int) -> bytes:
    if not head.startswith(_ZSTD):
        return head[:size]
    import zstandard

    with contextlib.suppress(zstandard.ZstdError):
        decompressor: Any = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
        unpacked: bytes = decompressor.decompress(head)
        return unpacked[:size]
    return b""
