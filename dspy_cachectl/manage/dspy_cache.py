"""Answers out of the folder of DSPy's own cache, without unpickling any of it.

DSPy keeps the hash of a request and not the request, so our key cannot be made of it. Such an answer lies under
DSPy's key in the store until a program asks for it; then it is filed under ours (see `cache`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspy_cachectl.entries import answers, draws, records
from dspy_cachectl.entries.values import TAG, check
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, StoreUnavailableError
from dspy_cachectl.manage import pickles
from dspy_cachectl.manage.exchange import Imported
from dspy_cachectl.manage.removal import Advance
from dspy_cachectl.stores import DSPY_KIND, Label, Store, dspy_key
from dspy_cachectl.stores.reader import DATABASE, FolderReader

_KEY = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"\d{3}")
_FILENAME = re.compile(r"[0-9a-f]{2}[/\\][0-9a-f]{2}[/\\][0-9a-f]{28}\.val")
"""diskcache's name of a value's file. Any other could point outside the folder."""
_PICKLED = 4
"""diskcache's mode of a value that is a pickle."""
_PAGE = 200
_SHOWN_DAMAGE = 20

REFUSED = "not plain answers: nothing of them was run"
FOREIGN = "of a kind that DSPy does not write"
EMPTY = "empty answers or refusals: they are asked for again"
DAMAGED = "damaged"


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
    done, seen = Imported(), 0
    total = sum(int(shard.query("SELECT COUNT(*) FROM Cache")[0][0]) for shard in shards)
    for shard in shards:
        for key, mode, filename, value, stored in _rows(shard):
            seen += 1
            if advance is not None and not seen % 100:
                advance(seen, total)
            if not (isinstance(key, str) and _KEY.fullmatch(key) and mode == _PICKLED):
                done.left_out[FOREIGN] += 1
                continue
            if store.get(dspy_key(key)) is not None:
                done.kept += 1
                continue
            try:
                answer = pickles.read(_pickle(shard.path, filename, value))
                check(answer)
                facts = answers.read(answer["v"] if answer_is_response(answer) else answer, sampled=is_sampled(answer))
            except CorruptEntryError as error:
                is_refused = isinstance(error, pickles.RefusedPickleError)
                done.left_out[REFUSED if is_refused else DAMAGED] += 1
                if len(done.damage) < _SHOWN_DAMAGE:
                    done.damage.append(f"{key[:12]}: {error}")
                continue
            if not facts.storable:
                done.left_out[EMPTY] += 1
                continue
            done.added += 1
            if not dry_run:
                cost = answer.get("cost") if answer_is_response(answer) else facts.cost
                origin = records.Origin(
                    kind=DSPY_KIND,
                    model=_model(answer),
                    endpoint=draws.clean_endpoint(endpoint),
                    created=stored if isinstance(stored, float) else 0.0,
                    requests=facts.requests,
                    prompt_tokens=facts.prompt_tokens,
                    completion_tokens=facts.completion_tokens,
                    cost=cost if isinstance(cost, float) else None,
                    response_ids=facts.response_ids,
                    truncated=facts.truncated,
                )
                data = records.put_together(records.as_facts(origin), answer, tagged=True, request={})
                store.put(dspy_key(key), data, Label(kind=DSPY_KIND, model=origin.model))
    return done


def answer_is_response(answer: Any) -> bool:
    """Tell whether an answer in its stored form is an object of LiteLLM's."""
    return isinstance(answer, dict) and answer.get(TAG) == "response"


def is_sampled(answer: Any) -> bool:
    """Tell whether an answer in its stored form is one of a language model; others are never empty."""
    return isinstance(answer, dict) and (answer_is_response(answer) or "_dspy_format" in answer)


def _shards(folder: Path) -> list[FolderReader]:
    try:
        places = [folder, *sorted(place for place in folder.iterdir() if _SHARD.fullmatch(place.name))]
    except OSError as error:
        raise ConfigurationError(f"{str(folder)!r} cannot be looked into: {error}") from error
    shards = [FolderReader(place, is_ours=False) for place in places]
    return [shard for shard in shards if shard.exists()]


def _rows(shard: FolderReader) -> Iterator[tuple[Any, ...]]:
    last = -1
    while True:
        rows = shard.query(
            "SELECT rowid, key, mode, filename, CASE WHEN length(value) <= ? THEN value END, store_time FROM Cache"
            " WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (pickles.LARGEST, last, _PAGE),
        )
        for last, *row in rows:  # noqa: B007 - the last row is where the next page begins
            yield tuple(row)
        if len(rows) < _PAGE:
            return


def _pickle(folder: Path, filename: Any, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(filename, str) or not _FILENAME.fullmatch(filename):
        raise CorruptEntryError("its value is not there, or too large")
    try:
        with (folder / filename).open("rb") as file:
            return file.read(pickles.LARGEST + 1)
    except OSError as error:
        raise StoreUnavailableError(f"could not read {folder / filename}: {error}") from error


def _model(answer: Any) -> str:
    fields = answer.get("v") if answer_is_response(answer) else answer
    found = fields.get("response_model") or fields.get("model") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else ""
