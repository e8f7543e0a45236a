"""Several stores as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspy_cachectl.errors import CorruptEntryError, StoreError, StoreUnavailableError
from dspy_cachectl.stores import Label, MemoryStore, Store, tiers
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.tiers import Tiers
from tests.stores.contract import COMPILED, VECTOR, in_threads


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Broken(MemoryStore):
    """A store that fails in a chosen way after a chosen time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.error: Exception | None = None
        self.seconds = 0.0
        self.asked = 0

    def get(self, key: str) -> bytes | None:
        self._fail()
        return super().get(key)

    def put(self, key: str, value: bytes, label: Label) -> None:
        self._fail()
        super().put(key, value, label)

    def keys(self, kind: str | None = None) -> Iterator[str]:
        self._fail()
        return super().keys(kind)

    def _fail(self) -> None:
        self.asked += 1
        self.clock.now += self.seconds
        if self.error is not None:
            raise self.error


class Faults(list[tuple[str, str]]):
    """What a `Tiers` reported, as (doing, name of the error)."""

    def note(self, doing: str, error: StoreError) -> None:
        self.append((doing, type(error).__name__))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    standing = Clock()
    monkeypatch.setattr(tiers, "time", standing)
    return standing


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def broken(clock: Clock) -> Broken:
    return Broken(clock)


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "entries")


def both(*stores: Store, faults: Faults) -> Tiers:
    return Tiers(stores, on_fault=faults.note)  # type: ignore[arg-type]


def test_put_reaches_every_store(memory: MemoryStore, disk: DiskStore, faults: Faults) -> None:
    """An entry is kept in memory and on disk, under the same label."""
    both(memory, disk, faults=faults).put("key", b"value", COMPILED)

    assert [b"value", b"value"] == [memory.get("key"), disk.get("key")]
    assert memory.labels() == disk.labels() == {COMPILED: 1}


def test_get_fills_upward(memory: MemoryStore, disk: DiskStore, faults: Faults) -> None:
    """What only the disk had is in memory after it was read once."""
    disk.put("key", b"value", COMPILED)
    stores = both(memory, disk, faults=faults)

    assert stores.peek("key") is None
    assert b"value" == stores.get("key")
    assert b"value" == stores.peek("key") == memory.get("key")


def test_a_glance_takes_what_an_open_folder_has(memory: MemoryStore, disk: DiskStore, faults: Faults) -> None:
    """Once a folder is open, one look is enough; where that fails, nothing is found, and `get` says why."""
    disk.put("key", b"value", COMPILED)
    disk.put("damaged", b"value", COMPILED)
    stores = both(memory, disk, faults=faults)
    assert stores.glance("none") is None
    assert b"value" == stores.glance("key") == stores.peek("key")
    with sqlite3.connect(disk.path / "cache.db") as planted:
        planted.execute("UPDATE Cache SET mode = 4 WHERE key = 'damaged'")
    assert stores.glance("damaged") is None
    stores.clear_memory()
    disk.close()
    assert stores.glance("key") is None
    assert b"value" == stores.get("key")
    stores.clear_memory()
    (disk.path / "cache.db").rename(disk.path / "moved.db")
    assert stores.glance("key") is None
    assert [] == faults
    assert stores.get("key") is None
    assert ["read"] == [doing for doing, _ in faults]


def test_a_glance_takes_all_that_an_open_folder_has(memory: MemoryStore, disk: DiskStore, faults: Faults) -> None:
    """Of some keys each is found that `glance` would find, in their order, and memory has them from then on."""
    long = "a key that is no hash"
    for key in ("one", "two", "damaged", long):
        disk.put(key, key.encode(), COMPILED)
    memory.put("three", b"in memory", COMPILED)
    with sqlite3.connect(disk.path / "cache.db") as planted:
        planted.execute("UPDATE Cache SET mode = 4 WHERE key = 'damaged'")
    stores = both(memory, disk, faults=faults)
    asked = ["two", "damaged", "none", "three", "one", long, "two"]
    expected = [b"two", None, None, b"in memory", b"one", long.encode(), b"two"]
    assert expected == stores.glance_all(asked)
    assert [None if key == "damaged" else value for key, value in zip(asked, expected, strict=True)] == [
        stores.peek(key) for key in asked
    ]
    filed = memory.get_filed("one")
    assert filed is not None
    assert COMPILED == filed.label
    disk.close()
    assert expected == stores.glance_all(asked)
    assert [] == faults


def test_the_nearest_is_asked_first(memory: MemoryStore, broken: Broken, faults: Faults) -> None:
    """What memory has is not looked for anywhere else."""
    stores = both(memory, broken, faults=faults)
    memory.put("key", b"value", COMPILED)

    assert b"value" == stores.get("key")
    assert 0 == broken.asked


@pytest.mark.parametrize(
    ("into", "expected"), [("all", (True, True)), ("memory", (True, False)), ("disk", (False, True))]
)
def test_put_into_some_of_them(
    memory: MemoryStore, disk: DiskStore, faults: Faults, into: tiers.Into, expected: tuple[bool, bool]
) -> None:
    """An entry can be kept from memory, or from everything but memory."""
    both(memory, disk, faults=faults).put("key", b"value", COMPILED, into=into)

    assert expected == (memory.get("key") is not None, disk.get("key") is not None)


def test_keys_of_all_come_once(memory: MemoryStore, disk: DiskStore, faults: Faults) -> None:
    """A key that several stores have is listed once."""
    stores = both(memory, disk, faults=faults)
    for at in range(3):
        stores.put(f"both-{at}", b"value", COMPILED)
    memory.put("memory", b"value", COMPILED)
    disk.put("disk", b"value", VECTOR)

    assert ["both-0", "both-1", "both-2", "disk", "memory"] == sorted(stores.keys())
    assert {"both-0", "both-1", "both-2", "memory"} == set(stores.keys("lm"))


def test_clear_memory_leaves_the_disk(memory: MemoryStore, disk: DiskStore, faults: Faults) -> None:
    """Only memory forgets."""
    stores = both(memory, disk, faults=faults)
    stores.put("key", b"value", COMPILED)

    stores.clear_memory()

    assert [None, b"value"] == [memory.get("key"), disk.get("key")]


@pytest.mark.parametrize("error", [StoreUnavailableError("no"), CorruptEntryError("no")])
def test_a_fault_of_one_is_reported_and_the_others_go_on(
    broken: Broken, disk: DiskStore, faults: Faults, error: StoreError
) -> None:
    """No fault of a store reaches the caller; each is reported once, with what was being done."""
    stores = both(broken, disk, faults=faults)
    broken.error = error

    stores.put("key", b"value", COMPILED)
    assert b"value" == stores.get("key")
    assert ["key"] == list(stores.keys())

    name = type(error).__name__
    assert [("write", name), ("read", name), ("write", name), ("read", name)] == faults


def test_a_store_without_manners_is_a_fault_like_any_other(broken: Broken, faults: Faults) -> None:
    """What somebody's own store raises never reaches a call."""
    broken.error = RuntimeError("a bug")
    both = Tiers([broken], on_fault=faults.note)
    both.put("key", b"value", Label())
    assert None is both.get("key")
    assert [("write", "StoreUnavailableError"), ("read", "StoreUnavailableError")] == faults


def test_a_slow_failure_sets_a_store_aside(broken: Broken, clock: Clock, faults: Faults) -> None:
    """Only the first call waits; for a while the others do without, and are counted all the same."""
    stores = both(broken, faults=faults)
    broken.error, broken.seconds = StoreUnavailableError("locked"), 5.0
    for _ in range(4):
        stores.get("key")

    assert 1 == broken.asked
    assert [("read", "StoreUnavailableError")] * 4 == faults


def test_a_quick_failure_does_not(broken: Broken, clock: Clock, faults: Faults) -> None:
    """A store that fails at once holds nobody up, so it is asked each time."""
    stores = both(broken, faults=faults)
    broken.error = StoreUnavailableError("read-only")
    for _ in range(4):
        stores.get("key")

    assert 4 == broken.asked


def test_a_store_that_was_set_aside_comes_back(broken: Broken, clock: Clock, faults: Faults) -> None:
    """After its rest it is asked again, and used if it works."""
    stores = both(broken, faults=faults)
    broken.error, broken.seconds = StoreUnavailableError("locked"), 5.0
    stores.put("key", b"lost", COMPILED)
    broken.error, broken.seconds = None, 0.0

    stores.put("key", b"lost too", COMPILED)
    clock.now += 60
    stores.put("key", b"kept", COMPILED)

    assert b"kept" == stores.get("key")
    assert [("write", "StoreUnavailableError")] * 2 == faults


def test_a_store_that_cannot_be_written_is_still_read(broken: Broken, clock: Clock, faults: Faults) -> None:
    """A slow failure to write sets writing aside; stored answers are served all the same."""
    stores = both(broken, faults=faults)
    stores.put("key", b"value", COMPILED)
    broken.error, broken.seconds = StoreUnavailableError("locked"), 5.0
    stores.put("other", b"value", COMPILED)
    broken.error, broken.seconds = None, 0.0

    assert b"value" == stores.get("key")


def test_many_threads(memory: MemoryStore, disk: DiskStore, faults: Faults) -> None:
    """What many threads put is in both stores, and nothing fails."""
    stores = both(memory, disk, faults=faults)

    def work(thread: int) -> list[object]:
        for at in range(40):
            stores.put(f"{thread}-{at}", b"%d" % at, COMPILED)
        return [at for at in range(40) if stores.get(f"{thread}-{at}") != b"%d" % at]

    assert [] == in_threads(16, work)
    assert [] == faults
    assert {COMPILED: 640} == memory.labels() == disk.labels()


def test_short_failures_add_up(broken: Broken, clock: Clock, faults: Faults) -> None:
    """A store that fails in a quarter of a second holds up five calls of each kind, and not every one."""
    stores = both(broken, faults=faults)
    broken.error, broken.seconds = StoreUnavailableError("no reply"), 0.25
    for at in range(8):
        stores.get("key")
        stores.put(f"key-{at}", b"value", COMPILED)

    assert 2 * 5 == broken.asked
    assert 16 == len(faults)
