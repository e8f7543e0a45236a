"""Whatever is done, and whatever lies there: a file that is not ours stays, byte for byte, with name, mode and kind."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.boundary import ownership, writing
from dspy_cachectl.stores import database, liveness
from tests.endpoint import Endpoint
from tests.strangers.doing import World, each_thing
from tests.strangers.folders import HARMLESS, strangers_in, untouched

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes and devices among files")


@pytest.fixture
def worlds(
    tmp_path: Path, endpoint: Endpoint, lm: Callable[..., cachectl.LM], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], World]]:
    """Make a world out of a number."""
    endpoint.configure(answers={"question": ["yes", "no"]})
    made = []

    def make(seed: int) -> World:
        root = tmp_path / f"world-{seed}"
        root.mkdir()
        strangers = strangers_in(root, seed)
        monkeypatch.setenv("DSPY_CACHECTL_STATE", str(root / "state"))
        monkeypatch.setattr(tempfile, "tempdir", str(root / "locks"))
        monkeypatch.chdir(root)
        made.append(strangers)
        return World(root, strangers, random.Random(seed), lm)

    yield make
    for strangers in made:
        strangers.close()


def everything_in(world: World) -> None:
    """Do everything there is to do, and look after each thing."""
    for name, do in each_thing(world):
        with untouched(world.strangers, name), contextlib.suppress(cachectl.CachectlError):
            do(world)


def test_files_of_others_stay(worlds: Callable[[int], World]) -> None:
    """In a world with some sixty files, links, pipes, sockets and devices."""
    everything_in(worlds(0))


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 160))
def test_files_of_others_stay_in_many_worlds(worlds: Callable[[int], World], seed: int) -> None:
    """In sixty worlds more."""
    everything_in(worlds(seed))


LOCKS = "each file may be a lock"
PLANTED: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "snapshots are known by their names alone": lambda patch: patch.setattr(
        ownership, "is_snapshot", lambda path, **_: ownership.SNAPSHOT_NAME.fullmatch(path.name) is not None
    ),
    "whatever is half written is ours": lambda patch: patch.setattr(
        ownership, "is_unfinished_snapshot", lambda path: path.suffix == ".tmp"
    ),
    LOCKS: lambda patch: patch.setattr(writing, "is_lock", ownership.is_there),
    "what has a token's name is a process": lambda patch: (
        patch.setattr(liveness, "is_lock", ownership.is_there),
        patch.setattr(writing, "is_lock", ownership.is_there),
    ),
    "what lies beside a database is SQLite's": lambda patch: patch.setattr(database, "foreign_beside", lambda _: None),
    "a database is known by its name alone": lambda patch: patch.setattr(
        database.Database, "_is_filled", lambda *_: False
    ),
    "devices and pipes are replaced": lambda patch: patch.setattr(writing, "target_of", lambda path: path.absolute()),
}


PLANTED_QUICK = "whatever is half written is ours"


def takes_content(path: Path) -> bool:
    """Whether to take a lock empties its file, as some releases of filelock do."""
    path.write_bytes(b"content")
    with filelock.FileLock(path):
        return path.read_bytes() == b""


def is_lost(world: World) -> bool:
    """Whether a file of somebody's is not as it was when everything is done."""
    with contextlib.suppress(AssertionError):
        everything_in(world)
    return bool(world.strangers.changed())


@pytest.mark.parametrize(
    "fault",
    [PLANTED_QUICK, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in PLANTED if name != PLANTED_QUICK)],
)
def test_each_planted_fault_is_seen(
    worlds: Callable[[int], World], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one rule taken away, some world loses a file: the test above would see it."""
    if fault == LOCKS and not takes_content(tmp_path / "lock"):
        pytest.skip("this release of filelock leaves what is in the file that it locks")
    with monkeypatch.context() as patch:
        PLANTED[fault](patch)
        for seed in range(200, 220):
            if is_lost(worlds(seed)):
                return
    pytest.fail(f"{fault}: no world has lost a file")


def test_names_like_ours_are_among_them() -> None:
    """What is planted has names of every kind that is removed or set aside."""
    for ending in (".tmp", ".damaged", ".alive", ".new", ".json", ".jsonl.zst"):
        assert any(name.endswith(ending) for name in HARMLESS)
    assert os.sep not in "".join(HARMLESS)
