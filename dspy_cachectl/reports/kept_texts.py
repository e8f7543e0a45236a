"""What is kept of the answers of a report: their predictions, and what the LM was told and said, found by their draws.

A kept text belongs to an answer only where its draw says so. What was drawn anew since is another answer's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.config import MEMORY, each_of, folder_of, is_shared, settings
from dspy_cachectl.context.process import state
from dspy_cachectl.entries import records
from dspy_cachectl.entries.draw_tokens import content_in, hash_of_key, key_in
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.predictions.rows import PredictionRow, decode
from dspy_cachectl.predictions.snapshot import open_snapshot
from dspy_cachectl.reports import entry_text
from dspy_cachectl.reports.entry_text import Part
from dspy_cachectl.stores.reader import FolderReader

logger = logger_for(__name__)

Kept = Mapping[tuple[str, int], PredictionRow]
"""Kept predictions by question and repeat, as a report names them."""
Call = tuple[list[Part], list[Part]]
"""What an LM was asked and what it answered."""


class Readable(Protocol):
    """Whatever has entries by their keys."""

    def keys(self) -> Iterator[str]:
        """Yield the keys, newest first."""

    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""


def kept_rows(path: str | Path) -> Kept:
    """Return the rows of a snapshot.

    Raises:
        StoreError: If it cannot be read.
    """
    with open_snapshot(Path(path)) as reader:
        return {(question_of(row), row.repeat): row for row in map(decode, reader.rows())}


def question_of(row: PredictionRow) -> str:
    """Return what identifies the question of a row in a report."""
    return row.example_key[:16] + (f"#{row.occurrence}" if row.occurrence else "")


def calls_behind(tokens: Iterable[str], stores: Iterable[Readable]) -> dict[str, Call]:
    """Return the calls behind draws, by the draw, as far as their entries are still there.

    Args:
        tokens: What tells the draws (see `draw_tokens`).
        stores: Where to look.
    """
    wanted = {key_in(token): token for token in tokens}
    found: dict[str, Call] = {}
    for store in stores:
        try:
            _look(store, wanted, found)
        except StoreError as error:  # the report stands without it
            logger.warning("what the LM was told and said is not looked up in a store: %s", error)
    return found


def _look(store: Readable, wanted: dict[str, str], found: dict[str, Call]) -> None:
    for key in store.keys():  # noqa: SIM118 - it is no mapping
        if not wanted:
            return
        token = wanted.get(hash_of_key(key))
        call = None if token is None else _call(store, key, token)
        if token is not None and call is not None:
            found[token] = call
            del wanted[key_in(token)]


def _call(store: Readable, key: str, token: str) -> Call | None:
    try:
        data = store.get(key)
        if data is None or records.decode_origin(data).content != content_in(token):
            return None  # it was bought anew since
        _, stored, _, request = records.take_apart(data)
    except StoreError:
        return None
    return entry_text.messages(request), entry_text.answer(stored)


def stores_in_use() -> list[Readable]:
    """Return the stores that this process uses, or would; folders are only read, so that looking is no use of them."""
    if state.cache is None:
        return [reader for location in each_of(settings().store) for reader in _folder(location)]
    # Memory last: before a folder it keeps answers without what was asked.
    stores = sorted(state.cache.tiers.stores, key=lambda store: store.location == MEMORY)
    return [reader for store in stores for reader in (*_folder(store.location), store)[:1]]


def _folder(location: str) -> Iterator[Readable]:
    with contextlib.suppress(ConfigurationError):  # a store of the user's own has a location of its own
        folder = folder_of(location, looks=False)
        if folder is not None:
            yield FolderReader(folder)
    if is_shared(location) and state.cache is None:
        from dspy_cachectl.stores.redis.store import RedisStore

        yield RedisStore(location)
