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
from tests.cli.commands import HEAVY, NASTY, SCRIPT, command, entry, modules_loaded
from tests.cli.stores import COMPILED, DRAWN, JUDGED, answer, damage_rows, describe_run, filled, table
from tests.faults.disks import read_only

READING = {
    "path": ["path"],
    "ls": ["ls"],
    "ls in full": ["ls", "--limit", "0", "--contains", "question", "--sort", "size"],
    "stats": ["stats"],
    "runs": ["runs"],
    "show": ["show", answer(0)[0][:12]],
    "diff": ["diff", answer(0)[0][:12], answer(1)[0][:12]],
    "clear": ["clear", "--all", "--dry-run"],
    "prune": ["prune", "--max-size", "1KB", "--dry-run"],
    "verify": ["verify"],
    "repair": ["verify", "--repair", "--dry-run"],
    "doctor": ["doctor"],
    "config": ["config", "show"],
    "predictions": ["predictions", "ls"],
}
WITHOUT_JSON = {"path"}
WITHOUT_STORE = {"path", "config", "predictions"}
NAMES_ENTRIES = {"show", "diff"}


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
            connection.execute(f"UPDATE Cache SET {change} WHERE key = ?", (keys[-1 - number],))
        connection.execute("UPDATE Cache SET key = CAST(x'ff41' AS TEXT) WHERE key = ?", (keys[9],))
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


def codes(name: str, state: str) -> set[int]:
    """The exit codes that are right."""
    if name in WITHOUT_STORE:
        return {0}
    if state in BROKEN:
        # Which pages are damaged says how much of it can be read, and whether that is seen late.
        return {"doctor": {1}, "verify": {3}, "repair": {3}}.get(name, {1} if state == "no database" else {0, 1})
    if state == "planted" and name in {"verify", "repair"}:
        return {3}
    if state in {"missing", "empty"} and name in NAMES_ENTRIES:
        return {1}
    return {0}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", READING)
def test_one_answer_or_one_message(name: str, state: str, tmp_path: Path) -> None:
    """The exit code is the right one, what is printed is whole and harmless, and the store is as it was."""
    with STATES[state](tmp_path / "store") as folder:
        before = {path.name for path in tmp_path.iterdir()}
        done = [command(*READING[name], store=folder, cwd=tmp_path)]
        if name not in WITHOUT_JSON:
            done.append(command(*READING[name], "--json", store=folder, cwd=tmp_path))
        after = {path.name for path in tmp_path.iterdir()}

    for one in done:
        assert one.returncode in codes(name, state), one.stderr
        assert "Traceback" not in one.stderr
        assert ("\x1b" in one.stdout + one.stderr, "\x07" in one.stdout + one.stderr) == (False, False)
        if one.returncode == 1 and name != "doctor":
            assert one.stderr.startswith("dspy-cachectl: ")
    if name not in WITHOUT_JSON and (done[1].returncode != 1 or name == "doctor"):
        json.loads(done[1].stdout)
        assert done[1].stdout.isascii()
    assert before == after
    assert not (tmp_path / "mark").exists()
    if state == "planted":
        assert "precious" == (tmp_path / "secret.val").read_text()


@pytest.mark.parametrize("name", READING)
def test_a_reader_that_has_seen_enough(name: str, tmp_path: Path) -> None:
    """Piped into something that reads no further, a command ends without a complaint."""
    script = (
        "import os, subprocess, sys\n"
        "reading, writing = os.pipe()\n"
        "os.close(reading)\n"
        "done = subprocess.run(sys.argv[1:], stdout=writing, stderr=subprocess.PIPE)\n"
        "print(done.returncode, done.stderr)\n"
    )
    with full(tmp_path / "store") as folder:
        done = subprocess.run(
            [sys.executable, "-c", script, sys.executable, str(SCRIPT), "--store", str(folder), *READING[name]],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "1 b''\n" == done.stdout


@pytest.mark.parametrize("name", READING)
def test_nothing_heavy_is_loaded(name: str, tmp_path: Path) -> None:
    """None of these commands loads dspy, litellm or mlflow."""
    with full(tmp_path / "store") as folder:
        done = command("-X", *READING[name], store=folder, cwd=tmp_path)
    assert (0, set()) == (done.returncode, modules_loaded(done) & HEAVY)
