"""A program, or a metric, that evaluates: what it asks in each of its answers are draws of that answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint

pytest.importorskip("scipy")

MakeLM = Callable[..., Any]

OPTIONS: dict[str, Any] = {"display_progress": False}
INNER = [dspy.Example(question=f"colour {number}").with_inputs("question") for number in range(2)]
OUTER = [dspy.Example(question=f"which {number}").with_inputs("question") for number in range(3)]


def _length(_example: Any, prediction: Any, _trace: Any = None) -> float:
    return len(prediction.answer) % 2


class Evaluates(dspy.Module):  # type: ignore[misc]
    """Answers with the score of another program."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer=str(cachectl.evaluate(self.ask, INNER, _length, **OPTIONS).score))


def _judged(_example: Any, prediction: Any, _trace: Any = None) -> float:
    return cachectl.evaluate(Evaluates().ask, INNER, _length, **OPTIONS).score + len(prediction.answer) * 0


@pytest.mark.parametrize("evaluates", ["program", "metric", "program in a phase"])
def test_each_answer_has_draws_of_its_own(lm: MakeLM, endpoint: Endpoint, evaluates: str) -> None:
    """3 questions twice, with 2 in each: 12 draws; the same run again asks for nothing, and scores the same."""
    dspy.configure(lm=lm())
    asked = 12 + (6 if evaluates == "metric" else 0)

    def run(run_id: str | None = None) -> list[float]:
        program, metric = (
            (dspy.Predict("question -> answer"), _judged) if evaluates == "metric" else (Evaluates(), _length)
        )
        if evaluates != "program in a phase":
            report = cachectl.evaluate(program, OUTER, metric, repeats=2, run_id=run_id, predictions=False, **OPTIONS)
            runs.append(report.run_id or "")
            return [draw.score for question in report.questions for draw in question.draws]
        with cachectl.phase("eval", run_id=run_id) as opened:
            runs.append(opened.run_id or "")
            return [float(program(**one.inputs()).answer) for one in OUTER for _ in range(2)]

    runs: list[str] = []
    first = run()
    assert asked == endpoint.requests
    assert first == run(runs[0])
    assert asked == endpoint.requests
