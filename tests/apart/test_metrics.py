"""Several metrics of one pass agree with separate evaluations, and buy nothing more than these."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.reports.results import OtherMetric, OtherScore
from tests.apart.test_slices import found
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, exact, program, questions, run
from tests.page import unpacked
from tests.reports.made_up import report

__all__ = ["program"]


def length(example: dspy.Example, prediction: Any) -> dict[str, Any]:
    """How long the answer is, as a share of 4 letters; in words, too."""
    return {"score": len(prediction.answer) / 4, "feedback": f"{len(prediction.answer)} letters"}


def broken(example: dspy.Example, prediction: Any) -> float:
    """Raises where the answer is no."""
    return {"yes": 0.5}[prediction.answer]


@pytest.fixture
def judges(lm: MakeLM, endpoint: Endpoint) -> dict[str, Any]:
    """Two metrics that ask an LM of their own the same, and one that asks none."""
    endpoint.configure(answers={"question": ["yes", "no", "yes", "no", "no"], "judged": ["yes", "no"]})
    rate = dspy.Predict("judged -> answer")
    rate.lm = lm("openai/judge")

    def strict(example: dspy.Example, prediction: Any) -> bool:
        return bool(rate(judged=f"judged {example.question}").answer == "yes")

    def mild(example: dspy.Example, prediction: Any) -> float:
        return 1.0 if rate(judged=f"judged {example.question}").answer == "yes" else 0.25

    return {"exact": exact, "strict": strict, "mild": mild}


def test_several_metrics_are_separate_evaluations_to_the_digit(
    program: dspy.Module, endpoint: Endpoint, judges: dict[str, Any]
) -> None:
    """One pass asks what three would, which under its run ask nothing: also where two judges ask the same."""
    devset = questions(8)
    whole = run(program, devset, judges, repeats=2, predictions=False)
    bought = endpoint.requests
    assert ["exact", "strict", "mild"] == list(whole.metrics)
    for name, metric in judges.items():
        alone = run(program, devset, metric, repeats=2, run_id=whole.run_id, predictions=False)
        assert found(alone) == found(whole.metrics[name]), name
        one, other = alone.provenance, whole.metrics[name].provenance
        assert (one.metric_hash, one.judges) == (other.metric_hash, other.judges), name
    assert bought == endpoint.requests
    assert 8 * 2 * 2 == bought  # a program's call and a judge's for each answer: the second judge asks the same draw
    assert whole.score == whole.metrics["exact"].score


def test_what_is_kept_is_kept_for_each_metric(
    program: dspy.Module, endpoint: Endpoint, judges: dict[str, Any], tmp_path: Path
) -> None:
    """Together first or one at a time: nothing is judged twice, and the snapshot has the score of each."""
    devset = questions(6)
    first = run(program, devset, {"exact": exact, "strict": judges["strict"]})
    endpoint.reset_counts()
    again = run(program, devset, judges)
    assert [0, 0, 6] == [one.provenance.rescored for one in again.metrics.values()]
    assert 0 == endpoint.requests  # what the third asks was drawn for the second
    assert found(first.metrics["strict"]) == found(again.metrics["strict"])
    assert first.metrics["strict"].provenance.judges == again.metrics["strict"].provenance.judges
    kept = json.loads(Path(str(again.path)).read_text())["metrics"]
    assert {name: one.score for name, one in again.metrics.items()} == {name: kept[name]["score"] for name in judges}
    alone = run(program, devset, judges["mild"])
    assert ("loaded", 0) == (alone.provenance.predictions, alone.provenance.rescored)
    assert found(alone) == found(again.metrics["mild"])


def test_several_metrics_are_the_same_however_it_is_evaluated(program: dspy.Module) -> None:
    """In shards that are merged, in random order, until it is narrow, and on a pool."""
    devset, several = questions(12), {"exact": exact, "length": length, "broken": broken}
    options: dict[str, Any] = {"run_id": "one", "predictions": False, "max_errors": 100}
    wanted = {name: found(one) for name, one in run(program, devset, several, **options).metrics.items()}
    parts = [run(program, devset, several, shard=(part, 2), **options) for part in range(2)]
    with ThreadPoolExecutor(2) as pool:
        others = [
            cachectl.EvalReport.merge(parts),
            run(program, devset, several, order="random", **options),
            run(program, devset, several, until=0.01, **options),
            run(program, devset, several, executor=pool, shards=3, **options),
        ]
    for other in others:
        assert wanted == {name: found(one) for name, one in other.metrics.items()}
    lone = run(program, devset, exact, shard=(1, 2), **options)
    with pytest.raises(cachectl.ConfigurationError, match="metrics is"):
        cachectl.EvalReport.merge([parts[0], lone])


def test_a_metric_that_fails_leaves_the_others(program: dspy.Module) -> None:
    """Its answers count as failed by it alone; where it gives no score at all, the evaluation ends and names it."""
    made = run(program, questions(5), {"exact": exact, "broken": broken, "length": length}, repeats=2)
    assert [0, 5, 0] == [one.failures for one in made.metrics.values()]
    assert {"the metric raised KeyError: 'no'"} == {draw.failed for draw in made.metrics["broken"].draws if draw.failed}
    with pytest.raises(cachectl.ConfigurationError, match="the metric 'none' gave no score"):
        run(program, questions(9), {"exact": exact, "none": lambda example, prediction: None})


@pytest.mark.parametrize("metric", [{}, {"": exact}, {3: exact}, {"exact": exact, "none": 3}, [exact]])
def test_metrics_that_are_none_cost_nothing(program: dspy.Module, endpoint: Endpoint, metric: Any) -> None:
    """It is said before anything is asked."""
    with pytest.raises(cachectl.ConfigurationError, match=r"by name|callable"):
        run(program, questions(2), metric)
    assert 0 == endpoint.requests


def judged(scores: list[float], others: dict[str, list[float]], name: str) -> cachectl.EvalReport:
    """A made-up report with further metrics."""
    made = report(scores, name=name)
    for at, question in enumerate(made.questions):
        draws = [
            replace(draw, others=tuple(OtherScore(metric, rows[at]) for metric, rows in others.items()))
            for draw in question.draws
        ]
        object.__setattr__(question, "draws", tuple(draws))
    more = tuple(OtherMetric(metric, metric) for metric in others)
    return replace(made, provenance=replace(made.provenance, others=more))


def test_a_comparison_has_a_verdict_by_metric_that_allows_for_all() -> None:
    """Each is that of its scores alone, with Holm's p-values; the verdict of the whole stays that of the first."""
    before = judged([0.0, 1.0] * 20, {"kind": [1.0] * 40, "short": [0.0, 1.0] * 20}, "before")
    after = judged([0.0, 1.0] * 20, {"kind": [0.0] * 14 + [1.0] * 26, "short": [0.0, 1.0] * 18 + [1.0] * 4}, "after")
    compared = before.compare(after)
    assert {"exact_match": "INCONCLUSIVE", "kind": "WORSE", "short": "INCONCLUSIVE"} == {
        name: one.verdict.value for name, one in compared.metrics.items()
    }
    for name, one in compared.metrics.items():
        alone = before.metrics[name].compare(after.metrics[name])
        assert (alone.result, 3, one.p_value) == (one.result, one.compared_with, alone.p_value)
    assert compared.metrics["kind"].adjusted_p_value == pytest.approx(3 * compared.metrics["kind"].p_value)
    assert 1 == compared.compared_with
    said = str(compared)
    assert "Metrics of the same answers (verdicts hold together)" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert ["exact_match", "kind", "short"] == list(compared.as_dict()["metrics"])
    assert {} == before.compare(report([1.0] * 40)).metrics


def test_metrics_are_in_the_file_on_the_page_and_on_the_screen(program: dspy.Module, tmp_path: Path) -> None:
    """What is saved and loaded has them, with what each said of an answer; secrets in it are none any more."""
    key = "sk-proj-" + "q8ZxV3nT7pLw2RkY" * 3
    several = {"exact": exact, "length": length, "leaky": lambda example, made: {"score": 1, "feedback": key}}
    made = run(program, questions(6), several)
    saved = made.save(tmp_path / "report.json")
    assert key not in saved.read_text()
    assert {name: one.summary() for name, one in made.metrics.items()} == json.loads(saved.read_text())["metrics"]
    loaded = cachectl.EvalReport.load(saved)
    assert {name: found(one) for name, one in made.metrics.items()} == {
        name: found(one) for name, one in loaded.metrics.items()
    }
    assert 0 == command("report", str(saved), "-o", str(tmp_path / "page.html")).returncode
    page = unpacked.content((tmp_path / "page.html").read_bytes())
    assert [made.score, made.metrics["length"].score] == [one["score"] for one in page["scores"][:2]]
    draw = made.metrics["length"].draws[0]
    assert ["by length", f"{draw.score:g}; {draw.feedback}"] in page["questions"][0]["answers"][0][0]["facts"]
    for text in (str(loaded), loaded.details()):
        assert all(name in text for name in several)
        assert all(len(line) <= 80 for line in text.splitlines())
    table = made.to_pandas()
    assert [one.score for one in made.metrics["length"].draws] == list(table["score.length"])
