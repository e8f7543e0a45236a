"""Whatever kind of value stands in a field of what is kept: it is damaged, the rest is served, and no command fails."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.accounting.runs import Passage
from dspy_cachectl.entries.records import Origin
from dspy_cachectl.manage import entries, exchange
from dspy_cachectl.manage.snapshots import read_rows
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.memory import MemoryStore
from tests.bombs.opening import _commands
from tests.bombs.test_bombs import entry, sealed, texts
from tests.predictions.support import evaluate, examples

VALUES: tuple[Any, ...] = (5, "x", None, [], {}, True, 1e300, -1e300, 2**63, 10**30, ["a", None], -1, "\0\x1b[2J")

TAGGED: tuple[Any, ...] = ({"$": "int", "v": hex(10**400)}, {"$": "float", "v": "nan"}, {"$": "float", "v": "-inf"})
"""Numbers that JSON has no form for, and a float does not hold."""


MISSING = object()
"""Where there is no value at all."""

SOME: tuple[Any, ...] = (VALUES[6],)
"""What every field is given in the quick suite."""


def origins(values: tuple[Any, ...] = VALUES) -> Iterator[dict[str, Any]]:
    """Yield origins in which one field is wrong."""
    for field in fields(Origin):
        for value in values:
            yield {"kind": "lm", "model": "m", "created": 1.0, field.name: value}


@pytest.mark.parametrize("values", [SOME, pytest.param(VALUES, marks=pytest.mark.exhaustive)], ids=["some", "all"])
def test_entries_and_runs(tmp_path: Path, values: tuple[Any, ...]) -> None:
    """Every command looks at a store in which a field of some entry or run is of each kind."""
    store = DiskStore(tmp_path / "store")
    request = b'{"request":{"model":"m","prompt":"word"}}'
    for number, origin in enumerate(origins(values)):
        store.put(f"{number:064x}", entry(texts(origin), b'"a"', request, 0), Label("lm", "m"))
        described = entry(texts({**origin, "kind": "run"}), b"{}", b"", 0)
        store.put(f"run:r{number}", described, Label("run", run=f"r{number}"))
    for number, (name, value) in enumerate((name, value) for name in asdict(Passage()) for value in values):
        described = json.dumps({**asdict(Passage()), name: value}).encode()
        data = entry(texts({"kind": "run", "model": ""}), described, b"", 0)
        store.put(f"run:p{number}", data, Label("run", run=f"p{number}"))
    store.close()
    planted_keys = []
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as planted:
        columns = "store_time, access_time, access_count, tag, mode, value"
        for number, value in enumerate(("x", b"x", None, 1e300, -1e300, 2**62)):
            for column in columns.split(", "):
                key = f"{column}{number}".ljust(64, "0")
                planted.execute(
                    f"INSERT INTO Cache (key, raw, {columns}) SELECT ?, 1, {columns} FROM Cache LIMIT 1", (key,)
                )
                planted.execute(f"UPDATE Cache SET {column} = ? WHERE key = ?", (value, key))
                planted_keys.append(key)
            for row in ((value, "calls", 3), (f"lm{number}", value, 3), (f"lm{number}", "calls", value)):
                planted.execute("INSERT OR IGNORE INTO usage VALUES (?, ?, ?)", row)
        planted.commit()

    at = ["--store", str(tmp_path / "store")]
    looks = (["ls"], ["ls", "--sort", "served"], ["runs"], ["stats"], ["stats", "--by", "run"], ["verify"])
    commands = [[*at, *look, *as_json] for look in looks for as_json in ([], ["--json"])]
    keys = [*planted_keys, *(f"{number:064x}" for number, _ in enumerate(origins(values)))]
    commands += [[*at, "show", key, *as_json] for key in keys for as_json in ([], ["--json"])]
    commands += [[*at, "diff", one, other] for one, other in zip(keys[::5], keys[1::5], strict=False)]
    commands += [[*at, "export", str(tmp_path / "out.jsonl"), "--force"], [*at, "prune", "--dry-run"]]
    commands += [[*at, "clear", "--all", "--dry-run"], [*at, "runs", "rm", "r*", "--dry-run"]]
    assert [] == _commands(*commands)


def test_lines_of_an_import(tmp_path: Path) -> None:
    """A line whose origin is wrong is damaged, named with its number, and the others go in."""
    path = tmp_path / "answers.jsonl"
    lines = ['{"cassette":3,"keys":"store"}']
    for number, origin in enumerate([{"kind": "lm", "model": "m"}, *origins(), {"kind": "lm", "model": "n"}]):
        lines.append(json.dumps({"key": f"{number:064x}", "asked": f"{number:064x}", "origin": origin, "answer": "a"}))
    path.write_text("\n".join(lines))
    store = MemoryStore()

    done = exchange.import_file(store, path)

    assert len(lines) - 1 == done.added + done.left_out[entries.DAMAGED]
    assert {f"{number:064x}" for number in (0, len(lines) - 2)} <= set(store.keys())
    assert 100 < done.left_out[entries.DAMAGED]
    assert all(re.match(rf"{re.escape(str(path))}, line \d+: ", message) for message in done.damage)


def _changes(metadata: dict[str, Any], row: dict[str, Any]) -> Iterator[Any]:
    yield pytest.param("row", "inputs", SOME, id="row-inputs-some")
    for part, names in (("metadata", sorted(metadata.keys() - {"kind"})), ("row", row)):
        for name in names:
            every = (*VALUES, *TAGGED, {"exact": {"label_key": 5, "score": "x"}}, MISSING)
            yield pytest.param(part, name, every, marks=pytest.mark.exhaustive, id=f"{part}-{name}")


METADATA = dict.fromkeys(
    [
        "kind",
        "complete",
        "key",
        "base",
        "hash",
        "run_id",
        "forced",
        "repeats",
        "questions",
        "file",
        "using",
        "timestamp",
        "saved",
        "oldest",
        "newest",
        "rows",
        "format",
    ]
)
FIELDS = dict.fromkeys(
    [
        "example_key",
        "occurrence",
        "repeat",
        "inputs",
        "reference",
        "scores",
        "draws",
        "cost",
        "prompt_tokens",
        "completion_tokens",
        "seconds",
        "error",
        "created",
        "prediction",
        "typed",
        "returns",
        "completions",
    ]
)


@pytest.mark.parametrize(("part", "field", "values"), [*_changes(METADATA, FIELDS)])
def test_snapshots(tmp_path: Path, part: str, field: str, values: tuple[Any, ...]) -> None:
    """Kept predictions in which a field is of a wrong kind are set aside or served, and the evaluation goes on."""
    session = evaluate(Library(tmp_path / "good"), examples(3), run_id="one")
    other = evaluate(Library(tmp_path / "good"), examples(3), run_id="two")
    lines = session.path.read_bytes().split(b"\n")
    metadata = json.loads(b"{" + lines[1].rstrip(b",") + b"}")["metadata"]
    row = json.loads(lines[3].rstrip(b","))
    for number, value in enumerate(values):
        folder, changed = tmp_path / f"kept-{number}", list(lines)
        folder.mkdir()
        if part == "metadata":
            new = {name: one for name, one in {**metadata, field: value}.items() if one is not MISSING}
            changed[1] = b'"metadata": ' + json.dumps(new, separators=(",", ":")).encode() + b","
        else:
            new = {name: one for name, one in {**row, field: value}.items() if one is not MISSING}
            changed[3] = json.dumps(new).encode() + b","
        (folder / session.path.name).write_bytes(sealed(b"\n".join(changed)))
        (folder / other.path.name).write_bytes(other.path.read_bytes())
        names, at = [session.path.name, other.path.name], ["--predictions", str(folder)]
        commands = [["ls"], ["ls", "--json"], ["show", names[0]], ["show", names[0], "--json"], ["diff", *names]]
        commands += [["export", names[0], str(tmp_path / "out.csv"), "--force"]]
        assert [] == _commands(*(["predictions", *one, *at] for one in commands), ["verify", *at]), (field, value)
        if field == "format":
            continue  # of a newer version, which is left alone
        again = evaluate(Library(folder), examples(3), run_id="one")
        assert 3 <= len(list(read_rows(again.path))), (field, value)
