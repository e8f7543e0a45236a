"""What somebody with access to the folder may plant in it: it does not run, and it leads nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diskcache
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import kept
from tests.faults.entries import table
from tests.faults.support import OLD, Scene, first


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path, size: int = 0) -> None:
        self.mark = mark
        self.size = size

    def __reduce__(self) -> tuple[Any, ...]:
        return (_run, (str(self.mark), bytes(self.size)))


def _run(mark: str, padding: bytes) -> bytes:
    Path(mark).mkdir()
    return padding


def test_the_pickle_would_run(tmp_path: Path) -> None:
    """The trap works: plain diskcache springs it."""
    plain = diskcache.Cache(str(tmp_path / "plain"))
    plain.set("key", Evil(tmp_path / "mark"))

    plain.get("key")

    assert (tmp_path / "mark").exists()
    plain.close()


@pytest.mark.parametrize("size", [0, 400_000], ids=["in the table", "in a file"])
def test_a_planted_pickle_does_not_run(scene: Scene, tmp_path: Path, size: int) -> None:
    """Under the very key of a question a pickle is a damaged entry: bought again, replaced, counted, never run."""
    scene.ask(OLD)
    cachectl.uninstall()
    plain = diskcache.Cache(str(scene.folder))
    plain.set(kept(scene.key(OLD[0])), Evil(tmp_path / "mark", size))
    plain.close()
    scene.install()

    with scene.endpoint.counting() as seen:
        assert first([OLD[0]], draw=1) + first([OLD[1]]) == scene.ask(OLD)
        scene.ask(OLD)

    assert 1 == seen.requests
    assert (1, 0) == (scene.runs[-2].stats.failed_reads, scene.runs[-2].stats.failed_writes)
    assert ["read"] == scene.warnings
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("value", ["a text", "long text " * 50_000, 7, 7.5, None, ("a", "tuple")])
def test_planted_values_of_other_kinds(scene: Scene, value: object) -> None:
    """What is no entry is not served as one, whatever it is."""
    scene.ask(OLD)
    cachectl.uninstall()
    plain = diskcache.Cache(str(scene.folder))
    plain.set(kept(scene.key(OLD[0])), value)
    plain.close()
    scene.install()

    assert first([OLD[0]], draw=1) + first([OLD[1]]) == scene.ask(OLD)
    assert (1, 0) == (scene.stats.failed_reads, scene.stats.failed_writes)


def test_planted_keys_do_not_run(scene: Scene, tmp_path: Path) -> None:
    """Listing the keys, as a replay's miss does to find the nearest, unpickles none of them."""
    scene.ask(OLD)
    cachectl.uninstall()
    plain = diskcache.Cache(str(scene.folder))
    plain.set(Evil(tmp_path / "mark"), b"value", tag=Label(kind="lm").encode())
    plain.set(b"bytes", b"value", tag=Label(kind="lm").encode())
    plain.close()
    scene.install()

    with pytest.raises(cachectl.CacheMissError, match="nearest"), cachectl.phase("replay", cachectl.Policy.REPLAY):
        scene.lm("never asked")
    DiskStore(scene.folder).put("key", b"value", Label())
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("form", ["relative", "absolute", "a link within"])
def test_a_planted_file_name_leads_nowhere(scene: Scene, tmp_path: Path, form: str) -> None:
    """A file outside the folder is neither read nor deleted, when its entry is read, replaced, removed or cleared."""
    scene.ask(OLD)
    secret = tmp_path / "secret.val"
    secret.write_text("precious")
    names = {"relative": "../secret.val", "absolute": str(secret), "a link within": "aa/../../secret.val"}
    with table(scene.folder) as connection:
        connection.execute("UPDATE Cache SET mode = 2, value = NULL, filename = ?", (names[form],))

    with scene.endpoint.counting() as seen:
        assert first(OLD, draw=1) == scene.ask(OLD)
        assert first(OLD, draw=1) == scene.ask(OLD)

    assert 2 == seen.requests
    assert (2, 0) == (scene.runs[-2].stats.failed_reads, scene.runs[-2].stats.failed_writes)
    assert (0, 2) == (scene.stats.failed_reads, scene.served)
    assert ["read"] == scene.warnings
    assert "precious" == secret.read_text()


def test_removing_and_clearing_follow_no_planted_name(tmp_path: Path) -> None:
    """Eviction, `delete` and `clear` leave a file outside the folder alone, and the folders above the store."""
    secret = tmp_path / "secret.val"
    secret.write_text("precious")
    store = DiskStore(tmp_path / "entries", max_bytes=500_000)

    def plant(*keys: str) -> None:
        for key in keys:
            store.put(key, b"value", Label())
        with table(store.path) as connection:
            connection.execute("UPDATE Cache SET mode = 2, value = NULL, filename = '../secret.val', size = 9")

    plant("deleted")
    assert store.delete("deleted")
    plant("evicted")
    for at in range(150):
        store.put(f"key-{at}", bytes(4000), Label())
    assert "evicted" not in set(store.keys())
    plant("cleared")
    store.clear()

    assert "precious" == secret.read_text()
