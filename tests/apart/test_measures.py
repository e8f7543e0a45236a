"""Cost, seconds and tokens are metrics that need no code, of answers that were drawn afresh."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.apart.test_slices import found
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, exact, program, questions, run

__all__ = ["program"]

ALL = {"exact": exact, "cost": "cost", "seconds": "seconds", "tokens": "tokens"}


@pytest.fixture
def priced(program: dspy.Module, lm: MakeLM) -> dspy.Module:
    """The program, asking a model whose price is known."""
    program.set_lm(lm("openai/gpt-4o-mini"))
    return program


def test_measures_are_what_the_provider_sold(priced: dspy.Module, endpoint: Endpoint) -> None:
    """Over questions and repeats, what was spent; a second evaluation loads the same figures and buys nothing."""
    made = run(priced, questions(6), ALL, repeats=2)
    counters = made.provenance.counters
    assert list(ALL) == list(made.metrics)
    spent = {name: one.score * 12 for name, one in made.metrics.items()}
    assert spent["tokens"] == pytest.approx(counters["tokens_spent"])
    assert spent["cost"] == pytest.approx(counters["cost_spent"])
    assert spent["seconds"] == pytest.approx(counters["seconds_spent"])
    assert 0 < spent["cost"] < 0.01
    again = run(priced, questions(6), ALL, repeats=2)
    assert 12 == endpoint.requests
    for name, one in made.metrics.items():
        assert found(one) == found(again.metrics[name]), name


def test_a_repeat_that_was_served_again_is_no_second_answer(priced: dspy.Module, endpoint: Endpoint) -> None:
    """Under a policy that reuses, three repeats are one draw, and count once."""
    with cachectl.phase("compile"):
        priced(question="question 0 ?")
    with cachectl.phase("eval", run_id="one"):
        made = run(priced, questions(4), ALL, repeats=1, predictions=False)
    assert [(1,)] * 4 == [tuple(1 for _ in row.scores) for row in made.metrics["tokens"].table.questions]
    assert 5 == endpoint.requests


def test_what_a_cache_on_the_way_gave_again_does_not_count(priced: dspy.Module, endpoint: Endpoint) -> None:
    """A proxy that repeats its answers makes them look quick and cheap: it is said how many are left out, or all."""
    endpoint.configure(fixed_id=True)
    first = run(priced, questions(4), ALL, predictions=False)
    second = run(priced, questions(6), ALL, predictions=False)
    assert (4, 0) == (first.metrics["seconds"].n, first.metrics["seconds"].provenance.left_out)
    fresh = second.metrics["seconds"]
    assert (2, 4) == (fresh.n, fresh.provenance.left_out)
    assert "4 answers left out: not drawn afresh, or what they cost is not known" in fresh.details()
    none = run(priced, questions(6), ALL, predictions=False)
    assert ["exact"] == list(none.metrics)
    assert 3 == str(none).count("not known")


def test_what_is_not_known_is_not_nothing(program: dspy.Module) -> None:
    """A model without a price has no cost; what ran out of sight has no seconds."""
    made = run(program, questions(3), ALL)
    assert ["exact", "seconds", "tokens"] == list(made.metrics)
    assert "not known" in str(made)
    blind = run(lambda question: dspy.Prediction(answer="yes"), questions(3), ALL, predictions=False)
    assert ["exact"] == list(blind.metrics)


def test_less_is_better(priced: dspy.Module, lm: MakeLM, tmp_path: Path) -> None:
    """A program that costs more is WORSE by cost; sizes are told by what is measured, not by a scale from 0 to 1."""
    longer = dspy.ChainOfThought("question -> answer")
    longer.set_lm(lm("openai/gpt-4o-mini"))
    cheap = run(priced, questions(40), ALL, name="cheap")
    dear = run(longer, questions(40), ALL, name="dear")
    compared = cheap.compare(dear)
    assert {"cost": "WORSE", "tokens": "WORSE"} == {
        name: compared.metrics[name].verdict_text for name in ("cost", "tokens")
    }
    assert "BETTER" == dear.compare(cheap).metrics["cost"].verdict.value
    assert 4 == compared.metrics["cost"].compared_with
    highest = max(draw.score for one in (cheap, dear) for draw in one.metrics["cost"].draws)
    assert compared.metrics["cost"].result.smallest_difference == pytest.approx(highest / 20)
    assert cheap.metrics["cost"].interval.high < 1e-3
    figure = compared.plot(tmp_path / "plot.png")
    assert ["cost of one answer (US$)"] == [axes.get_xlabel() for axes in figure.axes[1:]]
    assert not math.isnan(compared.metrics["seconds"].difference)


class Thinks(dspy.Module):
    """Asks one predictor once, and another twice where the question is even."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.answer = dspy.ChainOfThought("question, plan -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        for at in range(2 - int(question.split()[1]) % 2):
            plan = self.plan(question=f"{question} {at}").plan
        return self.answer(question=question, plan=plan)


def test_each_predictor_has_its_part(program: dspy.Module, lm: MakeLM) -> None:
    """The parts make the whole, also of what is loaded; a copy goes by the name of what it copies."""
    several = {
        **ALL,
        "plans": "tokens of plan",
        "thoughts": "tokens of answer.predict",
        "price": "cost of plan",
        "none": "cost of nobody",
    }
    with dspy.context(lm=lm("openai/gpt-4o-mini")):
        made = run(Thinks(), questions(6), several)
        again = run(Thinks(), questions(6), several)
        best = dspy.BestOfN(module=Thinks(), N=2, reward_fn=lambda args, prediction: 0.5, threshold=1.0)
        copies = run(best, questions(4), {"exact": exact, "tokens": "tokens", "plans": "tokens of module.plan"})
    assert [*ALL, "plans", "thoughts", "price"] == list(made.metrics)
    parts = [made.metrics[name].score for name in ("plans", "thoughts")]
    assert made.metrics["tokens"].score == pytest.approx(sum(parts))
    assert 0 < made.metrics["price"].score < made.metrics["cost"].score
    even, odd = (made.metrics["plans"].questions[at].draws[0].score for at in (0, 1))
    assert even > 1.5 * odd
    for name, one in made.metrics.items():
        assert found(one) == found(again.metrics[name]), name
    assert 0 < copies.metrics["plans"].score < copies.metrics["tokens"].score


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("cost", "the first metric judges each answer"),
        ({"cost": "cost", "exact": exact}, "the first metric judges each answer"),
        ({"exact": exact, "money": "price of plan"}, "or as 'cost of PREDICTOR'"),
        ({"exact": exact, "money": "costs"}, "'money' is 'costs', which is not callable: did you mean 'cost'"),
    ],
)
def test_a_measure_that_is_none_costs_nothing(program: dspy.Module, endpoint: Endpoint, metric: Any, says: str) -> None:
    """It is said what there is, before anything is asked."""
    with pytest.raises(cachectl.ConfigurationError, match=says):
        run(program, questions(2), metric)
    assert 0 == endpoint.requests
