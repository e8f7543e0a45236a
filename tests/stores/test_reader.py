"""Reading a folder without writing to it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.manage.verification import Kind, verify
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import entries_beginning_with
from dspy_cachectl.stores.reader import FolderReader, mark_from
from tests.stores.contract import COMPILED, VECTOR


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "entries"


@pytest.fixture
def store(folder: Path) -> DiskStore:
    return DiskStore(folder)


def test_writes_nothing(store: DiskStore, folder: Path, tmp_path: Path) -> None:
    """A closed folder looks the same after reading as before."""
    store.put("key", b"value", COMPILED)
    store.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    reader = FolderReader(folder)
    assert b"value" == reader.get("key")
    assert {COMPILED: 1} == reader.labels()

    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name == "cache.db"}
    assert {"cache.db": before["cache.db"]} == after


def test_keys_come_newest_first_over_many_pages(store: DiskStore, folder: Path) -> None:
    """Listing is done page by page, in one order, each key once."""
    for at in range(2300):
        store.put(f"key-{at}", b"", VECTOR if at % 3 else COMPILED)

    assert [f"key-{at}" for at in reversed(range(2300))] == list(FolderReader(folder).keys())
    assert [f"key-{at}" for at in reversed(range(0, 2300, 3))] == list(FolderReader(folder).keys("lm"))


def test_the_hashes_of_a_mark_stand_as_bytes(store: DiskStore, folder: Path) -> None:
    """What is known by hashes takes half as much, and comes back as it was given; what nobody wrote is no mark."""
    hashes = [f"{'0a' * 8}.{'ff' * 8}", f"~{'0b' * 8}.{'ff' * 8}", f"={'0b' * 8}."]
    others = ["name.rest", f"{'0A' * 8}.rest", f"{'0a' * 8}.rest", "name"]
    for mark in (*hashes, *others):
        store.put_marked(mark, b"", COMPILED, mark)
    with sqlite3.connect(folder / "cache.db") as plain:
        stands = [mark for (mark,) in plain.execute("SELECT mark FROM Cache ORDER BY rowid")]

    assert [17, 17, 9] == [len(mark) for mark in stands[:3]]
    assert [*hashes, *others] == [mark_from(mark) for mark in stands]
    filed = [store.get_marked(mark) for mark in (*hashes, *others)]
    assert [*hashes, *others] == [one.mark for one in filed if one is not None]
    assert [""] + [None] * 4 == [mark_from(mark) for mark in (None, 5, b"\3" + bytes(8), bytes(12), hashes[0])]


def test_keys_of_one_moment_all_come(store: DiskStore, folder: Path) -> None:
    """Entries stored within the clock's resolution do not hide one another at the end of a page."""
    for at in range(2100):
        store.put(f"key-{at}", b"", COMPILED)
    with sqlite3.connect(folder / "cache.db") as plain:
        plain.execute("UPDATE Cache SET store_time = 1.0")

    assert [f"key-{at}" for at in reversed(range(2100))] == list(FolderReader(folder).keys())


def test_the_digits_of_a_key_stand_as_bytes(store: DiskStore, folder: Path) -> None:
    """Whatever a key looks like, it is found, listed and removed as it was given; and a hash takes half as much."""
    hashes = ["ab1" + "0" * 61, "ab2" + "f" * 61]
    others = ["AB1" + "0" * 61, "ab" + "z" * 62, "ab", "ab1" + " " * 61, "run:ab"]
    for key in (*hashes, *others):
        store.put_marked(key, key.encode(), COMPILED, f"{key}.rest")
    with sqlite3.connect(folder / "cache.db") as plain:
        assert 2 == plain.execute("SELECT COUNT(*) FROM Cache WHERE length(CAST(key AS BLOB)) = 32").fetchone()[0]
        plain.execute("INSERT INTO Cache (key, raw, mode, value) VALUES (?, 1, 1, x'00')", ("cd" * 32,))
        plain.execute("INSERT INTO Cache (key, raw, mode, value) VALUES (zeroblob(31), 1, 1, x'00')")

    reader = FolderReader(folder)
    assert {*hashes, *others} == set(store.keys())
    assert [key.encode() for key in (*hashes, *others)] == [reader.get(key) for key in (*hashes, *others)]
    assert [{f"{key}.rest": key} for key in hashes] == [store.marked(key) for key in hashes]
    assert ["ab", None] == [next(iter(_beginning(reader, "ab", 9)), None), reader.get("cd" * 32)]
    assert sorted([hashes[0], others[3]]) == _beginning(reader, "ab1", 9)
    assert hashes == [*_beginning(reader, "ab10", 9), *_beginning(reader, "ab2", 1)]
    assert ["row 8", "row 9"] == [flaw.where for flaw in verify(folder).flaws if flaw.kind is Kind.KEY]
    assert [True] * 7 == [store.delete(key) for key in (*hashes, *others)]


def _beginning(reader: FolderReader, prefix: str, limit: int) -> list[str]:
    return [row.key for row, _ in entries_beginning_with(reader, prefix, limit=limit)]


def test_how_much_room_it_takes(store: DiskStore, folder: Path) -> None:
    """The values at least are counted, and their room no more at once when they are gone."""
    store.put("large", bytes(1_000_000), COMPILED)
    with_large = FolderReader(folder).bytes_used()
    store.delete("large")

    assert with_large >= 1_000_000
    assert with_large - FolderReader(folder).bytes_used() >= 990_000


def test_a_database_that_is_only_just_made_is_empty(folder: Path) -> None:
    """Between the making of the file and of its tables, and after a crash there, nothing is stored."""
    folder.mkdir()
    (folder / "cache.db").touch()

    assert FolderReader(folder).get("key") is None
    assert {} == FolderReader(folder).labels()
    assert 0 == FolderReader(folder).bytes_used()


def test_a_file_that_is_no_database_is_an_error(folder: Path) -> None:
    """It is not taken for an empty store: the message says what is wrong and what to do."""
    folder.mkdir()
    (folder / "cache.db").write_text("this is a text, and quite a long one " * 40)

    with pytest.raises(StoreUnavailableError, match=r"not a database.*move it away"):
        FolderReader(folder).labels()


def test_entries_of_a_writer_that_never_closed_are_read(store: DiskStore, folder: Path, tmp_path: Path) -> None:
    """A copy of the folder of a running or killed writer holds its latest entries, in the write-ahead log."""
    store.put("key", b"value", COMPILED)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert (copy / "cache.db-wal").stat().st_size > 0

    assert b"value" == FolderReader(copy).get("key")


@pytest.mark.parametrize("name", ["with space", "per%20cent", "quest?ion", "ha#sh", "größe"])
def test_any_name_of_a_folder(tmp_path: Path, name: str) -> None:
    """The folder's name may hold characters that mean something in an address."""
    DiskStore(tmp_path / name).put("key", b"value", COMPILED)

    assert {COMPILED: 1} == FolderReader(tmp_path / name).labels()
