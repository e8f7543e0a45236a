"""Answers out of the folder of DSPy's own cache.

DSPy keeps the hash of a request and not the request, so our key cannot be made of it. Such an answer lies under
DSPy's key in the store until a program asks for it; then it is filed under ours (see `cache`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from dspy_cachectl.entries import answers, draws, records
from dspy_cachectl.entries.values import TAG, check
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, StoreUnavailableError
from dspy_cachectl.manage.exchange import DAMAGED, Imported, LeftOutError
from dspy_cachectl.manage.progress import Advance, watched
from dspy_cachectl.manage.unpickling import LARGEST, RefusedPickleError, Unpickler
from dspy_cachectl.stores import DSPY_KIND, Label, Store, dspy_key
from dspy_cachectl.stores.reader import DATABASE, FolderReader

_KEY = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"\d{3}")
_FILENAME = re.compile(r"[0-9a-f]{2}[/\\][0-9a-f]{2}[/\\][0-9a-f]{28}\.val")
"""diskcache's name of a value's file. Any other could point outside the folder."""
_PICKLED = 4
"""diskcache's mode of a value that is a pickle."""
_PAGE = 200

REFUSED = "not plain answers: nothing of them was run"
FOREIGN = "of a kind that DSPy does not write"
EMPTY = "empty answers or refusals: they are asked for again"


class _Row(NamedTuple):
    """A row of diskcache's table, as whoever may write to the folder has filled it."""

    folder: Path
    key: Any
    mode: Any
    filename: Any
    value: Any
    stored: Any


def default_folder() -> Path:
    """Return the folder where DSPy keeps its cache."""
    return Path(os.environ.get("DSPY_CACHEDIR") or Path.home() / ".dspy_cache")


def import_folder(
    store: Store,
    folder: Path,
    *,
    endpoint: str | None = None,
    dry_run: bool = False,
    advance: Advance | None = None,
) -> Imported:
    """Put the answers of DSPy's cache into a store.

    Args:
        store: The store.
        folder: DSPy's folder. It is not changed.
        endpoint: The address of the server that gave the answers: DSPy's keys do not tell servers apart. None for the
            provider's own.
        dry_run: Whether only to count.
        advance: Told how many answers have been looked at, and of how many.

    Raises:
        ConfigurationError: If the folder is no cache of DSPy's.
        StoreUnavailableError: If it cannot be read, or the store not be written.
    """
    shards = _shards(folder)
    if not shards:
        raise ConfigurationError(f"{str(folder)!r} is no cache of DSPy's: it holds no {DATABASE}")
    done = Imported()
    total = sum(int(shard.query("SELECT COUNT(*) FROM Cache")[0][0]) for shard in shards)
    with Unpickler() as unpickler:
        for row in watched(chain.from_iterable(map(_rows, shards)), total, advance):
            try:
                _import_row(store, row, unpickler, done, endpoint=draws.clean_endpoint(endpoint), dry_run=dry_run)
            except LeftOutError as error:
                done.left_out[str(error)] += 1
            except CorruptEntryError as error:
                is_refused = isinstance(error, RefusedPickleError)
                done.note_damage(REFUSED if is_refused else DAMAGED, f"{row.key[:12]}: {error}")
    return done


def _import_row(
    store: Store, row: _Row, unpickler: Unpickler, done: Imported, *, endpoint: str | None, dry_run: bool
) -> None:
    if not (isinstance(row.key, str) and _KEY.fullmatch(row.key) and row.mode == _PICKLED):
        raise LeftOutError(FOREIGN)
    if store.get(dspy_key(row.key)) is not None:
        done.kept += 1
        return
    answer = unpickler.read(_pickle(row))
    check(answer)
    is_response = isinstance(answer, dict) and answer.get(TAG) == "response"
    is_sampled = is_response or (isinstance(answer, dict) and "_dspy_format" in answer)
    fields = answer["v"] if is_response else answer
    facts = answers.read(fields, sampled=is_sampled)
    if not facts.storable:
        raise LeftOutError(EMPTY)
    done.added += 1
    if dry_run:
        return
    cost = answer["cost"] if is_response else facts.cost
    origin = records.Origin(
        kind=DSPY_KIND,
        model=_model(fields),
        endpoint=endpoint,
        created=row.stored if isinstance(row.stored, float) else 0.0,
        requests=facts.requests,
        prompt_tokens=facts.prompt_tokens,
        completion_tokens=facts.completion_tokens,
        cost=cost if isinstance(cost, float) else None,
        response_ids=facts.response_ids,
        truncated=facts.truncated,
    )
    data = records.put_together(asdict(origin), answer, tagged=True, request={})
    store.put(dspy_key(row.key), data, Label(kind=DSPY_KIND, model=origin.model))


def _shards(folder: Path) -> list[FolderReader]:
    try:
        places = [folder, *sorted(place for place in folder.iterdir() if _SHARD.fullmatch(place.name))]
    except OSError as error:
        raise ConfigurationError(f"{str(folder)!r} cannot be looked into: {error}") from error
    shards = [FolderReader(place, is_ours=False) for place in places]
    return [shard for shard in shards if shard.exists()]


def _rows(shard: FolderReader) -> Iterator[_Row]:
    last = -(2**63)
    while True:
        rows = shard.query(
            "SELECT rowid, key, mode, filename, CASE WHEN length(value) <= ? THEN value END, store_time FROM Cache"
            " WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (LARGEST, last, _PAGE),
        )
        for last, *row in rows:  # noqa: B007 - the last row is where the next page begins
            yield _Row(shard.path, *row)
        if len(rows) < _PAGE:
            return


def _pickle(row: _Row) -> bytes:
    if isinstance(row.value, bytes):
        return row.value
    if not isinstance(row.filename, str) or not _FILENAME.fullmatch(row.filename):
        raise CorruptEntryError("its value is not there, or too large")
    try:
        with (row.folder / row.filename).open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise StoreUnavailableError(f"could not read {row.folder / row.filename}: {error}") from error


def _model(fields: Any) -> str:
    found = fields.get("response_model") or fields.get("model") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else ""
