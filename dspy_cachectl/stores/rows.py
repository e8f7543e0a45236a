"""What a listing of a store tells of its entries, and what it can be asked for; whatever the store lives in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

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
