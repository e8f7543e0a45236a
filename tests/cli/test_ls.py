"""`dspy-cachectl ls`: which entries are listed, in which order, and what is shown of them."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import get_args

import pytest

from dspy_cachectl.entries import records
from dspy_cachectl.manage.entries import list_entries
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.reports.texts import size
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import Order, Rows, read_entries, row_numbers
from dspy_cachectl.stores.reader import FolderReader, kept
from tests.cli.commands import command, data, entry, fill, key_of, printed, queries, walks

MINI = Label("lm", "openai/mini", "compile")
JUDGE = Label("lm", "openai/large", "eval", "judge", "run-1")
DRAWN = Label("lm", "openai/mini", "eval", "", "run-2")
VECTOR = Label("embedding", "openai/vectors", "compile")
RUN = Label("run", "", "eval", "", "run-1")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Six answers of an hour's distance, the first the oldest, among what the store keeps about itself."""
    labels = [MINI, VECTOR, JUDGE, DRAWN, DRAWN, MINI]
    entries = {key_of(at): (label, entry(label, f"question {at}", "x" * 100 * at)) for at, label in enumerate(labels)}
    return fill(tmp_path / "full", {"run:run-1": (RUN, entry(RUN)), **entries})


def listed(*arguments: str, store: Path) -> list[int]:
    """The numbers of the entries that are listed, in order."""
    return [int(row["key"][:4], 16) for row in data("ls", *arguments, store=store)]


def test_newest_first_without_what_is_no_answer(full: Path) -> None:
    """Every answer comes once, and neither descriptions of runs nor statistics do."""
    assert [5, 4, 3, 2, 1, 0] == listed(store=full)


def test_it_says_that_there_are_more(full: Path) -> None:
    """Where all fit into what is asked for, nothing is said."""
    assert [line[:28] for line in printed("ls", "--limit", "5", store=full)][-1] == "More are stored than these 5"
    for limit in "60":
        assert "More are" not in " ".join(printed("ls", "--limit", limit, store=full))


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--model", "openai/mini"], [5, 4, 3, 0]),
        (["--model", "openai/*"], [5, 4, 3, 2, 1, 0]),
        (["--model", "openai/large", "--model", "openai/vec*"], [2, 1]),
        (["--model", "mini"], []),
        (["--phase", "eval"], [4, 3, 2]),
        (["--phase", "eval", "--model", "*mini"], [4, 3]),
        (["--run", "run-2"], [4, 3]),
        (["--run", "-"], [5, 1, 0]),
        (["--role", "judge"], [2]),
        (["--role", ""], [5, 4, 3, 1, 0]),
        (["--kind", "embedding"], [1]),
        (["--newer-than", "90m"], [5, 4]),
        (["--older-than", "150m"], [2, 1, 0]),
        (["--older-than", "30m", "--newer-than", "2.5h"], [4, 3]),
        (["--contains", "QUESTION 3"], [3]),
        (["--contains", "question", "--phase", "compile", "--limit", "2"], [5, 1]),
        (["--limit", "2"], [5, 4]),
        (["--limit", "0"], [5, 4, 3, 2, 1, 0]),
        (["--reverse"], [0, 1, 2, 3, 4, 5]),
        (["--reverse", "--limit", "2", "--phase", "eval"], [2, 3]),
        (["--sort", "size"], [5, 4, 3, 2, 1, 0]),
        (["--sort", "size", "--reverse", "--limit", "1"], [0]),
        (["--limit", "3", "--newer-than", "150m"], [5, 4, 3]),
    ],
)
def test_selects_and_sorts(full: Path, arguments: list[str], numbers: list[int]) -> None:
    """Every selector narrows, sorts sort, and a limit is the beginning of the same list."""
    if "size" in arguments:
        with sqlite3.connect(full / "cache.db") as plain:
            sizes = plain.execute("SELECT key, LENGTH(value) FROM Cache WHERE key NOT LIKE '%:%'").fetchall()
        numbers = sorted((int(key[:2].hex(), 16) for key, _ in sizes), key=lambda at: -dict(sizes)[kept(key_of(at))])
        numbers = numbers[::-1][:1] if "--reverse" in arguments else numbers
    assert numbers == listed(*arguments, store=full)


def test_most_served_first(full: Path) -> None:
    """How often an entry was served is diskcache's own count."""
    DiskStore(full).add_usage({}, {key_of(1): 7, key_of(4): 2, "never stored": 3})
    rows = data("ls", "--sort", "served", store=full)
    assert [(1, 7), (4, 2)] == [(int(row["key"][:4], 16), row["served"]) for row in rows[:2]]
    assert [True, True, False] == [row["served_at"] is not None for row in rows[:3]]


def test_all_that_is_known_of_an_entry(full: Path) -> None:
    """JSON gives whole keys and every field of the label."""
    row = data("ls", "--role", "judge", store=full)[0]
    stored, size = row.pop("stored"), row.pop("size")
    assert 3 * 3600 <= time.time() - stored < 3 * 3600 + 600
    assert len(DiskStore(full).get(key_of(2)) or b"") == size
    label = {"kind": "lm", "model": "openai/large", "phase": "eval", "role": "judge", "run": "run-1"}
    assert {
        "key": key_of(2),
        "label": label,
        "served": 0,
        "served_at": None,
        "prompt": "question 2",
        "damage": None,
        "newer": None,
    } == row


def test_a_table_for_people(full: Path) -> None:
    """One line an entry: twelve characters of the key, the age, and the beginning of the prompt."""
    lines = [line.split() for line in printed("ls", "--limit", "2", "--run", "run-2", store=full)]
    titles = ["key", "age", "kind", "model", "phase", "role", "run", "size", "served", "prompt"]
    assert titles in lines
    rows = [line for line in lines if line and line[0].endswith("fff")]
    length = size(len(DiskStore(full).get(key_of(4)) or b""))
    facts = ["lm", "openai/mini", "eval", "-", "run-2", *length.split(), "0", "question", "4"]
    assert [key_of(4)[:12], "60m", *facts] == rows[0]
    assert 2 == len(rows)


def test_a_large_value(tmp_path: Path) -> None:
    """A large answer is listed with its size, and its prompt is read."""
    value = entry(MINI, "a large one", os.urandom(400_000).hex())
    store = fill(tmp_path / "store", {key_of(0): (MINI, value)})
    assert [(len(value), "a large one")] == [(row["size"], row["prompt"]) for row in data("ls", store=store)]


def test_damaged_entries_are_listed_and_named(full: Path) -> None:
    """An entry that cannot be read does not hide the others."""
    with sqlite3.connect(full / "cache.db") as plain:
        plain.execute("UPDATE Cache SET value = X'00' WHERE key = ?", (kept(key_of(3)),))
        plain.execute("UPDATE Cache SET mode = 4, value = X'80' WHERE key = ?", (kept(key_of(4)),))
    rows = data("ls", store=full)
    assert [5, 4, 3, 2, 1, 0] == [int(row["key"][:4], 16) for row in rows]
    assert [4, 3] == [int(row["key"][:4], 16) for row in rows if row["prompt"] is None and row["damage"]]
    assert 2 == sum("(damaged: " in line for line in printed("ls", store=full))
    done = command("ls", "--contains", "question", "--json", store=full)
    assert [5, 2, 1, 0] == [int(row["key"][:4], 16) for row in json.loads(done.stdout)]
    assert "dspy-cachectl: 2 entries could not be searched: damaged\n" == done.stderr


def test_failures_are_one_message(full: Path, tmp_path: Path) -> None:
    """A damaged database fails with 1; a file, and what cannot be meant, with 2."""
    (tmp_path / "file").write_text("x")
    wrong = [["--older-than", "7"], ["--older-than", "tomorrow"], ["--limit", "-1"], ["--sort", "colour"]]
    wrong += [["--sort", "model"], ["--no-such"], ["unexpected"]]
    for arguments in wrong:
        done = command("ls", *arguments, store=full)
        assert (2, "") == (done.returncode, done.stdout)
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr
    assert "24h" in command("ls", "--older-than", "7", store=full).stderr
    assert 2 == command("ls", store=tmp_path / "file").returncode
    (full / "cache.db").write_bytes(b"not a database" * 1000)
    done = command("ls", store=full)
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("dspy-cachectl: could not use ")
    assert "Traceback" not in done.stderr


def test_a_terminal_of_another_script(tmp_path: Path) -> None:
    """Where the output's encoding lacks a letter it is escaped."""
    store = fill(tmp_path / "store", {key_of(0): (MINI, entry(MINI, "größe ☃"))})
    done = command("ls", store=store, PYTHONIOENCODING="ascii")
    assert (0, "") == (done.returncode, done.stderr)
    assert r"gr\xf6\xdfe \u2603" in done.stdout


@pytest.fixture
def many(tmp_path: Path) -> FolderReader:
    """A store of 3,000 entries in 30 labels."""
    folder = fill(tmp_path / "many", {key_of(0): (MINI, entry(MINI))})
    labels = [Label("lm", f"m{at % 3}", "eval", "", f"run-{at}") for at in range(30)]
    rows = [
        (kept(f"{at:064x}"), 1, 1000.0 + at, 1000.0, 0, labels[at % 30].encode(), 0, 1, entry(MINI, f"q {at}"))
        for at in range(3000)
    ]
    with sqlite3.connect(folder / "cache.db") as plain:
        plain.execute("DELETE FROM Cache")
        plain.executemany(
            "INSERT INTO Cache(key, raw, store_time, access_time, access_count, tag, size, mode, value)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
    return FolderReader(folder)


@pytest.mark.parametrize(
    ("selection", "looked_up"),
    [
        (Selection(), True),
        (Selection(runs=("run-3",)), True),
        (Selection(models=("m1",)), False),
        (Selection(models=("m1", "m2")), False),
    ],
)
def test_choosing_rows_uses_the_indexes(
    many: FolderReader, monkeypatch: pytest.MonkeyPatch, selection: Selection, looked_up: bool
) -> None:
    """However many entries there are, the table itself is not walked: the plan of SQLite names indexes only."""
    if not looked_up:
        monkeypatch.setattr("dspy_cachectl.stores.listing._LOOKED_UP", 10)
    asked = queries(monkeypatch, most=30)  # the labels, and fewer that are shown
    found = list(list_entries(many, selection, now=time.time(), limit=20))
    wanted = [
        at for at in reversed(range(3000)) if selection.matches(Label("lm", f"m{at % 3}", "eval", "", f"run-{at % 30}"))
    ]
    assert wanted[:20] == [int(one.key, 16) for one in found]
    assert 3 == len(asked)
    assert [] == walks(many.path, asked)


def test_only_what_is_shown_is_decoded(many: FolderReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of twenty decodes twenty requests; a search stops when it has found enough."""
    decoded: list[int] = []
    decode = records.decode_request
    monkeypatch.setattr(records, "decode_request", lambda value: decoded.append(1) or decode(value))

    list(list_entries(many, Selection(), now=time.time(), limit=20))
    assert 20 == len(decoded)
    decoded.clear()
    found = list(list_entries(many, Selection(text="q 2990"), now=time.time(), limit=1))
    assert [2990] == [int(one.key, 16) for one in found]
    assert 10 == len(decoded)


@pytest.mark.parametrize("order", get_args(Order))
def test_a_store_that_changes_meanwhile(many: FolderReader, order: Order) -> None:
    """An entry that is written anew comes once, one that is deleted does not come, one that is new may wait."""
    store = DiskStore(many.path)
    numbers = row_numbers(many, Rows(Selection().matches), order=order)
    keys = [row.key for row, _ in read_entries(many, numbers)]
    rows = read_entries(many, numbers)
    seen = [next(rows)[0].key for _ in range(150)]
    assert keys[:150] == seen
    for key in (keys[0], keys[1000]):
        store.put(key, entry(MINI, "again"), MINI)
    gone = keys[2000]
    store.delete(gone)
    store.put("new", entry(MINI), MINI)

    seen += [row.key for row, _ in rows]
    assert [key for key in keys if key != gone] == [key for key in seen if key != "new"]


def test_more_rows_than_a_table_holds(many: FolderReader) -> None:
    """A long list is printed table by table, every entry once."""
    done = command("ls", "--limit", "0", store=many.path)
    keys = [line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith("0000")]
    assert 3000 == len(keys)
    assert 6 == sum(line.split()[:1] == ["key"] for line in done.stdout.splitlines())
