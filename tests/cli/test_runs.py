"""`dspy-cachectl runs`: what became of each fresh run, as programs that ended in every way leave it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.accounting import runs
from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.entries import records
from dspy_cachectl.stores import Label, Store
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader
from tests.cli.commands import command, counted, data, entry, fill, key_of, printed, queries, walks
from tests.processes import Finished

MakeLM = Callable[..., cachectl.LM]

DRAWS = """
    import os, sys
    import dspy_cachectl as cachectl

    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test", num_retries=0)
    end, questions = sys.argv[1], sys.argv[2:]
    with cachectl.phase("eval", run_id="run-1", temperature=0.7):
        for question in questions:
            try:
                lm(question)
            except Exception:
                assert end == "swallowed"
        if end == "killed":
            os._exit(9)
        if end == "raised":
            raise ValueError("the program failed")
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where the children of a test store."""
    return tmp_path / "store"


def the_run(store: Path) -> dict[str, Any]:
    """The one run of a store."""
    found: list[dict[str, Any]] = data("runs", store=store)
    assert ["run-1"] == [run["run"] for run in found]
    return found[0]


def test_a_run_that_ended(child: Callable[..., Finished], store: Path) -> None:
    """It is complete, with its draws, its phase, its model and the temperature it was lent."""
    before = time.time()
    child(DRAWS, "well", "one?", "two?", "two?")
    run = the_run(store)
    began, ended = run.pop("began"), run.pop("ended")
    assert before < began < ended < time.time()
    assert {
        "run": "run-1",
        "phase": "eval",
        "draws": 3,
        "models": ["openai/test-model"],
        "temperature": 0.7,
        "state": "complete",
        "calls": 3,
        "failed": 0,
        "gone": 0,
        "policy": "CUSTOM",
    } == run
    assert 3 == counted(store)
    lines = [line.split() for line in printed("runs", store=store)]
    assert ["run", "phase", "began", "temperature", "draws", "state", "models"] in lines
    assert ["run-1", "eval", "ago", "0.7", "3", "complete", "openai/test-model"] in [
        line[:2] + line[3:] for line in lines if line
    ]


@pytest.mark.parametrize("end", ["killed", "raised"])
def test_a_run_that_did_not_end(child: Callable[..., Finished], store: Path, end: str) -> None:
    """A kill and an exception leave it resumable; when it is resumed to its end it is complete."""
    assert 0 != child(DRAWS, end, "one?", check=False).returncode
    first = the_run(store)
    assert ("resumable", 1, None) == (first["state"], first["draws"], first["ended"])

    child(DRAWS, "well", "one?", "two?")
    again = the_run(store)
    assert ("complete", 2, 2) == (again["state"], again["draws"], again["calls"])
    assert first["began"] == again["began"]


def test_a_complete_run_that_is_opened_again_is_open(child: Callable[..., Finished], store: Path) -> None:
    """A later passage that was killed has draws missing, whatever the one before it came to."""
    child(DRAWS, "well", "one?")
    child(DRAWS, "killed", "one?", "two?", check=False)
    assert "resumable" == the_run(store)["state"]


def test_a_call_that_failed(child: Callable[..., Finished], endpoint: Any, store: Path) -> None:
    """A program that goes on without an answer leaves a draw missing, so that the run can be resumed."""
    endpoint.fail("status", status=400, times=1)
    child(DRAWS, "swallowed", "one?", "two?")
    run = the_run(store)
    assert ("resumable", 1, 1, 2) == (run["state"], run["failed"], run["draws"], run["calls"])
    assert any("resumable, 1 failed" in line for line in printed("runs", store=store))


def test_a_run_under_way_is_not_complete(lm: MakeLM, store: Path) -> None:
    """As long as its block is open; and of two passages at once the one opened last decides."""
    model = lm()
    with cachectl.phase("eval", run_id="run-1"):
        model("one?")
        assert "resumable" == the_run(store)["state"]
        with cachectl.phase("eval", run_id="run-1"):
            model("two?")
        assert "complete" == the_run(store)["state"]
    assert ("complete", 1) == (the_run(store)["state"], the_run(store)["calls"])


def test_an_earlier_passage_does_not_close_a_later_one(store: Path) -> None:
    """Another process that still draws keeps the run open, though memory in front knows an older description."""
    stores: list[Store] = [DiskStore(store)]
    cache = cachectl.install(stores)
    options: dict[str, Any] = {"phase": "eval", "policy": "FRESH", "temperature": 1.0}
    runs.note_opening(cache.tiers, "run-1", token="first", **options)
    runs.note_opening(cache.tiers, "run-1", token="second", **options)
    runs.note_end(cache.tiers, "run-1", token="first", tally=cachectl.stats())
    assert "resumable" == the_run(store)["state"]
    runs.note_end(cache.tiers, "run-1", token="second", tally=cachectl.stats())
    assert "complete" == the_run(store)["state"]


def test_a_run_in_parts_is_complete_when_all_of_them_are(store: Path) -> None:
    """Each part has a description that nobody else writes; whoever resumes the whole of it owns that again."""
    cache = cachectl.install([DiskStore(store)])
    options: dict[str, Any] = {"phase": "eval", "policy": "FRESH", "temperature": 1.0}
    tally = Tally(fresh=3, calls=4)
    for part in (1, 0, 2):
        runs.note_opening(cache.tiers, "run-1", token=f"of {part}", part=part, parts=3, **options)
    for part in (2, 0):
        runs.note_end(cache.tiers, "run-1", token=f"of {part}", tally=tally, part=part, parts=3)
        assert ("resumable", None) == (the_run(store)["state"], the_run(store)["ended"])
    runs.note_end(cache.tiers, "run-1", token="of another", tally=tally, part=1, parts=3)
    assert "resumable" == the_run(store)["state"]
    runs.note_end(cache.tiers, "run-1", token="of 1", tally=tally, part=1, parts=3)
    assert ("complete", 12) == (the_run(store)["state"], the_run(store)["calls"])
    runs.note_opening(cache.tiers, "run-1", token="whole", **options)
    assert "resumable" == the_run(store)["state"]
    runs.note_end(cache.tiers, "run-1", token="whole", tally=tally)
    assert ("complete", 4) == (the_run(store)["state"], the_run(store)["calls"])


def test_memory_in_front_does_not_hide_another_process(lm: MakeLM, child: Callable[..., Finished], store: Path) -> None:
    """A process that has the old description in memory sees who opened the run since."""
    model = lm()
    with cachectl.phase("eval", run_id="run-1", temperature=0.7):
        model("one?")
        child(DRAWS, "killed", "two?", check=False)
    assert "resumable" == the_run(store)["state"]


def test_phases_that_draw_nothing_make_no_run(lm: MakeLM, store: Path) -> None:
    """Compiling and replaying are no runs, and neither is a fresh phase that stores nothing."""
    model = lm()
    with cachectl.phase("compile"):
        model("one?")
    with cachectl.phase("eval", stores=False):
        model("one?")
    with cachectl.phase("again", cachectl.Policy.REPLAY):
        model("one?")
    assert [] == data("runs", store=store)
    assert ["There are no runs."] == printed("runs", store=store)


def test_the_newest_first_and_what_nothing_describes_last(tmp_path: Path) -> None:
    """Draws without a description, and descriptions without draws or that cannot be read, are listed too."""
    entries = {}
    for at, name in enumerate(["old", "new", "empty"]):
        label = Label("run", "", "eval", "", name)
        origin = records.Origin(kind="run", model="", phase="eval", run_id=name, temperature=1.0, created=1000.0 + at)
        entries[f"run:{name}"] = (label, records.encode(origin, {"policy": "FRESH"}))
    entries["run:odd"] = (Label("run", "", "eval", "", "odd"), b"no entry")
    for at, name in enumerate(["old", "new", "new", "stray"]):
        label = Label("lm", f"m{at}", "mine", "", name)
        entries[key_of(at)] = (label, entry(label))
    store = fill(tmp_path / "store", entries)
    found = data("runs", store=store)
    assert ["empty", "new", "old", "odd", "stray"] == [run["run"] for run in found]
    assert [0, 2, 1, 0, 1] == [run["draws"] for run in found]
    assert [["resumable"] * 3, "damaged", "resumable"] == [
        [run["state"] for run in found[:3]],
        *(run["state"] for run in found[3:]),
    ]
    assert [[], ["m1", "m2"], ["m0"], [], ["m3"]] == [run["models"] for run in found]
    assert [1002.0, 1001.0, 1000.0, None, None] == [run["began"] for run in found]
    assert 5 == sum(
        line.strip().startswith(("empty", "new", "old", "odd", "stray")) for line in printed("runs", store=store)
    )


def test_rm_removes_a_run_and_nothing_else(tmp_path: Path) -> None:
    """Its draws and its description go, those of a run whose name is like it stay; what is not there is an error."""
    entries = {}
    for at, name in enumerate(["eval-1", "eval-10", "eval-*", "other", ""]):
        label = Label("lm", "m", "eval", "", name)
        entries |= {key_of(2 * at): (label, entry(label)), key_of(2 * at + 1): (label, entry(label))}
        if name:
            entries[f"run:{name}"] = (Label("run", "", "eval", "", name), entry(Label("run", "", "eval", "", name)))
    store = fill(tmp_path / "store", entries)

    def there() -> list[str]:
        return sorted(run["run"] for run in data("runs", store=store))

    dry = command("runs", "rm", "eval-1", "--dry-run", store=store)
    assert (0, True) == (dry.returncode, "To be removed: 3 entries (1 about runs)" in dry.stdout)
    assert 2 == command("runs", "rm", "eval-1", store=store).returncode  # nobody to ask
    for name in ("none", "eval-?0?"):
        done = command("runs", "rm", "eval-1", name, "--yes", store=store)
        assert (1, True) == (done.returncode, f"there is no run {name!r}" in done.stderr)
    assert ["eval-*", "eval-1", "eval-10", "other"] == there()

    assert 0 == command("runs", "rm", "eval-*", "--yes", store=store).returncode
    assert ["eval-1", "eval-10", "other"] == there()
    assert 3 == data("runs", "rm", "eval-1", "--yes", store=store)["removed"]
    assert ["eval-10", "other"] == there()
    assert 0 == command("runs", "rm", "e*", "--yes", store=store).returncode
    assert ["other"] == there()
    assert ["other", ""] == [
        label.run for label in sorted(FolderReader(store).labels(), key=Label.encode, reverse=True) if label.is_answer
    ]
    assert 4 == counted(store)


def test_descriptions_alone_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many draws there are, they are counted in an index and not read."""
    from dspy_cachectl.manage.listed_runs import list_runs

    entries = {"run:run-1": (Label("run", "", "eval", "", "run-1"), entry(Label("run", "", "eval", "", "run-1")))}
    label = Label("lm", "m", "eval", "", "run-1")
    store = fill(tmp_path / "store", {**entries, **{key_of(at): (label, entry(label)) for at in range(50)}})
    asked = queries(monkeypatch)
    assert [50] == [run.draws for run in list_runs(FolderReader(store))]
    assert [] == walks(store, asked)
    with sqlite3.connect(store / "cache.db") as plain:
        plain.execute("UPDATE Cache SET value = X'00' WHERE key NOT LIKE 'run:%'")
    assert ["resumable"] == [run.state for run in list_runs(FolderReader(store))]
