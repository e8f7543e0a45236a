"""A database with damaged pages, or none at all in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.disk import DiskStore
from tests.faults.entries import table
from tests.faults.support import NEW, OLD, Scene, first


def page_of(folder: Path, name: str) -> tuple[int, int]:
    """Where in the database file the first page of a table or index is."""
    with table(folder) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    return (page - 1) * size, size


def damage_page(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        at, size = page_of(folder, name)
        overwrite(folder, at, b"\xa5" * size)

    return damage


def overwrite(folder: Path, at: int, data: bytes) -> None:
    with (folder / "cache.db").open("r+b") as database:
        database.seek(at)
        database.write(data)


def cut_file(folder: Path) -> None:
    path = folder / "cache.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 8192 * 4096])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "entries": damage_page("Cache"),
    "index of keys": damage_page("Cache_key_raw"),
    "settings": damage_page("Settings"),
    "header": lambda folder: overwrite(folder, 0, b"not a database at all" * 10),
    "everything but the header": lambda folder: overwrite(
        folder, 200, b"\x5a" * ((folder / "cache.db").stat().st_size - 200)
    ),
    "the second half": cut_file,
}
# What is found all the same: `Scene.counts` of two stored and two new questions.
FOUND = {
    "entries": (0, 4, 2),  # the index says that there are no new ones
    "settings": (2, 2, 0),  # diskcache cannot open it, and reading needs no settings
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database(scene: Scene, damage: str) -> None:
    """What cannot be read is bought; failed reads and writes are counted, and each is said once."""
    scene.ask(OLD)
    cachectl.uninstall()
    DAMAGES[damage](scene.folder)
    scene.install()
    served, failed_writes, failed_reads = FOUND.get(damage, (0, 4, 4))

    scene.expect(first(OLD, draw=0 if served else 1) + first(NEW), requests=4 - served)
    assert (served, failed_writes, failed_reads) == scene.counts
    assert (["read"] if failed_reads else []) + ["write"] == sorted(scene.warnings)


def test_damaged_while_in_use(scene: Scene) -> None:
    """A page that goes bad under a running program costs requests, and nothing else."""
    scene.install(memory=True)
    scene.ask(OLD)
    with table(scene.folder) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    DAMAGES["everything but the header"](scene.folder)

    # Memory has the old ones; the damaged pages may still be in SQLite's own memory for the others.
    scene.expect(first(OLD + NEW), requests=2)
    assert scene.warnings in ([], ["read"], ["write"], ["read", "write"])


def test_the_message_says_what_to_do(scene: Scene) -> None:
    """The error names the folder and the way out."""
    scene.ask(OLD)
    cachectl.uninstall()
    DAMAGES["header"](scene.folder)

    with pytest.raises(StoreUnavailableError, match=r"entries.*damaged.*move it away"):
        DiskStore(scene.folder).get("key")


@pytest.mark.parametrize("setting", ["size", "count", "disk_min_file_size", "eviction_policy", "sqlite_page_count"])
@pytest.mark.parametrize("value", ["a text", None])
def test_planted_settings(scene: Scene, setting: str, value: object) -> None:
    """diskcache keeps settings in the database; whatever is written there, nothing is raised and answers are right."""
    scene.ask(OLD)
    cachectl.uninstall()
    with table(scene.folder) as connection:
        connection.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (setting, value))
    scene.install()

    with scene.endpoint.counting() as seen:
        answers = scene.ask(OLD + NEW)

    assert first(NEW) == answers[2:]
    assert first(OLD, draw=0 if scene.served else 1) == answers[:2]
    assert 4 - scene.served == seen.requests
    assert scene.warnings in ([], ["read"], ["write"], ["read", "write"])


def test_unknown_settings(scene: Scene) -> None:
    """Settings of another program's cache do not stop this one."""
    scene.ask(OLD)
    cachectl.uninstall()
    with table(scene.folder) as connection:
        connection.execute("INSERT INTO Settings VALUES ('disk_colour', 'red')")
        connection.execute("INSERT INTO Settings VALUES ('get', 'red')")
    scene.install()

    assert first(OLD) == scene.ask(OLD)
    assert 2 == scene.served
