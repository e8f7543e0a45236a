"""Mending a store: what is damaged is moved aside, beside the store, and nothing is destroyed.

```
<store>.quarantine/<time>/
  flaws.json        what was found, and why it was moved
  rows.db           the damaged rows, in a table like the store's
  database/         the database as it was, where it had to be built anew
```
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dspy_cachectl.boundary.forks import inside_sqlite
from dspy_cachectl.boundary.ownership import STORE, database_head
from dspy_cachectl.boundary.writing import make_private, target_of, write_whole
from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.manage.verification import Flaw, Kind, Report, RowState, verify
from dspy_cachectl.predictions.files import SnapshotFiles
from dspy_cachectl.reports.progress_bar import Advance
from dspy_cachectl.reports.texts import as_json
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.patience import as_text, is_locked
from dspy_cachectl.stores.reader import DATABASE, kept_mark

_COLUMNS = "rowid, key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, mark, value"
_PATIENCE = 5.0
_BATCH = 100
_MOST_FAILURES = 20_000
"""After so many failed looks without a row in between the rest of a damaged table is given up."""
_ROUNDS = 3
"""How often it is looked again for what is damaged: rows come to light when the database is whole."""


@dataclass
class Repaired:
    """What was done.

    Attributes:
        quarantine: Where what was damaged is now; None where nothing had to be moved.
        rows: How many rows were moved there.
        files: How many files of a damaged database and of kept predictions.
        kept: How many rows of a damaged database could be read and were kept; None where it was not damaged.
        marks: How many rows are known again by what they say, and were not.
        problems: What could not be done, in words.
        flaws: What was found and mended.
    """

    quarantine: Path | None = None
    rows: int = 0
    files: int = 0
    kept: int | None = None
    marks: int = 0
    problems: list[str] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)


def quarantine_of(folder: Path) -> Path:
    """Return the folder beside a store where its damaged parts go."""
    return folder.with_name(f"{folder.name}.quarantine")


def repair(
    folder: Path, found: Report, *, predictions: str | Path | None = None, advance: Advance | None = None
) -> tuple[Repaired, Report]:
    """Move what is damaged aside, and build the database anew where it is damaged itself.

    A row that was written anew since it was checked is left alone.

    Args:
        folder: The store's folder.
        found: What `verify` found.
        predictions: The kept predictions that were checked, or None; of an object store they stay as they are.
        advance: Told how many rows were looked at, and of how many.

    Returns:
        What was done, and what another look finds now.

    Raises:
        StoreUnavailableError: If the store or the quarantine cannot be written.
    """
    done, report = Repaired(), found
    for _ in range(_ROUNDS):
        if not report.damage or done.problems:
            break
        try:
            _mend(folder, report.damage, done)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailableError(f"could not repair the store {folder}: {error}") from error
        report = verify(folder, predictions=predictions, advance=advance)
    return done, report


def _mend(folder: Path, flaws: Sequence[Flaw], done: Repaired) -> None:
    marks = {flaw.row.rowid: flaw.row for flaw in flaws if flaw.kind is Kind.MARK and flaw.row is not None}
    if marks and not any(flaw.kind is Kind.DATABASE for flaw in flaws):
        _mark_rows(folder, list(marks.values()), done)
    flaws = [flaw for flaw in flaws if flaw.kind is not Kind.MARK]
    if any(flaw.kind is Kind.DATABASE for flaw in flaws) and not _is_ours(folder / DATABASE):
        done.problems.append(f"{folder / DATABASE} does not begin as a store's database, so it is left; move it away")
        flaws = [flaw for flaw in flaws if flaw.kind is Kind.SNAPSHOT]
    if any(flaw.kind is not Kind.SNAPSHOT for flaw in flaws):
        now = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        done.quarantine = done.quarantine or quarantine_of(folder) / now
        make_private(done.quarantine)
        done.flaws += flaws
        listed = json.dumps(as_json(done.flaws), indent=2).encode("ascii")
        write_whole(done.quarantine / "flaws.json", listed, what="the list of flaws", private=True)
    set_snapshots_aside(flaws, done)
    if any(flaw.kind is Kind.DATABASE for flaw in flaws):
        _rebuild(folder, done)  # its rows have other numbers now; what is damaged in them is found by another look
    else:
        _move_rows(folder, [flaw.row for flaw in flaws if flaw.row is not None], done)


def _is_ours(database: Path) -> bool:
    head = database_head(database)
    return head is not None and head.kind == STORE


def _move_rows(folder: Path, rows: Sequence[RowState], done: Repaired) -> None:
    if not rows or done.quarantine is None:
        return
    keep = f"INSERT INTO aside.Cache SELECT {_COLUMNS} FROM main.Cache WHERE rowid = ?"  # noqa: S608 - no values
    drop = "DELETE FROM main.Cache WHERE rowid = ? AND store_time IS ?"
    with _connected(folder / DATABASE) as store:
        (done.quarantine / "rows.db").touch(mode=0o600)
        store.execute("ATTACH ? AS aside", (str(done.quarantine / "rows.db"),))
        store.execute(f"CREATE TABLE IF NOT EXISTS aside.Cache ({_COLUMNS})")
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            # First all are there, then they are here no more: of two databases SQLite does not write both or none.
            with store:
                store.execute("BEGIN")
                store.executemany(keep, [(row.rowid,) for row in batch])
            with store:
                store.execute("BEGIN IMMEDIATE")
                done.rows += sum(store.execute(drop, (row.rowid, row.stored)).rowcount for row in batch)


def _mark_rows(folder: Path, rows: Sequence[RowState], done: Repaired) -> None:
    """Let rows be known again by what they say."""
    mark = "UPDATE Cache SET mark = ? WHERE rowid = ? AND store_time IS ?"
    with _connected(folder / DATABASE) as store:
        for start in range(0, len(rows), _BATCH):
            with store:
                store.execute("BEGIN IMMEDIATE")
                batch = [(kept_mark(row.mark or ""), row.rowid, row.stored) for row in rows[start : start + _BATCH]]
                done.marks += store.executemany(mark, batch).rowcount


def set_snapshots_aside(flaws: Sequence[Flaw], done: Repaired) -> None:
    """Rename damaged predictions where they are; of those in a bucket say what to do."""
    for flaw in flaws:
        if flaw.kind is Kind.SNAPSHOT and flaw.path is not None:
            SnapshotFiles(flaw.path.parent).set_aside(flaw.path, CorruptEntryError(flaw.message))
            done.files += 1
        elif flaw.kind is Kind.SNAPSHOT:
            done.problems.append(
                f"{flaw.where} is in a bucket, where nothing is moved, and is not served. Put it back as it was, or "
                "remove it: dspy-cachectl predictions clear SNAPSHOT --library ADDRESS"
            )


def _rebuild(folder: Path, done: Repaired) -> None:
    """Put a new database with all rows that can be read in the place of a damaged one, which is kept."""
    assert done.quarantine is not None  # noqa: S101 - for the type checker
    kept = done.quarantine / "database"
    kept.mkdir(mode=0o700, exist_ok=True)
    database = target_of(folder / DATABASE)
    for name in (DATABASE, f"{DATABASE}-wal"):
        with contextlib.suppress(FileNotFoundError):
            # Before anybody opens it for writing: SQLite would play the log into it.
            shutil.copy2(database.with_name(database.name + name.removeprefix(DATABASE)), kept / name)
            done.files += 1
    if _is_in_use(database):
        done.problems.append("the damaged database is in use; stop the programs that use it, and try again")
        return
    new = database.parent / f".new-{uuid.uuid4().hex[:8]}"
    try:
        made = DiskStore(new, patience=_PATIENCE)
        made.make()
        made.close()
        with _connected(new / DATABASE) as target:
            _copy_readable_rows(database, target)
            done.kept = target.execute("SELECT COUNT(*) FROM Cache").fetchone()[0]
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # SQLite would play the old log into the new database.
        for ending in ("-wal", "-shm"):
            database.with_name(database.name + ending).unlink(missing_ok=True)
        (new / DATABASE).chmod(stat.S_IMODE(database.stat().st_mode))
        os.replace(new / DATABASE, database)  # noqa: PTH105 - nobody finds a folder without a database
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _is_in_use(database: Path) -> bool:
    try:
        with _connected(database, patience=0.5) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:
        return is_locked(error)  # or it is too damaged to be used by anybody
    return False


def _copy_readable_rows(damaged: Path, target: sqlite3.Connection) -> None:
    """Copy what can be read of a damaged table: a span of rows that cannot is looked at in halves."""
    copy = f"INSERT OR IGNORE INTO main.Cache SELECT {_COLUMNS} FROM old.Cache NOT INDEXED WHERE rowid BETWEEN ? AND ?"  # noqa: S608
    try:
        target.execute("PRAGMA writable_schema = ON")  # so that SQLite reads a file that was cut, too
        target.execute("ATTACH ? AS old", (f"{damaged.absolute().as_uri()}?mode=ro",))
    except sqlite3.DatabaseError:
        return  # it is no database any more
    # The first rows in small spans: they are most of what there is.
    spans = [(0, 0), *((2**power, 2 ** (power + 1) - 1) for power in range(62)), (2**62, 2**63 - 1), (-(2**63), -1)]
    failures = 0
    while spans and failures < _MOST_FAILURES:
        low, high = spans.pop(0)
        try:
            if target.execute(copy, (low, high)).rowcount:
                failures = 0
        except sqlite3.DatabaseError:
            failures += 1
            if low < high:
                middle = (low + high) // 2
                spans[:0] = [(low, middle), (middle + 1, high)]
    with contextlib.suppress(sqlite3.DatabaseError):  # how the store was used is worth less than its rows
        target.execute("INSERT INTO main.usage SELECT label, counter, amount FROM old.usage")
    target.execute("DETACH old")


@contextlib.contextmanager
def _connected(path: Path, *, patience: float = _PATIENCE) -> Iterator[sqlite3.Connection]:
    address = f"{path.absolute().as_uri()}?mode=rw"
    with (
        inside_sqlite,
        contextlib.closing(sqlite3.connect(address, uri=True, timeout=patience, isolation_level=None)) as connection,
    ):
        connection.text_factory = as_text
        yield connection
