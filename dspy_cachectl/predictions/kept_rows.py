"""The rows of a session by their place: lines in a file without a name, and an index of where each of them is.

The system takes the file away with the process. Where its disk is full, lines stay in memory.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import IO, Any

from dspy_cachectl.boundary import encryption
from dspy_cachectl.config import settings
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions import rows

RowKey = tuple[str, int, int]

_TABLES = """
CREATE TABLE questions (position INTEGER PRIMARY KEY, example TEXT, occurrence INTEGER, UNIQUE (example, occurrence));
CREATE TABLE rows (
    position INTEGER, repeat INTEGER, created REAL, failed INTEGER, start INTEGER, length INTEGER, line BLOB,
    PRIMARY KEY (position, repeat)
) WITHOUT ROWID;
"""


class KeptRows:
    """Encoded rows by question, occurrence and repeat; only those of the data set's questions. Thread-safe.

    Args:
        questions: The questions of the data set, in its order. None: whatever is put is a question.
    """

    def __init__(self, questions: Sequence[Question] | None = None) -> None:
        self._lock = threading.RLock()
        self._takes_all = questions is None
        self._keys = settings().encryption_key
        self._index = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._index.executescript(_TABLES)
        with self.all_or_nothing():
            self._index.executemany(
                "INSERT INTO questions VALUES (?, ?, ?)",
                ((index, question.example_key, question.occurrence) for index, question in enumerate(questions or ())),
            )

    def get(self, place: RowKey) -> bytes | None:
        """Return the encoded row of a place, or None."""
        with self._lock:
            found = self._one(
                "SELECT start, length, line FROM rows JOIN questions USING (position)"
                " WHERE example = ? AND occurrence = ? AND repeat = ?",
                *place,
            )
            return None if found is None else self._read(*found)

    def put(self, encoded: bytes, *, over: bool = True) -> bool:
        """Keep a row in place of what is there, with the scores of both where they judge the same answer.

        Args:
            encoded: The row.
            over: Whether its answer takes the place of one that is there; otherwise only its scores are added.

        Returns:
            Whether it was kept: a question of the data set asks for it.

        Raises:
            CorruptEntryError: If it is no row.
        """
        if rows.is_too_large(encoded):
            raise CorruptEntryError("a row of predictions is larger than any that is written")
        row = rows.decode(encoded)
        with self._lock:
            if self._takes_all:
                self._index.execute("INSERT OR IGNORE INTO questions VALUES (NULL, ?, ?)", row.row_key[:2])
            found = self._one(
                "SELECT questions.position, start, length, line FROM questions"
                " LEFT JOIN rows ON rows.position = questions.position AND repeat = ?"
                " WHERE example = ? AND occurrence = ?",
                row.repeat,
                *row.row_key[:2],
            )
            if found is None:
                return False
            position, *where = found
            there = None if where[0] is None else self._read(*where)
            if there is not None and there != encoded:
                earlier = rows.decode(there, is_sound=True)
                row = rows.merged(earlier, row) if over else rows.merged(row, earlier)
                encoded = rows.encode(row)
            kept = (position, row.repeat, row.created, row.error is not None, *self._write(encoded))
            self._index.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", kept)
        return True

    def count(self) -> int:
        """Return how many rows there are."""
        return int(self._one("SELECT COUNT(*) FROM rows")[0])

    def served(self, repeats: int, part: tuple[int, int] = (0, 1)) -> int:
        """Return how many of the places up to a number of repeats, in a part of the questions, have an answer."""
        found = "SELECT COUNT(*) FROM rows WHERE repeat < ? AND NOT failed AND position % ? = ?"
        return int(self._one(found, repeats, part[1], part[0])[0])

    def failed(self, repeats: int) -> int:
        """Return how many of the places up to a number of repeats have an error in place of an answer."""
        return int(self._one("SELECT COUNT(*) FROM rows WHERE repeat < ? AND failed", repeats)[0])

    def known_questions(self) -> int:
        """Return how many questions have an answer, or an error, in any repeat."""
        return int(self._one("SELECT COUNT(DISTINCT position) FROM rows")[0])

    def times(self, now: float) -> tuple[float, float]:
        """Return when the oldest and the newest row were drawn; now where there is none."""
        oldest, newest = self._one("SELECT MIN(created), MAX(created) FROM rows")
        return (now, now) if oldest is None else (oldest, newest)

    def size(self) -> int:
        """Return a number that says of what is kept from now on that it is new: see `in_order`."""
        with self._lock, contextlib.suppress(OSError):
            return self._lines.seek(0, os.SEEK_END)
        return 0

    def in_order(self, since: int = 0) -> Iterator[bytes]:
        """Yield the rows in the order of the data set, then of the repeats. Other threads may go on writing.

        Args:
            since: Only what was kept since `size` returned this number.
        """
        last = (-1, -1)
        while True:
            # By pages, so that nobody has to wait for the reader.
            with self._lock:
                page = self._index.execute(
                    "SELECT position, repeat, start, length, line FROM rows WHERE (position, repeat) > (?, ?)"
                    " AND (start >= ? OR line IS NOT NULL) ORDER BY position, repeat LIMIT 100",
                    (*last, since),
                ).fetchall()
                lines = [self._read(*found) for _, _, *found in page]
            if not page:
                return
            yield from lines
            last = page[-1][:2]

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Keep the rows that are put in the block only if it ends without an error."""
        with self._lock:
            self._index.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._index.execute("ROLLBACK")
                raise
            self._index.execute("COMMIT")

    def clear(self) -> None:
        """Forget all rows."""
        self._one("DELETE FROM rows")

    def close(self) -> None:
        """Let go of the disk's space."""
        with self._lock:
            self._index.close()
            if "_lines" in vars(self):
                self._lines.close()

    @cached_property
    def _lines(self) -> IO[bytes]:
        return tempfile.TemporaryFile(buffering=0)

    def _one(self, query: str, *values: Any) -> Any:
        with self._lock:
            return self._index.execute(query, values).fetchone()

    def _write(self, encoded: bytes) -> tuple[int, int, bytes | None]:
        """Return where in the file a line is, and the line itself where the file cannot take it."""
        line = encoded if self._keys is None else self._keys.seal(encoded)
        try:
            start = self._lines.seek(0, os.SEEK_END)
            is_whole = self._lines.write(line) == len(line)
        except OSError:
            return 0, 0, encoded
        return start, len(line), None if is_whole else encoded

    def _read(self, start: int, length: int, line: bytes | None) -> bytes:
        if line is not None:
            return line
        self._lines.seek(start)
        read = self._lines.read(length)
        return read if self._keys is None else encryption.opened(self._keys, read)


def facts_of(rows: KeptRows) -> dict[str, Any]:
    """Return what is said of rows that are written now: how many there are, and of which times."""
    now = time.time()
    oldest, newest = rows.times(now)
    when = dt.datetime.fromtimestamp(now, dt.timezone.utc).isoformat(timespec="seconds")
    return {"timestamp": when, "saved": now, "oldest": oldest, "newest": newest, "rows": rows.count()}
