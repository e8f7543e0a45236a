"""What evaluations that have not ended have finished so far: each answer on the disk as soon as it is known.

A journal lies in a hidden folder of the library, with the library's lock. The version of its format is in its name, so
that what a newer package keeps there is neither read nor removed by an older one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary import encryption
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.boundary.ownership import JOURNAL, database_head, is_journal_name
from dspy_cachectl.config import settings
from dspy_cachectl.entries import values
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.predictions.kept_rows import RowKey
from dspy_cachectl.predictions.rows import LONGEST, loads
from dspy_cachectl.predictions.snapshot import FOLDER, SnapshotInfo, about, check_metadata
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.liveness import is_alive, leave, me

FORMAT_VERSION = 7

_PAGE = 16
_SCHEMA = (
    "CREATE TABLE sessions (id TEXT PRIMARY KEY, owner TEXT, started REAL, header BLOB)",
    "CREATE TABLE rows (session TEXT, example TEXT, occurrence INTEGER, repeat INTEGER, row BLOB,"
    " PRIMARY KEY (session, example, occurrence, repeat)) WITHOUT ROWID",
)


class Journal:
    """The journal of a library. Thread-safe.

    Args:
        root: The library's folder.
        keep_open: Whether one connection is kept until `close`, for a session that writes row by row.
    """

    def __init__(self, root: Path, *, keep_open: bool = False) -> None:
        self.folder = root / FOLDER
        self.path = self.folder / f"unfinished-{FORMAT_VERSION}.db"
        self._database = Database(self.path, kind=JOURNAL, version=FORMAT_VERSION, schema=_SCHEMA, keep_open=keep_open)

    def keep(self, session: str, header: dict[str, Any], row_key: RowKey, encoded: bytes) -> None:
        """Write a row, or write it over the one that is there. Raises the `StoreError` family.

        Args:
            session: The name of the session.
            header: What its rows are predictions of. It goes with each row, so that a journal that was deleted
                meanwhile is whole again.
            row_key: Which question and repeat the row answers.
            encoded: The row.
        """
        owner, plain, keys = me(self.folder, user=self), values.dumps(header)[0], settings().encryption_key
        encoded = encoded if keys is None else encryption.seal_line(keys, encoded, about(header))
        with self._database.change() as sql:
            sql("INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?)", session, owner, time.time(), plain)
            sql("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)", session, *row_key, encoded)

    def sessions(self) -> list[SnapshotInfo]:
        """Return the sessions that have rows here. Raises the `StoreError` family."""
        found = []
        for id_, owner, started, head in self._database.read("SELECT id, owner, started, header FROM sessions"):
            if not (isinstance(id_, str) and isinstance(owner, str) and isinstance(started, float)):
                continue  # nothing of this package wrote it
            age, lives = age_of(started), is_alive(self.folder, owner)
            found.append(SnapshotInfo(self.path, _header(head), 0, 0, age, started, session=id_, is_alive=lives))
        return found

    def rows(self, session: str) -> Iterator[bytes]:
        """Yield the rows of a session; what is damaged as nothing. Raises the `StoreError` family."""
        heads = self._database.read("SELECT header FROM sessions WHERE id = ?", session)
        belonging = about(_header(heads[0][0])) if heads else b""
        last: tuple[str, int, int] = ("", -1, -1)
        while True:
            page = self._database.read(
                "SELECT example, occurrence, repeat, row FROM rows WHERE session = ? AND length(row) <= ?"
                " AND (example, occurrence, repeat) > (?, ?, ?) ORDER BY example, occurrence, repeat LIMIT ?",
                session,
                encryption.sealed_length(LONGEST),
                *last,
                _PAGE,
            )
            yield from (_opened(row, belonging) for *_, row in page)
            if not page:
                return
            last = page[-1][:3]

    def settle(self, session: str) -> None:
        """Forget a session whose rows are in a snapshot. Raises the `StoreError` family."""
        with self._database.change() as sql:
            sql("DELETE FROM rows WHERE session = ?", session)
            sql("DELETE FROM sessions WHERE id = ?", session)

    def close(self) -> None:
        """Let go of the connection, and of the folder."""
        leave(self.folder, self)
        self._database.close()

    def of_newer_versions(self) -> list[Path]:
        """Return the journals that a newer version of this package keeps here."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        heads = {path: database_head(path) for path in there if is_journal_name(path.name)}
        return [
            path
            for path, head in heads.items()
            if head is not None and head.kind == JOURNAL and head.version > FORMAT_VERSION
        ]


def _opened(row: object, belonging: bytes) -> bytes:
    try:
        return encryption.open_line(settings().encryption_key, row, belonging) if isinstance(row, bytes) else b""
    except CorruptEntryError:
        return b""


def _header(head: object) -> dict[str, Any]:
    """Return what a session's rows are predictions of; nothing where it is damaged: they are no use without."""
    try:
        header = loads(head) if isinstance(head, bytes) else {}
        check_metadata(header)
        "".join((*header["using"], header["file"]))  # they are texts
    except (CorruptEntryError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    return dict(header)
