"""A folder that cannot be written: its answers are served, new ones reach the program, and it is counted and said."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import dspy_cachectl as cachectl
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from tests.faults.disks import read_only
from tests.faults.support import NEW, OLD, Scene, first
from tests.processes import Finished


def test_stored_answers_are_served(scene: Scene, tmp_path: Path) -> None:
    """A process that begins on a read-only folder makes requests for new questions only."""
    scene.ask(OLD)
    cachectl.uninstall()

    with read_only(scene.folder, tmp_path / "view") as view:
        scene.folder = view
        scene.install()
        scene.expect(first(OLD + NEW), requests=2)
        assert (2, 2, 0) == scene.counts
        assert ["write"] == scene.warnings
        cachectl.uninstall()


def test_memory_takes_over(scene: Scene, tmp_path: Path) -> None:
    """With memory in front, what could not be written is bought once and served as long as the process lives."""
    scene.ask(OLD)
    cachectl.uninstall()

    with read_only(scene.folder, tmp_path / "view") as view:
        scene.folder = view
        scene.install(memory=True)
        scene.ask(OLD + NEW)
        scene.expect(first(OLD + NEW), requests=0)
        assert ["write"] == scene.warnings
        cachectl.uninstall()


def test_entries_of_a_killed_writer_are_served(scene: Scene, tmp_path: Path) -> None:
    """What a writer left in its write-ahead log is read from a read-only disk as well."""
    scene.ask(OLD)
    left = tmp_path / "left"
    shutil.copytree(scene.folder, left)
    assert (left / "cache.db-wal").stat().st_size > 0
    cachectl.uninstall()

    with read_only(left, tmp_path / "view") as view:
        scene.folder = view
        scene.install()
        scene.expect(first(OLD), requests=0)
        assert 2 == scene.served
        cachectl.uninstall()


def test_a_folder_that_cannot_be_made(scene: Scene, tmp_path: Path) -> None:
    """Where the store's folder cannot even be made, the program runs as without a cache."""
    parent = tmp_path / "parent"
    parent.mkdir()
    with read_only(parent, tmp_path / "view") as view:
        scene.folder = view / "entries"
        scene.install()
        scene.expect(first(OLD), requests=2)
        own = 1 + (scene.name == "eval")  # the statistics of use, and a run's description, are entries as well
        assert (0, 2, 0) == scene.counts
        assert cachectl.stats().failed_writes == 2 + own
        assert ["write"] == scene.warnings
        cachectl.uninstall()


def test_a_file_where_the_folder_should_be(scene: Scene) -> None:
    """A path that is no folder is a store that cannot be used, and no crash."""
    scene.folder.write_text("a file")
    scene.expect(first(OLD), requests=2)
    assert 2 == scene.stats.failed_writes
    assert ["write"] == scene.warnings
    assert "a file" == scene.folder.read_text()


AS_NOBODY = """
    import os, sys
    from dspy_cachectl.errors import StoreUnavailableError
    from dspy_cachectl.stores import Label
    from dspy_cachectl.stores.disk import DiskStore

    store = DiskStore(sys.argv[1])
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    assert [b"value", None] == [store.get("key"), store.get("other")]
    assert ["key"] == list(store.keys())
    try:
        store.put("other", b"value", Label())
    except StoreUnavailableError as error:
        assert "readonly" in str(error), error
    else:
        raise AssertionError("it was written")
    assert b"value" == store.get("key")
"""


LOOKS_INTO = """
    import os, sys
    from pathlib import Path

    from dspy_cachectl.errors import StoreUnavailableError
    from dspy_cachectl.stores.disk import DiskStore

    store = DiskStore(Path(sys.argv[1]))
    os.setgid(65534)
    os.setuid(65534)
    for question in (lambda: store.get("key"), store.labels, store.usage):
        try:
            question()
        except StoreUnavailableError as error:
            assert "Permission denied" in str(error), error
        else:
            raise AssertionError("the folder was looked into")
"""


def test_a_folder_that_may_not_be_looked_into(child: Callable[..., Finished]) -> None:
    """What the system says about it is a StoreError, as every fault of a store is."""
    with tempfile.TemporaryDirectory() as private:
        store = DiskStore(Path(private) / "entries")
        store.put("key", b"value", Label())
        store.close()
        child(LOOKS_INTO, str(store.path))


def test_another_users_folder(child: Callable[..., Finished]) -> None:
    """A user whom permission bits let read and not write reads what another user stored, and is told why not more."""
    # Not in pytest's folders, which let nobody else in.
    with tempfile.TemporaryDirectory() as public:
        Path(public).chmod(0o755)
        store = DiskStore(Path(public) / "entries")
        store.put("key", b"value", Label())
        store.close()
        for path in [store.path, *store.path.iterdir()]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            child(AS_NOBODY, str(store.path))
        finally:
            store.path.chmod(0o700)
