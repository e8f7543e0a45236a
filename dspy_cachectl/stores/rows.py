"""What a listing of a store tells of its entries, and what it can be asked for; whatever the store lives in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from dspy_cachectl.stores.base import Label

Order: TypeAlias = Literal["age", "size", "served"]
"""What rows are sorted by: stored last first, largest first, or served most often first."""


@dataclass(frozen=True)
class StoredEntry:
    """What a store says of an entry.

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
        ahead: From this time on a row lies ahead, and may be of any age: it counts as stored before everything else.
    """

    matches: Callable[[Label], bool]
    after: float | None = None
    before: float | None = None
    ahead: float = math.inf


class Listed(ABC):
    """A store that lists its entries by itself, for what reads folders otherwise. See the functions of `listing`."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the entries are, as people would write it."""

    @abstractmethod
    def exists(self) -> bool:
        """Tell whether there is a store."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return the bytes kept under a key, or None."""

    @abstractmethod
    def keys(self, kind: str | None = None) -> Iterator[str]:
        """Yield the keys, newest first; only those filed under a kind, where one is named."""

    @abstractmethod
    def labels(self) -> dict[Label, int]:
        """Return how many entries are filed under each label."""

    @abstractmethod
    def usage(self) -> dict[Label, dict[str, float]]:
        """Return what is counted of how the store was used."""

    @abstractmethod
    def bytes_used(self) -> int:
        """Return how many bytes the entries take up; about."""

    @abstractmethod
    def share_gone(self) -> float:
        """Return how large a part of what `labels` counts is gone, by some of it; from 0 to 1."""

    @abstractmethod
    def delete_many(self, keys: Mapping[str, float | None]) -> int:
        """Remove keys, each only where what is there was stored at that time. Return how many were there."""

    @abstractmethod
    def rewrite(self, entries: Mapping[str, tuple[bytes, bytes]]) -> int:
        """Put bytes in the place of others, of each key, where those are there; all else stays. Return how many."""

    @abstractmethod
    def keys_above(self, keys: Sequence[str], above: int) -> set[str]:
        """Return those of some keys whose entries say a version above a number."""

    @abstractmethod
    def row_numbers(self, rows: Rows, *, order: Order, reverse: bool, limit: int | None) -> Sequence[Any]:
        """Return by what the rows that are meant are found, in order."""

    @abstractmethod
    def read_rows(self, numbers: Sequence[Any]) -> Iterator[StoredEntry]:
        """Yield rows that are there, without what they hold."""

    @abstractmethod
    def read_entries(self, numbers: Sequence[Any]) -> Iterator[tuple[StoredEntry, Callable[[], bytes]]]:
        """Yield rows that are there, each with a function that returns its value."""

    @abstractmethod
    def entries_beginning_with(self, prefix: str, *, limit: int) -> list[tuple[StoredEntry, Callable[[], bytes]]]:
        """Return the answers whose keys begin with a text; one whose key is that text alone."""
