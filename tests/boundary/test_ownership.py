"""What is ours: by its name and by how it begins, and only where it is a file."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
import zstandard

from dspy_cachectl.boundary import ownership
from dspy_cachectl.boundary.ownership import PACKED_SNAPSHOT_HEAD, SNAPSHOT_HEAD
from dspy_cachectl.errors import ConfigurationError, StoreUnavailableError
from dspy_cachectl.stores.database import Database

NAME = "model_0123456789abcdef.json"


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        (NAME, SNAPSHOT_HEAD, True),
        (f"{NAME}.damaged", SNAPSHOT_HEAD, True),
        (f"{NAME}.zst", PACKED_SNAPSHOT_HEAD, True),
        ("model_0123456789abcdef-3.json.zst.damaged", PACKED_SNAPSHOT_HEAD, True),
        (NAME, b"{}", False),
        (NAME, SNAPSHOT_HEAD[:-1], False),
        (f"{NAME}.zst", SNAPSHOT_HEAD, False),
        (f"{NAME}.zst", zstandard.compress(SNAPSHOT_HEAD), False),
        ("table.json", SNAPSHOT_HEAD, False),
        (f"{NAME}.bak", SNAPSHOT_HEAD, False),
        (f"copy of {NAME}", SNAPSHOT_HEAD, False),
    ],
)
def test_a_snapshot_has_name_and_head(tmp_path: Path, name: str, head: bytes, expected: bool) -> None:
    """Neither is enough by itself."""
    (tmp_path / name).write_bytes(head + b"...")
    assert expected == ownership.is_snapshot(tmp_path / name)


def test_a_link_is_somebodys_own(tmp_path: Path) -> None:
    """What a link leads to may be read, and the link is not removed: we make none."""
    (tmp_path / "kept").write_bytes(SNAPSHOT_HEAD)
    (tmp_path / NAME).symlink_to(tmp_path / "kept")
    assert not ownership.is_snapshot(tmp_path / NAME)
    assert ownership.is_snapshot(tmp_path / NAME, through_links=True)


@pytest.mark.parametrize("ending", ["", ".zst"])
def test_what_a_killed_writer_of_a_cassette_left(tmp_path: Path, ending: str) -> None:
    """It has the cassette's name and head; any other JSON lines, or zstd, is somebody's."""
    cassette = tmp_path / f"answers.jsonl{ending}"

    def of(head: bytes, name: str = f".{cassette.name}.01234567.new") -> bool:
        content = zstandard.compress(head * 5000) if ending else head * 5000
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3] if not ending else content)
        return ownership.is_unfinished_cassette(tmp_path / name, of=cassette)

    assert of(b'{"cassette":3}\n')
    assert not of(b'{"precious":1}\n')
    assert not of(b'{"cassette":3}\n', ".other.jsonl.01234567.new")
    assert not of(b'{"cassette":3}\n', f".{cassette.name}.20260z01.new")


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["file", "pipe", "link", "link to a folder"])
def test_a_file_beside_a_database_is_not_lost(tmp_path: Path, ending: str, kind: str) -> None:
    """SQLite removes and overwrites what has such a name, so the database is not used before it is moved away."""
    beside = tmp_path / f"x.db{ending}"
    (tmp_path / "precious").write_bytes(b"precious" * 1000)
    {
        "file": lambda: beside.write_bytes(b"precious" * 1000),
        "pipe": lambda: os.mkfifo(beside),
        "link": lambda: beside.symlink_to(tmp_path / "precious"),
        "link to a folder": lambda: beside.symlink_to(tmp_path),
    }[kind]()
    before = beside.lstat().st_mode
    database = Database(tmp_path / "x.db", kind="store", version=1, schema=("CREATE TABLE t (x)",), keep_open=True)

    for use in (database.make, lambda: database.read("SELECT 1")):
        with pytest.raises(StoreUnavailableError, match="move it away"):
            use()

    assert before == beside.lstat().st_mode
    assert b"precious" * 1000 == (tmp_path / "precious").read_bytes()
    assert kind in {"pipe", "link to a folder"} or b"precious" * 1000 == beside.read_bytes()
    assert not (tmp_path / "x.db").exists()


def test_what_sqlite_keeps_beside_a_database_is_its_own(tmp_path: Path) -> None:
    """A log that was not written back, and a journal of somebody who was killed, are no other's."""
    path = tmp_path / "x.db"
    database = Database(path, kind="store", version=1, schema=("CREATE TABLE t (x)",), keep_open=True)
    with database.change() as sql:
        sql("INSERT INTO t VALUES (1)")
    assert {"x.db", "x.db-shm", "x.db-wal"} == {one.name for one in tmp_path.iterdir()}
    other = Database(path, kind="store", version=1, schema=(), keep_open=True)
    assert [(1,)] == other.read("SELECT x FROM t")
    with other.change() as sql:
        sql("INSERT INTO t VALUES (2)")
    other.close()
    database.close()

    with sqlite3.connect(path, isolation_level=None) as killed:
        killed.execute("PRAGMA journal_mode = DELETE")
        killed.execute("BEGIN IMMEDIATE")
        killed.execute("INSERT INTO t VALUES (3)")
        killed.execute("PRAGMA cache_spill = 1")
        assert ownership.foreign_beside(path) is None
        killed.execute("ROLLBACK")
    killed.close()


@pytest.mark.parametrize("way", ["itself", "relative", "link", "hard link", "chain", "folder link"])
@pytest.mark.parametrize("kind", ["store", "outbox", "predictions", "unsaved recordings", "log", "snapshot", "held"])
def test_no_output_goes_over_what_is_ours(tmp_path: Path, kind: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever way leads there: by its head it is known, and a cassette in use by what it is."""
    home = tmp_path / "home"
    home.mkdir()
    path = home / ("x.db-wal" if kind == "log" else "ours")
    if kind == "snapshot":
        path.write_bytes(SNAPSHOT_HEAD)
    elif kind == "held":
        path.write_text("a cassette")
    else:
        database = home / "x.db" if kind == "log" else path
        made = Database(
            database, kind="store" if kind == "log" else kind, version=9, schema=("CREATE TABLE t (x)",), keep_open=True
        )
        made.make()
        with made.change() as sql:
            sql("INSERT INTO t VALUES (1)")
    monkeypatch.chdir(tmp_path)
    named = {"itself": path, "relative": Path("home", "..", "home", path.name)}.get(way, tmp_path / "way")
    if way == "link":
        named.symlink_to(path)
    elif way == "hard link":
        os.link(path, named)
    elif way == "chain":
        (tmp_path / "first").symlink_to(path)
        named.symlink_to("first")
    elif way == "folder link":
        named.symlink_to(home)
        named = named / path.name

    with ownership.in_use(path if kind == "held" else tmp_path / "another"), pytest.raises(ConfigurationError):
        ownership.check_output(named, what="a report")
    if kind == "held":
        ownership.check_output(named, what="a report")


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "outbox.db", "unfinished-1.db", "unfinished-7.db-shm"])
def test_no_output_takes_the_name_of_a_database(tmp_path: Path, name: str) -> None:
    """The database that is made there later could not be."""
    with pytest.raises(ConfigurationError, match="name another"):
        ownership.check_output(tmp_path / name, what="a report")


def test_opening_what_is_no_file_never_waits(tmp_path: Path) -> None:
    """Neither does it let go whoever waits at a pipe for a reader."""
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)

    def write() -> None:
        handle = os.open(pipe, os.O_WRONLY)
        got.append(handle)
        os.close(handle)

    waiting = threading.Thread(target=write, daemon=True)
    waiting.start()
    for path in (pipe, tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match="only files are read"):
            ownership.open_regular(path)
    assert [] == got
    os.close(os.open(pipe, os.O_RDONLY))
    waiting.join()
