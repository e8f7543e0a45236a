"""Shards of one evaluation, and the report that they come to: that of the evaluation at once, to the digit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.cli.commands import command, data
from tests.endpoint import Endpoint
from tests.processes import DSPY_MODULES, ROOT, python
from tests.shards.asking import CALLS, RUN, asked, devset, evaluated, said

ANSWERS = 20 * 3
QUICK = 5


@pytest.fixture(autouse=True)
def _on_the_endpoint(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENDPOINT_URL", endpoint.url)
    monkeypatch.chdir(tmp_path)


def in_shards(of: int, **options: Any) -> list[cachectl.EvalReport]:
    """The reports of all shards, made one after the other."""
    return [evaluated(shard=(index, of), **options) for index in range(of)]


@pytest.mark.parametrize(
    "count", [pytest.param(count, marks=[] if count == QUICK else [pytest.mark.exhaustive]) for count in (1, 2, 5, 8)]
)
def test_shards_are_the_whole_to_the_digit(endpoint: Endpoint, count: int) -> None:
    """Shards buy each draw once, and merged they say what the evaluation at once says, which buys nothing more."""
    first = cachectl.EvalReport.merge(in_shards(count)[::-1])
    assert ANSWERS * CALLS == endpoint.requests == first.provenance.counters["requests"]
    assert (60, 0) == (first.distinct.distinct, first.provenance.counters["not_distinct"])

    whole = evaluated()
    again = cachectl.EvalReport.merge(in_shards(count))
    assert ANSWERS * CALLS == endpoint.requests
    assert said(whole) == said(again)
    assert str(whole) == str(again)
    assert [replace(draw, requests=0) for draw in first.draws] == whole.draws


def test_repeated_answers_count_as_in_one_evaluation(endpoint: Endpoint) -> None:
    """Behind a proxy that answers an equal request with the same, each draw that repeats another is counted, once."""
    endpoint.configure(fixed_id=True)
    report = cachectl.EvalReport.merge(in_shards(3))
    asked = len({example.question for example in devset(20)})
    assert 16 == asked == report.distinct.distinct
    (row,) = (row for row in report.provenance.counters["by"] if row["model"] == "openai/test-model")
    assert (ANSWERS * 3, ANSWERS * 3 - asked) == (row["requests"], row["repeated"])
    assert row["repeated"] == row["not_distinct"]


def test_a_job_array_is_merged_from_a_shell(endpoint: Endpoint, tmp_path: Path) -> None:
    """Two processes make a shard each and save its report; a command makes one of them, and the run is complete."""
    files = [tmp_path / f"shard-{index}.json" for index in range(2)]

    def task(index: int) -> None:
        done = python("-m", "tests.shards.asking", str(index), "2", files[index], warm=DSPY_MODULES, cwd=ROOT)
        assert 0 == done.returncode, done.output

    task(1)
    store = tmp_path / "store"
    assert ["resumable"] == [run["state"] for run in data("runs", store=store)]
    missing = command("merge", files[1], cwd=tmp_path)
    assert (1, "dspy-cachectl: shards are missing: 0 of 2\n") == (missing.returncode, missing.stderr)
    task(0)
    assert ["complete"] == [run["state"] for run in data("runs", store=store)]
    merged = command("merge", *files, "-o", "whole.json", cwd=tmp_path)
    assert (0, "") == (merged.returncode, merged.stderr)
    assert ANSWERS * CALLS == endpoint.requests

    report = cachectl.EvalReport.load(tmp_path / "whole.json")
    assert str(report) == merged.stdout.rstrip("\n")
    assert (20, 3, RUN, None) == (report.n, report.repeats, report.run_id, report.provenance.shard)
    assert evaluated().questions == tuple(
        replace(one, draws=tuple(replace(draw, requests=0) for draw in one.draws)) for one in report.questions
    )


def test_shards_share_a_library_of_predictions(endpoint: Endpoint) -> None:
    """Each keeps its own answers in one snapshot, finished with the last; the evaluation at once loads all of them."""
    first, second = in_shards(2, predictions="library")
    assert ("computed", "computed") == (first.provenance.predictions, second.provenance.predictions)
    assert first.path == second.path
    program, judge = asked()
    whole = cachectl.evaluate(program, devset(20), judge, repeats=3, predictions="library", display_progress=False)
    merged = cachectl.EvalReport.merge([first, second])
    assert ("computed", "loaded", RUN) == (merged.provenance.predictions, whole.provenance.predictions, whole.run_id)
    assert (merged.score, merged.interval, merged.path) == (whole.score, whole.interval, whole.path)
    assert ANSWERS * CALLS == endpoint.requests
    loaded = in_shards(2, predictions="library")
    assert ["loaded"] * 2 == [one.provenance.predictions for one in loaded]
    judges = [report.provenance.judges for report in (merged, whole, cachectl.EvalReport.merge(loaded))]
    assert [ANSWERS] * 3 == [sum(one.calls for one in of) for of in judges]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda a, b: [], "there is no report to merge"),
        (lambda a, b: [a], "shards are missing: 1 of 2"),
        (lambda a, b: [a, b, a], "shard 0 of 2 is there twice"),
        (lambda a, b: [a, "shard.json"], "are merged, not a str"),
        (lambda a, b: [a, replace(b, questions=a.questions)], "the data set in another order"),
        (lambda a, b: [a, _made(b, shard=None)], "is the report of a whole evaluation"),
        (lambda a, b: [a, _made(b, shard=(1, 3))], "shards of 2 and of 3"),
        (lambda a, b: [a, _made(b, run_id="other")], "run_id is 'shared' and 'other'"),
        (lambda a, b: [a, _made(b, metric_hash="f00")], "not of one evaluation: metric_hash"),
        (lambda a, b: [a, _made(b, missing=2)], "shard 1 of 2 was cut short: 2 answers more were asked for"),
        (lambda a, b: [a, replace(b, level=0.9)], "level is 0.95 and 0.9"),
        (lambda a, b: [replace(a, questions=a.questions[:1]), b], "questions of some of them are missing"),
    ],
)
def test_what_does_not_belong_together_is_refused(endpoint: Endpoint, spoil: Any, says: str) -> None:
    """Reports of other runs, metrics, cuts or data, one too few and one twice: it is said which, and what differs."""
    reports = in_shards(2, count=4, repeats=1)
    with pytest.raises(ConfigurationError, match=says):
        cachectl.EvalReport.merge(spoil(*reports))


def _made(report: Any, **changes: Any) -> Any:
    return replace(report, provenance=replace(report.provenance, **changes))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run_id": None}, "shards are parts of one run: give all of them the same"),
        ({"shard": (2, 2)}, "shard is which of how many"),
        ({"shard": (1, 7), "count": 1}, "shard 1 of 7 has no question"),
        ({"force_recompute": True}, "shard does not go together with force_recompute"),
        ({"mlflow": True}, "a shard is no evaluation to be logged"),
    ],
)
def test_what_makes_no_shard_is_refused_before_it_is_paid(
    endpoint: Endpoint, options: dict[str, Any], says: str
) -> None:
    """Each mistake is an error that says what to do, and no request is made."""
    with pytest.raises(ConfigurationError, match=says):
        evaluated(**{"shard": (0, 2), **options})
    assert 0 == endpoint.requests


def test_a_shard_says_that_it_is_one(endpoint: Endpoint, tmp_path: Path) -> None:
    """On the screen, and in its file, which comes back as it was."""
    (report,) = in_shards(1, count=2, repeats=1)
    assert "this is shard 0 of 1 of an evaluation" in " ".join(str(report).split())
    kept = report.save(tmp_path / "shard.json")
    assert (0, 1) == tuple(json.loads(kept.read_text())["provenance"]["shard"])
    assert report == cachectl.EvalReport.load(kept)
