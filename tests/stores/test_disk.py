"""The store in a folder: the contract, and what only a folder promises."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import sys
from pathlib import Path

import diskcache
import pytest

from dspy_cachectl.errors import FormatVersionError, StoreUnavailableError
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader
from tests.stores.contract import COMPILED, DRAWN, KnowingContract


class TestContract(KnowingContract):
    """The store in a folder keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> DiskStore:
        return DiskStore(tmp_path / "entries")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "entries"


@pytest.mark.parametrize("is_there", [False, True], ids=["no folder", "an empty folder"])
def test_reading_makes_nothing(folder: Path, is_there: bool) -> None:
    """Asking a store that is not there finds nothing, and leaves nothing behind."""
    if is_there:
        folder.mkdir()
    store = DiskStore(folder)

    assert store.get("key") is None
    assert [] == list(store.keys())
    assert {} == store.labels()
    assert 0 == FolderReader(folder).bytes_used()
    store.close()
    assert is_there == folder.exists()
    assert [] == list(folder.glob("*"))


@pytest.mark.parametrize("below", [".", "below", "below/it"])
def test_a_file_in_the_folders_place_is_named(tmp_path: Path, below: str) -> None:
    """The error says that it is a file; the file stays."""
    file = tmp_path / "entries"
    file.write_text("notes")
    with pytest.raises(StoreUnavailableError, match=re.escape(f"{file} is a file, not a folder")):
        DiskStore(file / below).put("key", b"value", COMPILED)
    assert "notes" == file.read_text()


@pytest.mark.parametrize("keys", [[], ["theirs"]], ids=["an empty one", "one with entries"])
def test_another_programs_diskcache_is_left_alone(folder: Path, keys: list[str]) -> None:
    """A folder in which another program keeps its cache is named in an error; nothing in it is changed or removed."""
    with diskcache.Cache(str(folder)) as theirs:
        for key in keys:
            theirs.set(key, {"a": "pickle"})
    before = (folder / "cache.db").read_bytes()
    store = DiskStore(folder)

    for use in (
        lambda: store.put("key", b"value", COMPILED),
        lambda: store.get("theirs"),
        lambda: store.delete_many({"theirs": None}),
        lambda: list(store.keys()),
        store.clear,
    ):
        with pytest.raises(StoreUnavailableError, match="another program's database"):
            use()

    assert before == (folder / "cache.db").read_bytes()


def test_a_store_of_an_older_version_is_left_alone(folder: Path) -> None:
    """What an older version kept, without an index of its answers, is named as that, and neither read nor written."""
    store = DiskStore(folder)
    store.put("key", b"value", COMPILED)
    store.close()
    with sqlite3.connect(folder / "cache.db") as older:
        for statement in ("DROP INDEX Cache_mark", "ALTER TABLE Cache DROP mark", "PRAGMA user_version = 1"):
            older.execute(statement)
    older.close()
    before = (folder / "cache.db").read_bytes()
    store = DiskStore(folder)

    for use in (lambda: store.put("key", b"other", COMPILED), lambda: store.get("key"), store.labels, store.clear):
        with pytest.raises(FormatVersionError, match="an older version"):
            use()

    assert before == (folder / "cache.db").read_bytes()


def test_what_makes_room_takes_its_mark_along(folder: Path) -> None:
    """In a store that is full, and from a process of its own as well, only what is kept is known again."""
    store = DiskStore(folder, max_bytes=600_000)
    for at in range(60):
        store.put_marked(f"key-{at}", bytes(20_000), COMPILED, f"n{at}.rest")
    kept = set(store.keys())

    assert 0 < len(kept) < 60
    assert kept == {f"key-{at}" for at in range(60) if FolderReader(folder).marked(f"n{at}")}
    assert 10 == store.delete_many(dict.fromkeys(sorted(kept)[:10]))
    assert len(kept) - 10 == len([at for at in range(60) if store.marked(f"n{at}")])


def test_a_name_with_many_entries_is_as_quickly_found(folder: Path) -> None:
    """However many entries have a mark, as with ids that are constant, the database looks only into its index."""
    store = DiskStore(folder)
    store.put_marked("key", b"value", COMPILED, "name.rest")
    plan = store.query(
        "EXPLAIN QUERY PLAN SELECT mark, key FROM Cache WHERE mark > ? AND mark < ? AND raw = 1"
        " AND typeof(key) = 'text' ORDER BY mark, rowid LIMIT 1",
        ("name.", "name/"),
    )

    said = [str(row[-1]) for row in plan]
    assert 1 == len(said)
    assert "Cache_mark" in said[0]


def test_a_store_of_a_newer_version_is_left_alone(folder: Path) -> None:
    """What a newer version keeps is neither read nor written, and not called damaged."""
    store = DiskStore(folder)
    store.put("key", b"value", COMPILED)
    store.close()
    with sqlite3.connect(folder / "cache.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = (folder / "cache.db").read_bytes()
    store = DiskStore(folder)

    for use in (lambda: store.put("key", b"other", COMPILED), lambda: store.get("key"), store.labels, store.clear):
        with pytest.raises(FormatVersionError, match="a newer version"):
            use()

    assert before == (folder / "cache.db").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_folder_is_for_its_user_alone(folder: Path) -> None:
    """Answers may be private: what the store makes can be entered and read by nobody else."""
    before = os.umask(0o022)
    try:
        DiskStore(folder).put("key", b"value", COMPILED)
    finally:
        os.umask(before)

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_others_see_at_once_what_was_put(folder: Path) -> None:
    """When `put` returns, others can read it, the large values too; and it outlives the store that put it."""
    ours, theirs = DiskStore(folder), DiskStore(folder)
    for key, value, label in (("small", b"value", COMPILED), ("large", bytes(600_000), DRAWN)):
        ours.put(key, value, label)
        assert value == theirs.get(key) == FolderReader(folder).get(key)
    ours.close()

    again = DiskStore(folder)

    assert [b"value", bytes(600_000)] == [again.get("small"), again.get("large")]
    assert {COMPILED: 1, DRAWN: 1} == again.labels()


def test_every_value_is_in_its_row(folder: Path) -> None:
    """However large values are, the folder holds the database alone; what is cleared gives its room back."""
    store = DiskStore(folder)
    for key in ("replaced", "deleted", "cleared"):
        store.put(key, os.urandom(600_000), COMPILED)
    store.put("replaced", b"small", COMPILED)
    store.delete("deleted")
    store.clear()
    store.shrink()

    assert ["cache.db", "cache.db-shm", "cache.db-wal"] == sorted(path.name for path in folder.rglob("*"))
    assert room(folder) < 100_000


@pytest.mark.parametrize(("size", "count"), [(2_000, 1_500), (30_000, 200), (300_000, 30)])
def test_the_folder_stays_within_its_limit(folder: Path, size: int, count: int) -> None:
    """All files of the folder together take up no more than the limit, and what was put last is kept."""
    limit = 2 * 1024 * 1024
    store = DiskStore(folder, max_bytes=limit)

    for at in range(count):
        store.put(f"key-{at}", os.urandom(size), COMPILED)
        if at % 50 == 0:
            assert room(folder) < 1.1 * limit

    assert room(folder) < 1.1 * limit
    kept = list(store.keys())
    assert 0.3 * limit < len(kept) * size
    assert [f"key-{count - 1 - at}" for at in range(len(kept))] == kept


def test_a_smaller_limit_holds_for_what_is_there(folder: Path) -> None:
    """A store opened with a smaller limit comes down to it as it is used."""
    large = DiskStore(folder)
    for at in range(1000):
        large.put(f"old-{at}", os.urandom(4000), COMPILED)
    large.close()

    limit = 2 * 1024 * 1024
    small = DiskStore(folder, max_bytes=limit)
    for at in range(120):
        small.put(f"new-{at}", os.urandom(4000), COMPILED)

    assert room(folder) < 1.1 * limit
    assert "new-119" == next(small.keys())


def room(folder: Path) -> int:
    """The bytes that a folder takes up on its disk, directories included."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
