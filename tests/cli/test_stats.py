"""`dspy-cachectl stats`: what is stored, what was served, and what that saved, against plain sums."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.entries import records
from dspy_cachectl.manage.statistics import statistics
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import FolderReader
from tests.cli.commands import (
    HARMLESS,
    HEAVY,
    NASTY,
    command,
    counted,
    data,
    entry,
    fill,
    key_of,
    modules_loaded,
    printed,
)
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


def usage(rows: dict[Label, dict[str, float]], *, process: str, updated: float = 1.0) -> tuple[Label, bytes]:
    """What a process keeps of its use."""
    plain = [[label.kind, label.model, label.phase, label.role, label.run_id, tally] for label, tally in rows.items()]
    value = {"processes": {process: {"updated": updated, "ended": True, "rows": plain}}}
    return Label("usage"), records.encode(records.Origin(kind="usage", model=""), value)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Ten answers, two processes' statistics, and the description of a run."""
    entries = {}
    for at, label in enumerate([COMPILED] * 3 + [VECTOR] * 2 + [DRAWN] * 5):
        entries[key_of(at)] = (label, entry(label))
    spent = {"calls": 5, "fresh": 5, "prompt_tokens_spent": 50, "completion_tokens_spent": 5, "cost_spent": 0.5}
    saved = {"calls": 4, "resumed": 3, "failed": 1, "prompt_tokens_saved": 30, "cost_saved": 0.25}
    entries["usage:one"] = usage({DRAWN: spent, COMPILED: {"calls": 10, "reused": 9, "fresh": 1}}, process="one")
    entries["usage:two"] = usage({DRAWN: saved}, process="two")
    entries["run:run-1"] = (Label("run", "", "eval", "", "run-1"), entry(Label("run", "", "eval", "", "run-1")))
    return fill(tmp_path / "full", entries)


def test_sums_by_everything(full: Path) -> None:
    """Entries are those of the table, calls those of all processes, by every field of a label."""
    shown = data("stats", store=full)
    assert (str(full), True, 10, 19, 12, 2, 0) == tuple(
        shown[name] for name in ("store", "exists", "entries", "calls", "served", "processes", "damaged")
    )
    assert (12 / 19, 55, 30, 0.5, 0.25) == (
        shown["hit_rate"],
        shown["tokens_spent"],
        shown["tokens_saved"],
        shown["cost_spent"],
        shown["cost_saved"],
    )
    by = {
        name: {value: (line["entries"], line["calls"], line["served"]) for value, line in lines.items()}
        for name, lines in shown["by"].items()
    }
    assert {
        "kind": {"lm": (8, 19, 12), "embedding": (2, 0, 0)},
        "model": {"openai/mini": (8, 19, 12), "openai/vectors": (2, 0, 0)},
        "phase": {"compile": (5, 10, 9), "eval": (5, 9, 3)},
        "role": {"": (5, 10, 9), "judge": (5, 9, 3)},
        "run_id": {"": (5, 10, 9), "run-1": (5, 9, 3)},
    } == by
    assert [None, 1 / 3] == [shown["by"]["kind"]["embedding"]["hit_rate"], shown["by"]["phase"]["eval"]["hit_rate"]]
    assert [2, 3, 5] == [row["entries"] for row in shown["labels"]]


def test_agrees_with_sqlite(full: Path) -> None:
    """To the entry, whatever is stored or removed; what the store keeps about itself is no entry."""
    store = DiskStore(full)
    for at in range(4):
        store.put(f"more-{at}", entry(VECTOR), VECTOR)
        store.delete(key_of(at))
        shown = data("stats", store=full)
        assert counted(full) == shown["entries"]
        assert counted(full, "tag LIKE 'lm%'") == shown["by"]["kind"]["lm"]["entries"]


def test_a_table_for_people(full: Path) -> None:
    """One line for each kind, phase, role and model, the most entries first; or by one of them."""
    lines = printed("stats", store=full)
    assert [str(full), "10 entries,"] == [lines[0], lines[1][:11]]
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
    assert (8, 33, 8, 25, 3) == tuple(shown[name] for name in ("entries", "calls", "requests", "served", "processes"))
    assert 25 / 33 == shown["hit_rate"]
    by = {
        name: {value: [line[one] for one in ("entries", "calls", "served")] for value, line in lines.items()}
        for name, lines in shown["by"].items()
    }
    assert {"openai/one": [4, 21, 17], "openai/two": [4, 12, 8]} == by["model"]
    assert {"eval": [6, 18, 12], "compile": [1, 12, 11], "": [1, 3, 2]} == by["phase"]
    assert {"": [4, 21, 17], "judge": [4, 12, 8]} == by["role"]
    assert {"run-1": [6, 18, 12], "": [2, 15, 13]} == by["run_id"]
    # Each answer is of one prompt, so that what was spent tells what serving it again saved.
    for phase, times in (("compile", 11), ("eval", 2), ("", 2)):
        line = shown["by"]["phase"][phase]
        assert times * line["tokens_spent"] == line["tokens_saved"] > 0
    served = {row["key"]: row["served"] for row in data("ls", store=tmp_path / "store")}
    assert [2] * 7 + [11] == sorted(served.values())


def test_bars_in_the_terminal(full: Path) -> None:
    """`--plot` alone draws here: a bar for each model, as long as its share."""
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


@pytest.mark.parametrize(("name", "begins"), [("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml"), ("plot", b"\x89PNG")])
def test_a_figure_in_a_file(full: Path, tmp_path: Path, name: str, begins: bytes) -> None:
    """`--plot FILE` writes an image of the kind that the name says."""
    pytest.importorskip("matplotlib")
    assert [f"Written to {tmp_path / 'new' / name}."] == printed("stats", "--plot", tmp_path / "new" / name, store=full)
    written = (tmp_path / "new" / name).read_bytes()
    assert written.startswith(begins)
    assert len(written) > 5000


def test_a_figure_that_cannot_be(full: Path, tmp_path: Path) -> None:
    """A kind of file that is not known, a place that cannot be written, and no matplotlib are messages."""
    (tmp_path / "file").write_text("x")
    kind = command("stats", "--plot", tmp_path / "plot.txt", store=full)
    place = command("stats", "--plot", tmp_path / "file" / "plot.png", store=full)
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    extra = subprocess.run(
        [sys.executable, "-m", "dspy_cachectl", "--store", full, "stats", "--plot", tmp_path / "plot.png"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [1, 1, 1] == [done.returncode for done in (kind, place, extra)]
    assert "end it in one of" in kind.stderr
    assert "could not be written" in place.stderr
    assert "pip install 'dspy-cachectl[plots]'" in extra.stderr
    assert not any("Traceback" in done.stderr for done in (kind, place, extra))


def test_a_file_beside_json(full: Path, tmp_path: Path) -> None:
    """A figure and JSON can be had at once, and a lone `--plot` takes no option for a file."""
    pytest.importorskip("matplotlib")
    assert 10 == data("stats", "--plot", str(tmp_path / "plot.png"), store=full)["entries"]
    assert (tmp_path / "plot.png").exists()
    assert 10 == data("stats", "--plot", store=full)["entries"]
    assert 2 == command("stats", "--by", "colour", store=full).returncode


def test_damaged_statistics_are_said(full: Path) -> None:
    """What cannot be read is left out and said; the rest is counted."""
    damages = ["UPDATE Cache SET value = substr(value, 1, 50)", "UPDATE Cache SET mode = 4, value = X'80'"]
    wrong = [{"processes": 5}, {"processes": {"x": {"updated": 1, "ended": 1, "rows": [[1]]}}}, []]
    odd = {"processes": {"x": {"updated": 1, "ended": 1, "rows": [["lm", "m", "p", "", "", {"calls": "many"}]]}}}
    updates: list[tuple[str, tuple[Any, ...]]] = [(f"{damage} WHERE key = 'usage:two'", ()) for damage in damages]
    for value in (*wrong, odd):
        data_ = records.encode(records.Origin(kind="usage", model=""), value)
        updates.append(("UPDATE Cache SET mode = 1, value = ? WHERE key = 'usage:two'", (data_,)))
    for query, given in updates:
        with sqlite3.connect(full / "cache.db") as plain:
            plain.execute(query, given)
        plain.close()
        shown = statistics(FolderReader(full))
        assert (10, 15, 1, 1) == (shown.total.entries, shown.total.tally.calls, shown.processes, shown.damaged)
    assert any(line.startswith("1 of the entries that say how it was used") for line in printed("stats", store=full))


def test_stored_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Names are shown as they are written, in every form."""
    label = Label("lm", f"m{NASTY}", f"p{NASTY}", f"o{NASTY}", f"r{NASTY}")
    store = fill(tmp_path / "store", {key_of(0): (label, entry(label)), "u": usage({label: {"calls": 1}}, process="u")})
    for arguments, names in ((["stats"], "mpo"), (["stats", "--by", "run"], "r"), (["stats", "--plot"], "m")):
        done = command(*arguments, store=store, COLUMNS="1000")
        assert (0, "") == (done.returncode, done.stderr)
        assert [] == [name for name in names if f"{name}{HARMLESS}" not in done.stdout]
        assert set() == {letter for letter in done.stdout if not letter.isprintable()} - {"\n"}
    assert [f"m{NASTY}"] == list(data("stats", store=store)["by"]["model"])
    pytest.importorskip("matplotlib")
    assert 0 == command("stats", "--plot", tmp_path / "plot.svg", store=store).returncode
    assert "\x1b" not in (tmp_path / "plot.svg").read_text(encoding="utf-8")


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
            entries = data("stats", store=folder)["entries"]
            assert before <= entries <= counted(folder)
            found.append(entries)
            assert 20 == len(data("ls", store=folder))
        writer.kill()
    assert sorted(found) == found


@pytest.mark.parametrize("arguments", [["stats"], ["stats", "--by", "run"], ["stats", "--plot"], ["stats", "--json"]])
def test_empty_missing_damaged_and_no_folder(tmp_path: Path, arguments: list[str]) -> None:
    """Nothing is no failure; a database that cannot be read is one message; a file is not a store."""
    DiskStore(tmp_path / "empty").put("run:r", entry(Label("run")), Label("run", run_id="r"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "cache.db").write_bytes(b"not a database" * 1000)
    for name in ("empty", "missing"):
        done = command(*arguments, store=tmp_path / name)
        assert (0, "") == (done.returncode, done.stderr)
        if "--json" in arguments:
            assert (0, 0, name == "empty") == tuple(
                json.loads(done.stdout)[one] for one in ("entries", "calls", "exists")
            )
        else:
            assert [str(tmp_path / name), "Nothing is stored yet."] == done.stdout.splitlines()
    assert not (tmp_path / "missing").exists()
    assert [2, 1] == [command(*arguments, store=tmp_path / name).returncode for name in ("file", "damaged")]


def test_loads_nothing_heavy(full: Path) -> None:
    """Neither dspy, litellm nor mlflow is imported, and matplotlib only to draw a figure."""
    for arguments in (["stats"], ["stats", "--json"], ["stats", "--plot"], ["stats", "--by", "run"]):
        done = command("-X", *arguments, store=full)
        assert 0 == done.returncode
        assert set() == modules_loaded(done) & (HEAVY | {"matplotlib", "pydantic_settings", "numpy"})


def test_counting_reads_an_index_and_the_statistics(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many entries there are, SQLite walks no table, and no answer is read."""
    asked: list[tuple[str, tuple[object, ...]]] = []
    query = FolderReader.query
    monkeypatch.setattr(
        FolderReader, "query", lambda reader, text, given=(): asked.append((text, given)) or query(reader, text, given)
    )
    assert 10 == statistics(FolderReader(full)).total.entries
    for text, given in asked:
        plan = [row[3] for row in query(FolderReader(full), f"EXPLAIN QUERY PLAN {text}", given)]
        assert [] == [step for step in plan if step.startswith("SCAN Cache") and "COVERING INDEX" not in step]
    with sqlite3.connect(full / "cache.db") as plain:
        plain.execute("UPDATE Cache SET value = X'00' WHERE key NOT LIKE 'usage:%'")
    plain.close()
    assert (10, 19, 0) == (
        statistics(FolderReader(full)).total.entries,
        statistics(FolderReader(full)).total.tally.calls,
        statistics(FolderReader(full)).damaged,
    )
