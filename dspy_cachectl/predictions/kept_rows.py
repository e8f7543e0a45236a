"""The rows of a session by their place, on the disk and not in memory.

SQLite keeps a database without a name in its page cache, spills it to the disk as it grows, and takes it away
with the process. Where even that disk is full, rows stay in memory.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence

import orjson

from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions import rows

RowKey = tuple[str, int, int]

_TABLES = """
CREATE TABLE questions (position INTEGER PRIMARY KEY, example TEXT, occurrence INTEGER);
CREATE UNIQUE INDEX question ON questions (example, occurrence);
CREATE TABLE rows (
    example TEXT, occurrence INTEGER, repeat INTEGER, created REAL, failed INTEGER, line BLOB,
    UNIQUE (example, occurrence, repeat)
);
"""
_CACHE_KB = 8 * 1024
_PUT = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)"
_IS_WANTED = "SELECT 1 FROM questions WHERE example = ? AND occurrence = ?"


class KeptRows:
    """Encoded rows by question, occurrence and repeat; only those of the data set's questions. Thread-safe.

    Args:
        questions: The questions of the data set, in its order. None: whatever is put is a question.
    """

    def __init__(self, questions: Sequence[Question] | None = None) -> None:
        self._lock = threading.RLock()
        self._overflow: dict[RowKey, bytes] = {}
        self._takes_all = questions is None
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._database.execute("PRAGMA journal_mode = MEMORY")
        self._database.executescript(_TABLES)
        with self._transaction():
            self._database.executemany(
                "INSERT INTO questions VALUES (?, ?, ?)",
                ((index, question.example_key, question.occurrence) for index, question in enumerate(questions or ())),
            )

    def get(self, place: RowKey) -> bytes | None:
        """Return the encoded row of a place, or None."""
        with self._lock:
            if place in self._overflow:
                return self._overflow[place]
            found = self._database.execute(
                "SELECT line FROM rows WHERE example = ? AND occurrence = ? AND repeat = ?", place
            ).fetchone()
        return None if found is None else found[0]

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
        try:
            plain = orjson.loads(encoded)
            place: RowKey = (plain["example_key"], plain["occurrence"], plain["repeat"])
            created, failed = float(plain["created"]), plain["error"] is not None
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptEntryError(f"a row of predictions is damaged: {error!r}") from error
        with self._lock:
            if self._takes_all:
                self._database.execute("INSERT OR IGNORE INTO questions VALUES (NULL, ?, ?)", place[:2])
            elif self._database.execute(_IS_WANTED, place[:2]).fetchone() is None:
                return False
            there = self.get(place)
            if there is not None and there != encoded:
                earlier, later = (there, encoded) if over else (encoded, there)
                both = rows.merged(rows.decode(earlier), rows.decode(later))
                encoded, created, failed = rows.encode(both), both.created, both.error is not None
            self._store(place, created, failed, encoded)
        return True

    def count(self) -> int:
        """Return how many rows there are."""
        with self._lock:
            stored = self._database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
            return int(stored) + sum(not self._is_stored(place) for place in self._overflow)

    def served(self, repeats: int) -> int:
        """Return how many of the places up to a number of repeats have an answer."""
        with self._lock:
            found = self._database.execute(
                "SELECT COUNT(*) FROM rows WHERE repeat < ? AND NOT failed", (repeats,)
            ).fetchone()
        return int(found[0])

    def failed(self, repeats: int) -> int:
        """Return how many of the places up to a number of repeats have an error in place of an answer."""
        with self._lock:
            found = self._database.execute("SELECT COUNT(*) FROM rows WHERE repeat < ? AND failed", (repeats,))
            return int(found.fetchone()[0])

    def known_questions(self) -> int:
        """Return how many questions have an answer, or an error, in any repeat."""
        with self._lock:
            found = self._database.execute("SELECT COUNT(*) FROM (SELECT DISTINCT example, occurrence FROM rows)")
            return int(found.fetchone()[0])

    def times(self) -> tuple[float, float] | None:
        """Return when the oldest and the newest row were drawn, or None where there is none."""
        with self._lock:
            found = self._database.execute("SELECT MIN(created), MAX(created) FROM rows").fetchone()
        return None if found[0] is None else (found[0], found[1])

    def in_order(self) -> Iterator[bytes]:
        """Yield the rows in the order of the data set, then of the repeats. Other threads may go on writing."""
        last = (-1, -1)
        while True:
            # By pages, so that nobody has to wait for the reader.
            with self._lock:
                page = self._database.execute(
                    "SELECT position, repeat, line, questions.example, questions.occurrence FROM questions JOIN rows "
                    "ON questions.example = rows.example AND questions.occurrence = rows.occurrence "
                    "WHERE (position, repeat) > (?, ?) ORDER BY position, repeat LIMIT 500",
                    last,
                ).fetchall()
                lines = [self._overflow.get((example, at, repeat), line) for _, repeat, line, example, at in page]
            yield from lines
            if not page:
                break
            last = page[-1][:2]
        yield from [line for place, line in list(self._overflow.items()) if not self._is_stored(place)]

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Keep the rows that are put in the block only if it ends without an error."""
        with self._lock, self._transaction():
            yield

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._overflow.clear()
            self._database.execute("DELETE FROM rows")

    def close(self) -> None:
        """Let go of the disk's space."""
        with self._lock:
            self._database.close()

    def _is_stored(self, place: RowKey) -> bool:
        with self._lock:
            query = "SELECT 1 FROM rows WHERE example = ? AND occurrence = ? AND repeat = ?"
            return self._database.execute(query, place).fetchone() is not None

    def _store(self, place: RowKey, created: float, failed: bool, encoded: bytes) -> None:
        try:
            self._database.execute(_PUT, (*place, created, failed, encoded))
        except sqlite3.OperationalError:
            self._overflow[place] = encoded  # the disk for temporary files is full
        else:
            self._overflow.pop(place, None)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
