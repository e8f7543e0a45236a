"""Reading a store's folder without writing to it: for the command line, and for folders that cannot be written.

It reads diskcache's table with SQLite alone, so it needs neither diskcache nor a writable disk, and it never
makes a folder that is not there.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.ownership import STORE, database_head
from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.stores.base import Label
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.marks import MOST_MARKS

DATABASE = "cache.db"
VERSION = 8
"""Raised with the version of the keys too: in a store of another version nothing would be found."""
PAGE = 1024
"""Bytes of a page: an entry has some kilobytes, and of larger pages much would stay empty."""
_SCHEMA = (
    "CREATE TABLE usage (label TEXT, counter TEXT, amount, PRIMARY KEY (label, counter)) WITHOUT ROWID",
    "CREATE TABLE Cache (rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, expire_time REAL,"
    " access_time REAL, access_count INTEGER DEFAULT 0, tag BLOB, size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0,"
    " filename TEXT, mark BLOB, value BLOB)",
    "CREATE INDEX Cache_mark ON Cache (mark)",
)
"""How the store was used; and diskcache's own table, with a column for what an entry is known again by."""
_PAGE = 1000
_DIGITS = 64
IS_KEY = (
    f"(typeof(key) = 'blob' AND length(key) = {_DIGITS // 2} OR typeof(key) = 'text'"
    f" AND (length(key) != {_DIGITS} OR key GLOB '*[^0-9a-f]*'))"
)
"""Whether a row has a key that `kept` has made, in SQL."""
_RAW = 1
"""diskcache's mode of a value that is bytes in the table. Its others hold text, pickles and the names of files."""


def kept(key: str) -> str | bytes:
    """Return a key as it stands in the table: the digits of a hash, as most are, take half as much as bytes."""
    if len(key) == _DIGITS:
        try:
            hashed = bytes.fromhex(key)
        except ValueError:
            return key
        return hashed if hashed.hex() == key else key
    return key


def key_of(stands: object) -> str | None:
    """Return the key that stands in the table; None where `kept` has not made it."""
    if isinstance(stands, bytes):
        return stands.hex() if len(stands) == _DIGITS // 2 else None
    return stands if isinstance(stands, str) and kept(stands) == stands else None


def hashes_beginning_with(prefix: str) -> tuple[bytes, bytes] | None:
    """Return the first and the last hash whose digits begin with a text, as they would stand; None where none do."""
    first, last = kept(prefix.ljust(_DIGITS, "0")), kept(prefix.ljust(_DIGITS, "f"))
    return (first, last) if isinstance(first, bytes) and isinstance(last, bytes) else None


_NAME = re.compile(r"([~=]?)([0-9a-f]{16})")
_HASH = re.compile(r"[0-9a-f]{16}")
_KINDS = ("", "~", "=")
"""What stands before the hash in a name: its place here is the first byte of what is kept."""
_NAME_LENGTH, _HASH_LENGTH = 9, 8
_NO_HASH = bytes(_HASH_LENGTH + 1)
"""Stands before the rest of a mark that is no hash."""


def _kept_name(name: str) -> bytes | None:
    found = _NAME.fullmatch(name)
    return None if found is None else _KINDS.index(found[1]).to_bytes(1, "big") + bytes.fromhex(found[2])


def kept_mark(mark: str) -> str | bytes | None:
    """Return a mark as it stands in the table: of hashes, as most consist of, half as much; None for no mark."""
    name, _, rest = mark.partition(".")
    stands = _kept_name(name)
    if stands is None:
        return mark or None
    if _HASH.fullmatch(rest):
        return stands + bytes.fromhex(rest)
    return stands + _NO_HASH + rest.encode() if rest else stands


def mark_from(stands: object) -> str | None:
    """Return the mark that stands in the table, "" for none; None where `kept_mark` has not made it."""
    mark = stands
    if isinstance(stands, bytes) and len(stands) >= _NAME_LENGTH and stands[0] < len(_KINDS):
        rest = stands[_NAME_LENGTH:]
        said = rest.hex() if len(rest) == _HASH_LENGTH else rest[len(_NO_HASH) :].decode("utf-8", "replace")
        mark = f"{_KINDS[stands[0]]}{stands[1:_NAME_LENGTH].hex()}.{said}"
    elif stands is None:
        mark = ""
    return mark if isinstance(mark, str) and kept_mark(mark) == stands else None


def span_of(name: str) -> tuple[str, str] | tuple[bytes, bytes]:
    """Return from where on and up to where the marks of a name stand."""
    stands = _kept_name(name)
    if stands is None:
        return f"{name}.", f"{name}/"
    return stands, (int.from_bytes(stands, "big") + 1).to_bytes(_NAME_LENGTH, "big")


def as_bytes(mode: Any, value: Any) -> bytes:
    """Return the value of a row.

    Raises:
        CorruptEntryError: If it is of a kind that is never written.
    """
    if mode == _RAW and isinstance(value, bytes):
        return value
    raise CorruptEntryError("the store holds an entry of a kind that is never written; it is not unpickled")


def first_marked(query: Callable[[str, Sequence[object]], list[tuple[Any, ...]]], name: str) -> dict[str, str]:
    """Return the marks of a name, each with its first key: one look into the index for each of them."""
    found: dict[str, str] = {}
    last, end = span_of(name)
    for beyond in (">=", *[">"] * (MOST_MARKS - 1)):
        rows = query(
            f"SELECT mark, key FROM Cache WHERE mark {beyond} ? AND mark < ? AND raw = 1"  # noqa: S608
            f" AND {IS_KEY} ORDER BY mark, rowid LIMIT 1",
            (last, end),
        )
        if not rows:
            break
        ((last, key),) = rows
        found[mark_from(last) or ""] = str(key_of(key))
    return found


class FolderReader:
    """Reads a store's folder.

    Args:
        path: The folder. It may be missing; then there is nothing in it.
        patience: How long it waits for a database that another process has locked, in seconds.
        is_ours: Whether it is a store of this package; else another program's diskcache.
        options: How its database is used otherwise (see `Database`).
    """

    def __init__(self, path: Path, *, patience: float = 2.0, is_ours: bool = True, **options: Any) -> None:
        self.path = path.absolute()
        # By its mark it is told from other programs' diskcaches.
        kind = STORE if is_ours else None
        self._database = Database(
            self.path / DATABASE, kind=kind, version=VERSION, schema=_SCHEMA, patience=patience, page=PAGE, **options
        )

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.path)

    def exists(self) -> bool:
        """Tell whether there is a store in the folder.

        Raises:
            StoreUnavailableError: If the folder may not be looked into.
        """
        try:
            return (self.path / DATABASE).exists()
        except OSError as error:
            raise StoreUnavailableError(f"could not look into the store {self.path}: {error}") from error

    def is_of_newer_version(self) -> bool:
        """Tell whether a newer version of this package keeps a store here. Nothing is opened for it."""
        head = database_head(self.path / DATABASE)
        return head is not None and head.kind == STORE and head.version > VERSION

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None.

        Raises:
            CorruptEntryError: If what is kept is not bytes.
            StoreUnavailableError: If the folder cannot be read.
        """
        rows = self.query("SELECT mode, value FROM Cache WHERE key = ? AND raw = 1", (kept(key),))
        return as_bytes(*rows[0]) if rows else None

    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""
        tagged = "" if kind is None else " AND +tag >= ? AND +tag < ?"  # most are of one kind: it is faster to walk
        parameters = () if kind is None else (f"{kind}\x1f", f"{kind}\x20")
        stored: float | None = None
        rowid: int | None = None
        while True:
            rows = self.query(
                f"SELECT store_time, rowid, key FROM Cache WHERE {IS_KEY}{tagged}"  # noqa: S608 - no values
                " AND (? IS NULL OR (store_time, rowid) < (?, ?)) ORDER BY store_time DESC, rowid DESC LIMIT ?",
                (*parameters, rowid, stored, rowid, _PAGE),
            )
            for stored, rowid, key in rows:  # noqa: B007 - the last row is where the next page begins
                yield str(key_of(key))
            if len(rows) < _PAGE:
                return

    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""
        counts: dict[Label, int] = {}
        for tag, count in self.tags().items():
            label = Label.decode(tag)
            counts[label] = counts.get(label, 0) + count
        return counts

    def tags(self) -> dict[str | None, int]:
        """Return how many entries have each tag, as labels are written in the table; None is no text."""
        counts: dict[str | None, int] = {}
        for tag, count in self.query("SELECT tag, COUNT(*) FROM Cache GROUP BY tag"):
            name = tag if isinstance(tag, str) else None
            counts[name] = counts.get(name, 0) + count
        return counts

    def marked(self, name: str) -> dict[str, str]:
        """Return the marks that have a name, each with the key that it was first kept under; two of them at most."""
        return first_marked(self.query, name)

    def usage(self) -> dict[Label, dict[str, float]]:
        """Return what is counted of how the store was used: counters by what calls are filed under."""
        found: dict[Label, dict[str, float]] = {}
        for label, counter, amount in self.query(
            "SELECT label, counter, amount FROM usage"
            " WHERE typeof(label) = 'text' AND typeof(counter) = 'text' AND typeof(amount) IN ('integer', 'real')"
        ):
            found.setdefault(Label.decode(label), {})[counter] = amount
        return found

    def every_row(self, columns: str, *values: object, at_once: int) -> Iterator[tuple[Any, ...]]:
        """Yield the number and some columns of every row, so many in a query, by number and by no other index.

        The index of another column may be damaged, and hide rows.

        Args:
            columns: What is read, in SQL.
            values: The values of its parameters.
            at_once: How many rows are in memory at a time: an answer may have some megabytes.
        """
        last = -(2**63)
        while True:
            rows = self.query(
                f"SELECT rowid, {columns} FROM Cache NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT ?",  # noqa: S608
                (*values, last, at_once),
            )
            yield from rows
            if len(rows) < at_once:
                return
            last = rows[-1][0]

    def bytes_used(self) -> int:
        """Return how many bytes the database takes up, without those that are to be used again."""
        query = (
            "SELECT (page_count - freelist_count) * page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        return sum(used for (used,) in self.query(query))

    def query(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds in diskcache's tables; nothing where there is no store.

        Raises:
            FormatVersionError: If a newer version of this package wrote it.
            StoreUnavailableError: If the folder cannot be read, or is another program's.
        """
        try:
            return self._database.read(query, *parameters)
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError) and "no such table" in str(error.__cause__):
                return []  # made this moment, and not filled yet
            raise
