"""A full disk: what is stored is served, what is bought reaches the program, and it is counted and said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from tests.cli.commands import command as run_command
from tests.faults.disks import SmallDisk, small_disk
from tests.faults.support import NEW, OLD, Scene, first


@pytest.fixture
def disk(scene: Scene, tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small") as small:
        scene.folder = small.path / "entries"
        scene.install()
        yield small
        cachectl.uninstall()


@pytest.mark.parametrize("memory", [False, True], ids=["disk only", "memory in front"])
def test_full_while_in_use(scene: Scene, disk: SmallDisk, memory: bool) -> None:
    """A run that fills the disk goes on: 2 requests for 2 new questions, none for the stored ones."""
    scene.install(memory=memory)
    assert first(OLD) == scene.ask(OLD)
    disk.fill()

    scene.expect(first(OLD + NEW), requests=2)
    assert (2, 2, 0) == scene.counts
    assert ["write"] == scene.warnings


def test_what_could_not_be_stored_is_bought_again(scene: Scene, disk: SmallDisk) -> None:
    """Without room there is no memory of an answer: asking once more is another request, and counted."""
    scene.ask(OLD)
    disk.fill()
    scene.ask(NEW)

    scene.expect(first(NEW, draw=1), requests=2)
    assert ["write"] == scene.warnings


def test_room_again(scene: Scene, disk: SmallDisk) -> None:
    """When there is room again, answers are stored again, without a restart."""
    scene.ask(OLD)
    disk.fill()
    scene.ask(NEW)
    disk.free()
    scene.ask(NEW)

    scene.expect(first(OLD) + first(NEW, draw=1), requests=0)
    assert (4, 0, 0) == scene.counts


def test_a_process_that_begins_on_a_full_disk(scene: Scene, disk: SmallDisk) -> None:
    """A store that is opened without room serves what is in it."""
    scene.ask(OLD)
    cachectl.uninstall()
    disk.fill()
    scene.install()

    scene.expect(first(OLD + NEW), requests=2)
    assert (2, 2, 0) == scene.counts
    assert ["write"] == scene.warnings


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    """A large value that did not fit leaves no piece of itself, and what was stored before stays readable."""
    with small_disk(tmp_path / "small") as small:
        store = DiskStore(small.path / "entries")
        store.put("old", bytes(300_000), Label())
        if not small.path.is_mount():
            small.fill()

        with pytest.raises(StoreUnavailableError, match=r"is full|I/O"):
            store.put("new", bytes(4_000_000), Label())

        assert bytes(300_000) == store.get("old")
        assert store.get("new") is None
        store.close()


def test_the_reason_is_in_the_message(tmp_path: Path) -> None:
    """The error says that the disk is full, and which store it is."""
    with small_disk(tmp_path / "small") as small:
        store = DiskStore(small.path / "entries")
        store.put("old", b"value", Label())
        small.fill()

        with pytest.raises(StoreUnavailableError, match=f"could not use {store.location}.*: .*(full|I/O)"):
            store.put("new", bytes(100_000), Label())
        store.close()


def test_removing_on_a_full_disk(tmp_path: Path) -> None:
    """What would make room, too, has to write first: where it cannot, the error says so and what to do."""
    with small_disk(tmp_path / "small") as small:
        small.need_of_its_own()
        store = DiskStore(small.path / "entries")
        store.put("old", b"value", Label())
        store.close()
        small.fill()

        with pytest.raises(StoreUnavailableError, match="The disk is full: make room"):
            DiskStore(small.path / "entries").delete_many({"old": None})
        small.free()
        assert 1 == DiskStore(small.path / "entries").delete_many({"old": None})


@pytest.mark.parametrize("command", [("clear", "--all"), ("prune", "--max-size", "1kB")], ids=" ".join)
def test_commands_that_make_room(tmp_path: Path, command: tuple[str, ...]) -> None:
    """On a full disk they say that it is full and what to do, or work; with a little room they work."""
    with small_disk(tmp_path / "small") as small:
        small.need_of_its_own()
        store = DiskStore(small.path / "entries")
        for number in range(20):
            store.put(str(number), bytes(20_000), Label("lm", "m"))
        store.close()
        small.fill()

        done = run_command(*command, "--yes", store=small.path / "entries")
        assert done.returncode == 0 or ("The disk is full: make room" in done.stderr and "Traceback" not in done.stderr)
        small.free()
        assert 0 == run_command(*command, "--yes", store=small.path / "entries").returncode
        assert {} == DiskStore(small.path / "entries").labels()
