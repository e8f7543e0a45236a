"""Files of other people's in the folders that we work in, and what became of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import zstandard

from dspy_cachectl.boundary.ownership import CASSETTE_HEAD, PACKED_SNAPSHOT_HEAD, SNAPSHOT_HEAD
from tests.faults.devices import make_device

Facts: TypeAlias = tuple[int, int, int, float, bytes]
"""Mode and kind, device number, identity, when it was changed, and what is in it."""

HEX = "0123456789abcdef"
KEY = "model_0123456789abcdef"
ALIVE, UNFINISHED = f".{HEX * 2}.alive", f"{HEX * 2}.tmp"

HARMLESS = (
    "table.json",
    "old.json",
    "package.json",
    "photo.damaged",
    ".b_x.tmp",
    "x.alive",
    "notes.jsonl.zst",
    ".new",
    "cache.db.bak",
    "data.jsonl",
    f"{KEY}.json",
    f"{KEY}-1.json.zst",
    f"{KEY}.json.damaged",
    f"{KEY}.json.zst.damaged",
    f"copy of {KEY}.json",
    ".answers.jsonl.01234567.new",
    ".answers.jsonl.zst.89abcdef.new",
    ".lock",
    UNFINISHED,
    ALIVE,
)
"""Names in whose place nothing of ours has to be; many are like ours."""

DECISIVE = {
    "library/.dspy_cachectl": ("lock", "unfinished-1.db", "unfinished-1.db-journal", "unfinished-1.db-wal"),
    "store": ("cache.db", "cache.db-journal", "cache.db-wal", "cache.db-shm"),
    "state/mlflow": ("outbox.db", "outbox.db-journal"),
    "cassettes": ("answers.jsonl", ".answers.jsonl.01234567.unsaved", "other.jsonl.zst"),
}
"""Names of ours in each folder: where somebody has one of them we do without, and say so."""

FOLDERS = ("library", "library/.dspy_cachectl", "store", "state/mlflow", "cassettes", "out", "dspy", "locks", ".")
OURS = (SNAPSHOT_HEAD, PACKED_SNAPSHOT_HEAD, CASSETTE_HEAD)


def _another_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE Cache (key, value, tag, store_time)")
        connection.execute("INSERT INTO Cache VALUES ('k', 'precious', 'lm', 1)")


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b'{"precious": ')
        file.truncate(3 * 1024**3)  # it takes no room on the disk


def _contents(name: str) -> dict[str, Callable[[Path], object]]:
    """Return what may be in a file of a name, so that it is none of ours."""
    found: dict[str, Callable[[Path], object]] = {
        "text": lambda path: path.write_bytes(b"precious\n" * 300),
        "json": lambda path: path.write_bytes(b'{"metadata": {"kind": "precious"}}\n'),
        "packed": lambda path: path.write_bytes(zstandard.compress(b'{"precious": 1}\n' * 300)),
        "log": lambda path: path.write_bytes(b"\x37\x7f\x06\x82precious" if "-" not in name else b"precious"),
        "database": _another_database,
        "large": _large,
    }
    if name in {"table.json", "old.json", "package.json", "notes.jsonl.zst", f"copy of {KEY}.json", "x.alive"}:
        for number, head in enumerate(OURS):
            found[f"head {number}"] = lambda path, head=head: path.write_bytes(head + b"1, precious")  # type: ignore[misc]
        found["empty"] = lambda path: path.write_bytes(b"")
    return found


@dataclass
class Strangers:
    """Other people's files, by where they are, as they were."""

    root: Path
    facts: dict[Path, Facts] = field(default_factory=dict)
    kinds: dict[Path, str] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)

    def place(self, rng: random.Random, path: Path) -> None:
        """Put something of some kind in a place that is free."""
        if os.path.lexists(path):
            return
        kind = rng.choices(
            ("file", "link", "link to a folder", "dangling", "circle", "pipe", "socket", "device", "folder"),
            (10, 2, 1, 1, 1, 1, 1, 1, 1),
        )[0]
        home = self.root / "elsewhere"
        target = home / f"{len(self.facts)}-{path.name}"
        {
            "file": lambda: self._fill(rng, path),
            "link": lambda: (self._fill(rng, target, name=path.name), path.symlink_to(target)),
            "link to a folder": lambda: path.symlink_to(home),
            "dangling": lambda: path.symlink_to(self.root / "nowhere" / path.name),
            "circle": lambda: path.symlink_to(path),
            "pipe": lambda: os.mkfifo(path),
            "socket": lambda: self._bind(path),
            "device": lambda: make_device(path),
            "folder": lambda: (path.mkdir(), self._fill(rng, path / "precious")),
        }[kind]()
        self.kinds[path] = kind
        self.facts[path] = facts_of(path)

    def _fill(self, rng: random.Random, path: Path, *, name: str = "") -> None:
        contents = _contents(name or path.name)
        contents[rng.choice(sorted(contents))](path)
        path.chmod(rng.choice((0o600, 0o644, 0o666, 0o400)))
        if rng.random() < 0.5:
            os.utime(path, (1, 1))
        self.facts[path] = facts_of(path)

    def _bind(self, path: Path) -> None:
        before = Path.cwd()
        os.chdir(path.parent)  # a socket's name may not be long
        try:
            bound = socket.socket(socket.AF_UNIX)
            bound.bind(path.name)
            self.sockets.append(bound)
        finally:
            os.chdir(before)

    def changed(self) -> dict[str, str]:
        """Return what has become of those that are not as they were, by name."""
        found = {}
        for path, before in self.facts.items():
            try:
                after = facts_of(path)
            except OSError as error:
                found[str(path.relative_to(self.root))] = repr(error)
                continue
            if before != after:
                found[str(path.relative_to(self.root))] = f"{before} became {after}"
        return found

    def close(self) -> None:
        """Let go of the sockets."""
        for bound in self.sockets:
            bound.close()


def facts_of(path: Path) -> Facts:
    """Return all that may change of a file but when it was read."""
    found = path.lstat()
    content = b""
    if stat.S_ISLNK(found.st_mode):
        content = os.fsencode(path.readlink())
    elif stat.S_ISREG(found.st_mode):
        with path.open("rb") as file:
            # Of one of gigabytes there is nothing behind its beginning.
            content = hashlib.sha256(file.read(1_000_000) + str(found.st_size).encode()).digest()
    changed = 0.0 if stat.S_ISDIR(found.st_mode) else found.st_mtime
    return found.st_mode, found.st_rdev, found.st_ino, changed, content


def strangers_in(root: Path, seed: int, *, most: int = 60) -> Strangers:
    """Put other people's files into all folders that we work in: many of harmless names, few where we want to be."""
    rng = random.Random(seed)
    found = Strangers(root)
    for name in (*FOLDERS, "elsewhere"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for _ in range(most):
        found.place(rng, root / rng.choice(FOLDERS) / rng.choice(HARMLESS))
    for folder, names in DECISIVE.items():
        for name in names:
            if rng.random() < 0.12:
                found.place(rng, root / folder / name)
    return found


@contextlib.contextmanager
def untouched(strangers: Strangers, doing: str) -> Iterator[None]:
    """See to it that whatever happens in the block, other people's files stay as they are."""
    yield
    changed = strangers.changed()
    assert not changed, f"{doing}: {changed}"
