"""Evaluations within a budget: what there is where it is spent, and what goes on from it."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Budget, BudgetExceededError
from tests.endpoint import Endpoint

LMs = Callable[..., Any]

DEVSET = [dspy.Example(question=f"question {at}", answer="yes").with_inputs("question") for at in range(40)]
PROGRAM = dspy.Predict("question -> answer")
SPAWN = multiprocessing.get_context("spawn")


def is_yes(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
    """Whether the answer is the example's."""
    return bool(prediction.answer == example.answer)


class Swallowing(dspy.Module):  # type: ignore[misc]
    """A program of two calls that answers whatever becomes of them."""

    def __init__(self) -> None:
        self.first, self.second = dspy.Predict("question -> answer"), dspy.Predict("question, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Answer, in any case."""
        try:
            return self.second(question=question, draft=self.first(question=question).answer)
        except Exception:  # noqa: BLE001 - as agents do
            return dspy.Prediction(answer="nothing")


@pytest.fixture(autouse=True)
def _asked(lm: LMs, endpoint: Endpoint) -> None:
    endpoint.configure(answers={"": ["yes", "no"]}, gold_field="answer")
    dspy.configure(lm=lm())


def questions_of(report: cachectl.EvalReport) -> set[str]:
    """Return the questions of a report."""
    return {one.question for one in report.questions}


def test_a_part_is_reported_and_gone_on_with(endpoint: Endpoint) -> None:
    """A budget of 15 requests answers 15 of 40 questions, in a seeded random order; a larger one asks the rest."""
    part = cachectl.evaluate(PROGRAM, DEVSET, is_yes, budget=Budget(requests=15), num_threads=1, predictions=True)
    assert (endpoint.requests, len(part.questions), part.provenance.missing) == (15, 15, 25)
    assert "its budget was spent: 15 of 40 questions, in random order (seed 0)" in str(part)
    order = [one.question for one in part.questions]
    whole = cachectl.evaluate(PROGRAM, DEVSET, is_yes, budget=Budget(requests=25), num_threads=4, predictions=True)
    assert (endpoint.requests, len(whole.questions), whole.provenance.missing) == (40, 40, 0)
    assert "budget" not in str(whole)
    in_given = [one.question for one in whole.questions]
    assert order == [name for name in in_given if name in set(order)] != in_given[:15]
    kept = {one.question: one.draws[0].output for one in whole.questions}
    assert all(kept[one.question] == one.draws[0].output for one in part.questions)


def test_another_seed_is_another_part() -> None:
    """The part is told by the seed, so it is a sample of the questions."""
    parts = [
        cachectl.evaluate(
            PROGRAM, DEVSET, is_yes, budget=Budget(requests=10), num_threads=1, predictions=False, seed=seed
        )
        for seed in (1, 2)
    ]
    assert len(questions_of(parts[0])) == len(questions_of(parts[1])) == 10
    assert questions_of(parts[0]) != questions_of(parts[1])


@pytest.mark.parametrize("threads", [1, 8])
def test_what_was_refused_is_no_answer(threads: int, endpoint: Endpoint) -> None:
    """A program that swallows what a call raises has not answered that question, and no failure is reported."""
    report = cachectl.evaluate(
        Swallowing(), DEVSET, is_yes, budget=Budget(requests=21), num_threads=threads, predictions=False
    )
    assert endpoint.requests == 21
    assert 5 <= len(report.questions) <= 10
    assert not any(draw.failed for one in report.questions for draw in one.draws)


def test_repeats_and_judges(endpoint: Endpoint, lm: LMs) -> None:
    """Further answers are left out as questions are, and so is one whose judge was not asked."""
    report = cachectl.evaluate(
        PROGRAM, DEVSET[:10], is_yes, budget=Budget(requests=25), repeats=4, num_threads=1, predictions=False
    )
    assert (endpoint.requests, report.provenance.missing) == (25, 15)
    assert sorted(len(one.draws) for one in report.questions) == [2] * 5 + [3] * 5
    judge = lm(role="judge", temperature=0.9)

    def judged(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
        return bool(judge(f"{example.question}: {prediction.answer}"))

    budget = Budget(requests=100, roles={"judge": Budget(requests=6)})
    report = cachectl.evaluate(PROGRAM, DEVSET, judged, budget=budget, num_threads=1, predictions=False)
    assert len(report.questions) == 6


def test_a_budget_of_nothing_is_an_error(endpoint: Endpoint) -> None:
    """Where nothing is answered there is no report, and what was raised says why."""
    with pytest.raises(BudgetExceededError):
        cachectl.evaluate(PROGRAM, DEVSET, is_yes, budget=Budget(requests=0), predictions=False)
    assert endpoint.requests == 0


def test_a_budget_around_it_has_the_report() -> None:
    """Of a phase around the evaluation it is raised, with the report of what there is."""
    with (
        pytest.raises(BudgetExceededError) as raised,
        cachectl.phase("work", cachectl.Policy.REUSE, budget=Budget(requests=7)),
    ):
        cachectl.evaluate(PROGRAM, DEVSET, is_yes, num_threads=1, predictions=False)
    report = raised.value.report
    assert report is not None
    assert report is cachectl.last_report()
    assert len(report.questions) == 7
    assert raised.value.refused >= 1


def test_one_budget_for_several_models(lm: LMs, endpoint: Endpoint) -> None:
    """The models of one evaluation share its budget."""
    models = {"cool": lm(temperature=0.1), "warm": lm(temperature=0.9)}
    ranking = cachectl.evaluate(
        PROGRAM, DEVSET[:10], is_yes, lms=models, budget=Budget(requests=15), num_threads=1, predictions=False
    )
    assert endpoint.requests == 15
    assert [len(one.questions) for one in ranking.reports] == [10, 5]


def _records(store: Path) -> list[str]:
    with sqlite3.connect(store / "registers.db") as database:
        return [name for (name,) in database.execute("SELECT name FROM records WHERE name LIKE 'budget:%'")]


@pytest.mark.parametrize("said", ["given", "settings"])
@pytest.mark.parametrize("several", ["lms", "holdout"])
def test_one_budget_for_all_leaves_nothing_behind(
    said: str, several: str, lm: LMs, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given, or of the settings: what it allows is shared, who is not begun with is named, and no record is left."""
    store = tmp_path / "store"
    cachectl.configure(store=str(store))
    cachectl.install()
    with cachectl.phase("compile", budget=Budget(requests=5, name="of another")):
        pass
    how: dict[str, Any] = {"num_threads": 1, "predictions": False, "display_progress": False}
    if said == "given":
        how["budget"] = Budget(requests=6)
    else:
        cachectl.configure(phases={"eval": {"budget": "requests=6"}})
    if several == "lms":
        models = {name: lm(temperature=at) for name, at in [("one", 0.1), ("other", 0.9)]}
        (report,) = cachectl.evaluate(PROGRAM, DEVSET[:6], is_yes, lms=models, **how).reports
        missing = 0
    else:
        report = cachectl.evaluate(PROGRAM, DEVSET[:8], is_yes, holdout=DEVSET[20:24], **how)
        missing = 2
        assert report.holdout is None
    assert (6, 6, missing) == (endpoint.requests, len(report.questions), report.provenance.missing)
    assert any("was answered before the budget was spent" in one.message for one in caplog.records)
    assert ["budget:of another"] == _records(store)


@pytest.mark.parametrize("said", [{"phases": {"eval": {"budget": "requests=9"}}}, {"budget": "requests=9"}])
def test_the_settings_limit_evaluations(said: dict[str, Any], endpoint: Endpoint) -> None:
    """What the settings allow the phase `eval`, or the process, is an evaluation's budget."""
    cachectl.configure(**said)
    report = cachectl.evaluate(PROGRAM, DEVSET, is_yes, num_threads=3, predictions=False)
    assert (endpoint.requests, len(report.questions)) == (9, 9)


@pytest.mark.parametrize(
    "pool", [ThreadPoolExecutor, pytest.param(lambda count: ProcessPoolExecutor(count, SPAWN), id="processes")]
)
def test_a_pool_is_within_it(pool: Callable[[int], Executor], endpoint: Endpoint, tmp_path: Path) -> None:
    """The workers of a pool draw on one budget; all that any of them had answered is in the report, a random part."""
    said: dict[str, Any] = {"num_threads": 2, "shards": 4, "predictions": tmp_path}
    with pool(2) as workers:
        part = cachectl.evaluate(PROGRAM, DEVSET, is_yes, budget=Budget(requests=12), executor=workers, **said)
        assert (endpoint.requests, len(part.questions), part.provenance.missing) == (12, 12, 28)
        assert "its budget was spent: 12 of 40 questions, in random order (seed 0)" in str(part)
        whole = cachectl.evaluate(PROGRAM, DEVSET, is_yes, budget=Budget(requests=28), executor=workers, **said)
    assert (endpoint.requests, len(whole.questions), whole.provenance.missing) == (40, 40, 0)


def test_a_pool_within_the_budget_of_a_phase(endpoint: Endpoint) -> None:
    """What is spent of the phase around it is raised, with the report of all that any worker had answered."""
    with (
        pytest.raises(BudgetExceededError) as raised,
        ThreadPoolExecutor(2) as workers,
        cachectl.phase("eval", budget=Budget(requests=9)),
    ):
        cachectl.evaluate(PROGRAM, DEVSET, is_yes, executor=workers, num_threads=2, shards=4, predictions=False)
    assert raised.value.report is not None
    assert (endpoint.requests, len(raised.value.report.questions)) == (9, 9)


def test_an_awaited_one_too(endpoint: Endpoint) -> None:
    """So does an evaluation that is awaited."""
    report = asyncio.run(
        cachectl.aevaluate(PROGRAM, DEVSET, is_yes, budget=Budget(requests=12), concurrency=4, predictions=False)
    )
    assert (endpoint.requests, len(report.questions), report.provenance.missing) == (12, 12, 28)
