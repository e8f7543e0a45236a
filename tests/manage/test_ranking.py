"""`dspy-cachectl predictions rank`: what evaluations found is found again from what they kept, without a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.manage.kept_reports import reports_in
from tests.cli.commands import HEAVY, command, modules_loaded
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, exact, program, questions, run

__all__ = ["program"]

FOUND = ("n", "repeats", "failures", "score", "low", "high", "difference", "p_value", "verdict", "cost")


def rank(*arguments: str, here: Path) -> list[dict[str, Any]]:
    """What the command prints as JSON."""
    done = command("predictions", "rank", *arguments, "--json", cwd=here)
    assert (0, "") == (done.returncode, done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def refused(*arguments: str, here: Path) -> str:
    """What the command says where it cannot."""
    done = command("predictions", "rank", *arguments, cwd=here)
    assert (1, "") == (done.returncode, done.stdout)
    return str(done.stderr)


def graded(example: dspy.Example, prediction: Any) -> Any:
    """Another metric, with feedback."""
    return {"score": len(prediction.answer) / 3, "feedback": "short" if prediction.answer == "no" else "long"}


def test_it_is_what_the_evaluations_found(program: dspy.Module, lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """The same rows as `evaluate(lms=...)` gives, to the last digit, and nothing is asked."""
    gold = {f"question {number} ": "yes" for number in range(30)}
    endpoint.configure(answers={}, gold=gold, accuracy=0.6)
    lms = [lm("openai/one"), lm("openai/two"), lm("openai/three")]
    made = cachectl.evaluate(program, questions(30), exact, lms=lms, repeats=2, display_progress=False)
    bought = endpoint.requests
    assert len({report.score for report in made}) > 1
    (found,) = rank(here=tmp_path)
    assert [report.provenance.data for report in made] == [found["data"]] * 3
    assert ("exact", made[0].provenance.metric_hash) == (found["metric"], found["metric_hash"])
    assert {Path(str(report.path)).name for report in made} == set(found["snapshots"])
    expected = {row.name: [getattr(row, name) for name in FOUND] for row in made.rows}
    assert expected == {row["name"]: [row[name] for name in FOUND] for row in found["rows"]}
    assert {None} == {row.cost for row in made.rows}  # nobody knows what these models cost
    assert (made.best.name, made.reference.name, list(made.as_good)) == (
        found["best"],
        found["reference"],
        found["as_good"],
    )
    people = command("predictions", "rank", cwd=tmp_path)
    for row in made.rows:
        assert row.name in people.stdout
    assert bought == endpoint.requests
    assert set() == HEAVY & modules_loaded(command("-X", "predictions", "rank", cwd=tmp_path))


@pytest.mark.exhaustive
def test_one_data_set_and_one_metric_at_a_time(program: dspy.Module, lm: MakeLM, tmp_path: Path) -> None:
    """Of several sets one is named, by its hash or a snapshot; each metric has a table of its own."""
    assert "There is no folder " in refused(here=tmp_path)
    first = run(program, questions(4))
    with dspy.context(lm=lm("openai/other")):
        run(program, questions(4))
    run(program, questions(4), graded)
    other = run(program, questions(6))
    said = refused(here=tmp_path)
    assert "2 data sets" in said
    for report in (first, other):
        assert str(report.provenance.data)[:12] in said
    data = str(first.provenance.data)[:8]
    by_exact, by_graded = rank(data, here=tmp_path)
    assert [("exact", 2), ("graded", 1)] == [(one["metric"], len(one["rows"])) for one in (by_exact, by_graded)]
    assert ["no score by this metric, and left out: openai/other"] == by_graded["notes"]
    assert [by_graded] == rank(data, "--metric", "graded", here=tmp_path)
    assert [by_graded] == rank(data, "--metric", by_graded["metric_hash"][:6], here=tmp_path)
    assert [other.score] == [row["score"] for row in rank(Path(str(other.path)).name[:-5], here=tmp_path)[0]["rows"]]
    assert "there are: exact, graded" in refused(data, "--metric", "nobody", here=tmp_path)
    assert "is called 'zzz'" in refused("zzz", here=tmp_path)


@pytest.mark.exhaustive
def test_programs_and_options_are_told_apart(program: dspy.Module, lm: MakeLM, tmp_path: Path) -> None:
    """What one model answered in several ways has a name each; of two runs of the same the newest counts."""
    run(program, questions(4))
    newest = run(program, questions(4), force_recompute=True)
    run(dspy.ChainOfThought("question -> answer"), questions(4))
    with dspy.context(lm=lm(temperature=0.25)):
        run(program, questions(4))
    with dspy.context(lm=lm(version="2025")):
        run(program, questions(4))
    (found,) = rank(here=tmp_path)
    names = [row["name"] for row in found["rows"]]
    assert 4 == len(names) == len(set(names))
    assert ["temperature=0.25"] == [name[-16:] for name in names if "temperature=0.25" in name]
    assert 1 == sum(" 2025" in name for name in names)
    assert ["1 other run of the same model, program and options left out"] == found["notes"]
    assert Path(str(newest.path)).name in found["snapshots"]
    assert 4 == len(found["snapshots"])


@pytest.mark.exhaustive
def test_what_is_compared_with_is_chosen(program: dspy.Module, lm: MakeLM, tmp_path: Path) -> None:
    """A snapshot takes the place of the best, also an older run of the same; one of other data cannot."""
    older, _ = run(program, questions(8)), run(program, questions(8), force_recompute=True)
    with dspy.context(lm=lm("openai/other")):
        run(program, questions(8))
    (found,) = rank("--against", str(older.run_id), "--smallest-difference", "0.9", here=tmp_path)
    assert Path(str(older.path)).name in found["snapshots"]
    assert ["BASELINE"] == [row["verdict"] for row in found["rows"] if row["name"] == found["reference"]]
    assert [0.9] == [pair["smallest_difference"] for pair in found["comparisons"]]
    elsewhere = run(program, questions(9))
    data = str(older.provenance.data)[:8]
    name = Path(str(elsewhere.path)).name
    assert f"is called {name!r}" in refused(data, "--against", name, here=tmp_path)
    assert [9] == [row["n"] for row in rank("--against", name, here=tmp_path)[0]["rows"]]


def test_what_is_not_whole_is_left_out_with_a_word(
    program: dspy.Module, endpoint: Endpoint, lm: MakeLM, tmp_path: Path
) -> None:
    """An evaluation that was cut short says so; what failed counts as it did."""
    endpoint.fail(status=400, match="question 1 ")
    with dspy.context(lm=lm(num_retries=0)):
        made = run(program, questions(4), max_errors=10, failure_score=-1.0)
    endpoint.clear_faults()
    endpoint.fail(status=400, skip=2)
    with dspy.context(lm=lm("openai/cut", num_retries=0)), pytest.raises(Exception, match="cancelled"):
        run(program, questions(4), num_threads=1, max_errors=1)
    (found,) = rank(here=tmp_path)
    assert [(made.score, 1, 4)] == [(row["score"], row["failures"], row["n"]) for row in found["rows"]]
    assert any(note.startswith("unfinished and left out: openai-cut") for note in found["notes"])
    endpoint.clear_faults()
    with dspy.context(lm=lm("openai/flipped")):
        damaged = Path(str(run(program, questions(4)).path))
    damaged.write_bytes(damaged.read_bytes().replace(b"yes", b"yas", 1))
    (found,) = rank(here=tmp_path)
    assert [made.score] == [row["score"] for row in found["rows"]]
    assert any(note.startswith("damaged and left out: the snapshot") for note in found["notes"])
    assert "is damaged" in refused("--against", damaged.name, here=tmp_path)


@pytest.mark.exhaustive
def test_clusters_that_are_not_kept_are_said(program: dspy.Module, tmp_path: Path) -> None:
    """Kept predictions do not tell what belongs together, and an interval without it is too narrow."""
    run(program, questions(6), clusters=[str(number % 3) for number in range(6)])
    assert "is called 'zzz'" in refused("zzz", here=tmp_path)
    (found,) = rank(here=tmp_path)
    (note,) = found["notes"]
    assert "was evaluated with 3 clusters" in note


def test_each_metric_has_a_table_of_its_own(program: dspy.Module, lm: MakeLM, tmp_path: Path) -> None:
    """Of metrics that were asked together, too; what answers cost has its name, also where no price is known."""
    several = {"exact": exact, "graded": graded, "price": "cost"}
    lms = [lm("openai/one"), lm("openai/two")]
    cachectl.evaluate(program, questions(12), several, lms=lms, display_progress=False)
    assert ["exact", "graded"] == [found["metric"] for found in rank(here=tmp_path)]
    shown = command("predictions", "rank", cwd=tmp_path).stdout
    assert 2 == shown.count("Against ")
    assert "By metric" not in shown
    snapshot = min((tmp_path / "outputs").rglob("openai-*.json"))
    (made,) = reports_in([str(snapshot)], snapshot.parent)
    assert ["graded", "cost"] == [one.metric for one in made.provenance.others]
