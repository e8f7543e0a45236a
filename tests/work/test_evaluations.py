"""Twice as many questions are twice the work: of an evaluation, of its report, and of what is made of that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
from tests.calls.support import MakeLM, exact, examples
from tests.reports.made_up import report
from tests.work.counting import calls_of, instructions


class Knows(dspy.Module):  # type: ignore[misc]
    """A program that asks nobody."""

    def forward(self, question: str) -> Any:
        """Answer."""
        return dspy.Prediction(answer=f"city{question[-2]}")


def grows_linearly(work: Callable[[int], int], few: int) -> None:
    """Hold that twice as many more cost twice as much more: where each is looked at for each, it is four times that."""
    one, two, four = work(few), work(2 * few), work(4 * few)
    assert four - two < 2.5 * (two - one), (one, two, four)


@pytest.mark.parametrize("repeats", [1, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_an_evaluation(lm: MakeLM, tmp_path: Path, repeats: int) -> None:
    """One that is made, and one that is loaded, takes work in proportion to the questions."""
    dspy.configure(lm=lm())

    def evaluated(questions: int) -> Any:
        kept = tmp_path / str(questions)
        asked = examples(questions)
        return cachectl.evaluate(
            Knows(), asked, exact, repeats=repeats, predictions=kept, num_threads=1, display_progress=False
        )

    evaluated(1)  # what is done once
    for _ in range(2):
        grows_linearly(lambda questions: instructions(lambda: evaluated(questions)), few=10)


def _made(questions: int, name: str = "one", *, clusters: bool = False) -> EvalReport:
    scores = [[float(number % 3 == 0), float(number % 2)] for number in range(questions)]
    given = [f"cluster{number // 2}" for number in range(questions)] if clusters else None
    return report(scores, name=name, clusters=given)


OF_REPORTS: dict[str, Callable[[EvalReport, EvalReport, Path], Any]] = {
    "shown": lambda one, _other, _path: (str(one), one.details(), one.summary()),
    "saved": lambda one, _other, path: EvalReport.load(one.save(path)),
    "compared": lambda one, other, _path: (str(one.compare(other)), one.compare(other).changed()),
    "ranked": lambda one, other, _path: str(Ranking([one, other])),
    "on a page": lambda one, _other, _path: one.page(),
}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(made, id=name, marks=() if name in {"shown", "compared"} else pytest.mark.exhaustive)
        for name, made in OF_REPORTS.items()
    ],
)
@pytest.mark.parametrize("clusters", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_a_report(tmp_path: Path, made: Callable[[EvalReport, EvalReport, Path], Any], clusters: bool) -> None:
    """What is made of a report takes work in proportion to its questions."""

    def work(questions: int) -> int:
        one, other = (_made(questions, name, clusters=clusters) for name in ("one", "other"))
        return instructions(lambda: made(one, other, tmp_path / "report.json"))

    work(2)  # what is done once
    grows_linearly(work, few=100)  # of fewer, exact tests are made


def test_the_executor_looks_at_all_questions_seldom(lm: MakeLM) -> None:
    """DSPy's own looks whether all are answered after each answer, which here it is told of by parts."""
    dspy.configure(lm=lm())
    questions = 1_000
    evaluation = dspy.Evaluate(devset=examples(questions), metric=exact, num_threads=4, display_progress=False)
    with cachectl.phase("eval"):
        looked = calls_of("all_done", lambda: evaluation(Knows()))
        assert looked < questions / 2
        assert 0 == calls_of("_update_progress", lambda: evaluation(Knows()))
