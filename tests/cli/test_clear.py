"""`dspy-cachectl clear`: what is selected goes, with its files, and nobody who uses the store is harmed."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.manage import removal
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader, kept
from tests.cli.commands import SCRIPT, command, data
from tests.cli.stores import COMPILED, DRAWN, JUDGED, answer, at_terminal, crowded, describe_run, filled, keys_in
from tests.endpoint import Endpoint
from tests.predictions.support import compute, evaluate, examples, key_of, kill
from tests.processes import Finished

VECTOR = Label("embedding", "openai/vectors", "compile")
LABELS = [COMPILED] * 3 + [JUDGED] * 2 + [DRAWN] * 4 + [VECTOR]
QUESTIONS = 96


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten answers: three compiled, two judged in one run, four drawn in another, and a vector; and both runs."""
    folder = tmp_path / "full"
    filled(folder, LABELS, large=4)
    describe_run(folder, "run-1")
    describe_run(folder, "run-2")
    return folder


@pytest.fixture
def keys() -> list[str]:
    return [answer(number, label)[0] for number, label in enumerate(LABELS)]


@pytest.mark.parametrize(
    ("selector", "gone", "runs"),
    [
        (["--phase", "eval", "--role", "judge"], {3, 4}, {"run-1"}),
        (["--run", "-"], {0, 1, 2, 9}, set()),
        (["--contains", "QUESTION 7"], {7}, set()),
        (["--older-than", "1h"], set(), set()),
        (["--all"], set(range(10)), {"run-1", "run-2"}),
    ],
)
def test_what_is_selected_goes(
    store: Path, keys: list[str], selector: list[str], gone: set[int], runs: set[str]
) -> None:
    """The entries that fit go, those that `ls` lists, and the description of a run with the last of its draws."""
    before = keys_in(store)
    done = command("clear", *selector, "--yes", store=store)
    assert (0, "") == (done.returncode, done.stderr)
    expected = {keys[number] for number in gone} | {f"run:{run}" for run in runs}
    assert expected == before - keys_in(store)


def test_a_dry_run_removes_nothing_and_says_what_would_go(store: Path) -> None:
    """`--dry-run` counts what `--yes` would remove, by model, phase and run."""
    before = keys_in(store)
    shown = data("clear", "--run", "run-2", "--dry-run", store=store)
    assert before == keys_in(store)
    assert (5, 0, True) == (shown["entries"], shown["removed"], shown["dry_run"])
    assert 4 == shown["by"]["model"]["openai/mini"]["entries"]
    assert 5 == shown["by"]["phase"]["eval"]["entries"]
    assert shown["oldest"] <= shown["newest"]
    assert shown["bytes"] == shown["by"]["run"]["run-2"]["bytes"] > 0
    done = data("clear", "--run", "run-2", "--yes", store=store)
    assert (5, 5) == (done["entries"], done["removed"])


@pytest.mark.parametrize(
    "arguments", [["clear"], ["clear", "--yes"], ["clear", "--all"], ["clear", "--all", "--run", "x", "--yes"]]
)
def test_what_is_not_said_is_not_done(store: Path, arguments: list[str]) -> None:
    """Without a selector, without a yes where nobody can be asked, and with both --all and a selector: exit code 2."""
    before = keys_in(store)
    done = command(*arguments, store=store)
    assert (2, "") == (done.returncode, done.stdout)
    assert "Error: " in done.stderr
    assert before == keys_in(store)


@pytest.mark.parametrize(
    ("typed", "code", "left"),
    [("yes", 0, 0), ("y", 1, 12), *(pytest.param(typed, 1, 12, marks=pytest.mark.exhaustive) for typed in ("", "no"))],
)
def test_only_a_typed_yes_is_a_yes(store: Path, typed: str, code: int, left: int) -> None:
    """On a terminal it asks, and goes on for the word alone."""
    found, output = at_terminal("--store", store, "clear", "--all", typed=typed)
    assert (code, left) == (found, len(keys_in(store)))
    assert ("Nothing was changed." in output) == (code == 1)


@pytest.mark.parametrize("set_to", ["on", "mine", "off"])
def test_the_flags_that_people_try(store: Path, tmp_path: Path, set_to: str) -> None:
    """`--list-cache` lists answers and kept predictions, `--clear-cache` removes both after a yes; each is named."""
    kept = tmp_path / ("mine" if set_to == "mine" else "outputs/cache/predictions")
    (tmp_path / "pyproject.toml").write_text(f'[tool.dspy_cachectl]\npredictions = "{set_to}"\n')
    snapshot = evaluate(Library(kept), examples(2)).path
    killed = Library(kept).open(key_of(examples(3)), questions_of(examples(3)))
    compute(killed, at_most=1)
    kill(killed)
    listed, refused = (command(flag, store=store, cwd=tmp_path) for flag in ("--list-cache", "--clear-cache"))
    assert (0, "", 2, 12, True) == (
        listed.returncode,
        listed.stderr,
        refused.returncode,
        len(keys_in(store)),
        snapshot.exists(),
    )
    for part in (f"Answers in {store}", answer(9, VECTOR)[0][:12], f"Kept predictions in {kept}", snapshot.name):
        assert part in listed.stdout
    cleared = command("--clear-cache", "--yes", store=store, cwd=tmp_path)
    assert (0, "", set(), False) == (cleared.returncode, cleared.stderr, keys_in(store), snapshot.exists())
    for part in (f"Answers in {store}", "12 entries", f"Kept predictions in {kept}", snapshot.name, "1 killed"):
        assert part in cleared.stdout
    assert "computed" == evaluate(Library(kept), examples(3)).status


def test_the_flags_where_there_is_no_store_on_disk(tmp_path: Path) -> None:
    """Predictions are listed and removed all the same, and it is said where the answers are."""
    memory = {"DSPY_CACHECTL_STORE": "memory://"}
    snapshot = evaluate(Library(tmp_path / "outputs/cache/predictions"), examples(2)).path
    for flags, there in ((["--list-cache"], True), (["--clear-cache", "--yes"], False)):
        done = command(*flags, cwd=tmp_path, **memory)
        assert (0, "", there) == (done.returncode, done.stderr, snapshot.exists())
        assert snapshot.name in done.stdout
        assert "The store is in memory" in done.stdout
    nothing = [command(*flags, cwd=tmp_path / "outputs") for flags in (["--list-cache"], ["--clear-cache", "--yes"])]
    assert [0, 0] == [done.returncode for done in nothing]
    assert all(str(tmp_path / "outputs/outputs/cache/predictions") in done.stdout for done in nothing)
    assert not (tmp_path / "outputs/outputs").exists()


def test_the_disk_is_given_back(tmp_path: Path) -> None:
    """After a large clear the files on disk are smaller by what went."""
    folder = tmp_path / "large"
    store = DiskStore(folder)
    for number in range(400):
        store.put(f"key-{number}", os.urandom(20_000), COMPILED)
    store.close()
    before = sum(path.stat().st_size for path in folder.iterdir())
    # Another program has the store open: SQLite itself would write its log back when the last one ends.
    with contextlib.closing(sqlite3.connect(folder / "cache.db")) as other:
        other.execute("SELECT COUNT(*) FROM Cache").fetchall()
        command("clear", "--all", "--yes", store=folder)
        assert sum(path.stat().st_size for path in folder.iterdir()) < before / 20


def test_what_was_drawn_since_stays(store: Path, keys: list[str]) -> None:
    """An answer that was bought after the removal was decided is another draw."""
    decided = removal.plan(FolderReader(store), Selection(phases=("compile",)))
    disk = DiskStore(store)
    disk.put(keys[0], b"drawn anew", COMPILED)
    assert 3 == removal.remove(FolderReader(store), decided)
    assert b"drawn anew" == disk.get(keys[0])


def test_many_are_removed_in_bounded_transactions(tmp_path: Path) -> None:
    """Between the batches of one removal another connection writes, without a wait of its own."""
    folder = tmp_path / "many"
    store = DiskStore(folder)
    for number in range(600):
        store.put(f"key-{number}", b"value", COMPILED)
    seen: list[int] = []

    def advance(done: int, total: int) -> None:
        with sqlite3.connect(folder / "cache.db", timeout=0) as other:
            other.execute("UPDATE Cache SET access_count = access_count + 1 WHERE key = 'key-599'")
        seen.append(done)

    decided = removal.Removal(keys=dict.fromkeys(f"key-{number}" for number in range(599)))
    removal.remove(FolderReader(folder), decided, advance=advance)
    assert [250, 500, 599] == seen
    assert {"key-599"} == keys_in(folder)


EVALUATES = """
    import json, os, sys
    import dspy
    import dspy_cachectl as cachectl

    cachectl.install(sys.argv[1])
    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")
    devset = [dspy.Example(question=f"question {at}").with_inputs("question") for at in range(int(sys.argv[2]))]
    evaluate = dspy.Evaluate(
        devset=devset, metric=lambda e, p, trace=None: bool(p.answer), num_threads=8, display_progress=False
    )
    with dspy.context(lm=lm):
        for _ in range(3):
            with cachectl.phase("eval", run_id="run-1") as run:
                score = float(evaluate(dspy.Predict("question -> answer")).score)
    print(json.dumps({"score": score, "calls": run.stats.calls, "failed": run.stats.failed,
                      "reads": run.stats.failed_reads, "writes": run.stats.failed_writes}))
"""


def test_clearing_while_another_process_evaluates(
    tmp_path: Path, child: Callable[..., Finished], endpoint: Endpoint
) -> None:
    """An evaluation in another process gets every answer, and what was there before it stays cleared."""
    folder = tmp_path / "shared"
    old = filled(folder, [COMPILED] * 300)
    finished: list[Finished] = []
    evaluating = threading.Thread(target=lambda: finished.append(child(EVALUATES, str(folder), str(QUESTIONS))))
    evaluating.start()
    cleared = []
    while evaluating.is_alive():
        cleared.append(command("clear", "--all", "--yes", "--json", store=folder))
    evaluating.join()

    assert [(0, "")] * len(cleared) == [(done.returncode, done.stderr) for done in cleared]
    assert {"score": 100.0, "calls": QUESTIONS, "failed": 0, "reads": 0, "writes": 0} == finished[0].data
    assert "Traceback" not in finished[0].stderr
    assert set() == set(old) & keys_in(folder)
    assert sum(json.loads(done.stdout)["removed"] for done in cleared) >= 300


def test_planted_names_lead_nowhere(store: Path, keys: list[str], tmp_path: Path) -> None:
    """Clearing removes the rows, and no file outside the folder."""
    secret = tmp_path / "secret.val"
    secret.write_text("precious")
    with sqlite3.connect(store / "cache.db") as plain:
        for key, name in zip(keys[4:], ["../secret.val", str(secret), "aa/../../secret.val"], strict=False):
            plain.execute("UPDATE Cache SET mode = 2, value = NULL, filename = ? WHERE key = ?", (name, kept(key)))
        plain.execute("UPDATE Cache SET filename = CAST(x'ff41' AS TEXT), mode = 2 WHERE key = ?", (kept(keys[8]),))
    plain.close()
    done = command("clear", "--all", "--yes", store=store)
    assert (0, "") == (done.returncode, done.stderr)
    assert ("precious", set()) == (secret.read_text(), keys_in(store))


@pytest.mark.parametrize("selector", [["--phase", "compile"], ["--contains", "question"], ["--newer-than", "1h"], []])
def test_what_is_listed_is_what_is_cleared(store: Path, keys: list[str], selector: list[str]) -> None:
    """Odd rows too, whatever somebody has planted: labels and times that are none, and keys of another kind."""
    with sqlite3.connect(store / "cache.db") as plain:
        for key, change in zip(
            keys,
            ["tag = x'ff41'", "tag = NULL", "store_time = 'never'", "raw = 0", "value = x'00'", "tag = 5"],
            strict=False,
        ):
            plain.execute(f"UPDATE Cache SET {change} WHERE key = ?", (kept(key),))
    plain.close()
    listing = command("ls", "--limit", "0", *selector, "--json", store=store)
    assert ("--contains" in selector) is ("could not be searched" in listing.stderr)
    listed = {row["key"] for row in json.loads(listing.stdout)}
    before = keys_in(store)
    assert (
        0
        == command(
            "clear", *(selector or ["--kind", "lm", "--kind", "embedding", "--kind", "-"]), "--yes", store=store
        ).returncode
    )
    assert listed == {key for key in before - keys_in(store) if not key.startswith("run:")}


def test_nothing_is_made_where_there_is_nothing(tmp_path: Path) -> None:
    """Clearing a store that is not there succeeds, and does not make it."""
    done = command("clear", "--all", "--yes", store=tmp_path / "missing")
    assert (0, "") == (done.returncode, done.stderr)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_names_in_the_store(store: Path, shell: str) -> None:
    """After `--run` and `--model` the shell offers what is stored, and loads nothing heavy for it."""
    line = f"dspy-cachectl --store {store} clear --run run-"
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": "5"},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT)],
        env={**os.environ, **asked[shell], "_DSPY_CACHECTL_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [True, True, False] == [name in done.stdout for name in ("run-1", "run-2", "openai/mini")]
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert set() == loaded & {"dspy", "litellm", "mlflow"}


@pytest.mark.exhaustive
@pytest.mark.timeout(60)
def test_a_store_of_very_many_runs(tmp_path: Path) -> None:
    """What goes is found in a time that grows with the labels; with their square it would take minutes."""
    reader = crowded(tmp_path / "many", 80_000, runs=80_000)
    assert 1 == len(removal.plan(reader, Selection(runs=("run-7",))).keys)
    assert 80_001 == len(removal.plan(reader, Selection(kinds=("*",))).keys)
