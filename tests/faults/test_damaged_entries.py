"""Entries that are damaged, or that a newer version wrote."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries.records import FORMAT_VERSION
from tests.faults import entries
from tests.faults.support import OLD, Scene, first

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": entries.cut,
    "a bit flipped": entries.flip,
    "empty": lambda value: b"",
    "zeros": lambda value: bytes(len(value)),
    "somebody else's": lambda value: b"{}",
}


@pytest.mark.parametrize("memory", [False, True], ids=["disk only", "memory in front"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_bought_again_and_replaced(scene: Scene, damage: str, memory: bool) -> None:
    """One request for the damaged one, none for its neighbour; afterwards both are served."""
    scene.ask(OLD)
    entries.change(scene.folder, scene.key(OLD[0]), DAMAGES[damage])
    scene.install(memory=memory)
    expected = first([OLD[0]], draw=1) + first([OLD[1]])

    scene.expect(expected, requests=1)
    assert (1, 0, 1) == scene.counts

    scene.expect(expected, requests=0)
    assert ["read"] == scene.warnings


def test_many_damaged_entries_are_said_once(scene: Scene) -> None:
    """Each is counted, and one warning is logged, for whatever number."""
    scene.ask(OLD)
    for question in OLD:
        entries.change(scene.folder, scene.key(question), entries.flip)

    assert first(OLD, draw=1) == scene.ask(OLD)

    assert 2 == scene.stats.failed_reads
    assert ["read"] == scene.warnings


@pytest.mark.parametrize("memory", [False, True], ids=["disk only", "memory in front"])
@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 255])
def test_a_newer_entry_is_neither_read_nor_overwritten(scene: Scene, memory: bool, version: int) -> None:
    """It stays for the newer version that wrote it; what is bought in its place is kept in memory only."""
    scene.ask(OLD)
    key = scene.key(OLD[0])
    entries.change(scene.folder, key, entries.of_version(version))
    newer = entries.stored(scene.folder, key)
    scene.install(memory=memory)

    with scene.endpoint.counting() as seen:
        assert first([OLD[0]], draw=1) + first([OLD[1]]) == scene.ask(OLD)
        scene.ask(OLD)

    assert (1 if memory else 2) == seen.requests
    assert newer == entries.stored(scene.folder, key)
    assert (1, 0) == (scene.runs[-2].stats.failed_reads, scene.runs[-2].stats.failed_writes)
    assert ["read"] == scene.warnings


def test_a_newer_entry_can_be_replaced_on_purpose(scene: Scene) -> None:
    """A policy that does not read replaces what is there without having looked at it."""
    scene.ask(OLD)
    key = scene.key(OLD[0])
    with cachectl.phase(scene.name, reads=False, **({"run_id": "run-1"} if scene.name == "eval" else {})):
        answer = scene.lm(OLD[0])[0]

    assert key == scene.key(OLD[0])
    assert [answer] == scene.ask([OLD[0]])
    assert 1 == scene.served


def test_a_replay_says_that_its_entry_is_damaged(scene: Scene) -> None:
    """A replay makes no request for a damaged entry: the miss says why there is no answer."""
    scene.ask([OLD[0]])
    entries.change(scene.folder, scene.key(OLD[0]), entries.flip)

    run_id = "run-1" if scene.name == "eval" else None
    with (
        scene.endpoint.counting() as seen,
        pytest.raises(cachectl.CacheMissError, match="checksum"),
        cachectl.phase("replay", cachectl.Policy.REPLAY, run_id=run_id),
    ):
        scene.lm(OLD[0])
    assert 0 == seen.requests
