"""Ages by clocks that were wrong: what lies ahead may be of any age."""

from __future__ import annotations

import time
from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from dspy_cachectl.manage import removal
from dspy_cachectl.manage.selection import EVERYTHING, Selection
from dspy_cachectl.reports.texts import age
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader
from tests.calls.support import MakeLM, exact, examples, qa
from tests.endpoint import Endpoint

DAY = 86_400.0
NOW = time.time()


def _at(monkeypatch: pytest.MonkeyPatch, moment: float) -> None:
    monkeypatch.setattr(time, "time", lambda: moment)


@pytest.mark.parametrize("ahead", [3600.0, 10 * 365 * DAY, 1e300])
def test_an_answer_that_lies_ahead_is_too_old(
    endpoint: Endpoint, lm: MakeLM, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """Where an age is asked it is bought once more, and that answer is served from then on; elsewhere it is served."""
    asked = lm()
    _at(monkeypatch, NOW + ahead)
    with cachectl.phase("compile"):
        asked("hello")
    _at(monkeypatch, NOW)
    with cachectl.phase("compile"):
        asked("hello")
    assert endpoint.requests == 1
    for _ in range(3):
        with cachectl.phase("recent", Policy.REUSE.with_overrides(max_age=DAY)):
            asked("hello")
    assert endpoint.requests == 2


def test_clocks_that_are_seconds_apart(endpoint: Endpoint, lm: MakeLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that another machine has just stored is new, though its clock is ahead by seconds."""
    asked = lm()
    _at(monkeypatch, NOW + 20)
    with cachectl.phase("compile"):
        asked("hello")
    _at(monkeypatch, NOW)
    with cachectl.phase("recent", Policy.REUSE.with_overrides(max_age=DAY)):
        asked("hello")
    assert endpoint.requests == 1


def _stored(folder: Path, monkeypatch: pytest.MonkeyPatch, *moments: float) -> DiskStore:
    """A store with an entry of each of these moments, named by its place."""
    store = DiskStore(folder)
    for number, moment in enumerate(moments):
        _at(monkeypatch, moment)
        store.put(str(number), b"value" * 200, Label("lm", "m", phase="compile"))
    _at(monkeypatch, NOW)
    return store


def test_clear_removes_all_by_a_clock_that_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored while the clock was ahead goes as well; what is stored under a key meanwhile stays."""
    store = _stored(tmp_path, monkeypatch, *[NOW + hours * 3600 for hours in range(15)])
    decided = removal.plan(FolderReader(tmp_path), EVERYTHING)
    store.put("3", b"bought meanwhile", Label("lm", "m"))

    assert 14 == removal.remove(FolderReader(tmp_path), decided)
    assert ["3"] == list(store.keys())


def test_what_lies_ahead_is_older_than_any_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--older-than` takes it along, `--newer-than` does not, `prune` does by either limit, and `ls` says `?`."""
    _stored(tmp_path, monkeypatch, NOW - 10 * DAY, NOW, NOW + 30, NOW + DAY, NOW + 1e6 * DAY)

    def keys(**limits: float) -> set[str]:
        return set(removal.plan(FolderReader(tmp_path), Selection(kinds=("*",), **limits)).keys)

    assert {"0", "3", "4"} == keys(older_than=DAY)
    assert {"1", "2"} == keys(newer_than=DAY)
    reader = FolderReader(tmp_path)
    assert {"0", "3", "4"} == set(removal.plan_pruning(reader, removal.Limits(10**9, older_than=DAY)).keys)
    assert {"0", "3", "4"} == set(removal.plan_pruning(reader, removal.Limits(10**9, max_ages={"compile": DAY})).keys)
    room = reader.bytes_used() - 1500
    assert {"3", "4"} >= set(removal.plan_pruning(reader, removal.Limits(room)).keys) > set()
    assert ["10d", "0s", "0s", "?", "?"] == [
        age(NOW - moment) for moment in (NOW - 10 * DAY, NOW, NOW + 30, NOW + DAY, 1e300)
    ]


@pytest.mark.parametrize("back", [DAY, 365 * DAY])
def test_a_full_store_keeps_what_is_new_after_a_clock_went_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: float
) -> None:
    """What was stored by the clock that was ahead makes room, and not what is stored from now on."""
    store = DiskStore(tmp_path, max_bytes=400_000)
    _at(monkeypatch, NOW + back)
    for number in range(30):
        store.put(f"ahead {number}", b"x" * 10_000, Label("lm", "m"))
    _at(monkeypatch, NOW)
    for number in range(10):
        store.put(f"new {number}", b"x" * 10_000, Label("lm", "m"))

    assert {f"new {number}" for number in range(10)} <= set(store.keys())


def test_kept_predictions_that_lie_ahead_are_asked_again_and_stay(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be of any age: the report says so, the file is there, and what is bought in their place is served."""
    pytest.importorskip("scipy")
    dspy.configure(lm=lm())
    reports = []
    for ahead in (30 * 365 * DAY, 0, 0):
        _at(monkeypatch, NOW + ahead)
        kept = str(tmp_path / "kept")
        reports.append(cachectl.evaluate(qa(), examples(2), exact, predictions=kept, display_progress=False))
        if ahead:
            (file,) = (tmp_path / "kept").glob("*.json")

    assert 4 == endpoint.requests
    assert file.exists()
    assert "lies ahead" in str(reports[1])
    assert [0, 0, 2] == [sum(draw.loaded for draw in report.draws) for report in reports]
