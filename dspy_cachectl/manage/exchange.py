"""Answers from store to store, in files: a selection of a store as a cassette, and cassettes into a store.

A store's key holds the address of the model's server, and that of a cassette that was recorded as one does not. What
comes from a store therefore keeps its key, and of a recording it is made anew out of the request that lies beside it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dspy_cachectl.accounting import runs
from dspy_cachectl.boundary.writing import STANDARD_OUTPUT, check_new, write_output_of_command
from dspy_cachectl.context.open_cassette import CASSETTE_RUN, UNCACHED_RUN, Recording
from dspy_cachectl.entries import draws, records, values
from dspy_cachectl.entries.cleaning import Cleaner, Redact
from dspy_cachectl.entries.draw_tokens import mark_of
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.manage.entries import entries_of, why_unread
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.replay import files
from dspy_cachectl.reports.progress_bar import Advance, watched
from dspy_cachectl.stores import KnowingStore, Label, Store
from dspy_cachectl.stores.listing import Reader
from dspy_cachectl.stores.tiers import Tiers

_KEY = re.compile(r"[0-9a-f]{64}")
_NUMBERED = re.compile(r"endpoint-\d+")
_SHOWN_DAMAGE = 20
_PASSAGE = "imported"

REMOVED = "removed meanwhile"
NOT_KEYED = "not filed under a key of a request"
CHANGED = "recorded without their requests, or these were cleaned since: their keys cannot be made"
OTHER_ENDPOINT = "of a second server of a model, whose address no cassette keeps"
FURTHER = "further draws of a request outside phases; a store keeps one of them"
UNCACHED = "answers to calls that asked not to be cached"
OF_RUNS = "draws of runs: they belong to the server's address that they were recorded with"


class LeftOutError(Exception):
    """An answer is not carried over; the message is the reason, which is counted."""


@dataclass
class Exported:
    """What was written to a file.

    Attributes:
        entries: How many answers.
        models: How many of each model.
        left_out: How many were left out, by reason.
        bytes: How large the file is; 0 where none was written.
    """

    entries: int = 0
    models: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


@dataclass
class Imported:
    """What was put into a store.

    Attributes:
        added: How many answers are new to it.
        replaced: How many took the place of another answer under their key.
        kept: How many were left out, since there is an answer under their key.
        left_out: How many were left out, by reason.
        damage: What is wrong with the first of the damaged lines.
    """

    added: int = 0
    replaced: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)

    def note_damage(self, reason: str, message: str) -> None:
        """Count one more that is left out, and say what is wrong with it."""
        self.left_out[reason] += 1
        if len(self.damage) < _SHOWN_DAMAGE:
            self.damage.append(message)


def export(
    reader: Reader,
    selection: Selection,
    path: Path,
    *,
    redact: Redact | None = None,
    force: bool = False,
    plain: bool = False,
    advance: Advance | None = None,
) -> Exported:
    """Write the answers of a selection to a cassette. Nothing is written where there are none.

    Their texts are cleaned of secrets. A draw is filed under what was asked as well, so that the cassette serves it
    to a run of another name.

    Args:
        reader: The store.
        selection: Which entries.
        path: The file; compressed where its name ends in `.zst`. `-` is standard output.
        redact: Applied to each text of requests and answers.
        force: Whether a file that is there may be replaced.
        plain: Whether it is not encrypted though keys are given.
        advance: Told how many entries have been written, and of how many.

    Raises:
        ConfigurationError: If the file is there, or is one that this package works with; or the user's function fails.
        FormatVersionError: If the file is a cassette that another version of this package wrote.
        StoreUnavailableError: If the store cannot be read, the file not be written, or it would be too large.
    """
    check_new(path, what="a cassette", force=force)
    if str(path) != STANDARD_OUTPUT:
        files.check_not_newer(path)
    cleaner = Cleaner(redact)
    done, recordings = Exported(), []
    found = entries_of(reader, selection, now=time.time(), unread=done.left_out)
    keys = sorted(entry.key for entry in found if entry.label.is_answer)
    for key in watched(keys, len(keys), advance):
        try:
            recording = _recording(reader, key, cleaner)
        except (LeftOutError, CorruptEntryError, FormatVersionError) as error:
            done.left_out[_reason(error)] += 1
        else:
            recordings.append(recording)
            done.models[records.decode_origin(recording.data).model] += 1
    done.entries = len(recordings)
    if recordings:
        before = files.CassetteFile("store", is_encrypted=False if plain else None)
        content = files.content_of(path, recordings, before=before) or b""
        write_output_of_command(path, content, what="the cassette")
        done.bytes = len(content)
    return done


def import_file(
    store: Store,
    path: Path,
    *,
    endpoint: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    advance: Advance | None = None,
) -> Imported:
    """Put the answers of a cassette into a store. Each line is checked by itself; a damaged one is left out.

    Args:
        store: The store.
        path: The file.
        endpoint: The address of the server that a recording's calls are made to; None for the provider's own.
        overwrite: Whether answers in the store are replaced.
        dry_run: Whether only to count.
        advance: Told how many lines have been read, and of how many.

    Raises:
        CorruptEntryError: If the file as a whole is no cassette; then nothing is imported.
        FormatVersionError: If another version of this package wrote it.
        StoreUnavailableError: If the file cannot be read, or the store not be written.
    """
    # Read twice: what cannot be read to its end is not imported by half.
    total = sum(1 for _ in files.read_header(path)[1])
    header, lines = files.read_header(path)
    where = draws.clean_endpoint(endpoint)
    done = Imported()
    seen: set[str] = set()
    lent: dict[str, records.Origin] = {}
    for number, line in watched(lines, total, advance):
        try:
            if files.unfinished_scope(line) is not None:
                continue
            key, data = _entry(files.from_line(line), header.keys, endpoint=where)
            origin = records.decode_origin(data)
        except LeftOutError as error:
            done.left_out[str(error)] += 1
            continue
        except StoreError as error:
            done.note_damage(_reason(error), f"{path}, line {number}: {error}")
            continue
        if key in seen:
            done.left_out[FURTHER] += 1
            continue
        seen.add(key)
        if origin.run_id is not None and (origin.run_id not in lent or origin.lent):
            lent[origin.run_id] = origin
        _put(store, key, data, origin, done, overwrite=overwrite, dry_run=dry_run)
    if not dry_run:
        _describe_runs(store, lent)
    return done


def _reason(error: Exception) -> str:
    return why_unread(error) if isinstance(error, StoreError) else str(error)


def _recording(reader: Reader, key: str, cleaner: Cleaner) -> Recording:
    if not _KEY.fullmatch(key):
        raise LeftOutError(NOT_KEYED)
    data = reader.get(key)
    if data is None:
        raise LeftOutError(REMOVED)
    origin, answer, _, description = records.take_apart(data)
    values.check(answer)
    asked = _asked(description, origin.get("run_id"))
    # Where the request says nothing of the key, the entry is found by its key alone.
    belongs = asked is not None and draws.described_key(description, rollout_id=description.get("rollout_id")) == key
    try:
        return Recording(key, asked if belongs and asked is not None else key, cleaner.entry(data))
    except StoreError:
        raise
    except Exception as error:
        raise ConfigurationError(f"the function of --redact-with failed: {error!r}. Nothing was written") from error


def _entry(recording: Recording, keys: str, *, endpoint: str | None) -> tuple[str, bytes]:
    """Return the key and the bytes under which a store keeps a recording. Raises `LeftOutError` if it does not."""
    key = recording.key
    origin, answer, tagged, description = records.take_apart(recording.data)
    values.check(answer)
    if keys == "store":
        if description and draws.described_key(description, rollout_id=description.get("rollout_id")) != key:
            description = {**description, "cleaned": True}  # its key cannot be made of it any more
    else:
        key, origin, description = _placed(recording, origin, description, endpoint)
    return key, records.put_together(origin, answer, tagged=tagged, request=description)


def _placed(
    recording: Recording, origin: dict[str, Any], description: dict[str, Any], endpoint: str | None
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the key of a recording in a store, and its origin and request there."""
    run_id, where = origin.get("run_id"), description.get("endpoint")
    if _asked(description, run_id) != recording.asked:
        raise LeftOutError(CHANGED)
    if isinstance(where, str) and _NUMBERED.fullmatch(where):
        raise LeftOutError(OTHER_ENDPOINT)
    if run_id == UNCACHED_RUN:
        raise LeftOutError(UNCACHED)
    there = endpoint if where is None else where
    placed = {**description, "endpoint": there}
    if run_id is not None and run_id != CASSETTE_RUN:
        if there != where:
            raise LeftOutError(OF_RUNS)
        return recording.key, origin, description
    own = placed.pop("own_rollout_id", None) if run_id is not None else placed.get("rollout_id")
    placed["rollout_id"] = own
    key = draws.described_key(placed, rollout_id=own)
    if key is None:
        raise LeftOutError(CHANGED)
    return key, {**origin, "endpoint": there, "run_id": None, "rollout_id": own, "ordinal": None}, placed


def _put(
    store: Store, key: str, data: bytes, origin: records.Origin, done: Imported, *, overwrite: bool, dry_run: bool
) -> None:
    there = store.get(key) is not None
    if there and not overwrite:
        done.kept += 1
        return
    done.replaced += there
    done.added += not there
    if not dry_run:
        label = Label(origin.kind, origin.model, origin.phase, origin.role or "", origin.run_id or "")
        put_known(store, key, data, label, origin)


def put_known(store: Store, key: str, data: bytes, label: Label, origin: records.Origin) -> None:
    """Put an answer into a store, to be known again where the store can do that; encrypted where that is asked for."""
    data = records.for_store(data, key)
    if isinstance(store, KnowingStore):
        store.put_marked(key, data, label, mark_of(origin.response_ids, origin.content))
    else:
        store.put(key, data, label)


def _describe_runs(store: Store, drawn: Mapping[str, records.Origin]) -> None:
    """Say which temperature the runs were lent: without it their replays would ask for other draws."""

    def fail(_: str, error: StoreError) -> None:
        raise error

    tiers = Tiers([store], on_fault=fail)
    for run_id, origin in drawn.items():
        if store.get(runs.run_key(run_id)) is None:
            temperature = origin.temperature if origin.lent else None
            runs.note_opening(tiers, run_id, phase=origin.phase, policy=None, temperature=temperature, token=_PASSAGE)


def _asked(description: Mapping[str, Any], run_id: Any) -> str | None:
    """Return the key of what was asked, whichever draw of it this is; None where that cannot be told."""
    return draws.described_key(
        description, rollout_id=description.get("rollout_id" if run_id is None else "own_rollout_id")
    )
