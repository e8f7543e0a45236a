"""Records for the processes of one machine: a small SQLite file beside a store, or one of its own."""

from __future__ import annotations

from pathlib import Path

import orjson

from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.registers.base import Change, Record

NAME = "registers.db"
_SCHEMA = ("CREATE TABLE records (name TEXT PRIMARY KEY, record TEXT) WITHOUT ROWID",)


class FileRegister:
    """Records in one file. Thread-safe, process-safe, survives a fork.

    Args:
        path: The file. It is made, for this user alone, at the first change.
    """

    is_shared = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path, kind="registers", version=1, schema=_SCHEMA, keep_open=True)

    @property
    def place(self) -> str:
        """Where the records are."""
        return f"{self.path}, for the processes of this machine"

    def make(self) -> None:
        """See to it that the file is there.

        Raises:
            StoreError: If it cannot be made.
        """
        self._database.make()

    def change(self, name: str, change: Change) -> Record:
        """Put what a function makes of a record in its place; see `Register`."""
        with self._database.change() as sql:
            rows = sql("SELECT record FROM records WHERE name = ?", name)
            changed = change(read(rows[0][0] if rows else "", name, self.place))
            sql("INSERT OR REPLACE INTO records VALUES (?, ?)", name, orjson.dumps(changed).decode())
        return changed


def read(text: str | bytes, name: str, place: str) -> Record:
    """Return the record that a text is; an empty one for no text.

    Raises:
        CorruptEntryError: If it is none.
    """
    if not text:
        return {}
    try:
        found = orjson.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CorruptEntryError(f"the record {name!r} in {place} is damaged, or not one of ours")
    return found
