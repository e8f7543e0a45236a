"""A database that another process has locked: no call waits long, and none is lost."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores import Label, disk, patience
from dspy_cachectl.stores.disk import DiskStore
from tests.faults.support import NEW, OLD, Scene, first
from tests.stores.contract import in_threads

LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("locked", flush=True)
sys.stdin.readline()
"""
WRITERS = ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]
EVERYBODY = ["PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "CREATE TABLE theirs (a)"]


@contextmanager
def locked(store: Path, *statements: str) -> Iterator[None]:
    """Another process that keeps the database locked."""
    command = [sys.executable, "-c", LOCKING, str(store / "cache.db"), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "locked\n" == process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("statement", WRITERS)
def test_locked_while_in_use(scene: Scene, statement: str) -> None:
    """Stored answers are served, new ones are bought, and the writes that failed are counted and said once."""
    scene.ask(OLD)

    with locked(scene.folder, statement):
        scene.expect(first(OLD + NEW), requests=2)
    assert (2, 2, 0) == scene.counts
    assert ["write"] == scene.warnings


@pytest.mark.parametrize("statement", WRITERS)
def test_a_process_that_begins_on_a_locked_store(scene: Scene, statement: str) -> None:
    """A store that cannot be opened for writing is read, and its writes fail at once."""
    scene.ask(OLD)
    cachectl.uninstall()

    with locked(scene.folder, statement):
        scene.install()
        scene.expect(first(OLD + NEW), requests=2)
    assert (2, 2, 0) == scene.counts
    assert ["write"] == scene.warnings


def test_locked_for_readers_too(scene: Scene) -> None:
    """Where nothing can be read either, each call is bought, and both failures are counted and said once each."""
    scene.ask(OLD)
    cachectl.uninstall()

    with locked(scene.folder, *EVERYBODY):
        scene.install()
        scene.expect(first(OLD, draw=1) + first(NEW), requests=4)
    assert (0, 4, 4) == scene.counts
    assert ["read", "write"] == sorted(scene.warnings)


def test_a_lock_that_goes_away(scene: Scene) -> None:
    """When the lock is gone, answers are stored again, without a restart."""
    scene.ask(OLD)
    with locked(scene.folder, "BEGIN IMMEDIATE"):
        scene.ask(NEW)
    scene.ask(NEW)

    scene.expect(first(OLD) + first(NEW, draw=1), requests=0)
    assert 4 == scene.served


def test_a_short_lock_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is busy for a moment costs no answer."""
    scene.install(patience=60.0)
    scene.ask(OLD)
    holder = sqlite3.connect(scene.folder / "cache.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    class Clock:
        """The moment in which the store waits is the moment in which the lock goes away."""

        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def sleep(seconds: float) -> None:
            waits.append(seconds)
            holder.rollback()

    monkeypatch.setattr(patience, "time", Clock)
    scene.ask([NEW[0]])
    holder.close()

    assert 1 == len(waits)
    assert 0 == scene.stats.failed_writes
    assert first([NEW[0]]) == scene.ask([NEW[0]])
    assert 1 == scene.served


@pytest.mark.timeout(25)
def test_many_threads_wait_at_once(tmp_path: Path) -> None:
    """Many threads that write give up after their patience together; one after another they would take 30 seconds."""
    store = DiskStore(tmp_path / "entries", patience=0.5)
    store.put("key", b"value", Label())

    def work(thread: int) -> list[object]:
        with pytest.raises(StoreUnavailableError, match=r"could not use.*locked for 0\.5 s"):
            store.put(f"key-{thread}", b"value", Label())
        return []

    with locked(store.path, "BEGIN IMMEDIATE"):
        assert [] == in_threads(60, work)
    store.close()


def test_many_threads_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that waited while one of them failed to open the store do not try once more each."""
    DiskStore(tmp_path / "entries").put("key", b"value", Label())
    store = DiskStore(tmp_path / "entries", patience=0.5)
    openings: list[Any] = []
    opening = disk.Folder.__init__

    def counted(*args: Any, **options: Any) -> None:
        openings.append(args)
        opening(*args, **options)

    monkeypatch.setattr(disk.Folder, "__init__", counted)

    def work(thread: int) -> list[object]:
        with pytest.raises(StoreUnavailableError, match=r"could not open.*locked for 0\.5 s"):
            store.put(f"key-{thread}", b"value", Label())
        return []

    with locked(store.path, "BEGIN IMMEDIATE"):
        assert [] == in_threads(60, work)
    assert 1 == len(openings)
