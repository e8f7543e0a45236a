"""What a metric may take and return, what becomes of its feedback, and how one that gives no score is found out."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.teleprompt.gepa.gepa_utils import ScoreWithFeedback
from dspy.utils.callback import BaseCallback

import dspy_cachectl as cachectl
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, questions, run

__all__ = ["program"]

SAID = "expected 4\nand got 5"


def made_for_gepa(gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> Any:
    assert (trace, pred_name, pred_trace) == (None, None, None)
    return {"score": 0.5, "feedback": SAID}


class Judge:
    def __call__(self, gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> Any:
        return ScoreWithFeedback(score=0.5, feedback=SAID)

    def judge(self, example: Any, prediction: Any, trace: Any) -> Any:
        return dspy.Prediction(score=0.5, feedback=SAID)


async def awaited(gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> Any:
    return made_for_gepa(gold, pred, trace, pred_name, pred_trace)


def of_any_name(a: Any, b: Any, _c: Any, _d: Any, _e: Any) -> Any:
    return {"score": True, "feedback": ["a list", 1]}


class Structured:
    score, feedback = "0.5", SAID


METRICS: dict[str, tuple[Callable[..., Any], float, str | None]] = {
    "five arguments": (made_for_gepa, 0.5, SAID),
    "five with defaults": (lambda gold, pred, trace=None, pred_name=None, pred_trace=None: 0.5, 0.5, None),
    "five, any": (lambda *given: {"score": 1, "feedback": None}, 1.0, None),
    "five of any name": (of_any_name, 1.0, "['a list', 1]"),
    "an object": (Judge(), 0.5, SAID),
    "a method with a trace": (Judge().judge, 0.5, SAID),
    "a partial": (functools.partial(lambda x, example, pred, trace, pred_name, pred_trace: x, 0.25), 0.25, None),
    "a coroutine": (awaited, 0.5, SAID),
    "a score as text": (lambda example, pred: Structured(), 0.5, SAID),
    "half a character": (lambda example, pred: {"score": 1.0, "feedback": "a\ud800b"}, 1.0, "a\\ud800b"),
    "an empty feedback": (lambda example, pred: {"score": 0.0, "feedback": ""}, 0.0, None),
}


@pytest.mark.parametrize(("metric", "score", "said"), METRICS.values(), ids=METRICS)
def test_a_metric_made_for_gepa_is_a_metric(program: Any, metric: Any, score: float, said: str | None) -> None:
    """Five arguments or two, a number or a score with feedback, which stands beside the score."""
    report = run(program, questions(2), metric, predictions=False)
    assert [(score, said, None)] * 2 == [(draw.score, draw.feedback, draw.failed) for draw in report.draws]


def test_feedback_is_kept_with_the_score(program: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    """In the report and its file, in tables, and in kept predictions, which a later run takes it from; no key is."""
    asked: list[str] = []

    def metric(gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> Any:
        asked.append(gold.question)
        return {"score": 0.5, "feedback": f"{SAID} {'sk-proj-' + 'q8ZxV3nT7pLw2RkY' * 3}"}

    clean = f"{SAID} [removed]"
    first = run(program, questions(3), metric, predictions=tmp_path / "kept")
    again = run(program, questions(3), metric, predictions=tmp_path / "kept")
    assert (3, 3) == (len(asked), endpoint.requests)
    loaded = cachectl.EvalReport.load(again.save(tmp_path / "report.json"))
    for report in (first, again, loaded):
        assert [clean] * 3 == [draw.feedback for draw in report.draws]
    assert [clean] * 3 == list(again.to_pandas()["feedback"])
    assert [clean] * 3 == [score.feedback for row in again.rows() for score in row.scores.values()]
    name = Path(str(first.path)).name
    shown = command("predictions", "show", name, "--predictions", tmp_path / "kept")
    assert "feedback" in shown.stdout
    assert "expected 4 and got 5 [removed]" in shown.stdout
    plain = json.loads(command("predictions", "show", name, "--predictions", tmp_path / "kept", "--json").stdout)
    assert {clean} == {score["feedback"] for row in plain["predictions"] for score in row["scores"].values()}
    table = command("predictions", "export", name, "-", "--predictions", tmp_path / "kept").stdout
    assert table.startswith("example_key")
    assert 3 == table.count("expected 4")


def test_dspy_is_given_numbers(program: Any) -> None:
    """A score with feedback is a number to who adds up, and what GEPA's metrics return to who looks for it."""
    seen: list[Any] = []

    class Seeing(BaseCallback):  # type: ignore[misc]
        def on_evaluate_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
            seen.extend(score for _, _, score in outputs.results)

    with dspy.context(callbacks=[Seeing()]):
        run(program, questions(2), made_for_gepa, predictions=False)
    assert [(0.5, 0.5, SAID)] * 2 == [(score, score.score, score.feedback) for score in seen]
    assert all(isinstance(score, float) and isinstance(score, dspy.Prediction) for score in seen)
    assert (float, 1.0, "[0.5, 0.5]") == (type(sum(seen)), sum(seen), json.dumps(seen))


def test_without_feedback_there_is_no_column(program: Any, tmp_path: Path) -> None:
    """What no metric said is shown nowhere, and written nowhere."""
    report = run(program, questions(2), lambda example, pred: 1.0, predictions=tmp_path / "kept")
    name = Path(str(report.path)).name
    assert "feedback" not in command("predictions", "show", name, "--predictions", tmp_path / "kept").stdout
    assert "feedback" not in Path(str(report.path)).read_text(encoding="utf-8")


BAD: dict[str, tuple[Any, str]] = {
    "None": (None, "returned NoneType, which has no score"),
    "a dictionary": ({"reward": 1.0}, "returned dict, which has no score"),
    "a list": ([1.0], "returned list, which has no score"),
    "a word": ("good", "returned str, which has no score"),
    "a prediction": (dspy.Prediction(answer="4"), "returned Prediction, which has no score"),
    "a score that is none": ({"score": "good"}, "returned dict, whose score is 'good'"),
    "no number": (float("nan"), "returned nan; a score is a number"),
    "an error": (KeyError("label"), "the metric raised KeyError: 'label'"),
}


@pytest.mark.parametrize("threads", [4, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(("returned", "says"), BAD.values(), ids=BAD)
def test_a_metric_that_gives_no_score_is_found_out_early(
    program: Any, endpoint: Endpoint, returned: Any, says: str, threads: int
) -> None:
    """One sentence says what it returned and what it may return; the answers that were paid for are kept."""

    def metric(example: Any, prediction: Any) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    with pytest.raises(cachectl.ConfigurationError, match=says) as caught:
        run(program, questions(40), metric, num_threads=threads)
    assert "{'score': ..., 'feedback': ...}" in str(caught.value)
    bought = endpoint.requests
    assert 5 <= bought <= 5 + 2 * threads
    report = run(program, questions(40), lambda example, pred: 1.0)
    assert (40, 1.0) == (report.n, report.score)
    assert 40 == endpoint.requests


def test_a_metric_that_gives_a_score_first_goes_on(program: Any, endpoint: Endpoint) -> None:
    """What it returns for some of the questions only are failures that are counted."""

    def metric(example: Any, prediction: Any) -> Any:
        return 1.0 if example.question.split()[1] == "0" else None

    report = run(program, questions(12), metric, num_threads=1)
    assert (12, 11) == (endpoint.requests, report.failures)


def test_arguments_that_nobody_knows_are_refused(program: Any, endpoint: Endpoint) -> None:
    """What else a metric wants is not made up."""

    def metric(example: Any, prediction: Any, threshold: float) -> float:
        return threshold

    def named(example: Any, prediction: Any, *, trace: Any) -> float:
        return 1.0

    for one in (metric, named, lambda a, b, c, d, e, f: 1.0):
        with pytest.raises(cachectl.ConfigurationError, match=r"called with \(example, prediction\), or as GEPA's"):
            run(program, questions(2), one)
    assert 0 == endpoint.requests


def test_a_score_that_cannot_be_averaged_is_a_failure(program: dspy.Module, endpoint: Endpoint) -> None:
    """It is told from the others, and what was paid for the answers is not lost."""
    report = run(program, questions(2), lambda example, pred: 1e308)
    assert (report.score, report.failures, endpoint.requests) == (0.0, 2, 2)
    assert "the metric returned 1e+308" in str(report.questions[0].draws[0].failed)
