"""The small SQLite file that an outbox and a journal are kept in."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.errors import FormatVersionError, StoreError, StoreUnavailableError
from dspy_cachectl.stores.database import Database
from tests.conftest import Finished
from tests.faults.disks import read_only, small_disk

_ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ("CREATE TABLE rows (writer TEXT, number INTEGER, data BLOB, PRIMARY KEY (writer, number))",)
WAYS = pytest.mark.parametrize("keep_open", [False, True], ids=["a connection for each use", "one kept open"])


def opened(path: Path, *, keep_open: bool = False, version: int = 1, **options: Any) -> Database:
    return Database(path, kind="test", version=version, schema=SCHEMA, keep_open=keep_open, **options)


def put(database: Database, number: int, writer: str = "me") -> None:
    with database.change() as sql:
        sql("INSERT INTO rows VALUES (?, ?, ?)", writer, number, b"data")


def numbers(database: Database, writer: str = "me") -> list[int]:
    return [number for (number,) in database.read("SELECT number FROM rows WHERE writer = ? ORDER BY 1", writer)]


@WAYS
def test_what_was_changed_is_read(tmp_path: Path, keep_open: bool) -> None:
    """A change is seen at once, by the same database and by another; nothing is made before the first."""
    path = tmp_path / "folder" / "test.db"
    database = opened(path, keep_open=keep_open)
    assert [] == numbers(database)
    assert not path.parent.exists()

    put(database, 1)

    assert [1] == numbers(database) == numbers(opened(path))
    assert (0o600, 0o700) == (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)


@WAYS
def test_a_change_is_whole(tmp_path: Path, keep_open: bool) -> None:
    """A block that raises changes nothing, be it an error of its own or one of SQLite; the next one goes on."""
    database = opened(tmp_path / "test.db", keep_open=keep_open)
    put(database, 1)

    def put_and_raise() -> None:
        with database.change() as sql:
            sql("INSERT INTO rows VALUES ('me', 2, NULL)")
            raise KeyError

    def put_two() -> None:
        with database.change() as sql:
            sql("INSERT INTO rows VALUES ('me', 3, NULL)")
            sql("INSERT INTO rows VALUES ('me', 1, NULL)")

    with pytest.raises(KeyError):
        put_and_raise()
    with pytest.raises(StoreUnavailableError, match="UNIQUE"):
        put_two()
    put(database, 4)

    assert [1, 4] == numbers(database)


@WAYS
def test_threads(tmp_path: Path, keep_open: bool) -> None:
    """Eight threads of one process lose nothing."""
    database = opened(tmp_path / "test.db", keep_open=keep_open, patience=60)
    threads = [
        threading.Thread(target=lambda writer=str(writer): [put(database, at, writer) for at in range(5)])
        for writer in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [(40,)] == database.read("SELECT COUNT(*) FROM rows")


WRITER = """
    import sys
    from pathlib import Path
    from tests.stores.test_database import opened, put

    path, writer, keep_open = sys.argv[1:]
    database = opened(Path(path), keep_open=keep_open == "True", patience=60)
    for number in range(100_000):
        put(database, number, writer)
        print(number, flush=True)
"""


@WAYS
def test_killed_processes_lose_nothing_acknowledged(tmp_path: Path, keep_open: bool) -> None:
    """Four processes make a file and write until each is killed with SIGKILL: what each acknowledged is there."""
    script, path = tmp_path / "writer.py", tmp_path / "folder" / "test.db"
    script.write_text("\n".join(line.removeprefix("    ") for line in WRITER.splitlines()), encoding="utf-8")
    writers = {
        writer: subprocess.Popen(
            [sys.executable, str(script), str(path), writer, str(keep_open)],
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in "abcd"
    }
    said = dict.fromkeys(writers, -1)
    for writer, process in writers.items():
        assert process.stdout is not None
        while said[writer] < 5:
            said[writer] = int(process.stdout.readline())
        process.kill()
        for line in process.communicate()[0].split():
            said[writer] = int(line)

    database = opened(path)
    for writer, last in said.items():
        assert list(range(last + 1)) == numbers(database, writer)[: last + 1]
    assert [("ok",)] == database.read("PRAGMA integrity_check")


FORKING = """
    import os, signal, sys, threading, warnings
    from pathlib import Path

    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: what is tested here
    from tests.stores.test_database import numbers, opened, put

    databases = [opened(Path(sys.argv[1]) / f"{keep}.db", keep_open=keep, patience=30) for keep in (False, True)]
    done = threading.Event()

    def write():
        at = 0
        while at < 5 or not done.is_set():
            for database in databases:
                put(database, at, "thread")
            at += 1

    thread = threading.Thread(target=write)
    thread.start()
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            signal.alarm(60)  # a child that hangs ends, and is found below
            try:
                for database in databases:
                    put(database, number, "child")
                    assert number in numbers(database, "child")
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    done.set()
    thread.join()
    assert not failed, failed
    for database in databases:
        assert numbers(database, "child") == list(range(4))
        assert numbers(database, "thread") == list(range(len(numbers(database, "thread"))))
        assert database.read("PRAGMA integrity_check") == [("ok",)]
    print("null")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_forks(tmp_path: Path, child: Callable[..., Finished]) -> None:
    """A forked child goes on with a database that it inherited, while a thread of its parent writes."""
    child(FORKING, str(tmp_path))


def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()


def other_kind(path: Path) -> None:
    with Database(path, kind="another", version=1, schema=SCHEMA).change():
        pass


def text(path: Path) -> None:
    path.write_text("my notes, of which there is no other copy\n" * 100, encoding="utf-8")


FOREIGN = pytest.mark.parametrize("make", [foreign_database, other_kind, text])


@FOREIGN
@WAYS
def test_another_programs_file(tmp_path: Path, make: Callable[[Path], None], keep_open: bool) -> None:
    """A file of another program is named in the error, and left as it is, to the byte."""
    path = tmp_path / "test.db"
    make(path)
    before = path.read_bytes()
    database = opened(path, keep_open=keep_open)

    for use in (lambda: put(database, 1), lambda: numbers(database)):
        with pytest.raises(StoreError, match=r"test\.db"):
            use()

    assert before == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    """A folder of that name is named in the error."""
    (tmp_path / "test.db").mkdir()

    with pytest.raises(StoreUnavailableError, match=r"test\.db is not a file"):
        put(opened(tmp_path / "test.db"), 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_in_its_place(tmp_path: Path) -> None:
    """A named pipe is not waited for."""
    os.mkfifo(tmp_path / "test.db")

    with pytest.raises(StoreUnavailableError, match=r"test\.db is not a file"):
        put(opened(tmp_path / "test.db"), 1)
    with pytest.raises(StoreUnavailableError, match=r"test\.db"):
        numbers(opened(tmp_path / "test.db"))


@WAYS
def test_a_newer_version(tmp_path: Path, keep_open: bool) -> None:
    """What a newer version wrote is refused with both versions, is not called damaged, and is left as it is."""
    path = tmp_path / "test.db"
    put(opened(path, version=2), 1)
    before = path.read_bytes()
    database = opened(path, keep_open=keep_open)

    for use in (lambda: put(database, 2), lambda: numbers(database)):
        with pytest.raises(FormatVersionError, match=r"newer version of dspy_cachectl \(format 2, this is 1\)"):
            use()

    assert before == path.read_bytes()
    assert [1] == numbers(opened(path, version=2))


@WAYS
def test_a_read_only_folder(tmp_path: Path, keep_open: bool) -> None:
    """What is there is read where nothing can be written; a change says why it failed."""
    folder = tmp_path / "folder"
    database = opened(folder / "test.db", keep_open=keep_open)
    put(database, 1)
    database.close()
    with read_only(folder, tmp_path / "view") as view:
        database = opened(view / "test.db", keep_open=keep_open)
        assert [1] == numbers(database)
        with pytest.raises(StoreUnavailableError, match=r"test\.db"):
            put(database, 2)
        with pytest.raises(StoreUnavailableError):
            put(opened(view / "new" / "test.db", keep_open=keep_open), 1)
        assert [1] == numbers(database)


@WAYS
def test_a_full_disk(tmp_path: Path, keep_open: bool) -> None:
    """A change that finds no room raises and changes nothing; once there is room it goes on."""
    with small_disk(tmp_path / "small") as disk:
        database = opened(disk.path / "test.db", keep_open=keep_open)
        put(database, 1)
        disk.fill()
        with pytest.raises(StoreUnavailableError, match=r"test\.db"), database.change() as sql:
            sql("INSERT INTO rows VALUES ('me', 2, ?)", bytes(3_000_000))
        assert [1] == numbers(database)
        disk.free()
        put(database, 3)

        assert [1, 3] == numbers(database)
        database.close()


def test_deleted_while_kept_open(tmp_path: Path) -> None:
    """Who keeps a connection to a file that is deleted is told so once; then the file is made anew."""
    database = opened(tmp_path / "test.db", keep_open=True)
    put(database, 1)
    for left in tmp_path.iterdir():
        left.unlink()

    with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
        put(database, 2)
    put(database, 3)

    assert [3] == numbers(database) == numbers(opened(tmp_path / "test.db"))


def test_locked_by_another_process(tmp_path: Path) -> None:
    """A change waits for another one as long as it may, and then says who is in the way."""
    path = tmp_path / "test.db"
    put(opened(path), 1)
    with opened(path).change() as sql:
        sql("INSERT INTO rows VALUES ('me', 2, NULL)")
        with pytest.raises(StoreUnavailableError, match=r"test\.db.*locked"):
            put(opened(path, patience=0.05), 3)

    assert [1, 2] == numbers(opened(path))


def test_a_disk_without_shared_memory(tmp_path: Path) -> None:
    """Where SQLite cannot write ahead to a log, a connection that is kept open does without, beside others."""
    (tmp_path / "test.db-shm").mkdir()
    kept, other = opened(tmp_path / "test.db", keep_open=True), opened(tmp_path / "test.db")
    put(kept, 1)
    put(other, 2)
    put(kept, 3)

    assert [1, 2, 3] == numbers(kept) == numbers(other)
    assert [("delete",)] == kept.read("PRAGMA journal_mode")
