"""Changing a database: the block around a transaction, and what is held for it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

Run = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement with its values by a connection, and returns the rows."""


class Begun(NamedTuple):
    """A change that has begun: its connection, and the lock that is held for it."""

    connection: sqlite3.Connection
    lock: contextlib.AbstractContextManager[Any]


class Transaction:
    """A block in which a database is changed in one transaction: all of it, or nothing if it raises.

    Args:
        begin: Begins it.
        run: Runs a statement of it.
        end: Lets go of what it holds.
    """

    # No generator, and none within it: they take as long as the statements.
    def __init__(self, begin: Callable[[], Begun], run: Run, end: Callable[[Begun], None]) -> None:
        self._begin, self._run, self._end = begin, run, end

    def __enter__(self) -> Callable[..., list[tuple[Any, ...]]]:
        """Begin."""
        self._begun = self._begin()
        return partial(self._run, self._begun.connection)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """End, or undo all of it."""
        try:
            if error is None:
                self._commit()
            else:
                self._undo()
        finally:
            self._end(self._begun)

    def _commit(self) -> None:
        try:
            self._run(self._begun.connection, "COMMIT")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            self._begun.connection.execute("ROLLBACK")
