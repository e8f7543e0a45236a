"""Stores for the tests of the managing commands: keys that fit their requests, and damage of every kind."""

from __future__ import annotations

import contextlib
import os
import pickle
import pty
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dspy_cachectl.entries import draws, records
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader, kept, key_of
from tests.cli.commands import SCRIPT, entry
from tests.limits import PATIENCE

COMPILED = Label("lm", "openai/mini", "compile")
JUDGED = Label("lm", "openai/large", "eval", "judge", "run-1")
DRAWN = Label("lm", "openai/mini", "eval", "", "run-2")


def answer(number: int, label: Label = COMPILED, *, large: bool = False) -> tuple[str, bytes]:
    """The key and the bytes of an answer; a large one has 350 kB."""
    text = "".join(random.Random(number).choices("0123456789abcdef", k=700_000)) if large else f"answer {number}"
    data = entry(label, f"question {number}", text, created=1_800_000_000.0)
    asked = records.decode_request(data)
    return draws.cache_key(draws.fingerprint(asked["request"], endpoint=None)), data


def filled(folder: Path, labels: list[Label], *, large: int = 0) -> list[str]:
    """Fill a store; the first answers are large. Return the keys."""
    store = DiskStore(folder)
    keys = []
    for number, label in enumerate(labels):
        key, data = answer(number, label, large=number < large)
        store.put(key, data, label)
        keys.append(key)
    store.close()
    return keys


def describe_run(folder: Path, run_id: str) -> None:
    """Keep a description of a run, as a phase does."""
    label = Label("run", "", "eval", "", run_id)
    store = DiskStore(folder)
    store.put(f"run:{run_id}", records.encode(records.Origin(kind="run", model="", run_id=run_id), {}), label)
    store.close()


@contextlib.contextmanager
def table(folder: Path) -> Iterator[sqlite3.Connection]:
    """The store's database, and what is changed in it committed."""
    with contextlib.closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        yield connection


def crowded(folder: Path, count: int, *, runs: int) -> FolderReader:
    """A store of very many rows of so many runs, and one of none, put into its table at once."""
    DiskStore(folder).put("first", b"x", Label("lm"))
    with table(folder) as connection:
        connection.executemany(
            "INSERT INTO Cache (key, raw, store_time, mode, tag, value) VALUES (?, 1, ?, 1, ?, x'00')",
            ((f"key {at}", float(at), Label("lm", "m", run=f"run-{at % runs}").encode()) for at in range(count)),
        )
    return FolderReader(folder)


def keys_in(folder: Path) -> set[str]:
    """The keys in a store, with SQLite alone."""
    with table(folder) as connection:
        return {key_of(stands) or repr(stands) for (stands,) in connection.execute("SELECT key FROM Cache")}


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def damage_rows(folder: Path, keys: list[str], secret: Path) -> dict[str, str]:
    """Damage one row after the other. Return for each of those keys, or rows, the flaw to be found."""

    def filename(name: str) -> tuple[str, str]:
        return "mode = 2, value = NULL, filename = ?", name

    planted: list[tuple[str, tuple[str, object]]] = [
        ("entry", ("value = substr(value, 1, length(value) - ?)", 7)),
        ("kind", ("mode = 3, value = ?", pickle.dumps(Evil(secret.parent / "mark")))),
        ("kind", ("mode = 1, value = ?", "a text")),
        ("kind", filename("../secret.val")),
        ("kind", filename(str(secret))),
        ("kind", filename(f"aa/bb/{'0' * 28}.val")),
        ("key", ("key = ?", "another key")),
    ]
    expected = {}
    with table(folder) as connection:
        for key, (flaw, (change, value)) in zip(keys, planted, strict=False):
            connection.execute(f"UPDATE Cache SET {change} WHERE key = ?", (value, kept(key)))
            expected["another key" if flaw == "key" else key] = flaw
    return expected


def at_terminal(*arguments: str | Path, typed: str) -> tuple[int, str]:
    """Run a command with a terminal as its standard input, and type. Return the exit code and what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DSPY_CACHECTL_")}
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "100"},
        )
        os.write(master, f"{typed}\n".encode())
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        os.close(master)
        os.close(slave)
    return process.returncode, output
