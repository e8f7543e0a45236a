"""Every command that reads, on every state a store can be in: one answer or one message, and nothing is changed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import kept
from tests.cli.commands import HARMLESS, HEAVY, NASTY, command, entry, modules_loaded
from tests.cli.stores import COMPILED, DRAWN, JUDGED, answer, damage_rows, describe_run, filled, table
from tests.faults.disks import read_only
from tests.processes import ROOT, python

READING = {
    "ls": ["ls", "--limit", "0"],
    "search": ["ls", "--contains", "question", "--sort", "size"],
    "stats": ["stats"],
    "bars": ["stats", "--plot", "--by", "run"],
    "runs": ["runs"],
    "show": ["show", answer(0)[0][:12]],
    "diff": ["diff", answer(0)[0][:12], answer(1)[0][:12]],
    "explain": ["explain", answer(1)[0][:12]],
    "clear": ["clear", "--all", "--dry-run"],
    "prune": ["prune", "--max-size", "1KB", "--dry-run"],
    "verify": ["verify"],
    "doctor": ["doctor"],
}
NAMES_ENTRIES = {"show", "diff", "explain"}
"""What fails where the entry is not there."""
WITHOUT_STORE = [["path"], ["config", "show"], ["predictions", "ls"], ["mlflow", "status"], ["--help"]]


@contextlib.contextmanager
def full(folder: Path) -> Iterator[Path]:
    filled(folder, [COMPILED] * 10 + [JUDGED] * 3 + [DRAWN] * 7, large=2)
    describe_run(folder, "run-1")
    yield folder


@contextlib.contextmanager
def empty(folder: Path) -> Iterator[Path]:
    filled(folder, [COMPILED])
    store = DiskStore(folder)
    store.clear()
    store.close()
    yield folder


@contextlib.contextmanager
def missing(folder: Path) -> Iterator[Path]:
    yield folder


@contextlib.contextmanager
def damaged(folder: Path) -> Iterator[Path]:
    filled(folder, [COMPILED] * 200)
    content = bytearray((folder / "cache.db").read_bytes())
    for page in range(2, len(content) // 4096, 3):
        content[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    (folder / "cache.db").write_bytes(content)
    yield folder


@contextlib.contextmanager
def no_database(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"not a database" * 1000)
    yield folder


@contextlib.contextmanager
def planted(folder: Path) -> Iterator[Path]:
    """Pickles, names that lead outside, texts that are none, and labels that would steer a terminal."""
    label = Label("lm", NASTY, NASTY, NASTY, NASTY)
    keys = filled(folder, [COMPILED] * 14)
    store = DiskStore(folder)
    store.put(answer(99)[0], entry(label, f"question {NASTY}", NASTY), label)
    store.close()
    (folder.parent / "secret.val").write_text("precious")
    damage_rows(folder, keys[2:], folder.parent / "secret.val")
    with table(folder) as connection:
        for number, change in enumerate(
            [
                "tag = CAST(x'ff41' AS TEXT)",
                "tag = x'ff41'",
                "store_time = 'never'",
                "access_count = 'often', size = 'x'",
            ]
        ):
            connection.execute(f"UPDATE Cache SET {change} WHERE key = ?", (kept(keys[-1 - number]),))
        connection.execute("UPDATE Cache SET key = CAST(x'ff41' AS TEXT) WHERE key = ?", (kept(keys[9]),))
    yield folder


@contextlib.contextmanager
def read_only_disk(folder: Path) -> Iterator[Path]:
    with full(folder), read_only(folder, folder.with_name("view")) as view:
        yield view


WRITES = """
import sys
from dspy_cachectl.stores.disk import DiskStore
from tests.cli.stores import COMPILED, answer

store = DiskStore(sys.argv[1])
print("begun", flush=True)
while True:
    for number in range(20, 40):
        store.put(*answer(number, large=number < 24), COMPILED)
    for number in range(20, 30):
        store.delete(answer(number)[0])
"""


@contextlib.contextmanager
def being_written(folder: Path) -> Iterator[Path]:
    with full(folder):
        root = str(Path(__file__).resolve().parents[2])
        writing = subprocess.Popen(
            [sys.executable, "-c", WRITES, str(folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])},
            stdout=subprocess.PIPE,
        )
        assert writing.stdout is not None
        writing.stdout.readline()
        try:
            yield folder
            assert writing.poll() is None
        finally:
            writing.kill()
            writing.wait()
            writing.stdout.close()


STATES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "full": full,
    "empty": empty,
    "missing": missing,
    "damaged": damaged,
    "no database": no_database,
    "planted": planted,
    "read-only": read_only_disk,
    "being written": being_written,
}
BROKEN = {"damaged", "no database"}
QUICK = {"stats", "verify", "damaged", "planted"}
"""The commands that are tried on every state, and the states on which every command is, in the quick suite."""


def codes(name: str, state: str) -> set[int]:
    """The exit codes that are right."""
    if state in BROKEN:
        # Which pages are damaged says how much of it can be read, and whether that is seen late.
        return {"doctor": {1}, "verify": {3}}.get(name, {1} if state == "no database" else {0, 1})
    if state == "planted" and name == "verify":
        return {3}
    if state in {"missing", "empty"}:
        return {1 if name in NAMES_ENTRIES else 0}
    return {0}


@pytest.mark.parametrize(
    ("name", "state"),
    [
        pytest.param(name, state, marks=[] if name in QUICK or state in QUICK else pytest.mark.exhaustive)
        for name in READING
        for state in STATES
    ],
)
def test_one_answer_or_one_message(name: str, state: str, tmp_path: Path) -> None:
    """The exit code is the right one, what is printed is whole and harmless, and the store is as it was."""
    with STATES[state](tmp_path / "store") as folder:
        before = {path.name for path in tmp_path.iterdir()}
        people = command(*READING[name], store=folder, cwd=tmp_path)
        programs = command(*READING[name], "--json", store=folder, cwd=tmp_path)
        after = {path.name for path in tmp_path.iterdir()}

    for done in (people, programs):
        assert done.returncode in codes(name, state), done.stderr
        assert "Traceback" not in done.stderr
        assert set() == {letter for letter in done.stdout + done.stderr if not letter.isprintable()} - {"\n"}
        if done.returncode == 1 and name != "doctor":
            assert done.stderr.startswith("dspy-cachectl: ")
    if programs.returncode in {0, 3} or name == "doctor":
        json.loads(programs.stdout)
        assert programs.stdout.isascii()
    assert before == after
    assert not (tmp_path / "mark").exists()
    if state == "planted":
        assert "precious" == (tmp_path / "secret.val").read_text()
        assert name not in {"ls", "stats", "bars", "runs"} or HARMLESS in people.stdout


@pytest.mark.parametrize("arguments", [*READING.values(), ["ls"]], ids=" ".join)
def test_a_file_is_no_store(arguments: list[str], tmp_path: Path) -> None:
    """It is the usage that is wrong; `doctor` says so among its findings."""
    (tmp_path / "file").write_text("x")
    done = command(*arguments, store=tmp_path / "file", cwd=tmp_path)
    assert (1 if arguments == ["doctor"] else 2) == done.returncode
    assert "is a file; name a folder" in " ".join(done.stdout.split() + done.stderr.split())


NO_FOLDERS = ["~nobody-here/x", "x" * 300, "pipe", "pipe/below", "file", "memory://", "s3://", "\udcff" * 300]
WITH_PREDICTIONS = [
    ["verify", "--predictions"],
    ["prune", "--yes", "--predictions"],
    ["predictions", "ls", "--predictions"],
    ["predictions", "show", "any", "--predictions"],
    ["demo", "--output"],
]


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        pytest.param(arguments, place, marks=[] if 0 in (one, other) else pytest.mark.exhaustive)
        for one, arguments in enumerate(WITH_PREDICTIONS)
        for other, place in enumerate(NO_FOLDERS)
    ],
)
def test_what_cannot_be_a_folder_is_refused(arguments: list[str], place: str, tmp_path: Path) -> None:
    """It is the usage that is wrong: not "nothing is damaged", and nothing is made of that name."""
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    done = command(*arguments, place, store=tmp_path / "store", cwd=tmp_path)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"Invalid value for '{arguments[-1]}'" in done.stderr.replace('"', "'")
    assert "Traceback" not in done.stderr
    assert before == sorted(tmp_path.iterdir())


WRONG = {
    "no whole number from 0 on": [["ls", "--limit", "x"], ["predictions", "show", "any", "--limit", "-1"]],
    "no number from 0 on": [["doctor", "--timeout", "nan"], ["predictions", "rank", "--smallest-difference", "x"]],
    "an option, and an age stands before it": [["predictions", "clear", "--older-than", "--all"]],
}


@pytest.mark.parametrize(("says", "arguments"), [(says, one) for says, several in WRONG.items() for one in several])
def test_a_value_that_cannot_be_is_said_in_our_words(says: str, arguments: list[str], tmp_path: Path) -> None:
    """What is wrong and what to write, and nothing of the library that reads the command line."""
    done = command(*arguments, cwd=tmp_path)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"{next(one for one in arguments if one.startswith('--'))}': '{arguments[-1]}' is {says}" in done.stderr


LOADS = """
import contextlib, io, sys
from dspy_cachectl.cli.app import app

for arguments in (line.split() for line in sys.argv[2:]):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            app(["--store", sys.argv[1], *arguments])
        except SystemExit as end:
            assert not end.code, arguments
    print(*arguments, *sorted({"dspy", "litellm", "mlflow"} & sys.modules.keys()))
"""


def test_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    """None of these commands loads dspy, litellm or mlflow."""
    commands = [" ".join(arguments) for arguments in [*READING.values(), *WITHOUT_STORE]]
    with full(tmp_path / "store") as folder:
        done = python("-c", LOADS, folder, *commands, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (0, "") == (done.returncode, done.stderr)
    assert commands == done.stdout.splitlines()


@pytest.mark.parametrize("arguments", [["stats"], ["path"]])
def test_a_configured_store_is_found_without_loading_more(arguments: list[str], tmp_path: Path) -> None:
    """Reading the configuration loads nothing heavy either."""
    (tmp_path / "pyproject.toml").write_text('[tool.dspy_cachectl]\nstore = "store"\n')
    done = command("-X", *arguments, cwd=tmp_path)
    assert (0, set()) == (done.returncode, modules_loaded(done) & HEAVY)
