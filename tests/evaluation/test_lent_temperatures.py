"""A phase lends its temperature to the program's own calls, and to none of a metric's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, questions


def _sent(endpoint: Endpoint) -> dict[str, set[float | None]]:
    """The temperatures that the program's questions and the judge's were sent with."""
    found: dict[str, set[float | None]] = {"program": set(), "judge": set()}
    for request in endpoint.log():
        who = "judge" if "verdict" in str(request["body"]) else "program"
        found[who].add(request["body"].get("temperature"))
    return found


def _evaluate(program: Any, metric: Any) -> None:
    with cachectl.phase("eval"):
        dspy.Evaluate(devset=questions(3), metric=metric, num_threads=2)(program)


def _report(program: Any, metric: Any) -> None:
    cachectl.evaluate(program, questions(3), metric, display_progress=False, predictions=False)


@pytest.mark.parametrize("ask", [_evaluate, _report])
@pytest.mark.parametrize("own", [0.0, None])
@pytest.mark.parametrize("bare", [False, True], ids=["module", "bare LM"])
def test_a_judge_is_asked_at_its_own_temperature(
    endpoint: Endpoint, lm: MakeLM, ask: Callable[[Any, Any], None], own: float | None, bare: bool
) -> None:
    """The program's calls are sent with the phase's 1.0; a module or an LM in the metric with what its LM says."""
    judging_lm = lm(temperature=own)
    judge = dspy.Predict("question, answer -> verdict")
    judge.set_lm(judging_lm)
    dspy.configure(lm=lm(temperature=0.0))

    def metric(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        if bare:
            return float(bool(judging_lm(f"Your verdict on {prediction.answer}?")))
        return float(judge(question=example.question, answer=str(prediction.answer)).verdict is not None)

    ask(dspy.ChainOfThought("question -> answer"), metric)
    assert _sent(endpoint) == {"program": {1.0}, "judge": {own}}


class _Judging(dspy.Module):  # type: ignore[misc]
    """A metric that is a module of DSPy's."""

    def __init__(self, judging_lm: dspy.LM) -> None:
        super().__init__()
        self.judge = dspy.Predict("question, answer -> verdict")
        self.judge.set_lm(judging_lm)

    def forward(self, example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        return float(self.judge(question=example.question, answer=str(prediction.answer)).verdict is not None)


@pytest.mark.parametrize("ask", [_evaluate, _report])
@pytest.mark.parametrize("asked", ["itself", "by a function", "with what has no form"])
def test_a_judge_within_a_module_is_asked_at_its_own_temperature(
    endpoint: Endpoint, lm: MakeLM, ask: Callable[[Any, Any], None], asked: str
) -> None:
    """A metric that is a module, or calls one, is given an example and a prediction, of which no text is sent."""
    judge = _Judging(lm(temperature=0.0))
    dspy.configure(lm=lm(temperature=0.0))

    def by_function(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        return float(judge(example, prediction, object() if asked == "with what has no form" else trace))

    ask(dspy.ChainOfThought("question -> answer"), judge if asked == "itself" else by_function)
    assert _sent(endpoint) == {"program": {1.0}, "judge": {0.0}}
