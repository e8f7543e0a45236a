"""Listing a store's folder: which rows, in which order, and what is filed with them.

Rows are chosen first, by number and by diskcache's own indexes alone, in one look at the table; what they hold is
read as they are shown. So an entry that is written anew meanwhile comes once, one that is deleted does not come, and
nobody has to wait for a listing that is being read slowly.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dspy_cachectl.stores.base import Label
from dspy_cachectl.stores.reader import FolderReader, as_bytes

_BATCH = 20
"""How many rows are read at a time: an answer may have some megabytes."""
_LOOKED_UP = 20_000
"""Up to so many rows it is faster to look up when each was stored than to walk all rows by that."""
_LAST = "\U0010ffff"

_SIZE = "LENGTH(value)"
_COLUMNS = f"rowid, key, store_time, access_time, access_count, {_SIZE}, tag, mode, value"


class Order(str, Enum):
    """What rows are sorted by."""

    AGE = "age"
    """Stored last first."""

    SIZE = "size"
    """Largest first."""

    SERVED = "served"
    """Served most often first."""

    MODEL = "model"
    """By the model's name; of one model what was first stored last."""


@dataclass(frozen=True)
class Row:
    """What the table says of an entry.

    Attributes:
        key: Its key.
        label: What it is filed under.
        stored: When it was stored, in Unix seconds.
        served: How often it was served since.
        served_at: When it was served last, in Unix seconds; None where it never was.
        size: How large it is, in bytes.
    """

    key: str
    label: Label
    stored: float
    served: int
    served_at: float | None
    size: int


@dataclass(frozen=True)
class Rows:
    """Which rows are meant.

    Attributes:
        matches: Tells whether rows filed under a label are meant.
        after: Only rows stored after this time, in Unix seconds; None for any.
        before: Only rows stored before this time, in Unix seconds; None for any.
    """

    matches: Callable[[Label], bool]
    after: float | None = None
    before: float | None = None


def row_numbers(
    reader: FolderReader, rows: Rows, *, order: Order = Order.AGE, reverse: bool = False, limit: int | None = None
) -> Sequence[int]:
    """Return the numbers of rows, in order.

    Args:
        reader: Reads the folder.
        rows: Which rows.
        order: What they are sorted by.
        reverse: The other way round.
        limit: How many at most; None for all.
    """
    tags = reader.tags()
    meant = [tag for tag in tags if rows.matches(Label.decode(tag))]
    if not meant:
        return array("q")
    if order is Order.MODEL:
        return _by_model(reader, rows, meant, reverse=reverse, limit=limit)
    others = [tag for tag in tags if tag not in set(meant)]
    count, rest = (sum(tags[tag] for tag in some) for some in (meant, others))
    conditions, parameters = _window(rows)
    by = {Order.AGE: "store_time", Order.SIZE: _SIZE, Order.SERVED: "access_count"}[order]
    if others and count <= _LOOKED_UP:
        conditions.append(_tagged(meant))
        parameters.append(_as_json(meant))
        by = f"+{by}"
    elif others:
        # The smaller of the two lists is made, and each row of the walk is looked up in it.
        few, chosen = ("IN", meant) if count <= rest else ("NOT IN", others)
        conditions.append(f"+rowid {few} (SELECT rowid FROM Cache WHERE {_tagged(chosen)})")  # noqa: S608
        parameters.append(_as_json(chosen))
    way = "ASC" if reverse else "DESC"
    ordered = f"{by} {way}, rowid {way}" if order is Order.AGE else f"{by} {way}, store_time {way}"
    query = f"SELECT rowid FROM Cache WHERE {' AND '.join(conditions) or '1'} ORDER BY {ordered} LIMIT ?"  # noqa: S608
    found = reader.query(query, (*parameters, -1 if limit is None else limit))
    return array("q", (number for (number,) in found))


def read_rows(
    reader: FolderReader, numbers: Sequence[int], *, batch: int = _BATCH
) -> Iterator[tuple[Row, Callable[[], bytes]]]:
    """Yield rows by their numbers, each with a function that returns its value; those that are gone are left out.

    The function raises `StoreError` where the value cannot be read.
    """
    for start in range(0, len(numbers), batch):
        some = list(numbers[start : start + batch])
        rows = {row[0]: row for row in _rows(reader, "rowid IN (SELECT value FROM json_each(?))", (json.dumps(some),))}
        for number in some:
            if number in rows:
                yield _row(rows[number]), _value(rows[number])


def rows_beginning_with(reader: FolderReader, prefix: str, *, limit: int) -> list[tuple[Row, Callable[[], bytes]]]:
    """Return the answers whose keys begin with a text, as `read_rows` does; one whose key is that text alone."""
    for condition, parameters in (
        ("key = ? AND raw = 1", (prefix,)),
        ("key >= ? AND key < ? AND raw = 1 ORDER BY key LIMIT ?", (prefix, prefix + _LAST, limit)),
    ):
        found = [row for row in _rows(reader, condition, parameters) if Label.decode(row[6]).is_answer]
        if found:
            return [(_row(row), _value(row)) for row in found]
    return []


def ages(reader: FolderReader, rows: Rows, edges: Sequence[float]) -> dict[Label, list[int]]:
    """Count rows by label and by when they were stored.

    Args:
        reader: Reads the folder.
        rows: Which rows.
        edges: Times in Unix seconds, rising.

    Returns:
        For each label one count for each span of time: before the first edge, between two, and from the last on.
    """
    conditions, parameters = _window(rows)
    span = "".join(f" WHEN store_time < {edge!r} THEN {index}" for index, edge in enumerate(map(float, edges)))
    query = (
        f"SELECT +tag, CASE{span} ELSE {len(edges)} END AS span, COUNT(*) FROM Cache"  # noqa: S608 - numbers only
        f" WHERE {' AND '.join(conditions) or '1'} GROUP BY 1, 2"
    )
    counts: dict[Label, list[int]] = {}
    for tag, index, count in reader.query(query, tuple(parameters)):
        label = Label.decode(tag if isinstance(tag, str) else None)
        if rows.matches(label):
            counts.setdefault(label, [0] * (len(edges) + 1))[index] += count
    return counts


def _by_model(
    reader: FolderReader, rows: Rows, meant: Sequence[str | None], *, reverse: bool, limit: int | None
) -> Sequence[int]:
    by_model: dict[str, list[str | None]] = {}
    for tag in meant:
        by_model.setdefault(Label.decode(tag).model, []).append(tag)
    numbers = array("q")
    for model in sorted(by_model, reverse=reverse):
        tags = by_model[model]
        conditions, parameters = _window(rows)
        query = (
            f"SELECT rowid FROM Cache WHERE {' AND '.join([*conditions, _tagged(tags)])}"  # noqa: S608
            f" ORDER BY rowid {'ASC' if reverse else 'DESC'} LIMIT ?"
        )
        rest = -1 if limit is None else limit - len(numbers)
        numbers.extend(number for (number,) in reader.query(query, (*parameters, _as_json(tags), rest)))
        if limit is not None and len(numbers) >= limit:
            break
    return numbers


def _window(rows: Rows) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    parameters: list[Any] = []
    for condition, time in (("store_time > ?", rows.after), ("store_time < ?", rows.before)):
        if time is not None:
            conditions.append(condition)
            parameters.append(time)
    return conditions, parameters


def _tagged(tags: Sequence[str | None]) -> str:
    among = "tag IN (SELECT value FROM json_each(?))"
    return f"({among} OR tag IS NULL)" if None in tags else among


def _as_json(tags: Sequence[str | None]) -> str:
    return json.dumps([tag for tag in tags if tag is not None])


def _rows(reader: FolderReader, condition: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
    query = f"SELECT {_COLUMNS} FROM Cache WHERE typeof(key) = 'text' AND {condition}"  # noqa: S608 - no values
    return reader.query(query, parameters)


def _row(row: tuple[Any, ...]) -> Row:
    _, key, stored, served_at, served, size, tag, *_ = row
    return Row(
        key=key,
        label=Label.decode(tag if isinstance(tag, str) else None),
        stored=_number(stored),
        served=int(_number(served)),
        served_at=_number(served_at) if _number(served) else None,
        size=int(_number(size)),
    )


def _number(value: Any) -> float:
    # SQLite keeps whatever somebody planted in a column of numbers.
    return value if isinstance(value, (int, float)) else 0.0


def _value(row: tuple[Any, ...]) -> Callable[[], bytes]:
    *_, mode, value = row
    return lambda: as_bytes(mode, value)
