"""What was sent as a batch, noted in the state folder before it is sent: so no other process sends it again.

A note holds hashes and names, and neither questions nor answers: those are with the provider until they are stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import filelock
import orjson

from dspy_cachectl.boundary.reading import read_json
from dspy_cachectl.boundary.writing import lock_at, make_private, write_whole
from dspy_cachectl.config import setting_now
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreUnavailableError

_VERSION = 1
_NAME = re.compile(r"[0-9a-f]{32}\.json")
_PATIENCE = 900.0
"""Seconds to wait for another process that sends a batch: its file may be large."""
_MOST_AGE = 60 * 86400.0
"""Seconds after which nothing is left of a batch with any provider."""


@dataclass(frozen=True)
class Note:
    """A batch that was sent, or is about to be.

    Attributes:
        name: Its own id, which is in the batch's metadata as well: a hash of what is in it.
        evaluation: What it is of: a hash of the evaluation.
        run_id: The run of that, or None.
        provider: The provider, as LiteLLM calls it.
        model: The model, as the provider calls it.
        keys: The keys of its lines.
        attempt: How often these are asked with it, from 1.
        created: When it was noted, in Unix seconds.
        batch: The provider's id of it; None until it is known to be sent.
    """

    name: str
    evaluation: str
    run_id: str | None
    provider: str
    model: str
    keys: tuple[str, ...]
    attempt: int
    created: float
    batch: str | None = None


def name_of(keys: Iterable[str], endpoint: str | None, attempt: int) -> str:
    """Return the own id of a batch."""
    text = "\n".join([*sorted(keys), endpoint or "", str(attempt)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def folder() -> Path:
    """Return where the notes are."""
    return Path(setting_now("state")) / "batches"


def noted() -> list[Note]:
    """Return the notes that there are, the oldest first. Those of which nothing is left with any provider go.

    Raises:
        StoreError: If one cannot be read.
    """
    if not folder().is_dir():
        return []
    found = [_read(path) for path in folder().iterdir() if _NAME.fullmatch(path.name)]
    oldest = time.time() - _MOST_AGE
    for note in found:
        if note.created <= oldest:
            remove(note)
    return sorted((note for note in found if note.created > oldest), key=lambda note: (note.created, note.attempt))


def write(note: Note) -> None:
    """Write a note, in place of one of that name.

    Raises:
        StoreUnavailableError: If it cannot be written.
    """
    data = orjson.dumps({"version": _VERSION, **asdict(note)})
    write_whole(path_of(note), data, what="the note of a batch", private=True)


def remove(note: Note) -> None:
    """Remove a note, where it is there and can be."""
    with contextlib.suppress(OSError):
        path_of(note).unlink()


@contextlib.contextmanager
def sending() -> Iterator[None]:
    """Let no other process of this state folder send a batch meanwhile.

    Raises:
        StoreUnavailableError: If the folder cannot be written, or another process takes too long.
    """
    path = folder() / "batches.lock"
    try:
        make_private(path.parent)
        held = lock_at(path, timeout=_PATIENCE).acquire()
    except filelock.Timeout as error:
        raise StoreUnavailableError(f"{path} was held by another process for {_PATIENCE:g} s; try again") from error
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be locked: {error}. Set the state folder anew") from error
    with held:
        yield


def path_of(note: Note) -> Path:
    """Return where a note is."""
    return folder() / f"{note.name}.json"


def _read(path: Path) -> Note:
    what = f"{path} is no note of a batch: move it away, and look with the provider for what was sent"
    found: Any = read_json(path, what="the note of a batch")
    if isinstance(found, dict) and isinstance(found.get("version"), int) and found["version"] > _VERSION:
        raise FormatVersionError(f"{path} was written by a newer version of this package: use that, or move it away")
    if not isinstance(found, dict) or found.keys() != {"version", *(one.name for one in fields(Note))}:
        raise CorruptEntryError(what)
    del found["version"]
    keys = found["keys"]
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise CorruptEntryError(what)
    if not (type(found["attempt"]) is int and isinstance(found["created"], (int, float))):
        raise CorruptEntryError(what)
    texts = ("name", "evaluation", "provider", "model"), ("run_id", "batch")
    if not all(isinstance(found[name], str) for name in texts[0]) or not all(
        found[name] is None or isinstance(found[name], str) for name in texts[1]
    ):
        raise CorruptEntryError(what)
    return Note(**{**found, "keys": tuple(keys)})
