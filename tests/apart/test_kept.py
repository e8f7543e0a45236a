"""Metrics and slices of kept predictions: reports out of files say what the evaluation said, and ask nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.manage.kept_reports import reports_in
from tests.apart.test_metrics import broken, length
from tests.apart.test_slices import found, questions
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, exact, program, run
from tests.page import unpacked

__all__ = ["program"]


def test_a_snapshot_has_the_metrics_and_the_slices(
    program: dspy.Module, lm: MakeLM, endpoint: Endpoint, tmp_path: Path
) -> None:
    """Each metric's figures with those of its slices, and a report of it all, by whichever metric comes first."""
    several = {"exact": exact, "length": length, "tokens": "tokens"}
    made = run(program, questions(), several, repeats=2, slices="topic")
    asked, path = endpoint.requests, str(made.path)
    kept = json.loads(Path(path).read_text())["metrics"]
    for name, one in made.metrics.items():
        figures = {what: (its["score"], its["n"]) for what, its in kept[name]["slices"].items()}
        assert {what: (its.score, its.n) for what, its in one.slices.items()} == figures
    (again,) = reports_in([path], Path(path).parent, slices=["topic"])
    for name, one in made.metrics.items():
        other = again.metrics[name]
        assert [found(one), *map(found, one.slices.values())] == [found(other), *map(found, other.slices.values())]
    (by_length,) = reports_in([path], Path(path).parent, metric="length")
    assert ["length", "exact", "tokens"] == list(by_length.metrics)
    assert found(made.metrics["length"]) == found(by_length)
    assert asked == endpoint.requests
    with pytest.raises(cachectl.ConfigurationError, match="no field 'subject' to take its slice from; it has"):
        reports_in([path], Path(path).parent, slices=["subject"])


def test_metrics_that_were_not_asked_together_are_not_reported_together(program: dspy.Module) -> None:
    """A kept report has the metrics of the last evaluation, and not what others said of the answers before it."""
    first = run(program, questions(), {"exact": exact, "length": length})
    run(program, questions(), {"length": length, "broken": broken}, max_errors=99)
    path = str(first.path)
    (last,) = reports_in([path], Path(path).parent)
    assert ["length", "broken"] == list(last.metrics)
    (alone,) = reports_in([path], Path(path).parent, metric="exact")
    assert ["exact"] == list(alone.metrics)


def test_commands_take_metrics_and_slices(program: dspy.Module, tmp_path: Path) -> None:
    """The page of a snapshot by a field, and of a saved report by one of its metrics; a gate says them, too."""
    made = run(program, questions(), {"exact": exact, "length": length}, slices="topic")
    saved, page = made.save(tmp_path / "report.json"), tmp_path / "page.html"
    options: Any = ("--predictions", str(Path(str(made.path)).parent), "--force", "-o", str(page))
    done = command("report", str(made.path), "--slices", "topic", "--slices", "language", *options)
    assert 0 == done.returncode, done.output
    names = [one["name"].rpartition(", ")[2] for one in unpacked.content(page.read_bytes())["scores"]]
    assert ["length", "topic=topic 0", "language=en", "topic=topic 1"] == names[1:5]
    done = command("report", str(saved), "--metric", "length", *options)
    assert 0 == done.returncode, done.output
    assert made.metrics["length"].score == unpacked.content(page.read_bytes())["scores"][0]["score"]
    done = command("gate", str(saved), str(saved), "--not-worse-by", "0.5", "--json")
    assert {"topic 0", "topic 1", "topic 2"} == json.loads(done.stdout)["comparison"]["slices"].keys()
    args = ("gate", str(saved), str(saved), "--not-worse-by", "0.5", "--json", "--slices", "language", *options[:2])
    assert {"en", "de"} == json.loads(command(*args).stdout)["comparison"]["slices"].keys()
    done = command(*args[:-1], str(tmp_path))
    assert (2, "") == (done.returncode, done.stdout)
    assert "there are none" in " ".join(done.output.split())


def test_what_is_kept_of_one_report_tells_the_slices_of_both(program: dspy.Module, tmp_path: Path) -> None:
    """A baseline that was saved elsewhere, and a snapshot; or two saved ones, with the predictions of one of them."""
    made = run(program, questions())
    saved, folder = made.save(tmp_path / "report.json"), Path(str(made.path)).parent
    for files in ([str(saved), str(made.path)], [str(made.path), str(saved)], [str(saved)] * 2):
        for one in reports_in(files, folder, slices=["topic"]):
            assert {"topic 0", "topic 1", "topic 2"} == one.slices.keys()
    assert {"topic 0"} < reports_in([str(saved), str(made.path)], tmp_path, slices=["topic"])[0].slices.keys()
