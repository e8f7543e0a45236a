"""diskcache, made safe for answers that were paid for.

diskcache brings the file format, eviction, and writing by many processes. Set right here: it may not unpickle, every
value is in its row and no file is looked for, it waits for a locked database in turn and not without bound, and a
failure keeps its reason.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import diskcache

from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.stores.database import is_locked, patiently
from dspy_cachectl.stores.reader import as_bytes

_NEVER_PICKLE = "pickle is never used here"
_LARGEST_WAL = 8 * 1024 * 1024
_MOST_REMOVED = 500
"""How many entries one write removes at most: a limit that was lowered must not hold it up for minutes."""
_SQLITE_PAGE = 4096
_LOCK_FILE = 32 * 1024
_POLITE = 100
"""For how many milliseconds the log's writing back waits for other processes; the next writer does it as well."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps strings to bytes and refuses everything else. A planted pickle does not run."""

    def put(self, key: Any) -> tuple[str, bool]:
        """Return the key as it is kept."""
        if type(key) is not str:
            raise TypeError(f"a key is a string, not {type(key).__name__}: {_NEVER_PICKLE}")
        return key, True

    def get(self, key: Any, raw: bool) -> str:
        """Return the key as it was given."""
        if not raw or not isinstance(key, str):
            raise CorruptEntryError(f"the store holds a key that is not text; {_NEVER_PICKLE}")
        return key

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, bytes]:  # noqa: ARG002
        """Return a value as the table keeps it, however large it is."""
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, not {type(value).__name__}: {_NEVER_PICKLE}")
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:  # noqa: ARG002 - diskcache's
        """Return a value that the table keeps."""
        return as_bytes(mode, value)


class Folder(diskcache.Cache):  # type: ignore[misc]
    """A diskcache in a folder.

    Args:
        directory: The folder.
        max_bytes: What its files may take up together, in bytes, the write-ahead log included.
        patience: After how many seconds of a locked database a read or write gives up.
    """

    def __init__(self, directory: str, *, max_bytes: int, patience: float) -> None:
        self.patience = patience
        self._turn = threading.Lock()
        wal = min(_LARGEST_WAL, max_bytes // 4)
        super().__init__(
            directory,
            timeout=patience,
            disk=BytesDisk,
            size_limit=max_bytes - wal - _LOCK_FILE,
            eviction_policy="least-recently-stored",
            statistics=0,
            tag_index=1,
            # It grows beyond this by the writes that are under way, so it gets half of its room.
            sqlite_wal_autocheckpoint=max(wal // 2 // _SQLITE_PAGE, 1),
            sqlite_journal_size_limit=wal,
        )

    def add_usage(self, used: Mapping[str, Mapping[str, float]], served: Mapping[str, int]) -> None:
        """Add to what is counted, and to how often entries were served, in the columns that diskcache has for it."""
        now = time.time()
        with self._transact():
            self._con.executemany(
                "INSERT INTO usage VALUES (?, ?, ?)"
                " ON CONFLICT (label, counter) DO UPDATE SET amount = amount + excluded.amount",
                [(label, name, n) for label, counters in used.items() for name, n in counters.items()],
            )
            self._con.executemany(
                "UPDATE Cache SET access_count = access_count + ?, access_time = ? WHERE key = ? AND raw = 1",
                [(count, now, key) for key, count in served.items()],
            )

    def delete_many(self, keys: Sequence[str], stored_before: float) -> int:
        """Remove rows in one transaction; not those that were stored since a time."""
        delete = "DELETE FROM Cache WHERE key = ? AND raw = 1 AND CAST(coalesce(store_time, 0) AS REAL) < ?"
        with self._transact() as (sql, _):
            return sum(sql(delete, (key, stored_before)).rowcount for key in keys)

    def shrink(self) -> None:
        """Write the log back and cut it. SQLite cuts the database too: diskcache makes it so (auto_vacuum)."""
        connection: sqlite3.Connection = self._con
        connection.execute(f"PRAGMA busy_timeout = {_POLITE}")
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self.patience * 1000)}")

    @property
    def _sql(self) -> Callable[..., Any]:
        # diskcache itself retries for 60 seconds wherever it opens a database or a connection; `Timeout` ends that.
        execute = self._con.execute
        give_up = time.monotonic() + self.patience

        def run(statement: str, *args: Any) -> Any:
            try:
                return execute(statement, *args)
            except sqlite3.OperationalError as error:
                if is_locked(error) and time.monotonic() >= give_up:
                    raise diskcache.Timeout from error
                raise

        return run

    def _cull(
        self,
        now: float,  # noqa: ARG002 - diskcache's signature
        sql: Callable[..., Any],
        cleanup: Callable[[str | None], None],  # noqa: ARG002
        limit: int | None = None,  # noqa: ARG002
    ) -> None:
        """Remove what was stored first until the rest fits. diskcache removes ten at once, however large they are."""
        for _ in range(_MOST_REMOVED):
            if self._bytes_kept(sql) <= self.size_limit:
                return
            oldest = sql("SELECT rowid FROM Cache ORDER BY store_time, rowid LIMIT 1").fetchone()
            if oldest is None:
                return
            sql("DELETE FROM Cache WHERE rowid = ?", oldest)

    def _bytes_kept(self, sql: Callable[..., Any]) -> int:
        pages, free = (sql(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return int((pages - free) * self._page_size)

    @contextlib.contextmanager
    def _transact(
        self,
        retry: bool = False,  # noqa: ARG002 - diskcache's signature
        filename: str | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[Callable[..., Any], Callable[[str | None], None]]]:
        with self._in_turn() as connection:
            try:
                yield connection.execute, _leave
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite may have rolled back by itself
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[sqlite3.Connection]:
        """Begin to write. Of this process one thread tries at a time, and it tries often."""
        if not self._turn.acquire(timeout=self.patience):
            raise diskcache.Timeout
        try:
            connection: sqlite3.Connection = self._con
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                patiently(lambda: connection.execute("BEGIN IMMEDIATE"), self.patience)
            except sqlite3.OperationalError as error:
                if is_locked(error):
                    raise diskcache.Timeout from error
                raise
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(self.patience * 1000)}")
            yield connection
        finally:
            self._turn.release()


def _leave(filename: str | None) -> None:
    """Leave a file alone that a row names: nothing of this package made it."""
