"""What the tests of the statistics of use share: counting as a process does, and reading what is kept."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from dspy_cachectl.accounting.ledger import Tally, tally_of
from dspy_cachectl.accounting.usage import Usage
from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.stores import Label, MemoryStore
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import key_of
from dspy_cachectl.stores.tiers import Tiers

USED = ("lm", "m", "p", "", "")
LABEL = Label("lm", "m", "p")


def made(store: DiskStore) -> Usage:
    """What another process would count with."""

    def fail(doing: str, error: StoreError) -> None:
        raise AssertionError(f"a {doing} failed: {error}")

    return Usage(Tiers([MemoryStore(), store], on_fault=fail), on_fault=fail)


def record(usage: Usage, calls: int, served: str | None = None) -> None:
    for _ in range(calls):
        usage.record(USED, Tally(calls=1, reused=served is not None), served)


def totals(store: DiskStore) -> dict[Label, Tally]:
    return {label: tally_of(counters) for label, counters in store.usage().items()}


def calls(store: DiskStore) -> int:
    return sum(tally.calls for tally in totals(store).values())


def served(store: DiskStore) -> dict[str, tuple[int, bool]]:
    """How often entries were served, and whether it is known when, as diskcache's own columns say."""
    with sqlite3.connect(store.path / "cache.db") as plain:
        rows = plain.execute("SELECT key, access_count, access_time > store_time FROM Cache").fetchall()
    plain.close()
    named = ((key_of(stands) or "", count, bool(later)) for stands, count, later in rows)
    return {key: (count, later) for key, count, later in named if ":" not in key}


def refusing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let writes fail as long as their methods' names are in the list."""
    failing: list[str] = []
    for name in ("put", "add_usage"):
        method = getattr(DiskStore, name)

        def refuse(self: DiskStore, *args: Any, _name: str = name, _method: Any = method) -> Any:
            if _name in failing:
                raise StoreUnavailableError("refused")
            return _method(self, *args)

        monkeypatch.setattr(DiskStore, name, refuse)
    return failing
