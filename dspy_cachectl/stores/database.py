"""One small SQLite file that many processes and threads write: an outbox, a journal, a store.

A transaction is what makes it safe: whoever is killed loses nothing that was acknowledged. A connection is made for
each use, so that there is nothing to share between threads, to inherit by a fork, or to outlive a deleted file; who
writes often keeps one open, for all threads in turn.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dspy_cachectl.boundary.forks import inside_sqlite, tell_after_fork
from dspy_cachectl.boundary.ownership import foreign_beside, mark_of
from dspy_cachectl.boundary.writing import make_private
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreUnavailableError
from dspy_cachectl.stores.patience import as_text, is_locked, patiently, reason
from dspy_cachectl.stores.schema import strange_part
from dspy_cachectl.stores.transactions import Begun, Transaction

Sql = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement with its values, and returns the rows: `sql("SELECT a FROM t WHERE b = ?", b)`."""

_NO_LOCK_FILE = ("unable to open", "readonly", "disk I/O error", "is full")
"""What SQLite says where it cannot make the file that readers and writers lock: the disk is read-only, or full."""

_LEAST_ROOM = 64 * 1024
"""With less than this many bytes on the disk SQLite cannot begin."""

_REST_FACTOR = 10
"""After a failed opening the next is tried when ten times as long has passed: failing takes a tenth of the time."""

_INHERITED: list[sqlite3.Connection] = []
"""A forked child may neither use nor close its parent's connections, so they are kept as they are."""


class Database:
    """A SQLite file of this package. Thread-safe, process-safe, survives a fork.

    It is made, for this user alone, at the first change; a file with another program's content, or of a newer version
    of this package, is neither written nor removed. Everything raises the `StoreError` family, and nothing else.

    Args:
        path: The file.
        kind: What it is for. SQLite's `application_id` is made of it, and tells our files from others. None for
            another program's file, which is only read.
        version: The version of the schema. One with another version is refused.
        schema: The statements that make its tables.
        synchronous: `FULL` where an acknowledged change has to survive a power failure, too.
        patience: How long to wait for a database that another process has locked, in seconds.
        keep_open: Keep one connection from the first change until `close`, instead of one for each use, and write ahead
            to a log: ten times as fast. After a failed opening the next is tried when ten times as long has passed.
        prepare: What is done with a connection before its first use, to be kept.
        page: How many bytes a page of a new file has.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        kind: str | None,
        version: int,
        schema: Sequence[str] = (),
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        patience: float = 5.0,
        keep_open: bool = False,
        prepare: Callable[[sqlite3.Connection], None] | None = None,
        page: int = 4096,
    ) -> None:
        self.path = Path(path).absolute()
        self._name = str(self.path)
        self.patience = patience
        self._mark = None if kind is None else mark_of(kind)
        self._version = version
        self._schema, self._page = schema, page
        self._synchronous = synchronous
        self._keep_open = self._with_log = keep_open
        self._prepare = prepare
        self._kept: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._failure: tuple[StoreUnavailableError, float] | None = None
        self._lock = threading.RLock()
        tell_after_fork(self)

    @property
    def is_open(self) -> bool:
        """Whether it keeps a connection."""
        return self._kept is not None

    def read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query finds; nothing where there is no file. Nothing is written, not even to make the file.

        Raises:
            CorruptEntryError: If it holds more than plain tables.
            FormatVersionError: If another version of this package wrote it.
            StoreUnavailableError: If it cannot be read, or is not ours.
        """
        if self._kept is not None:
            try:
                return self._read_kept(query, values)
            except (sqlite3.Error, OSError):
                pass  # once more, patiently
        with self._translated():
            if self._kept is not None:
                return patiently(lambda: self._read_kept(query, values), self.patience)
            if not self._exists():
                return []
            try:
                return self._look("mode=ro", query, values)
            except sqlite3.OperationalError as error:
                if not any(reason in str(error) for reason in _NO_LOCK_FILE):
                    raise
                # Who was killed while writing left a journal, and what it undoes must not be taken for true. Otherwise,
                # where SQLite cannot keep its lock file nobody else can write either, so it is read without one.
                killed = self.path.with_name(f"{self.path.name}-journal").exists()
                return self._look("mode=rw" if killed else "mode=ro&immutable=1", query, values)

    def glance(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return what a query finds by a connection that is open; nothing where there is none, or `read` would fail."""
        with self._lock:
            if self._kept is None or self._identity != self._look_up():
                return []
            try:
                with inside_sqlite:
                    return self._kept.execute(query, values).fetchall()
            except sqlite3.Error:
                return []

    def change(self) -> contextlib.AbstractContextManager[Sql]:
        """Change it in one transaction: all that the block does is done when it ends, or nothing if it raises.

        The block gets a function that runs a statement; other processes wait for the block, so it should be short.
        `SELECT changes()` and `SELECT last_insert_rowid()` tell what a statement did.

        Raises:
            CorruptEntryError: If it holds more than plain tables.
            FormatVersionError: If another version of this package wrote it.
            StoreUnavailableError: If it cannot be written, or is not ours.
        """
        return Transaction(self.begin, self.run, self.end)

    def make(self) -> None:
        """See to it that the file is there, and ours. Raises as `change` does."""
        if self._keep_open:
            with self._lock:
                self._keep()
        else:
            connection = self._connect()
            with inside_sqlite:
                connection.close()

    def close(self) -> None:
        """Let go of the connection that is kept open. The next use makes another."""
        with self._lock:
            kept, self._kept = self._kept, None
            if kept is not None:
                with self._translated(), inside_sqlite:
                    kept.close()

    def after_fork(self) -> None:
        """Begin anew in the child."""
        self._lock = threading.RLock()
        if self._kept is not None:
            _INHERITED.append(self._kept)
        self._kept = self._failure = None

    def _read_kept(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock:
            connection = self._keep()
            with inside_sqlite:
                return connection.execute(query, values).fetchall()

    def begin(self) -> Begun:
        """Begin a change, for `change`, as soon as no other process is in the way. Raises as that does."""
        try:
            return self._begin()
        except (sqlite3.Error, OSError):
            with self._translated():
                return patiently(self._begin, self.patience)

    def _begin(self) -> Begun:
        """Begin a change, or let go at once: while another process is in the way, other threads can read."""
        lock = self._lock if self._keep_open else contextlib.nullcontext()
        with lock:
            begun = Begun(self._keep() if self._keep_open else self._connect(), lock)
            lock.__enter__()
        inside_sqlite.__enter__()
        try:
            begun.connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.end(begun)
            raise
        return begun

    def end(self, begun: Begun) -> None:
        """Let go of what a change holds."""
        try:
            if not self._keep_open:
                begun.connection.close()
        finally:
            inside_sqlite.__exit__()
            begun.lock.__exit__(None, None, None)

    def _keep(self) -> sqlite3.Connection:
        if self._kept is not None and self._identity != self._look_up():
            # SQLite goes on writing to a deleted file without a word, so the file is looked at by name.
            self.close()
            raise StoreUnavailableError(f"{self.path} was deleted or replaced while in use; it is opened anew")
        if self._kept is None:
            if self._failure is not None and time.monotonic() < self._failure[1]:
                # Whoever waited for the lock must not wait once more for what just failed.
                raise StoreUnavailableError(str(self._failure[0])) from self._failure[0].__cause__
            started = time.monotonic()
            try:
                self._kept = self._connect()
            except StoreUnavailableError as error:
                now = time.monotonic()
                self._failure = error, now + _REST_FACTOR * (now - started)
                raise
            self._identity, self._failure = self._look_up(), None
        return self._kept

    def _exists(self) -> bool:
        is_there = self.path.exists()
        if is_there and not self.path.is_file():
            raise StoreUnavailableError(f"{self.path} is not a file")  # a named pipe would be waited for
        if (foreign := foreign_beside(self.path)) is not None:
            raise StoreUnavailableError(
                f"{foreign} is where SQLite keeps what belongs to {self.path.name}, and is another's; move it away"
            )
        return is_there

    def _look_up(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._name)  # noqa: PTH116 - at each change, and a Path takes longer than the system
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _connect(self) -> sqlite3.Connection:
        def connect() -> sqlite3.Connection:
            with inside_sqlite:
                return self._connected()

        with self._translated():
            make_private(self.path.parent)
            if not self._exists():
                # SQLite makes the files beside it with the same mode.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            return patiently(connect, self.patience)

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            if not self._is_filled(connection):
                self._fill(connection)
            if not self._with_log or self._begin_log(connection):
                connection.text_factory = as_text
                if self._prepare is not None:
                    self._prepare(connection)
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        self._with_log = False
        with contextlib.closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as alone:
            alone.execute("PRAGMA locking_mode = EXCLUSIVE")  # alone with a file SQLite needs no shared memory
            alone.execute("PRAGMA journal_mode = DELETE")
        return self._connected()

    def _begin_log(self, connection: sqlite3.Connection) -> bool:
        """Write ahead to a log. Tell whether this disk can do it."""
        try:
            if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
                return True
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")  # only the first use tells
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if is_locked(error):
                raise
            return False
        return True

    def _is_filled(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the tables are there, and see to it that the file is ours before anything is done with it."""
        mark, version, tables = connection.execute(
            "SELECT application_id, user_version, (SELECT COUNT(*) FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if (mark, version, tables) == (0, 0, 0):
            return False
        if self._mark is None:
            self._check_parts(connection)
            return True
        if mark != self._mark:
            raise StoreUnavailableError(
                f"{self.path} is another program's database, and is left as it is; move it, or use another folder"
            )
        if version != self._version:
            is_newer = version > self._version
            age, what_to_do = ("a newer", "Upgrade dspy-cachectl") if is_newer else ("an older", "Move it away")
            raise FormatVersionError(
                f"{self.path} was written by {age} version of dspy_cachectl (format {version}, this is"
                f" {self._version}), and is left as it is. {what_to_do}, or name another folder"
            )
        self._check_parts(connection)
        return True

    def _check_parts(self, connection: sqlite3.Connection) -> None:
        strange = strange_part(connection)
        if strange:
            raise CorruptEntryError(
                f"{self.path} holds {strange!r}, which is no plain table; nothing of this package made it so, and it is"
                " left as it is. Move it away to begin anew"
            )

    def _fill(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA page_size = {self._page}")
        connection.execute("PRAGMA auto_vacuum = FULL")  # what goes gives its room back to the disk
        connection.execute("BEGIN IMMEDIATE")
        # Before the log is switched on: whose file it is has to stand in its head.
        if not self._is_filled(connection):  # another process may have been first
            for statement in (
                *self._schema,
                f"PRAGMA application_id = {self._mark}",
                f"PRAGMA user_version = {self._version}",
            ):
                connection.execute(statement)
        connection.execute("COMMIT")

    def _look(self, mode: str, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        def look() -> list[tuple[Any, ...]]:
            address = f"{self.path.as_uri()}?{mode}"
            with inside_sqlite, contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as connection:
                connection.text_factory = as_text
                return connection.execute(query, values).fetchall() if self._is_filled(connection) else []

        return patiently(look, self.patience)

    def run(self, connection: sqlite3.Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement of a change, patiently. Raises as `change` does."""
        try:
            return connection.execute(query, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            with self._translated():
                if not is_locked(error):
                    raise
                return patiently(lambda: connection.execute(query, values).fetchall(), self.patience)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(f"could not use {self.path}: {self._why(error)}") from error

    def _why(self, error: BaseException) -> str:
        if is_locked(error):
            return f"another process kept it locked for {self.patience:g} s"
        with contextlib.suppress(OSError):  # the folder may be gone
            if isinstance(error, sqlite3.OperationalError) and shutil.disk_usage(self.path.parent).free < _LEAST_ROOM:
                # SQLite often says "disk I/O error"; and to remove something, too, it has to write first.
                return f"{error}. The disk is full: make room for some 100 kB elsewhere on it, and try again"
        return reason(error)
