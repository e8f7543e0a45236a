"""A question that fails for a reason that passes is asked again when the others have been, and costs nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.evaluation import patience
from tests.endpoint import Endpoint

QUESTIONS = 12


class TwoSteps(dspy.Module):  # type: ignore[misc]
    """Plans and then answers."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.answer = dspy.Predict("question, plan -> answer")

    def forward(self, question: str) -> Any:
        """Ask twice."""
        return self.answer(question=question, plan=self.plan(question=question).plan)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Ask again at once."""
    if "storm" not in request.node.name:
        monkeypatch.setattr(patience, "_PAUSES", (0.0,) * 6)


@pytest.fixture
def evaluated(lm: Callable[..., Any]) -> Callable[..., Any]:
    """Evaluate a program on some questions."""

    def evaluate(program: Any = None, metric: Any = lambda *_: 1.0, **options: Any) -> cachectl.EvalReport:
        options = {"predictions": False, **options}
        dspy.configure(lm=lm(num_retries=options.pop("num_retries", 0)))
        devset = [
            dspy.Example(question=f"question {at:02}").with_inputs("question")
            for at in range(options.pop("questions", QUESTIONS))
        ]
        return cachectl.evaluate(program or TwoSteps(), devset, metric, display_progress=False, **options)

    return evaluate


def failed(report: cachectl.EvalReport) -> int:
    """How many answers count as failed."""
    return sum(draw.failed is not None for question in report.questions for draw in question.draws)


@pytest.mark.parametrize("status", [429, 500, pytest.param(503, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kept", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_the_second_step_is_refused(
    endpoint: Endpoint, evaluated: Callable[..., Any], tmp_path: Path, status: int, kept: bool
) -> None:
    """The first step's answers are paid for once, and the report is that of an evaluation without the fault."""
    endpoint.fail(status=status, retry_after=0, times=5, skip=QUESTIONS)
    predictions = tmp_path / "kept" if kept else False
    report = evaluated(num_threads=4, predictions=predictions)

    assert 0 == failed(report)
    assert 2 * QUESTIONS + 5 == endpoint.requests
    assert 1.0 == report.score
    assert report.provenance.run_id is not None
    again = evaluated(num_threads=4, predictions=predictions, run_id=report.provenance.run_id)
    assert 2 * QUESTIONS + 5 == endpoint.requests
    assert [[draw.output for draw in question.draws] for question in report.questions] == [
        [draw.output for draw in question.draws] for question in again.questions
    ]


def test_a_judge_is_refused(endpoint: Endpoint, evaluated: Callable[..., Any], lm: Callable[..., Any]) -> None:
    """Where a metric's own call failed so, only that is asked again; and in a resumed run nothing."""
    judge = lm("openai/judge", num_retries=0)

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        return float(bool(judge(f"What is it? {example.question}") and judge(f"Is that right? {example.question}")))

    endpoint.fail(status=429, retry_after=0, times=5, match="Is that right?")
    report = evaluated(metric=metric)
    assert 0 == failed(report)
    assert 4 * QUESTIONS + 5 == endpoint.requests
    assert 1.0 == report.score
    evaluated(metric=metric, run_id=report.run_id)
    assert 4 * QUESTIONS + 5 == endpoint.requests


def test_what_does_not_pass_fails(endpoint: Endpoint, evaluated: Callable[..., Any]) -> None:
    """A question that fails each time is asked once more, fails, and says why; a bad request is not asked again."""
    endpoint.fail(status=500, match="question 03")
    endpoint.fail(status=400, match="question 05")
    report = evaluated(program=dspy.Predict("question -> answer"))
    told = {question.preview: draw.failed or "" for question in report.questions for draw in question.draws}
    assert 2 == failed(report)
    assert "LMServerError" in told["question 03"]
    asked = {name: sum(n for said, n in endpoint.counts().items() if name in said) for name in told}
    assert asked == {name: 2 if name == "question 03" else 1 for name in told}


def test_a_provider_that_is_away(endpoint: Endpoint, evaluated: Callable[..., Any]) -> None:
    """Where nothing is answered any more the evaluation ends, as it does by itself, and is not dragged out."""
    endpoint.fail(status=503)
    with pytest.raises(Exception, match=r"max_errors|cancelled"):
        evaluated(program=dspy.Predict("question -> answer"), questions=200, num_threads=1, max_errors=5)
    assert endpoint.requests < 50


@pytest.mark.exhaustive
@pytest.mark.parametrize("retries", [0, 3])
def test_a_storm(endpoint: Endpoint, evaluated: Callable[..., Any], retries: int) -> None:
    """A provider that refuses a third of the calls for 20 seconds costs no question."""
    endpoint.configure(delay=0.5)
    endpoint.fail(status=429, chance=1 / 3)
    ends = threading.Timer(20, endpoint.clear_faults)
    ends.start()
    try:
        report = evaluated(questions=500, num_threads=16, num_retries=retries)
    finally:
        ends.cancel()
        ends.join()
    assert 0 == failed(report)
    assert 500 == len(report.questions)
