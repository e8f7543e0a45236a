"""A folder that is deleted or replaced under a running program."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.base import Put
from dspy_cachectl.stores.disk import DiskStore
from tests.faults.support import NEW, OLD, Scene, first
from tests.stores.contract import in_threads


def test_deleted_in_mid_run(scene: Scene) -> None:
    """What was stored is bought again, into a new folder; the loss is counted and said once."""
    scene.ask(OLD)
    shutil.rmtree(scene.folder)

    scene.expect(first(OLD, draw=1) + first(NEW), requests=4)
    assert 0 == scene.served

    scene.expect(first(OLD, draw=1) + first(NEW), requests=0)
    assert (1, 0) == (cachectl.stats().failed_reads, cachectl.stats().failed_writes)
    assert ["read"] == scene.warnings


def test_deleted_behind_memory(scene: Scene) -> None:
    """What memory has is served; the rest is stored in a new folder."""
    scene.install(memory=True)
    scene.ask(OLD)
    shutil.rmtree(scene.folder)

    scene.expect(first(OLD + NEW), requests=2)
    assert 1 == cachectl.stats().failed_reads + cachectl.stats().failed_writes
    assert 1 == len(scene.warnings)

    scene.install()
    scene.expect(first(NEW), requests=0)


def test_deleted_before_a_write(scene: Scene) -> None:
    """A folder that goes between the question and its answer costs that answer's place in the store, and is counted."""
    scene.ask(OLD)
    with pytest.MonkeyPatch.context() as patched:
        put = DiskStore.put_first

        def deleting(store: DiskStore, key: str, value: bytes, label: Label, mark: str, **options: Any) -> Put:
            if label.is_answer:
                shutil.rmtree(store.path, ignore_errors=True)
            return put(store, key, value, label, mark, **options)

        patched.setattr(DiskStore, "put_first", deleting)
        answers = scene.ask([NEW[0]])

    assert first([NEW[0]]) == answers
    assert (0, 1) == (scene.stats.failed_reads, scene.stats.failed_writes)
    assert ["write"] == scene.warnings


def test_replaced_by_another_store(scene: Scene, tmp_path: Path) -> None:
    """A folder that is swapped for another one is noticed, and the other one's entries are served."""
    scene.ask(OLD)
    scene.install()
    other = shutil.copytree(scene.folder, tmp_path / "other")
    scene.ask(NEW)
    shutil.rmtree(scene.folder)
    shutil.move(other, scene.folder)

    with scene.endpoint.counting() as seen:
        answers = scene.ask(OLD + NEW)

    assert first(NEW, draw=1) == answers[2:]
    assert 4 - scene.served == seen.requests
    assert 1 == len(scene.warnings)


def test_deleted_under_many_threads(tmp_path: Path) -> None:
    """Whoever comes first notices; the others go on in the new folder, and nothing but `StoreError` is raised."""
    store = DiskStore(tmp_path / "entries")
    store.put("key", b"value", Label())

    def work(thread: int) -> list[object]:
        wrong: list[object] = []
        for at in range(30):
            if thread == 0 and at % 10 == 5:
                shutil.rmtree(store.path, ignore_errors=True)
            value = store.get(f"{thread}-{at}")
            if value is not None:
                wrong.append(value)
        return wrong

    found = in_threads(8, work)

    assert {"StoreUnavailableError"} >= {type(item).__name__ for item in found}
    store.put("again", b"value", Label())
    assert b"value" == store.get("again")
