"""`dspy-cachectl predictions`: what evaluations keep, listed, shown, compared, exported and removed."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import re
import sqlite3
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.rows import PredictionRow, Score
from dspy_cachectl.reports.texts import size, when
from tests.cli.commands import HARMLESS, NASTY, command
from tests.predictions.support import compute, evaluate, examples, key_of, kill, row


def predictions(*arguments: str | Path, library: Path, check: bool = True) -> Any:
    """What a command prints as JSON."""
    done = command("predictions", *arguments, "--predictions", library, "--json")
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


def run(library: Path, answers: dict[int, str], *, name: str, created: float = 0.0, **more: Any) -> Path:
    """Keep the answers of a program to three questions, and return the snapshot."""
    data = examples(3)
    key = more.pop("key", None) or key_of(data)
    with Library(library, **more).open(key, questions_of(data), run_id=name) as session:
        for at, question in enumerate(session.questions):
            inputs = {"question": f"q{at}"}
            made: PredictionRow = row(question, answer=answers.get(at, "same"), inputs=inputs, created=created)
            judged = {"exact": Score(question.label_key, float(at in answers))}
            session.keep(replace(made, scores=judged))
        path = session.finish({"phase": "eval"}, {"exact": {"score": len(answers) / 3}})
    assert path is not None
    return path


def killed(library: Path, *, began: float | None = None, **more: Any) -> Path:
    """Leave what a killed evaluation leaves: two answers in the journal, and a session that is dead."""
    data = examples(5)
    session = Library(library).open(key_of(data), questions_of(data), run_id="killed")
    for question in session.questions[:2]:
        session.keep(row(question, **more))
    kill(session)
    with contextlib.closing(sqlite3.connect(session.journal.path)) as journal, journal:
        journal.execute("UPDATE sessions SET started = coalesce(?, started)", (began,))
    return session.journal.path


def sessions(journal: Path) -> list[Any]:
    """Return the sessions that are in a journal."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        return connection.execute("SELECT * FROM sessions").fetchall()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return tmp_path / "library"


def test_ls(library: Path) -> None:
    """The newest comes first, with what it is of, how large it is and its score."""
    first = run(library, {}, name="first")
    second = run(library, {0: "other"}, name="second")
    found = predictions("ls", library=library)
    assert [str(second), str(first)] == [item["path"] for item in found]
    metadata = found[0]["metadata"]
    assert (3, "openai/test") == (found[0]["rows"], metadata["key"]["model"]["model"])
    assert [3, "second", "eval", True] == [metadata[name] for name in ("questions", "run_id", "phase", "complete")]
    assert [{"exact": 1 / 3}, {"exact": 0.0}] == [item["scores"] for item in found]
    assert [second.stat().st_size, first.stat().st_size] == [item["bytes"] for item in found]
    people = command("predictions", "ls", "--predictions", library)
    assert (0, "") == (people.returncode, people.stderr)
    assert first.name in people.stdout


def test_show(library: Path) -> None:
    """A snapshot is shown by its name, its run or the beginning of either, as far as the limit goes."""
    path = run(library, {0: "other"}, name="my-run")
    for name in (path.name, path.name[:-8], "my-r", path.stem.rpartition("_")[2][:6]):
        shown = predictions("show", name, "--limit", "2", library=library)
        assert (str(path), 2) == (shown["path"], len(shown["predictions"]))
    assert ["other", "same"] == [item["output"]["fields"]["answer"] for item in shown["predictions"]]
    people = command("predictions", "show", "my-run", "--limit", "1", "--predictions", library)
    assert (True, True) == ("answer=other" in people.stdout, "... and 2 more" in people.stdout)
    assert re.search(r"question=q0 +1 +answer=other", people.stdout)  # people count from 1, as on the page


def test_show_tells_people_what_identifies_a_snapshot(library: Path) -> None:
    """A row for each, with times and sizes as people write them."""
    path = run(library, {0: "other"}, name="my-run")
    asked = predictions("show", "my-run", library=library)
    key = asked["metadata"]["key"]
    people = command("predictions", "show", "my-run", "--predictions", library)
    rows = dict(re.findall(r"^(\w+(?: \w+)?) {2,}(.+)$", people.stdout, re.MULTILINE))
    assert rows == {
        "name": path.name,
        "program": key["program"]["hash"][:12],
        "program hash": key["program"]["hash"][:12],
        "model": "openai/test",
        "dataset": key["dataset"][:12],
        "questions": "3",
        "repeats": "1",
        "complete": "yes",
        "run id": "my-run",
        "phase": "eval",
        "size": size(path.stat().st_size),
        "rows": "3",
        "age": rows["age"],
        "kept": when(asked["saved"]),
        "scores": "exact 0.3333",
    }
    assert re.fullmatch(r"\d+[smh]", rows["age"]) is not None


def test_diff(library: Path) -> None:
    """Questions answered or scored otherwise are named, and what differs in what the answers depend on."""
    data = examples(3)
    program = dspy.Predict("question -> answer")
    run(library, {0: "one"}, name="before", key=key_of(data))
    program.signature = program.signature.with_instructions("Be brief.")
    run(library, {0: "two", 2: "same"}, name="after", key=key_of(data, program=program, model="openai/other"))
    found = predictions("diff", "before", "after", library=library)
    assert (1, 2, 0, 0) == (found["same"], len(found["changed"]), found["only_before"], found["only_after"])
    first, second = found["changed"]
    assert ({"answer": "one"}, {"answer": "two"}, {}) == (first["before"], first["after"], first["scores"])
    assert (first["question"], second["scores"]) == ({"question": "q0"}, {"exact": [0.0, 1.0]})
    assert [True, True, True] == [
        any(line.startswith(start) for line in found["identity"]) for start in ("model: name", "program: ", "run: ")
    ]
    same = predictions("diff", "before", "before", library=library)
    assert ([], [], 3) == (same["identity"], same["changed"], same["same"])


def test_data_that_differ(library: Path) -> None:
    """Snapshots of other questions say so."""
    evaluate(Library(library), examples(2), run_id="two")
    evaluate(Library(library), examples(3, start=1), run_id="three")
    found = predictions("diff", "two", "three", library=library)
    assert (1, 1, 2) == (found["same"], found["only_before"], found["only_after"])
    assert any(line.startswith("data: ") for line in found["identity"])


def test_clear(library: Path) -> None:
    """What is named goes, after a yes, and nothing else."""
    first, second = run(library, {}, name="first"), run(library, {0: "x"}, name="second")
    asked = command("predictions", "clear", "first", "--predictions", library)
    nothing = command("predictions", "clear", "--yes", "--predictions", library)
    dry = predictions("clear", "--all", "--dry-run", library=library)
    assert (2, 2, []) == (asked.returncode, nothing.returncode, dry["removed"])
    assert first.exists()
    assert second.exists()
    done = predictions("clear", "first", "--yes", library=library)
    assert ([first.name], False, True) == (done["removed"], first.exists(), second.exists())
    predictions("clear", "--all", "--yes", library=library)
    assert not second.exists()


def test_clear_what_is_old(library: Path) -> None:
    """What has an answer of longer ago goes, and of a time that lies ahead: nobody knows how old that is."""
    now = time.time()
    ages = {"young": 60, "old": 3 * 86400, "ahead": -2 * 86400}
    paths = {name: run(library, {}, name=name, created=now - age) for name, age in ages.items()}
    unfinished = killed(library, created=now - 3 * 86400, began=now - 3 * 86400)
    dry = predictions("clear", "--older-than", "1d", "--dry-run", library=library)
    assert (sorted(paths[name].name for name in ("old", "ahead")), 1, []) == (
        sorted(dry["snapshots"]),
        dry["unfinished"],
        dry["removed"],
    )
    done = predictions("clear", "--older-than", "1d", "--yes", library=library)
    assert (sorted(dry["snapshots"]), [paths["young"]]) == (sorted(done["removed"]), list(library.glob("*.json")))
    assert not sessions(unfinished)
    for both in (["young"], ["--all"]):
        refused = command("predictions", "clear", *both, "--older-than", "1d", "--yes", "--predictions", library)
        assert (2, True) == (refused.returncode, paths["young"].exists())


def test_clear_all_is_all(library: Path) -> None:
    """Damaged files too, and what a killed evaluation had finished: nothing of it is served again."""
    paths = [run(library, {}, name=name) for name in ("whole", "cut")]
    paths[1].write_bytes(paths[1].read_bytes()[:-9])
    other = library / "precious.json"
    other.write_text("{}")
    unfinished = killed(library)
    people = command("predictions", "clear", "--all", "--dry-run", "--predictions", library)
    assert all(
        name in people.stdout for name in (*(path.name for path in paths), "what 1 killed evaluation had finished")
    )
    done = predictions("clear", "--all", "--yes", library=library)
    assert sorted(path.name for path in paths) == sorted(done["removed"])
    assert ([other], []) == ([path for path in library.iterdir() if path.is_file()], sessions(unfinished))


def test_the_configured_folder_is_looked_at(library: Path, tmp_path: Path) -> None:
    """Where no other is named; relative to the file that names it."""
    path = run(library, {}, name="first")
    (tmp_path / "pyproject.toml").write_text('[tool.dspy_cachectl]\npredictions = "library"\n')
    (tmp_path / "below").mkdir()
    done = command("predictions", "ls", "--json", cwd=tmp_path / "below")
    assert ("", [str(path)]) == (done.stderr, [item["path"] for item in json.loads(done.stdout)])


def test_what_a_living_evaluation_uses_stays(library: Path) -> None:
    """A snapshot that is being extended is not removed."""
    path = run(library, {}, name="run")
    data = examples(3)
    with Library(library).open(key_of(data), questions_of(data), run_id="run", repeats=2) as session:
        compute(session, at_most=1)
        done = predictions("clear", "--all", "--yes", library=library)
        assert ([], True) == (done["removed"], path.exists())


def test_csv(library: Path, tmp_path: Path) -> None:
    """A row a prediction; cells that a spreadsheet would take for a formula are made harmless."""
    run(library, {0: "=HYPERLINK(1)", 1: "-1", 2: 'with "quotes"\nand lines'}, name="run")
    target = tmp_path / "table.csv"
    done = command("predictions", "export", "run", target, "--predictions", library)
    assert (0, "") == (done.returncode, done.stderr)
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = ["'=HYPERLINK(1)", "'-1", 'with "quotes"\nand lines']
    assert expected == [item["prediction.answer"] for item in rows]
    assert (["q0", "q1", "q2"], ["1.0"] * 3) == (
        [item["inputs.question"] for item in rows],
        [item["score.exact"] for item in rows],
    )


def test_nothing_is_written_over(library: Path, tmp_path: Path) -> None:
    """A file that is there is written over with --force alone, and another ending is refused."""
    run(library, {}, name="run")
    target = tmp_path / "table.csv"
    target.write_text("precious")
    refused = command("predictions", "export", "run", target, "--predictions", library)
    other = command("predictions", "export", "run", tmp_path / "table.xls", "--predictions", library)
    assert (1, 1, "precious") == (refused.returncode, other.returncode, target.read_text())
    done = command("predictions", "export", "run", target, "--force", "--predictions", library)
    assert (0, True) == (done.returncode, target.read_text().startswith("example_key,"))


def test_parquet(library: Path, tmp_path: Path) -> None:
    """The same table, with its numbers as numbers."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    run(library, {0: "=x"}, name="run")
    done = command("predictions", "export", "run", tmp_path / "table.parquet", "--predictions", library)
    assert (0, "") == (done.returncode, done.stderr)
    frame = pandas.read_parquet(tmp_path / "table.parquet")
    assert ["=x", "same", "same"] == frame["prediction.answer"].tolist()
    assert math.isclose(1.0, frame["score.exact"].sum())


def test_parquet_without_what_it_needs(library: Path, tmp_path: Path) -> None:
    """Where pandas is missing, it says what to install."""
    run(library, {}, name="run")
    (tmp_path / "pandas.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = command(
        "predictions", "export", "run", tmp_path / "table.parquet", "--predictions", library, PYTHONPATH=path
    )
    assert (1, True, False) == (
        done.returncode,
        "dspy-cachectl[pandas]" in done.stderr,
        (tmp_path / "table.parquet").exists(),
    )


def test_looking_changes_nothing(library: Path) -> None:
    """A damaged snapshot is named and left out, and lies where it lay; the others are listed."""
    good, bad = run(library, {}, name="good"), run(library, {0: "x"}, name="bad")
    bad.write_bytes(bad.read_bytes()[:100])
    done = command("predictions", "ls", "--json", "--predictions", library)
    assert ([str(good)], True) == ([item["path"] for item in json.loads(done.stdout)], bad.exists())
    assert bad.name in done.stderr
    assert 1 == command("predictions", "show", bad.name, "--predictions", library).returncode


def test_a_snapshot_without_its_end(library: Path) -> None:
    """It is listed by what it says of itself, without a score."""
    path = run(library, {}, name="cut")
    path.write_bytes(path.read_bytes()[:-200])
    assert [{}] == [item["scores"] for item in predictions("ls", library=library)]


def test_names_are_not_paths(library: Path, tmp_path: Path) -> None:
    """A snapshot outside the folder is none, however it is named."""
    path = run(library, {}, name="run")
    outside = tmp_path / path.name
    outside.write_bytes(path.read_bytes())
    for name in (f"../{path.name}", str(outside), "", "no-such"):
        done = command("predictions", "clear", name, "--yes", "--predictions", library)
        assert 1 == done.returncode
    assert (True, True) == (outside.exists(), path.exists())


def test_stored_text_cannot_steer_the_terminal(library: Path) -> None:
    """Answers with control characters and markup are shown as they are."""
    run(library, {0: NASTY}, name="run")
    shown = command("predictions", "show", "run", "--predictions", library)
    assert HARMLESS in shown.stdout
    assert "\x1b" not in shown.stdout


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Nothing is kept in it, and it is not made."""
    assert [] == predictions("ls", library=tmp_path / "missing")
    assert 1 == command("predictions", "show", "any", "--predictions", tmp_path / "missing").returncode
    assert not (tmp_path / "missing").exists()
