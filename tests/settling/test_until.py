"""`evaluate(until=)` and `evaluate(order=)`: a sample that is as large as it has to be."""

from __future__ import annotations

import functools
from typing import Any

import dspy
import numpy as np
import pytest
from scipy import stats

import dspy_cachectl as cachectl
from dspy_cachectl.evaluation.growing import sizes_of_looks
from dspy_cachectl.statistics.intervals import wilson_interval
from dspy_cachectl.statistics.looks import FEWEST_DEGREES
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions, run
from tests.settling.test_settle import Fixed
from tests.statistics.simulate import Floats, fresh, in_full, intervals

__all__ = ["program"]


def test_it_stops_when_the_interval_is_narrow_enough(program: dspy.Module, endpoint: Endpoint) -> None:
    """Of 200 questions as many are asked as it takes, one batch fewer would not be enough, and the report says so."""
    report = run(Fixed(9), questions(200), until=0.2)
    assert report.n == endpoint.requests < 200
    assert report.interval.width <= 0.2
    assert report.provenance.stopping is not None
    assert (report.n // 20 - 2, 200) == (report.provenance.stopping.looks, report.provenance.stopping.offered)
    assert "it was looked at while it grew" in report.details()
    assert run(Fixed(9), questions(200), until=0.2).score == report.score
    assert report.n == endpoint.requests
    loaded = cachectl.EvalReport.load(report.save("report.json"))
    assert report.provenance.stopping == loaded.provenance.stopping


def test_a_few_clusters_that_agree_end_nothing(program: dspy.Module, endpoint: Endpoint) -> None:
    """Ten questions each: eleven clusters are asked, although the interval of six was narrow enough."""
    devset = questions(200)
    for place, example in enumerate(devset):
        example["page"] = place // 10
    report = run(Fixed(9), devset, until=0.5, clusters="page")
    assert 120 == report.n == endpoint.requests
    assert report.error.degrees >= 10


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("size", "spread", "until", "passing"),
    [(20, 4.0, 0.2, 0.6), (20, 4.0, 0.3, 0.6), (20, 1.5, 0.3, 0.6), (20, 4.0, 0.3, 0.9), (5, 4.0, 0.2, 0.6)],
)
def test_the_interval_at_the_stop_covers_clusters(size: int, spread: float, until: float, passing: float) -> None:
    """600 questions in clusters: 93 times in 100, where the first narrow one of a few would do so 89 times."""
    n, rng, clusters = 600, np.random.default_rng(size), np.arange(600) // size
    rates = rng.beta(spread * passing, spread * (1 - passing), (3_000, n // size))[:, clusters]
    scores = fresh(rng, rates, 1)
    stopped, covered = np.zeros(len(scores), dtype=bool), np.zeros(len(scores), dtype=bool)
    for count in sizes_of_looks(n, 20, first=60):
        if clusters[count - 1] < FEWEST_DEGREES:  # the number of clusters but one
            continue
        low, high = intervals(scores[:, :count], clusters[:count])
        stops = ~stopped & ((high - low <= until) | (count == n))
        covered[stops] = ((low <= passing) & (passing <= high))[stops]
        stopped |= stops
    assert float(covered.mean()) >= 0.93


def test_what_cannot_be_that_narrow_is_asked_whole(program: dspy.Module, endpoint: Endpoint) -> None:
    """With its repeats, each answer bought once."""
    report = run(Fixed(5), questions(45), until=0.01, repeats=2)
    assert (45, 2, 90) == (report.n, report.repeats, endpoint.requests)
    assert 90 == report.provenance.counters["requests"] == report.distinct.distinct


def test_a_random_order_has_the_same_draws(program: dspy.Module, endpoint: Endpoint) -> None:
    """Asked in another order, reported in that of the data set, and by seeds that differ, otherwise."""
    asked: list[str] = []

    def noting(question: str) -> Any:
        asked.append(question)
        return program(question=question)

    devset = questions(30)
    report = run(noting, devset, order="random", seed=3, num_threads=1)
    names = [example.question for example in devset]
    assert names != asked
    assert sorted(names) == sorted(asked)
    assert names == [one.preview for one in report.questions]
    assert report.provenance.stopping is None
    again = run(noting, devset, predictions=False, run_id=report.run_id)
    assert (30, report.draw_ids) == (endpoint.requests, again.draw_ids)


def test_questions_of_a_cluster_are_asked_one_after_the_other(program: dspy.Module) -> None:
    """In whatever order the data set has them."""
    asked: list[int] = []

    def noting(question: str) -> Any:
        asked.append(int(question.split()[1]) % 5)
        return dspy.Prediction(answer="yes")

    run(noting, questions(40), order="random", num_threads=1, clusters=lambda one: int(one.question.split()[1]) % 5)
    assert 4 == int(np.count_nonzero(np.diff(asked)))


@pytest.mark.parametrize("wrong", [{"until": 0}, {"order": "sorted"}, {"seed": -1}, {"until": 0.1, "shard": (0, 2)}])
def test_what_cannot_be_is_said(program: dspy.Module, endpoint: Endpoint, wrong: dict[str, Any]) -> None:
    """With 0 requests."""
    with pytest.raises(cachectl.ConfigurationError):
        cachectl.evaluate(program, questions(4), exact, display_progress=False, run_id="r", **wrong)
    assert 0 == endpoint.requests


@pytest.mark.parametrize("width", [in_full(0.3), 0.2, in_full(0.15), in_full(0.1)])
def test_the_interval_at_the_stop_covers(width: float) -> None:
    """Whatever share of the questions passes, the truth is in it in 93% at least, computed exactly."""
    looks = sizes_of_looks(1000, 20, first=60)
    intervals_at = functools.cache(lambda n: [wilson_interval(passed, n) for passed in range(n + 1)])
    for passing in np.arange(0.5, 0.995, 0.03):
        alive, covered, before = np.ones(1), 0.0, 0
        for n in looks[:25]:
            if not alive.any():
                break
            ends = intervals_at(n)
            alive, before = np.convolve(alive, stats.binom.pmf(np.arange(n - before + 1), n - before, passing)), n
            stops = np.array([one.width <= width for one in ends])
            covered += float(alive[stops & np.array([passing in one for one in ends])].sum())
            alive = np.where(stops, 0.0, alive)
        assert covered + float(alive.sum()) >= 0.93, passing


@pytest.mark.parametrize(("passing", "width", "repeats"), [in_full(0.9, 0.15, 3), (0.8, 0.2, 2)])
def test_it_covers_with_repeats(passing: float, width: float, repeats: int) -> None:
    """Likewise by simulation, where questions differ in how often they are passed."""
    rng = np.random.default_rng([round(100 * passing), repeats])
    trials, most = 2000, 160
    rates: Floats = rng.beta(4 * passing, 4 * (1 - passing), (trials, most))
    scores = fresh(rng, rates, repeats)
    covered, stopped = np.zeros(trials, dtype=bool), np.zeros(trials, dtype=bool)
    for n in sizes_of_looks(most, 20, first=60):
        low, high = intervals(scores[:, :n])
        new = ~stopped & ((high - low <= width) | (n == most))
        covered[new], stopped = ((low <= passing) & (passing <= high))[new], stopped | new
    assert covered.mean() >= 0.93
