"""`settle()`: as many questions as it takes, and not one more. The provider's request counter is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.statistics.looks import look_level
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions, run
from tests.page import unpacked

__all__ = ["program"]


class Fixed(dspy.Module):
    """A program that asks, and is right on the questions whose number has a remainder below `right` of ten."""

    def __init__(self, right: int) -> None:
        super().__init__()
        self.right = right
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        self.ask(question=question)
        number = int(question.split()[1])
        return dspy.Prediction(answer="yes" if number * 7 % 10 < self.right else "no")


class Pages(Fixed):
    """One that knows some pages of ten questions better than others."""

    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, question: str) -> dspy.Prediction:
        number = int(question.split()[1])
        self.right = 3 + number // 10 % 4
        return super().forward(question)


def settled(baseline: Any, candidate: Any, devset: Any, **options: Any) -> cachectl.Settled:
    return cachectl.settle(baseline, candidate, devset, exact, display_progress=False, **options)


def test_a_large_difference_takes_few_questions(program: dspy.Module, endpoint: Endpoint) -> None:
    """3 against 9 of 10 right: BETTER after a part of 200 questions, and nothing was asked beyond them."""
    found = settled(Fixed(3), Fixed(9), questions(200))
    assert ("BETTER", "BETTER") == (found.verdict_text, found.looks[-1].verdict)
    assert found.asked < 150
    assert 2 * found.asked == found.answers == endpoint.requests
    assert [20 * place for place in range(1, len(found.looks) + 1)] == [look.questions for look in found.looks]
    assert 400 - found.answers == found.saved
    asked = [look.questions for look in found.looks]
    levels = [look_level(asked[: place + 1], 200) for place in range(len(asked))]
    assert [1 - level for level in levels] == pytest.approx([look.limit for look in found.looks])
    assert all(look.p_value >= look.limit for look in found.looks[:-1])
    assert found.looks[-1].p_value < found.looks[-1].limit


def test_the_other_way_round_it_is_worse(program: dspy.Module) -> None:
    """The same two programs, exchanged."""
    assert "WORSE" == settled(Fixed(9), Fixed(3), questions(100)).verdict_text


def test_again_nothing_is_bought_and_a_longer_one_buys_what_is_new(program: dspy.Module, endpoint: Endpoint) -> None:
    """The same call again: 0 requests and the same looks. A smaller difference to settle: only further questions."""
    first = settled(Fixed(3), Fixed(9), questions(100), smallest_difference=0.1)
    bought = endpoint.requests
    again = settled(Fixed(3), Fixed(9), questions(100), smallest_difference=0.1)
    assert bought == endpoint.requests
    assert first.looks == again.looks
    assert len(again.looks) > 1
    assert again.asked == sum(model.calls for model in again.candidate.provenance.models)
    assert ("loaded", ()) == (again.candidate.provenance.predictions, again.candidate.provenance.changes)
    run(Fixed(9), questions(100))
    assert bought + 100 - first.asked == endpoint.requests


def test_the_order_is_of_the_questions_and_not_of_the_data_set(program: dspy.Module, endpoint: Endpoint) -> None:
    """A data set the other way round: the same looks, without a request; another seed asks other questions first."""
    first = settled(Fixed(3), Fixed(9), questions(100))
    bought = endpoint.requests
    assert first.looks == settled(Fixed(3), Fixed(9), questions(100)[::-1]).looks
    assert bought == endpoint.requests
    other = settled(Fixed(3), Fixed(9), questions(100), seed=1)
    asked = [{one.question for one in found.candidate.questions} for found in (first, other)]
    assert asked[0] != asked[1]


def test_a_report_has_its_questions_in_the_order_of_the_data_set(program: dspy.Module) -> None:
    """And says that it was looked at, and how often."""
    devset = questions(100)
    found = settled(Fixed(3), Fixed(9), devset, names=("old", "new"))
    previews = [example.question for example in devset]
    places = [previews.index(one.preview) for one in found.baseline.questions]
    assert sorted(places) == places
    stopping = found.baseline.provenance.stopping
    assert stopping is not None
    assert (len(found.looks), found.asked, 100) == (stopping.looks, stopping.asked, stopping.offered)
    assert f"{found.asked} of 100 questions" in found.baseline.details()
    assert any("grew until" in one for one in found.baseline.compare(found.candidate).warnings)
    assert ("old", "new") == (found.comparison.baseline, found.comparison.candidate)


def test_equal_programs_spend_the_budget_or_are_found_equal(program: dspy.Module) -> None:
    """40 questions cannot tell 6 from 6 of 10 apart: BUDGET SPENT, and what it would take; d = 0.5 is ruled out."""
    found = settled(Fixed(6), Fixed(5), questions(60), budget=40)
    assert ("BUDGET SPENT", 40) == (found.verdict_text, found.asked)
    assert "What it would take" in str(found)
    assert (
        "NO DIFFERENCE OF SIZE 0.5" == settled(Fixed(6), Fixed(5), questions(60), smallest_difference=0.5).verdict_text
    )


def test_repeats_are_drawn_when_the_questions_are_used_up(program: dspy.Module, endpoint: Endpoint) -> None:
    """5 against 6 of 10 right, 20 questions, 3 repeats: all once, then all again, and each answer bought once."""
    found = settled(Fixed(5), Fixed(6), questions(20), repeats=3)
    assert "BUDGET SPENT" == found.verdict_text
    assert [20, 40, 60] == [look.answers for look in found.looks]
    assert 120 == endpoint.requests == found.answers
    assert {3} == {len(one.draws) for one in found.candidate.questions}
    assert 60 == found.candidate.distinct.distinct
    assert 60 == found.candidate.provenance.counters["requests"]


@pytest.mark.parametrize("bound", ["pocock", "any-time"])
def test_the_other_bounds(program: dspy.Module, bound: str) -> None:
    """They come to the same verdict."""
    found = settled(Fixed(2), Fixed(9), questions(100), bound=bound, batch=10)
    assert ("BETTER", bound) == (found.verdict_text, found.bound.value)


def test_without_kept_predictions_one_run_grows(program: dspy.Module, endpoint: Endpoint) -> None:
    """All batches draw under one run, and no answer is bought twice."""
    found = settled(Fixed(5), Fixed(6), questions(45), predictions=False, batch=15)
    assert (3, 90) == (len(found.looks), endpoint.requests)
    assert found.baseline.run_id != found.candidate.run_id
    assert 45 == found.baseline.provenance.counters["fresh"]


@pytest.mark.parametrize("at", [41, 50])
def test_a_cut_one_says_what_there_was_and_goes_on(program: dspy.Module, endpoint: Endpoint, at: int) -> None:
    """An interrupt in the second batch, or at its beginning: the report has the first, and the rest alone is asked."""
    calls = 0

    def interrupting(example: Any, prediction: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return exact(example, prediction)

    with pytest.raises(KeyboardInterrupt):
        cachectl.settle(
            Fixed(5), Fixed(6), questions(40), interrupting, display_progress=False, batch=20, num_threads=1
        )
    report = cachectl.last_report()
    assert report is not None
    assert 20 <= report.n <= 40
    bought = endpoint.requests
    settled(Fixed(5), Fixed(6), questions(40), batch=20)
    assert 80 == endpoint.requests > bought


def _settle(metric: Any, **options: Any) -> Any:
    return cachectl.settle(Fixed(5), Fixed(6), questions(40), metric, **options)


def _race(metric: Any, **options: Any) -> Any:
    return cachectl.race({"one": Fixed(5), "other": Fixed(6)}, questions(40), metric, **options)


@pytest.mark.parametrize("kept", [False, pytest.param(None, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("ask", [_settle, _race])
@pytest.mark.parametrize("at", [10, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in (30, 41, 50))])
def test_a_named_run_is_gone_on_with(program: dspy.Module, endpoint: Endpoint, at: int, ask: Any, kept: Any) -> None:
    """After a Ctrl-C nothing is bought twice, kept predictions or not; and each program has draws of its own."""
    options = {"display_progress": False, "batch": 20, "num_threads": 1, "predictions": kept, "run_id": "named"}
    calls = 0

    def interrupting(example: Any, prediction: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return exact(example, prediction)

    with pytest.raises(KeyboardInterrupt):
        ask(interrupting, **options)
    assert at == endpoint.requests
    ask(exact, **options)
    assert 80 == endpoint.requests
    ask(exact, **options)
    assert 80 == endpoint.requests


@pytest.mark.parametrize("ask", [_settle, _race])
def test_the_programs_share_what_the_settings_allow(program: dspy.Module, endpoint: Endpoint, ask: Any) -> None:
    """A budget of the phase `eval` is one for both, and its error has the report of what there is."""
    cachectl.configure(phases={"eval": {"budget": "requests=30"}})
    with pytest.raises(cachectl.BudgetExceededError) as raised:
        ask(exact, display_progress=False, batch=20)
    assert 30 == endpoint.requests
    assert raised.value.report is not None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bound": "obrien"}, "bound is one of"),
        ({"smallest_difference": 0}, "smallest_difference is a number above 0"),
        ({"budget": 0}, "budget is a whole number"),
        ({"names": ("a", "a")}, "names are two different names"),
        ({"repeat": 3}, "repeats"),
        ({"bound": "any-time", "repeats": 2}, "leave repeats out"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_paid(
    program: dspy.Module, endpoint: Endpoint, wrong: dict[str, Any], said: str
) -> None:
    """With 0 requests."""
    with pytest.raises(cachectl.ConfigurationError, match=said):
        settled(Fixed(3), Fixed(9), questions(40), **wrong)
    assert 0 == endpoint.requests


def test_it_is_shown_in_80_columns(program: dspy.Module, tmp_path: Path) -> None:
    """At a glance and in full, with all looks."""
    found = settled(Fixed(3), Fixed(9), questions(100))
    assert max(map(len, f"{found}\n{found.details()}".splitlines())) <= 80
    assert found.details().count("0.") > str(found).count("0.")
    assert found.as_dict()["looks"][0]["questions"] == 20


def test_its_page_has_every_look_and_every_answer(program: dspy.Module, tmp_path: Path) -> None:
    """In one file: the verdict over all looks, a row for each of them, and the answers of both programs."""
    found = settled(Fixed(3), Fixed(9), questions(100))
    page = found.page()
    assert found.verdict_text == page.headline[0]
    (looks,) = [block for block in page.blocks if block.title == "Looks"]
    assert len(found.looks) == len(looks.rows)
    assert found.asked == len(page.questions)
    written = unpacked.content(found.to_html(tmp_path / "settled.html").read_bytes())
    assert found.verdict_text == written["headline"][0]


def test_a_look_at_a_few_clusters_is_one(program: dspy.Module) -> None:
    """Two clusters at the first look, at a level near 1: no verdict, and no error either; and its limit is a number."""
    devset = [
        dspy.Example(question=f"question {number} ?", answer="yes", page=number // 10).with_inputs("question")
        for number in range(200)
    ]
    found = settled(Fixed(3), Pages(), devset, clusters="page")
    assert [20, 40] == [look.questions for look in found.looks[:2]]
    assert found.looks[0].limit < 1e-4
    text = " ".join(found.details().split())
    assert f" {found.looks[0].limit:.2g} " in f"{text} "
    one = settled(Fixed(0), Fixed(10), questions(2), bound="any-time")
    assert 1e-4 > one.looks[0].limit
    assert 2 < one.as_dict()["comparison"]["minimal_detectable_effect"]
    assert "below below" not in " ".join(str(settled(Fixed(3), Fixed(9), questions(200))).split())
