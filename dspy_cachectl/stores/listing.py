"""Listing a store's folder: which rows, in which order, and what is filed with them.

Rows are chosen first, by number and by diskcache's own indexes alone, in one look at the table; what they hold is
read as they are shown. So an entry that is written anew meanwhile comes once, one that is deleted does not come, and
nobody has to wait for a listing that is being read slowly.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from dspy_cachectl.stores.base import Label
from dspy_cachectl.stores.reader import IS_KEY, FolderReader, as_bytes, hashes_beginning_with, kept, key_of
from dspy_cachectl.stores.rows import Listed, Order, Rows, StoredEntry

_ROWS = 2000
_VALUES = 20
"""How many rows are read at a time, without and with what they hold: an answer may have some megabytes."""
_LOOKED_UP = 20_000
"""Up to so many rows it is faster to look up when each was stored than to walk all rows by that."""
_AFTER_CHECKSUM = 5
_LAST = "\U0010ffff"

_SIZE = "LENGTH(value)"
_FACTS = f"rowid, key, store_time, access_time, access_count, {_SIZE}, tag"
_WHOLE = f"{_FACTS}, mode, value"


Reader: TypeAlias = FolderReader | Listed
"""What can be listed: a folder, or a store that does it by itself."""


def row_numbers(
    reader: Reader, rows: Rows, *, order: Order = "age", reverse: bool = False, limit: int | None = None
) -> Sequence[Any]:
    """Return the numbers of rows, in order; or by what else a store finds them.

    Args:
        reader: Reads the store.
        rows: Which rows.
        order: What they are sorted by.
        reverse: The other way round.
        limit: How many at most; None for all.
    """
    if isinstance(reader, Listed):
        return reader.row_numbers(rows, order=order, reverse=reverse, limit=limit)
    tags = reader.tags()
    meant = [tag for tag in tags if rows.matches(Label.decode(tag))]
    if not meant:
        return array("q")
    others = list(tags.keys() - meant)
    count, rest = (sum(tags[tag] for tag in some) for some in (meant, others))
    conditions, parameters = _window(rows)
    by = {"age": "store_time", "size": _SIZE, "served": "access_count"}[order]
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
    ordered = f"{by} {way}, rowid {way}" if order == "age" else f"{by} {way}, store_time {way}"
    query = f"SELECT rowid FROM Cache WHERE {' AND '.join(conditions) or '1'} ORDER BY {ordered} LIMIT ?"  # noqa: S608
    found = reader.query(query, (*parameters, -1 if limit is None else limit))
    return array("q", (number for (number,) in found))


def read_rows(reader: Reader, numbers: Sequence[Any]) -> Iterator[StoredEntry]:
    """Yield rows by their numbers, without what they hold; those that are gone are left out."""
    if isinstance(reader, Listed):
        yield from reader.read_rows(numbers)
        return
    for some in _batches(numbers, _ROWS):
        yield from (_stored(row) for row in _by_number(reader, _FACTS, some))


def read_entries(reader: Reader, numbers: Sequence[Any]) -> Iterator[tuple[StoredEntry, Callable[[], bytes]]]:
    """Yield rows by their numbers, each with a function that returns its value; those that are gone are left out.

    The function raises `StoreError` where the value cannot be read.
    """
    if isinstance(reader, Listed):
        yield from reader.read_entries(numbers)
        return
    for some in _batches(numbers, _VALUES):
        yield from map(_with_value, _by_number(reader, _WHOLE, some))


def bytes_of_values(reader: Reader) -> int:
    """Return how large all values are together, in bytes."""
    if isinstance(reader, Listed):
        return reader.bytes_used()
    return sum(size or 0 for (size,) in reader.query(f"SELECT SUM({_SIZE}) FROM Cache"))  # noqa: S608 - no values


def keys_above(reader: FolderReader, head: bytes, above: int) -> set[str]:
    """Return the keys of entries that begin with some bytes, then four of any kind, and then one above a number."""
    rows = reader.query(
        f"SELECT key FROM Cache WHERE {IS_KEY} AND typeof(value) = 'blob'"  # noqa: S608 - no values
        " AND substr(value, 1, ?) = ? AND substr(value, ?, 1) > ?",
        (len(head), head, len(head) + _AFTER_CHECKSUM, bytes([above])),
    )
    return {str(key_of(key)) for (key,) in rows}


def entries_beginning_with(reader: Reader, prefix: str, *, limit: int) -> list[tuple[StoredEntry, Callable[[], bytes]]]:
    """Return the answers whose keys begin with a text, as `read_entries` does; one whose key is that text alone."""
    if isinstance(reader, Listed):
        return reader.entries_beginning_with(prefix, limit=limit)
    if found := _answers(reader, "key = ?", (kept(prefix),)):
        return found
    found = _answers(reader, "key >= ? AND key < ? ORDER BY key LIMIT ?", (prefix, prefix + _LAST, limit))
    if hashes := hashes_beginning_with(prefix):
        found += _answers(reader, "key BETWEEN ? AND ? ORDER BY key LIMIT ?", (*hashes, limit))
    return sorted(found, key=lambda one: one[0].key)[:limit]


def _answers(
    reader: FolderReader, condition: str, parameters: tuple[object, ...]
) -> list[tuple[StoredEntry, Callable[[], bytes]]]:
    rows = _rows(reader, _WHOLE, condition, parameters)
    return [_with_value(row) for row in rows if Label.decode(row[6]).is_answer]


def _window(rows: Rows) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    parameters: list[Any] = []
    if rows.after is not None:
        conditions.append("store_time > ? AND store_time <= ?")
        parameters += [rows.after, rows.ahead]
    if rows.before is not None:
        conditions.append("(store_time < ? OR store_time > ?)")
        parameters += [rows.before, rows.ahead]
    return conditions, parameters


def _tagged(tags: Sequence[str | None]) -> str:
    among = "tag IN (SELECT value FROM json_each(?))"
    return f"({among} OR typeof(tag) != 'text')" if None in tags else among


def _as_json(tags: Sequence[str | None]) -> str:
    return json.dumps([tag for tag in tags if tag is not None])


def _batches(numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    return (list(numbers[start : start + size]) for start in range(0, len(numbers), size))


def _by_number(reader: FolderReader, columns: str, numbers: list[int]) -> Iterator[tuple[Any, ...]]:
    found = _rows(reader, columns, "rowid IN (SELECT value FROM json_each(?))", (json.dumps(numbers),))
    rows = {row[0]: row for row in found}
    return (rows[number] for number in numbers if number in rows)


def _rows(reader: FolderReader, columns: str, condition: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
    # Only what this package wrote.
    query = f"SELECT {columns} FROM Cache WHERE {IS_KEY} AND raw = 1 AND {condition}"  # noqa: S608 - no values
    return reader.query(query, parameters)


def _with_value(row: tuple[Any, ...]) -> tuple[StoredEntry, Callable[[], bytes]]:
    *_, mode, value = row
    return _stored(row), lambda: as_bytes(mode, value)


def _stored(row: tuple[Any, ...]) -> StoredEntry:
    _, key, stored, served_at, served, size, tag, *_ = row
    return StoredEntry(
        key=str(key_of(key)),
        label=Label.decode(tag if isinstance(tag, str) else None),
        stored=_number(stored),
        served=int(_number(served)),
        served_at=_number(served_at) if _number(served) else None,
        size=int(_number(size)),
    )


def _number(value: Any) -> float:
    # SQLite keeps whatever somebody planted in a column of numbers.
    return value if isinstance(value, (int, float)) else 0.0
