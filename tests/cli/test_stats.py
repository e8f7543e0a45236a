"""`dspy-cachectl stats`: what is stored, what was served, and what that saved, against plain sums."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.manage.store_usage import store_usage
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader
from tests.cli.commands import counted, data, entry, fill, key_of, printed, queries, walks
from tests.processes import Finished

COMPILED = Label("lm", "openai/mini", "compile")
DRAWN = Label("lm", "openai/mini", "eval", "judge", "run-1")
VECTOR = Label("embedding", "openai/vectors", "compile")

PROGRAM = """
    import os, sys
    import dspy_cachectl as cachectl

    options = {"api_base": os.environ["ENDPOINT_URL"], "api_key": "sk-test"}
    lm = cachectl.LM("openai/one", **options)
    judge = cachectl.LM("openai/two", role="judge", **options)
    with cachectl.phase("compile"):
        for _ in range(4):
            lm("compiled?")
    with cachectl.phase("eval", run_id="run-1"):
        for _ in range(3):
            lm("drawn?")
            judge("good?")
    judge("outside?")
"""


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Ten answers, what two processes counted, and the description of a run."""
    entries = {}
    for at, label in enumerate([COMPILED] * 3 + [VECTOR] * 2 + [DRAWN] * 5):
        entries[key_of(at)] = (label, entry(label))
    spent = {"calls": 5, "fresh": 5, "prompt_tokens_spent": 50, "completion_tokens_spent": 5, "cost_spent": 0.5}
    saved = {"calls": 4, "resumed": 3, "failed": 1, "prompt_tokens_saved": 30, "cost_saved": 0.25}
    entries["run:run-1"] = (Label("run", "", "eval", "", "run-1"), entry(Label("run", "", "eval", "", "run-1")))
    store = fill(tmp_path / "full", entries)
    DiskStore(store).add_usage({DRAWN: spent, COMPILED: {"calls": 10, "reused": 9, "fresh": 1}}, {})
    DiskStore(store).add_usage({DRAWN: saved}, {})
    return store


def sums(shown: Any) -> dict[str, dict[str, tuple[int, int, int]]]:
    """Entries, calls, and calls served, by every field of a label and every value of it."""

    def numbers(line: Any) -> tuple[int, int, int]:
        tally = line["tally"]
        served = sum(tally[name] for name in ("reused", "resumed", "coalesced", "collapsed", "replayed"))
        return line["entries"], tally["calls"], served

    return {name: {value: numbers(line) for value, line in lines.items()} for name, lines in shown["by"].items()}


def test_sums_by_everything(full: Path) -> None:
    """Entries are those of the table, calls those of all processes, by every field of a label."""
    shown = data("stats", store=full)
    assert (str(full), True) == (shown["store"], shown["exists"])
    total = shown["total"]["tally"]
    assert (10, 19, 9, 3) == (shown["total"]["entries"], *(total[name] for name in ("calls", "reused", "resumed")))
    assert (50, 5, 30, 0.5, 0.25) == tuple(
        total[name]
        for name in (
            "prompt_tokens_spent",
            "completion_tokens_spent",
            "prompt_tokens_saved",
            "cost_spent",
            "cost_saved",
        )
    )
    assert {
        "kind": {"lm": (8, 19, 12), "embedding": (2, 0, 0)},
        "model": {"openai/mini": (8, 19, 12), "openai/vectors": (2, 0, 0)},
        "phase": {"compile": (5, 10, 9), "eval": (5, 9, 3)},
        "role": {"": (5, 10, 9), "judge": (5, 9, 3)},
        "run": {"": (5, 10, 9), "run-1": (5, 9, 3)},
    } == sums(shown)
    assert [("embedding", 2), ("lm", 3), ("lm", 5)] == [
        (row["label"]["kind"], row["usage"]["entries"]) for row in shown["labels"]
    ]


def test_agrees_with_sqlite(full: Path) -> None:
    """To the entry, whatever is stored or removed; what the store keeps about itself is no entry."""
    store = DiskStore(full)
    for at in range(4):
        store.put(f"more-{at}", entry(VECTOR), VECTOR)
        store.delete(key_of(at))
        found = store_usage(FolderReader(full))
        assert counted(full) == found.total.entries
        assert counted(full, "tag LIKE 'lm%'") == found.by["kind"]["lm"].entries


def test_a_table_for_people(full: Path) -> None:
    """One line for each kind, phase, role and model, the most entries first; or by one of them."""
    lines = printed("stats", store=full)
    assert [str(full), "10 entries;"] == [lines[0], lines[1][:11]]
    assert "19 calls, 63% of them served; 30 tokens and $0.25 saved, 55 tokens and $0.5 spent" == lines[2]
    assert [
        ["lm", "eval", "judge", "openai/mini", "1", "5", "9", "33%", "55", "30", "$0.5", "$0.25"],
        ["lm", "compile", "-", "openai/mini", "-", "3", "10", "90%", "0", "0", "-", "-"],
        ["embedding", "compile", "-", "openai/vectors", "-", "2", "-", "-", "-", "-", "-", "-"],
    ] == [line.split() for line in lines[3:] if line.split()[:1] in (["lm"], ["embedding"])]
    for by, names in (("model", ["openai/mini", "openai/vectors"]), ("run", ["-", "run-1"]), ("role", ["-", "judge"])):
        rows = [line.split() for line in printed("stats", "--by", by, store=full)[3:]]
        assert [by, "entries", "calls", "served"] in [row[:4] for row in rows]
        assert names == [row[0] for row in rows if row and row[0] in names]


def test_what_a_real_program_did(child: Callable[..., Finished], endpoint: Any, tmp_path: Path) -> None:
    """Calls, requests and draws are the provider's own count, over several processes, by model, phase, role and run."""
    for _ in range(3):
        child(PROGRAM)
    asked = Counter(request["body"]["model"] for request in endpoint.log())
    assert {"one": 4, "two": 4} == asked

    shown = data("stats", store=tmp_path / "store")
    assert (8, 8) == (shown["total"]["entries"], shown["total"]["tally"]["requests"])
    by = sums(shown)
    assert {"lm": (8, 33, 25)} == by["kind"]
    assert {"openai/one": (4, 21, 17), "openai/two": (4, 12, 8)} == by["model"]
    assert {"eval": (6, 18, 12), "compile": (1, 12, 11), "": (1, 3, 2)} == by["phase"]
    assert {"": (4, 21, 17), "judge": (4, 12, 8)} == by["role"]
    assert {"run-1": (6, 18, 12), "": (2, 15, 13)} == by["run"]
    # Each answer is of one prompt, so that what was spent tells what serving it again saved.
    for phase, times in (("compile", 11), ("eval", 2), ("", 2)):
        tally = shown["by"]["phase"][phase]["tally"]
        assert times * tally["prompt_tokens_spent"] == tally["prompt_tokens_saved"] > 0
    served = {row["key"]: row["served"] for row in data("ls", store=tmp_path / "store")}
    assert [2] * 7 + [11] == sorted(served.values())


def test_bars_in_the_terminal(full: Path) -> None:
    """`--plot` draws a bar for each model, as long as its share."""
    lines = printed("stats", "--plot", store=full)
    bars = [line for line in lines if "██" in line]
    assert [["openai/mini", 40, "8"], ["openai/vectors", 10, "2"]] == [
        [line.split()[0], line.count("█"), line.split()[-1]] for line in bars[:2]
    ]
    assert ["openai/mini", 25, 15, "19,", "63%"] == [
        bars[2].split()[0],
        bars[2].count("█"),
        bars[2].count("░"),
        *bars[2].split()[-2:],
    ]
    assert ["compile", "eval"] == [
        line.split()[0] for line in printed("stats", "--by", "phase", "--plot", store=full)[5:7]
    ]


def test_planted_statistics_are_passed_over(full: Path) -> None:
    """What is no number, no label or no counter is left out; the rest is counted."""
    with sqlite3.connect(full / "cache.db") as plain:
        plain.executemany(
            "INSERT INTO usage VALUES (?, ?, ?)",
            [(COMPILED.encode(), "failed", "many"), (COMPILED.encode(), "of a newer version", 3), (b"\xff", "", b"")],
        )
    plain.close()
    found = store_usage(FolderReader(full)).total
    assert (10, 19, 1) == (found.entries, found.tally.calls, found.tally.failed)


def test_while_another_process_writes(tmp_path: Path) -> None:
    """Every look at a store in use finds what was there at some moment, and none fails or stands in the way."""
    script = (
        "import sys; from pathlib import Path; from dspy_cachectl.stores import Label;"
        "from dspy_cachectl.stores.disk import DiskStore; store = DiskStore(Path(sys.argv[1]));"
        "[(store.put(f'{at:064x}', b'value', Label('lm', 'm', 'p')), at or print('begun', flush=True))"
        " for at in range(100_000)]"
    )
    folder = tmp_path / "store"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command_line = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        assert "begun\n" == writer.stdout.readline()
        found = []
        for _ in range(3):
            before = counted(folder)
            entries = data("stats", store=folder)["total"]["entries"]
            assert before <= entries <= counted(folder)
            found.append(entries)
            assert 20 == len(data("ls", store=folder))
        writer.kill()
    assert sorted(found) == found


def test_counting_reads_an_index_and_the_statistics(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many entries there are, SQLite walks no table, and no answer is read."""
    asked = queries(monkeypatch)
    assert 10 == store_usage(FolderReader(full)).total.entries
    assert [] == walks(full, asked)
    with sqlite3.connect(full / "cache.db") as plain:
        plain.execute("UPDATE Cache SET value = X'00'")
    plain.close()
    found = store_usage(FolderReader(full)).total
    assert (10, 19) == (found.entries, found.tally.calls)
