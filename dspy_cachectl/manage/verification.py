"""Checking a store: its database, each entry, each file, and that they belong together. Nothing is changed."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dspy_cachectl.entries import draws, records
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreUnavailableError
from dspy_cachectl.manage import snapshots
from dspy_cachectl.manage.removal import Advance
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.reader import DATABASE, FolderReader, MissingFileError, is_filename, read_value

_PAGE = 200
_YOUNG = 60.0
"""Seconds for which a file that no row names may be one that is being written."""
_COLUMNS = "rowid, key, raw, store_time, tag, mode, filename, value"
_MOST_MESSAGES = 20

DATABASE_FLAW, ENTRY, KIND, KEY, NAME, MISSING, ORPHAN, SUMS, SNAPSHOT, NEWER = (
    "database",
    "entry",
    "kind",
    "key",
    "name",
    "missing",
    "orphan",
    "sums",
    "snapshot",
    "newer",
)
FLAWS: Mapping[str, str] = {
    DATABASE_FLAW: "the database is damaged",
    ENTRY: "an entry's bytes are damaged, or are no entry",
    KIND: "a row is of a kind that is never written; it is not unpickled",
    KEY: "a key is not that of the request beside the entry, or is no key",
    NAME: "a row names a file that the store would not have made",
    MISSING: "a row names a file that is not there",
    ORPHAN: "a file that no row names",
    SUMS: "the totals that the database keeps are not those of its rows",
    SNAPSHOT: "kept predictions are damaged",
    NEWER: "an entry of a newer version; no damage",
}


@dataclass(frozen=True)
class Place:
    """Which row it is, and in which state: one that is written anew meanwhile is another.

    Attributes:
        rowid: Its number.
        stored: When it was stored, as the table has it.
        filename: The file that it names, or None.
    """

    rowid: int
    stored: Any
    filename: Any


@dataclass(frozen=True)
class Flaw:
    """Something that is not as it has to be.

    Attributes:
        kind: One of `FLAWS`.
        where: The key, or the file's path.
        message: What is wrong.
        place: The row, where it is one.
        path: The file, where it is one that may be moved: it lies in the folder, and is no link.
    """

    kind: str
    where: str
    message: str
    place: Place | None = None
    path: Path | None = None

    @property
    def is_damage(self) -> bool:
        """Whether it has to be mended."""
        return self.kind != NEWER


@dataclass
class Report:
    """What a check found.

    Attributes:
        exists: Whether there is a store.
        entries: How many rows were looked at.
        files: How many files.
        snapshots: Whether kept predictions were looked at.
        flaws: What is not as it has to be.
    """

    exists: bool
    entries: int = 0
    files: int = 0
    snapshots: bool = False
    flaws: list[Flaw] = field(default_factory=list)

    @property
    def damage(self) -> list[Flaw]:
        """What has to be mended."""
        return [flaw for flaw in self.flaws if flaw.is_damage]


def verify(folder: Path, *, predictions: Path | None = None, advance: Advance | None = None) -> Report:
    """Check a store and, where one is named, a folder of kept predictions.

    Args:
        folder: The store's folder.
        predictions: The folder of kept predictions, or None.
        advance: Told how many rows were looked at, and of how many.

    Raises:
        StoreUnavailableError: If it cannot be read, for another reason than damage.
    """
    reader = FolderReader(folder)
    report = Report(exists=reader.exists())
    if report.exists:
        # The files first: a row that is written meanwhile names its file all the same.
        files = dict(_files(folder))
        named: set[str] = set()
        try:
            report.flaws += _database(reader)
            for flaw in _rows(reader, report, named, advance):
                report.flaws.append(flaw)
            report.flaws += _sums(reader)
        except StoreUnavailableError as error:
            if not is_damage(error):
                raise
            if not any(flaw.kind == DATABASE_FLAW for flaw in report.flaws):
                report.flaws.append(Flaw(DATABASE_FLAW, DATABASE, str(error.__cause__)))
        else:
            report.files = len(files)
            report.flaws += _orphans(folder, files, named)
    if predictions is not None:
        report.snapshots = True
        report.flaws += _snapshots(predictions)
    return report


def is_damage(error: BaseException) -> bool:
    """Tell whether a store failed because its database is damaged, and not because it could not be had."""
    return type(error.__cause__) is sqlite3.DatabaseError


def _database(reader: FolderReader) -> list[Flaw]:
    found = [str(row[0]) for row in reader.query(f"PRAGMA integrity_check({_MOST_MESSAGES})")]
    return [] if found == ["ok"] else [Flaw(DATABASE_FLAW, DATABASE, "; ".join(found) or "it could not be checked")]


def _rows(reader: FolderReader, report: Report, named: set[str], advance: Advance | None) -> Iterator[Flaw]:
    count = reader.query("SELECT COUNT(*) FROM Cache")
    total = count[0][0] if count else 0
    last = -(2**63)
    while True:
        # Not the index of any column: a damaged one would hide rows.
        rows = reader.query(
            f"SELECT {_COLUMNS} FROM Cache NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT {_PAGE}",  # noqa: S608
            (last,),
        )
        for row in rows:
            last = row[0]
            report.entries += 1
            if isinstance(row[6], str):
                named.add(row[6].replace("\\", "/"))
            flaw = _row(reader, row)
            if flaw is not None:
                yield flaw
        if advance is not None:
            advance(report.entries, max(total, report.entries))
        if len(rows) < _PAGE:
            return


def _row(reader: FolderReader, row: tuple[Any, ...]) -> Flaw | None:
    rowid, key, raw, stored, tag, mode, filename, value = row
    place = Place(rowid, stored, filename)
    where = key if isinstance(key, str) else f"row {rowid}"
    if not isinstance(key, str) or raw != 1:
        return Flaw(KEY, where, "the key is no text; nothing of this package wrote it", place)
    path: Path | None = None
    if isinstance(filename, str):
        problem = _name_problem(reader.path, filename)
        if problem:
            return Flaw(NAME, where, problem, place)
        path = reader.path / filename
    try:
        data = read_value(reader.path, mode, filename, value)
        request = _checked(data)
    except MissingFileError as error:
        # It may have been written anew, or removed, since.
        return Flaw(MISSING, where, str(error), place) if _is_still(reader, place) else None
    except FormatVersionError as error:
        return Flaw(NEWER, where, str(error), place)
    except CorruptEntryError as error:
        is_entry = mode in {1, 2} and (isinstance(value, bytes) or path is not None)
        return Flaw(ENTRY if is_entry else KIND, where, str(error), place, path)
    if Label.decode(tag if isinstance(tag, str) else None).is_answer and isinstance(request.get("request"), Mapping):
        expected = None
        if not request.get("cleaned"):
            expected = draws.described_key(request, rollout_id=request.get("rollout_id"))
        if expected not in {None, key}:
            message = f"the request beside the entry has the key {expected}: it is filed where it does not belong"
            return Flaw(KEY, where, message, place, path)
    return None


def _checked(data: bytes) -> dict[str, Any]:
    records.decode_origin(data)
    return records.take_apart(data)[3]


def _name_problem(folder: Path, filename: str) -> str | None:
    if not is_filename(filename):
        return f"it names the file {filename!r}, which is not one that the store makes; it is not looked at"
    step = folder
    for part in filename.replace("\\", "/").split("/"):
        step /= part
        if step.is_symlink():
            return f"the file {filename!r} is a link, or lies behind one; it is not followed"
    return None


def _is_still(reader: FolderReader, place: Place) -> bool:
    found = reader.query("SELECT store_time, filename FROM Cache WHERE rowid = ?", (place.rowid,))
    return bool(found) and found[0] == (place.stored, place.filename)


def _sums(reader: FolderReader) -> list[Flaw]:
    found = reader.query(
        "SELECT (SELECT COUNT(*) FROM Cache), (SELECT coalesce(SUM(size), 0) FROM Cache),"
        " (SELECT value FROM Settings WHERE key = 'count'), (SELECT value FROM Settings WHERE key = 'size')"
    )
    if not found or found[0][:2] == found[0][2:]:
        return []
    count, size, said_count, said_size = found[0]
    return [Flaw(SUMS, DATABASE, f"it says {said_count} rows of {said_size} bytes in files; there are {count}, {size}")]


def _files(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the files of values by their names in the table, with when they were written. No link is followed."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            try:
                facts = path.lstat()
            except FileNotFoundError:
                continue
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISREG(facts.st_mode) and is_filename(relative):
                yield relative, facts.st_mtime


def _orphans(folder: Path, files: Mapping[str, float], named: set[str]) -> Iterator[Flaw]:
    oldest_young = time.time() - _YOUNG
    for name, written in sorted(files.items()):
        path = folder / name
        if name not in named and written < oldest_young and path.exists():
            yield Flaw(ORPHAN, name, "no row names it", path=path)


def _snapshots(root: Path) -> Iterator[Flaw]:
    for path, error in snapshots.damaged(root):
        if isinstance(error, FormatVersionError):
            yield Flaw(NEWER, path.name, str(error))
        elif isinstance(error, CorruptEntryError):
            yield Flaw(SNAPSHOT, path.name, str(error), path=path)
        elif path.exists():
            raise error
