"""How long work says how far it is, without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Advance = Callable[[int, int], None]
"""Told how much is done, and of how much."""

_EVERY = 100

T = TypeVar("T")


def watched(items: Iterable[T], total: int, advance: Advance | None) -> Iterator[T]:
    """Yield items, and say now and then how many of them are done."""
    for done, item in enumerate(items, start=1):
        yield item
        if advance is not None and not done % _EVERY:
            advance(done, total)
