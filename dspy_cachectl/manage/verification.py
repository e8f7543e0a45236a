"""Checking a store: its database, each entry, and that they belong together. Nothing is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from dspy_cachectl.entries import draws, records
from dspy_cachectl.entries.draw_tokens import mark_of
from dspy_cachectl.errors import CorruptEntryError, EncryptedError, FormatVersionError, StoreUnavailableError
from dspy_cachectl.manage import snapshots
from dspy_cachectl.predictions.places import files_at
from dspy_cachectl.reports.progress_bar import Advance, watched
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.reader import DATABASE, FolderReader, as_bytes, key_of, mark_from

_PAGE = 20
_COLUMNS = "key, raw, store_time, tag, mode, value, mark"
_MOST_MESSAGES = 20


class Kind(Enum):
    """What may be wrong, and what that means."""

    DATABASE = "the database is damaged"
    ENTRY = "an entry's bytes are damaged, or are no entry"
    KIND = "a row is of a kind that is never written; it is not unpickled, and no file is looked for"
    KEY = "a key is not that of the request beside the entry, or is no key"
    SNAPSHOT = "kept predictions are damaged"
    MARK = "what an answer is known again by is not what it says"
    NEWER = "an entry of a newer version; no damage"
    SEALED = "encrypted, and the key for that is not given; no damage"

    @classmethod
    def of(cls, error: FormatVersionError) -> Kind:
        """Return what it is that cannot be read, and is no damage."""
        return cls.SEALED if isinstance(error, EncryptedError) else cls.NEWER


@dataclass(frozen=True)
class RowState:
    """Which row it is, and in which state: one that is written anew meanwhile is another.

    Attributes:
        rowid: Its number.
        stored: When it was stored, as the table has it.
        mark: By what it should be known again; None where that is not what is wrong.
    """

    rowid: int
    stored: Any
    mark: str | None = None


@dataclass(frozen=True)
class Flaw:
    """Something that is not as it has to be.

    Attributes:
        kind: What is wrong.
        where: The key, or the file's name.
        message: What is wrong, in words.
        row: The row, where it is one.
        path: The file of kept predictions, where it is one.
    """

    kind: Kind
    where: str
    message: str
    row: RowState | None = None
    path: Path | None = None


@dataclass
class Report:
    """What a check found.

    Attributes:
        exists: Whether there is a store.
        entries: How many rows were looked at.
        flaws: What is not as it has to be.
        listed: How many entries of a shared store were in no list, and are now.
        unlisted: How many were in a list of a shared store and gone, and are in none now.
        unmended: Why the lists of a shared store were left as they are, or "".
    """

    exists: bool
    entries: int = 0
    flaws: list[Flaw] = field(default_factory=list)
    listed: int = 0
    unlisted: int = 0
    unmended: str = ""

    @property
    def damage(self) -> list[Flaw]:
        """What has to be mended."""
        return [flaw for flaw in self.flaws if flaw.kind not in {Kind.NEWER, Kind.SEALED}]


def verify(folder: Path, *, predictions: str | Path | None = None, advance: Advance | None = None) -> Report:
    """Check a store and, where they are named, kept predictions.

    Args:
        folder: The store's folder.
        predictions: The folder of kept predictions, or the address of an object store; or None.
        advance: Told how many rows were looked at, and of how many.

    Raises:
        StoreUnavailableError: If it cannot be read, for another reason than damage.
    """
    reader = FolderReader(folder)
    report = Report(exists=reader.exists())
    if report.exists:
        try:
            problem = database_problem(reader)
            if problem:
                report.flaws.append(Flaw(Kind.DATABASE, DATABASE, problem))
            report.flaws += _rows(reader, report, advance)
        except StoreUnavailableError as error:
            if type(error.__cause__) is not sqlite3.DatabaseError:
                raise  # the database is not damaged, it could not be had
            if not any(flaw.kind is Kind.DATABASE for flaw in report.flaws):
                report.flaws.append(Flaw(Kind.DATABASE, DATABASE, str(error.__cause__)))
        except CorruptEntryError as error:
            report.flaws.append(Flaw(Kind.DATABASE, DATABASE, str(error)))
    if predictions is not None:
        report.flaws += snapshot_flaws(predictions)
    return report


def database_problem(reader: FolderReader, *, quick: bool = False) -> str:
    """Return what SQLite finds wrong with a store's database, or ""; quickly, where its indexes are not compared.

    Raises:
        StoreUnavailableError: If it cannot be read.
    """
    check = "quick_check" if quick else "integrity_check"
    found = [str(row[0]) for row in reader.query(f"PRAGMA {check}({_MOST_MESSAGES})")]
    return "" if found == ["ok"] else "; ".join(found) or "it could not be checked"


def _rows(reader: FolderReader, report: Report, advance: Advance | None) -> Iterator[Flaw]:
    total = sum(count for (count,) in reader.query("SELECT COUNT(*) FROM Cache"))
    for row in watched(reader.every_row(_COLUMNS, at_once=_PAGE), total, advance):
        report.entries += 1
        flaw = _flaw(row)
        if flaw is not None:
            yield flaw


def _flaw(row: tuple[Any, ...]) -> Flaw | None:
    rowid, stands, raw, stored, tag, mode, value, mark = row
    state, key = RowState(rowid, stored), key_of(stands)
    if key is None or raw != 1:
        where = key or f"row {rowid}"
        return Flaw(Kind.KEY, where, "the key is none; nothing of this package wrote it", state)
    try:
        data = as_bytes(mode, value)
    except CorruptEntryError as error:
        return Flaw(Kind.KIND, key, str(error), state)
    return flaw_of(key, data, Label.decode(tag if isinstance(tag, str) else None), mark_from(mark), state)


def flaw_of(key: str, data: bytes, label: Label, mark: str | None, state: RowState | None = None) -> Flaw | None:
    """Return what is wrong with an entry, whatever it is kept in; or None.

    Args:
        key: Its key.
        data: Its bytes.
        label: What it is filed under.
        mark: By what it is known again, or ""; None for what is no mark.
        state: The row, where it is one of a folder's.
    """
    try:
        expected = _expected_key(data, label)
    except FormatVersionError as error:
        return Flaw(Kind.of(error), key, str(error), state)
    except CorruptEntryError as error:
        return Flaw(Kind.ENTRY, key, str(error), state)
    if expected not in {None, key}:
        message = f"the request beside the entry has the key {expected}: it is filed where it does not belong"
        return Flaw(Kind.KEY, key, message, state)
    known_by = expected_mark(data) if label.is_answer else ""
    if known_by != mark:
        message = "another draw with this answer would not be known, or one without it be taken for this"
        return Flaw(Kind.MARK, key, message, None if state is None else replace(state, mark=known_by))
    return None


def expected_mark(data: bytes) -> str:
    """Return by what an answer should be known again. Raises as `records.decode` does."""
    origin = records.decode_origin(data)
    return mark_of(origin.response_ids, origin.content)


def _expected_key(data: bytes, label: Label) -> str | None:
    """Return the key that an entry has to have by its request; None where the request does not tell."""
    records.decode_origin(data)
    request = records.take_apart(data)[3]
    # What was cleaned for a cassette is not what the key was made of.
    if not label.is_answer or request.get("cleaned") or not isinstance(request.get("request"), Mapping):
        return None
    return draws.described_key(request, rollout_id=request.get("rollout_id"))


def snapshot_flaws(place: str | Path) -> Iterator[Flaw]:
    """Yield what is wrong with kept predictions, in a folder or in an object store."""
    files = files_at(place, sets_aside=False)
    for path, part in files.to_check():
        try:
            if part is not None:
                files.fetch(part)
            for _ in snapshots.read_rows(path):
                pass
        except FormatVersionError as error:
            yield Flaw(Kind.of(error), part or path.name, str(error))
        except CorruptEntryError as error:
            yield Flaw(Kind.SNAPSHOT, part or path.name, str(error), path=path if part is None else None)
        except StoreUnavailableError:
            if part is not None or path.exists():  # else it was removed meanwhile
                raise
