"""The store in memory: the contract, and a budget in bytes."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from dspy_cachectl.stores import Label, MemoryStore
from tests.stores.contract import COMPILED, KnowingContract


class TestContract(KnowingContract):
    """The store in memory keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> MemoryStore:
        return MemoryStore()


def test_stays_within_its_budget() -> None:
    """However much is put, it keeps no more than its budget, and nearly that."""
    store = MemoryStore(max_bytes=100_000)

    for at in range(1000):
        store.put(f"key-{at}", bytes(1000 + at % 7), COMPILED)
        assert store._bytes <= 100_000

    assert 97_000 < store._bytes
    assert store._bytes > sum(len(store.get(key) or b"") for key in list(store.keys()))


def test_the_budget_is_what_python_takes() -> None:
    """The budget holds for the memory that the entries really take, keys and labels included."""
    gc.collect()
    tracemalloc.start()
    try:
        store = MemoryStore(max_bytes=4_000_000)
        for at in range(10_000):
            # New strings each time, as they come from a request.
            label = Label("lm", f"openai/model-{at % 3}", "eval", "generator", f"run-{at % 2}")
            store.put(f"{at:064}", bytes(500), label)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken < 1.25 * 4_000_000


def test_the_budget_holds_for_what_is_known_too() -> None:
    """By which marks entries are known again is memory as well, and it is given back with them."""
    gc.collect()
    tracemalloc.start()
    try:
        store = MemoryStore(max_bytes=4_000_000)
        for at in range(20_000):
            store.put_marked(f"{at:064}", bytes(100), COMPILED, f"{at:016}.{at:016}")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0.75 * 4_000_000 < taken < 1.25 * 4_000_000
    assert {} == store.marked(f"{0:016}")
    assert 1 == len(store.marked(f"{19_999:016}"))


def test_what_was_unused_for_longest_makes_room() -> None:
    """Reading keeps an entry; the one that nobody asked for goes first."""
    store = MemoryStore(max_bytes=4500)
    for key in ("a", "b", "c"):
        store.put(key, bytes(1000), COMPILED)
    store.get("a")

    store.put("d", bytes(1000), COMPILED)

    assert ["d", "a", "c"] == list(store.keys())


def test_a_value_larger_than_the_budget_is_not_kept() -> None:
    """It would empty the store for nothing; what it would have replaced is gone, for it is out of date."""
    store = MemoryStore(max_bytes=4000)
    store.put("old", b"old", COMPILED)
    store.put("key", b"small", COMPILED)

    store.put("key", bytes(10_000), COMPILED)

    assert store.get("key") is None
    assert b"old" == store.get("old")


def test_without_a_budget_nothing_is_kept() -> None:
    """A budget of 0 bytes is a store that is always empty."""
    store = MemoryStore(max_bytes=0)
    store.put("key", b"", COMPILED)

    assert store.get("key") is None
    assert 0 == store._bytes


def test_its_sums_come_back_to_nothing() -> None:
    """Replacing, deleting and clearing give back exactly what putting took."""
    store = MemoryStore()
    for at in range(50):
        store.put(f"key-{at % 10}", bytes(at * 10), COMPILED)
    for at in range(5):
        store.delete(f"key-{at}")

    left = store._bytes
    for at in range(5, 10):
        store.delete(f"key-{at}")

    assert left > 0
    assert 0 == store._bytes
