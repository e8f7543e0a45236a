"""The entries of a store, one line each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.entries import records
from dspy_cachectl.errors import StoreError
from dspy_cachectl.manage import content
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.stores.listing import Order, Row, Rows, ages, read_rows, row_numbers
from dspy_cachectl.stores.reader import FolderReader

_OPENING = 200
"""How many characters of a prompt are given."""


@dataclass(frozen=True)
class Listed:
    """An entry in a list.

    Attributes:
        row: What the table says of it.
        prompt: The beginning of what was asked, in one line; None where the entry cannot be read.
        damage: Why it cannot be read, or None.
    """

    row: Row
    prompt: str | None
    damage: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data. Times are in Unix seconds, sizes in bytes."""
        row, label = self.row, self.row.label
        return {
            "key": row.key,
            "stored": row.stored,
            "kind": label.kind,
            "model": label.model,
            "phase": label.phase,
            "role": label.role,
            "run_id": label.run_id,
            "size": row.size,
            "served": row.served,
            "served_at": row.served_at,
            "prompt": self.prompt,
            "damage": self.damage,
        }


def rows_of(selection: Selection, *, now: float) -> Rows:
    """Return which rows a selection means. What it says of their text is not among it."""
    after, before = selection.window(now)
    return Rows(selection.matches, None if math.isinf(after) else after, None if math.isinf(before) else before)


def list_entries(
    reader: FolderReader,
    selection: Selection,
    *,
    now: float,
    order: Order = Order.AGE,
    reverse: bool = False,
    limit: int | None = None,
    on_search: Callable[[int, int], None] | None = None,
) -> Iterator[Listed]:
    """Yield entries, in order. Of a table of any size only those that are yielded are read, or searched for a text.

    Args:
        reader: Reads the store.
        selection: Which entries.
        now: The time from which ages are counted, in Unix seconds.
        order: What they are sorted by.
        reverse: The other way round.
        limit: How many at most; None for all.
        on_search: Told how many entries have been searched for the text, and of how many.
    """
    wanted = selection.text.casefold() if selection.text is not None else None
    # A text is looked for in all that is selected, from the first on, until there are enough.
    numbers = row_numbers(
        reader, rows_of(selection, now=now), order=order, reverse=reverse, limit=limit if wanted is None else None
    )
    yielded = 0
    for searched, (row, value) in enumerate(read_rows(reader, numbers), start=1):
        listed = _listed(row, value, wanted)
        if listed is not None:
            yield listed
            yielded += 1
            if yielded == limit:
                return
        if on_search is not None and wanted is not None:
            on_search(searched, len(numbers))


def _listed(row: Row, value: Callable[[], bytes], wanted: str | None) -> Listed | None:
    try:
        request = records.decode_request(value())
    except StoreError as error:
        return Listed(row, prompt=None, damage=str(error)) if wanted is None else None
    if wanted is not None and not any(wanted in part.text.casefold() for part in content.messages(request)):
        return None
    return Listed(row, prompt=content.opening(request, length=_OPENING))


@dataclass(frozen=True)
class Heat:
    """How many entries there are by model and by age.

    Attributes:
        edges: The ages between which entries are counted, in seconds, falling: the oldest come first.
        counts: For each model one count for each span: older than the first edge, between two, younger than the last.
    """

    edges: tuple[float, ...]
    counts: dict[str, list[int]]


def heat(reader: FolderReader, selection: Selection, *, now: float, edges: tuple[float, ...]) -> Heat:
    """Count entries by model and age. What the selection says of their text is left out of account."""
    counts: dict[str, list[int]] = {}
    by_label = ages(reader, rows_of(selection, now=now), [now - edge for edge in edges])
    for label, found in by_label.items():
        known = counts.setdefault(label.model, [0] * (len(edges) + 1))
        counts[label.model] = [one + other for one, other in zip(known, found, strict=True)]
    return Heat(edges, dict(sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0]))))


def oldest(reader: FolderReader, selection: Selection, *, now: float) -> float | None:
    """Return when the oldest of some entries was stored, in Unix seconds; None where there is none."""
    numbers = row_numbers(reader, rows_of(selection, now=now), reverse=True, limit=1)
    return next((row.stored for row, _ in read_rows(reader, numbers)), None)
