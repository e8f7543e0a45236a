"""What the tests of commands share: running one as people do, and a store whose every entry is known."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.entries import draws, records
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader, kept
from tests.processes import COMMAND_MODULES, Finished, python

HEAVY = {"dspy", "litellm", "mlflow"}
SCRIPT = Path(sys.executable).with_name("dspy-cachectl")
"""The console script, as it is installed."""
NASTY = "[bold]x[/bold][link=file:///etc]y[/link]\x1b[2J\x07\r\x9b\u202e\u200b"
"""Markup, an escape sequence, a bell, a way back to the line's beginning, a turned direction, and no width."""
HARMLESS = r"[bold]x[/bold][link=file:///etc]y[/link]\x1b[2J\x07 \x9b\u202e\u200b"


def command(*arguments: str | Path, store: Path | None = None, cwd: Path | None = None, **variables: str) -> Finished:
    """Run the console script where no setting of the developer's own reaches it.

    With `-X` first, or with variables of Python's own, it is a new interpreter, which tells what it imports.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DSPY_CACHECTL_")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "100", **variables}
    named: tuple[str | Path, ...] = () if store is None else ("--store", store)
    if arguments and arguments[0] == "-X":
        return python("-X", "importtime", SCRIPT, *named, *arguments[1:], cwd=cwd, env=environment)
    warm = () if any(name.startswith("PYTHON") for name in variables) else COMMAND_MODULES
    return python(SCRIPT, *named, *arguments, warm=warm, cwd=cwd, env=environment)


def printed(*arguments: str | Path, store: Path) -> list[str]:
    """Return the lines that a command prints without a complaint."""
    done = command(*arguments, store=store)
    assert (0, "") == (done.returncode, done.stderr)
    return [line.rstrip() for line in done.stdout.splitlines()]


def data(*arguments: str | Path, store: Path) -> Any:
    """Return what a command prints as JSON, which is ASCII."""
    text = "\n".join(printed(*arguments, "--json", store=store))
    assert text.isascii()
    return json.loads(text)


def modules_loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the top-level packages in the report of `-X importtime`."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def entry(label: Label, prompt: str = "q?", answer: Any = "an answer", **origin: Any) -> bytes:
    """An entry as the cache stores one of DSPy's native engine."""
    facts = {"kind": label.kind, "model": label.model, "phase": label.phase, "created": time.time()}
    facts |= {"role": label.role or None, "run_id": label.run or None, **origin}
    description = {
        "request": {"model": label.model, "messages": [{"role": "user", "content": prompt}]},
        "endpoint": None,
        "version": None,
        "rollout_id": origin.get("rollout_id"),
        "scope": None,
    }
    value = {"_dspy_format": "dspy-lm15-result-v1", "outputs": [answer]}
    return records.encode(records.Origin(**facts), value, draws.canonical(description))


def fill(folder: Path, entries: Mapping[str, tuple[Label, bytes]], *, apart: float = 3600.0) -> Path:
    """Store entries, the last answer of them a moment ago and the others each so many seconds earlier."""
    store = DiskStore(folder)
    for key, (label, value) in entries.items():
        store.put(key, value, label)
    store.close()
    now = time.time()
    with sqlite3.connect(folder / "cache.db") as plain:
        for earlier, key in enumerate(key for key in reversed(entries) if entries[key][0].is_answer):
            plain.execute("UPDATE Cache SET store_time = ? WHERE key = ?", (now - 1 - earlier * apart, kept(key)))
    plain.close()
    return folder


def key_of(number: int) -> str:
    """A key of 64 digits that begins with its number."""
    return f"{number:04x}".ljust(64, "f")


def counted(folder: Path, condition: str = "1") -> int:
    """Count the answers in a store with SQLite alone."""
    with sqlite3.connect(f"{(folder / 'cache.db').as_uri()}?mode=ro", uri=True) as plain:
        query = f"SELECT COUNT(*) FROM Cache WHERE tag NOT LIKE 'run\x1f%' AND {condition}"
        found: int = plain.execute(query).fetchone()[0]
    plain.close()
    return found


def queries(monkeypatch: pytest.MonkeyPatch, *, most: int | None = None) -> list[tuple[str, tuple[object, ...]]]:
    """What SQLite is asked from now on, in a list that grows; no answer has more than so many rows."""
    asked: list[tuple[str, tuple[object, ...]]] = []
    query = FolderReader.query

    def noting(reader: FolderReader, text: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        asked.append((text, values))
        rows = query(reader, text, values)
        assert most is None or len(rows) <= most
        return rows

    monkeypatch.setattr(FolderReader, "query", noting)
    return asked


def walks(folder: Path, asked: list[tuple[str, tuple[object, ...]]]) -> list[str]:
    """The steps of SQLite's plans for some queries in which the table itself is walked, and not an index alone."""
    with contextlib.closing(sqlite3.connect(folder / "cache.db")) as plain:
        plans = [plain.execute(f"EXPLAIN QUERY PLAN {text}", values).fetchall() for text, values in asked]
    steps = [row[3] for plan in plans for row in plan]
    return [step for step in steps if step.startswith("SCAN Cache") and "COVERING INDEX" not in step]
