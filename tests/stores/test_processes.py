"""One folder, many processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dspy_cachectl.stores.disk import DiskStore
from tests.limits import PATIENCE
from tests.processes import Finished
from tests.stores import writer

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_eight_processes_lose_nothing(tmp_path: Path, count: int) -> None:
    """Eight processes put as many entries each: no write fails, and all are there and readable afterwards."""
    folder = tmp_path / "entries"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.stores.writer", str(folder), str(number), str(count)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    try:
        assert ["ready\n"] * 8 == [process.stdout.readline() for process in processes if process.stdout]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        faults = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    assert ["0\n"] * 8 == faults
    store = DiskStore(folder)
    assert {writer.label(number): count for number in range(8)} == store.labels()
    wrong = [
        (number, at)
        for number in range(8)
        for at in range(count)
        if store.get(writer.key(number, at)) != writer.value(number, at)
    ]
    assert [] == wrong
    assert [("ok",)] == sqlite3.connect(folder / "cache.db").execute("PRAGMA integrity_check").fetchall()


def test_writers_opening_a_new_folder_at_once(tmp_path: Path) -> None:
    """Whoever comes first makes the folder; the others wait for it, and nobody fails."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.stores.writer", str(tmp_path / "entries"), str(number), "1"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    faults = [process.communicate("go\n", timeout=PATIENCE)[0] for process in processes]

    assert ["ready\n0\n"] * 6 == faults
    assert 6 == sum(DiskStore(tmp_path / "entries").labels().values())


FORKING = """
    import os, signal, sqlite3, sys, threading, warnings

    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: what is tested here
    from dspy_cachectl.stores import Label, MemoryStore
    from dspy_cachectl.stores.disk import DiskStore

    folder = sys.argv[1]
    disk, memory = DiskStore(folder), MemoryStore()
    label = Label(kind="lm", model="m", phase="compile")
    done = threading.Event()

    def write(thread):
        at = 0
        while at < 50 or not done.is_set():
            disk.put(f"thread-{thread}-{at % 50}", b"thread" * 100, label)
            memory.put(f"thread-{thread}-{at % 50}", b"thread" * 100, label)
            at += 1

    def child(number):
        for store in (disk, memory):
            for at in range(20):
                store.put(f"child-{number}-{at}", b"child", label)
            for at in range(20):
                assert store.get(f"child-{number}-{at}") == b"child"
            assert store.get("before") == b"before"

    for store in (disk, memory):
        store.put("before", b"before", label)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(12):
        pid = os.fork()
        if pid == 0:
            status = 1
            signal.alarm(60)  # a child that hangs ends, and is found below
            try:
                child(number)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    done.set()
    for thread in threads:
        thread.join()
    assert not failed, failed
    keys = set(disk.keys())
    assert {f"child-{number}-{at}" for number in range(12) for at in range(20)} <= keys
    assert {f"thread-{number}-{at}" for number in range(4) for at in range(50)} <= keys
    assert sqlite3.connect(folder + "/cache.db").execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    print("null")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_fork_while_threads_write(tmp_path: Path, child: Callable[..., Finished]) -> None:
    """A forked child goes on with the stores it inherited, whatever its parent's threads held at that moment."""
    child(FORKING, str(tmp_path / "entries"))
