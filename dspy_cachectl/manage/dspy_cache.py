"""Answers out of the folder of DSPy's own cache.

DSPy keeps the hash of a request and not the request, so our key cannot be made of it. Such an answer lies under
DSPy's key in the store until a program asks for it; then it is filed under ours (see `cache`).
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.reading import read_file
from dspy_cachectl.entries import answers, draws, records, token_counts
from dspy_cachectl.entries.values import TAG, check
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError
from dspy_cachectl.manage.entries import DAMAGED
from dspy_cachectl.manage.exchange import Imported, LeftOutError, put_known
from dspy_cachectl.manage.unpickling import LARGEST, RefusedPickleError, Unpickler
from dspy_cachectl.reports.progress_bar import Advance, watched
from dspy_cachectl.stores import DSPY_KIND, Label, Store, dspy_key
from dspy_cachectl.stores.reader import DATABASE, FolderReader

_KEY = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"\d{3}")
_FILENAME = re.compile(r"[0-9a-f]{2}[/\\][0-9a-f]{2}[/\\][0-9a-f]{28}\.val")
"""diskcache's name of a value's file. Any other could point outside the folder."""
_PICKLED = 4
"""diskcache's mode of a value that is a pickle."""
_PAGE = 200
_COLUMNS = "key, mode, filename, CASE WHEN length(value) <= ? THEN value END, store_time"

REFUSED = "not plain answers: nothing of them was run"
FOREIGN = "of a kind that DSPy does not write"
EMPTY = "empty answers or refusals: they are asked for again"


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
    done, where = Imported(), draws.clean_endpoint(endpoint)
    total = sum(int(shard.query("SELECT COUNT(*) FROM Cache")[0][0]) for shard in shards)
    with Unpickler() as unpickler:
        rows = ((shard.path, row) for shard in shards for row in shard.every_row(_COLUMNS, LARGEST, at_once=_PAGE))
        for place, row in watched(rows, total, advance):
            try:
                _import_row(store, place, row, unpickler, done, endpoint=where, dry_run=dry_run)
            except LeftOutError as error:
                done.left_out[str(error)] += 1
            except CorruptEntryError as error:
                is_refused = isinstance(error, RefusedPickleError)
                done.note_damage(REFUSED if is_refused else DAMAGED, f"{row[1][:12]}: {error}")
    return done


def _import_row(
    store: Store,
    place: Path,
    row: tuple[Any, ...],
    unpickler: Unpickler,
    done: Imported,
    *,
    endpoint: str | None,
    dry_run: bool,
) -> None:
    # Whoever may write to the folder has filled it, with whatever.
    _, key, mode, filename, value, stored = row
    if not (isinstance(key, str) and _KEY.fullmatch(key) and mode == _PICKLED):
        raise LeftOutError(FOREIGN)
    if store.get(dspy_key(key)) is not None:
        done.kept += 1
        return
    answer = unpickler.read(_pickle(place, filename, value))
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
        created=stored if isinstance(stored, float) else 0.0,
        requests=facts.requests,
        **{name: getattr(facts, name) for name in token_counts.NAMES},
        cost=cost if isinstance(cost, float) else None,
        response_ids=facts.response_ids,
        truncated=facts.truncated,
        answered_by=facts.answered_by,
        content=facts.content,
    )
    data = records.put_together(asdict(origin), answer, tagged=True, request={})
    put_known(store, dspy_key(key), data, Label(kind=DSPY_KIND, model=origin.model), origin)


def _shards(folder: Path) -> list[FolderReader]:
    try:
        places = [folder, *sorted(place for place in folder.iterdir() if _SHARD.fullmatch(place.name))]
    except OSError as error:
        raise ConfigurationError(f"{str(folder)!r} cannot be looked into: {error}") from error
    shards = [FolderReader(place, is_ours=False) for place in places]
    return [shard for shard in shards if shard.exists()]


def _pickle(folder: Path, filename: Any, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(filename, str) or not _FILENAME.fullmatch(filename):
        raise CorruptEntryError("its value is not there, or too large")
    return read_file(folder / filename, what="the value", most=LARGEST)


def _model(fields: Any) -> str:
    found = fields.get("response_model") or fields.get("model") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else ""
