"""A database of somebody else's making does no harm to who reads it, or writes to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader

STRANGE = {
    "an endless view": "CREATE VIEW more AS WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT 1 FROM n",
    "a column of a gigabyte": "CREATE TABLE more (a, b AS (zeroblob(1000000000)))",
    "a default of a gigabyte": "CREATE TABLE more (a DEFAULT (zeroblob(1000000000)))",
    "a check of a gigabyte": "CREATE TABLE more (a CHECK (length(zeroblob(1000000000)) > 0))",
    "an index of a gigabyte": "CREATE INDEX more ON rows (zeroblob(1000000))",
    "a trigger that fills": "CREATE TRIGGER more AFTER INSERT ON rows BEGIN UPDATE rows SET a = a || a; END",
    "a trigger that copies": "CREATE TRIGGER more AFTER INSERT ON rows BEGIN INSERT INTO rows SELECT * FROM rows; END",
    "a virtual table": "CREATE VIRTUAL TABLE more USING fts5(a)",
}


def made(path: Path) -> Database:
    return Database(path, kind="test", version=1, schema=("CREATE TABLE rows (a TEXT)",))


@pytest.mark.parametrize("statement", STRANGE.values(), ids=STRANGE.keys())
def test_what_is_no_plain_table(tmp_path: Path, statement: str) -> None:
    """It is neither read nor written, though it says that it is ours, and is named and left as it is."""
    path = tmp_path / "rows.db"
    with made(path).change() as sql:
        sql("INSERT INTO rows VALUES ('x')")
    with sqlite3.connect(path) as planted:
        planted.execute(statement)
    planted.close()
    before = path.read_bytes()

    with pytest.raises(CorruptEntryError, match=r"rows\.db holds 'more"):
        made(path).read("SELECT a FROM rows")
    with pytest.raises(CorruptEntryError, match="no plain table"), made(path).change() as sql:
        sql("INSERT INTO rows VALUES ('y')")
    assert before == path.read_bytes()


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "another program's"])
def test_a_view_in_the_place_of_entries(tmp_path: Path, is_ours: bool) -> None:
    """A store's entries are a table, and so are those of DSPy's own cache."""
    store = DiskStore(tmp_path)
    store.put("key", b"value", Label())
    store.close()
    with sqlite3.connect(tmp_path / "cache.db") as planted:
        planted.execute("ALTER TABLE Cache RENAME TO Was")
        planted.execute("CREATE VIEW Cache AS SELECT *, zeroblob(1000000000) AS more FROM Was")
    planted.close()

    with pytest.raises(CorruptEntryError, match="'Cache', which is no plain table"):
        FolderReader(tmp_path, is_ours=is_ours).query("SELECT COUNT(*) FROM Cache")
