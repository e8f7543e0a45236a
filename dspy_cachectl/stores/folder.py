"""diskcache, made safe for answers that were paid for.

diskcache brings the tables, their columns and what is done with them. Set right here: it may not unpickle, every value
is in its row and no file is looked for, and all threads share one connection. diskcache has one for each thread; what
those leave behind stays open as long as any other is in use, so that thread pools that come and go use up what
descriptors a process may have.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import diskcache

from dspy_cachectl.boundary.ages import ASTRAY
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.stores.base import coarser
from dspy_cachectl.stores.patience import is_locked, patiently
from dspy_cachectl.stores.reader import PAGE, as_bytes, first_marked, kept, kept_mark, key_of, span_of

_NEVER_PICKLE = "pickle is never used here"
_LARGEST_WAL = 16 * 1024 * 1024
_MOST_REMOVED = 500
"""How many entries one write removes at most: a limit that was lowered must not hold it up for minutes."""
_LOCK_FILE = 32 * 1024

_LOOKED_AFTER = 64
_LOOKED_AFTER_BYTES = 1024 * 1024
_AROUND = 8 * PAGE
"""After how many writes, and bytes, it is looked how large the files are; and what a write takes beside its value."""

_INSERT = (
    "INSERT OR IGNORE INTO Cache (key, raw, store_time, access_count, tag, size, mode, mark, value)"
    " VALUES (?, 1, ?, 0, ?, 0, 1, ?, ?)"
)
_UPDATE = (
    "UPDATE Cache SET store_time = ?, expire_time = NULL, access_time = ?, access_count = 0, tag = ?, size = 0,"
    " mode = 1, filename = NULL, mark = ?, value = ? WHERE rowid = ?"
)
"""What diskcache writes for an entry that is bytes in the table, in one statement where its key is new."""

_MARKED = "SELECT 1 FROM Cache WHERE mark >= ? AND mark < ? LIMIT 1"

_NEEDLESS = ("CREATE INDEX IF NOT EXISTS Cache_expire_time", "CREATE TRIGGER IF NOT EXISTS Settings_")
"""What diskcache makes and nobody asks here: when entries expire, which none does, and a count of rows and of files."""

_MOST_LABELS = 2000
_EVERY = 200
"""Of how many labels the use is told apart, and after how many writes it is looked whether there are more."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps strings to bytes and refuses everything else. A planted pickle does not run."""

    def put(self, key: Any) -> tuple[str | bytes, bool]:
        """Return the key as it is kept."""
        if type(key) is not str:
            raise TypeError(f"a key is a string, not {type(key).__name__}: {_NEVER_PICKLE}")
        return kept(key), True

    def get(self, key: Any, raw: bool) -> str:
        """Return the key as it was given."""
        if not raw or (given := key_of(key)) is None:
            raise CorruptEntryError(f"the store holds a key that is none; {_NEVER_PICKLE}")
        return given

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, bytes]:  # noqa: ARG002
        """Return a value as the table keeps it, however large it is."""
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, not {type(value).__name__}: {_NEVER_PICKLE}")
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:  # noqa: ARG002 - diskcache's
        """Return a value that the table keeps."""
        return as_bytes(mode, value)


class Folder(diskcache.Cache):  # type: ignore[misc]
    """A diskcache over a connection that somebody else opens, begins and ends transactions with, and closes.

    Args:
        directory: The folder.
        connection: The connection to its database.
        max_bytes: What its files may take up together, in bytes, the write-ahead log included.
        patience: How long to wait, while the tables are made, for a process that has locked the database; in seconds.
    """

    def __init__(self, directory: str, connection: sqlite3.Connection, *, max_bytes: int, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        self._flushes = 0
        self._writes = self._room = 0
        self.evicted: Counter[str | None] = Counter()
        wal = min(_LARGEST_WAL, max_bytes // 4)
        super().__init__(
            directory,
            disk=BytesDisk,
            size_limit=max_bytes - wal - _LOCK_FILE,
            eviction_policy="least-recently-stored",
            statistics=0,
            tag_index=1,
            # It grows beyond this by the writes that are under way, so it gets half of its room.
            sqlite_wal_autocheckpoint=max(wal // 2 // PAGE, 1),
            sqlite_journal_size_limit=wal,
        )

    def there(self, key: str) -> bytes | None:
        """Return the bytes under a key; None where there are none, or what is of a kind that is never written."""
        return self._row(key)[1]

    def _row(self, key: str) -> tuple[int | None, bytes | None]:
        row = self._connection.execute(
            "SELECT rowid, mode, value FROM Cache WHERE key = ? AND raw = 1", (kept(key),)
        ).fetchone()
        if row is None:
            return None, None
        with contextlib.suppress(CorruptEntryError):
            return row[0], as_bytes(*row[1:])
        return row[0], None

    def marked(self, name: str) -> dict[str, str]:
        """Return the marks that have a name, each with its first key."""
        # Of nearly all names there are none, which the index tells by itself.
        if self._connection.execute(_MARKED, span_of(name)).fetchone() is None:
            return {}
        return first_marked(lambda query, values: self._connection.execute(query, values).fetchall(), name)

    def keep(self, key: str, value: bytes, tag: str, mark: str, stays: Callable[[bytes | None], bool]) -> bytes | None:
        """Keep bytes under a key with their tag and mark, unless what is there stays.

        Returns:
            The bytes that were there; None where there were none.
        """
        now, marked = time.time(), kept_mark(mark)
        written = self._connection.execute(_INSERT, (kept(key), now, tag, marked, value))
        there = None
        if not written.rowcount:
            number, there = self._row(key)
            if stays(there):
                return there
            self._connection.execute(_UPDATE, (now, now, tag, marked, value, number))
        self._writes += 1
        self._room -= len(value) + _AROUND
        if self._room <= 0 or self._writes >= _LOOKED_AFTER:
            self._cull(now, self._sql, _leave)
        return there

    def add_usage(self, used: Mapping[str, Mapping[str, float]], served: Mapping[str, int]) -> None:
        """Add to what is counted, and to how often entries were served, in the columns that diskcache has for it."""
        now = time.time()
        self._connection.executemany(
            "INSERT INTO usage VALUES (?, ?, ?)"
            " ON CONFLICT (label, counter) DO UPDATE SET amount = amount + excluded.amount",
            [(label, name, n) for label, counters in used.items() for name, n in counters.items()],
        )
        self._flushes += 1
        if self._flushes % _EVERY == 0:
            self._sum_up()
        self._connection.executemany(
            "UPDATE Cache SET access_count = access_count + ?, access_time = ? WHERE key = ? AND raw = 1",
            [(count, now, kept(key)) for key, count in served.items()],
        )

    def _sum_up(self) -> None:
        """Count together what is told apart too finely."""
        labels = [label for (label,) in self._connection.execute("SELECT DISTINCT label FROM usage")]
        for label, other in coarser(labels, most=_MOST_LABELS).items():
            self._connection.execute(
                "INSERT INTO usage SELECT ?, counter, amount FROM usage WHERE label = ?"
                " ON CONFLICT (label, counter) DO UPDATE SET amount = amount + excluded.amount",
                (other, label),
            )
            self._connection.execute("DELETE FROM usage WHERE label = ?", (label,))

    def delete_many(self, keys: Mapping[str, float | None]) -> int:
        """Remove rows; where it is said when one was stored, not one that was stored at another time."""
        delete = (
            "DELETE FROM Cache WHERE key = ? AND raw = 1"
            " AND (? IS NULL OR ? = CASE WHEN typeof(store_time) IN ('integer', 'real') THEN store_time ELSE 0 END)"
        )
        return self._connection.executemany(
            delete, [(kept(key), stored, stored) for key, stored in keys.items()]
        ).rowcount

    def close(self) -> None:
        """Do nothing. diskcache does it with a connection when it has made its tables."""

    @property
    def _con(self) -> sqlite3.Connection:
        return self._connection

    @property
    def _sql(self) -> Callable[..., Any]:
        def run(statement: str, *args: Any) -> Any:
            if statement.startswith(_NEEDLESS):
                return None
            try:
                return patiently(lambda: self._connection.execute(statement, *args), self._patience)
            except sqlite3.OperationalError as error:
                if is_locked(error):  # diskcache itself would go on for 60 seconds; `Timeout` ends that
                    raise diskcache.Timeout(f"another process kept it locked for {self._patience:g} s") from error
                raise

        return run

    @contextlib.contextmanager
    def _transact(
        self,
        retry: bool = False,  # noqa: ARG002 - diskcache's signature
        filename: str | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[Callable[..., Any], Callable[[str | None], None]]]:
        yield self._connection.execute, _leave

    def _cull(
        self,
        now: float,
        sql: Callable[..., Any],
        cleanup: Callable[[str | None], None],  # noqa: ARG002 - diskcache's signature
        limit: int | None = None,  # noqa: ARG002
    ) -> None:
        """Remove what was stored first until the rest fits. diskcache removes ten at once, however large they are."""
        for _ in range(_MOST_REMOVED):
            pages, free = (sql(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
            left = self.size_limit - (pages - free) * self._page_size
            self._writes, self._room = 0, min(left, _LOOKED_AFTER_BYTES)
            if left >= 0:
                return
            # What lies ahead was stored by a wrong clock, and would outlast all that is stored from now on.
            ahead = sql(
                "SELECT rowid, tag FROM Cache WHERE store_time > ? ORDER BY store_time LIMIT 1", (now + ASTRAY,)
            ).fetchone()
            first = ahead or sql("SELECT rowid, tag FROM Cache ORDER BY store_time, rowid LIMIT 1").fetchone()
            if first is None:
                return
            sql("DELETE FROM Cache WHERE rowid = ?", (first[0],))
            self.evicted[first[1] if isinstance(first[1], str) else None] += 1


def _leave(filename: str | None) -> None:
    """Leave a file alone that a row names: nothing of this package made it."""
