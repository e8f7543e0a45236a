"""The simulations that the intervals rest on: how often a nominal 95% interval holds the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dspy_cachectl.statistics.intervals import mean_interval, wilson_interval
from dspy_cachectl.statistics.variance import standard_error
from tests.statistics.simulate import UNEQUAL, Floats, around, coverage, flagged, fresh, in_full, intervals, replayed
from tests.statistics.tables import table_of


@pytest.mark.parametrize(
    ("n", "repeats", "draw", "pooled"),
    [
        (100, 5, fresh, 0.828),
        (100, 5, replayed, 0.603),
        in_full(200, 10, fresh, 0.732),
        in_full(200, 10, replayed, 0.458),
    ],
)
def test_repeats_keep_the_coverage(n: int, repeats: int, draw: Callable[..., Floats], pooled: float) -> None:
    """95% intervals hold the truth 93 to 97 times in 100, also of replays taken for fresh ones; pooled draws do not."""
    rng = np.random.default_rng([n, repeats])
    scores = np.concatenate([draw(rng, rng.beta(2, 1, (1000, n)), repeats) for _ in range(4)])
    assert 0.93 <= coverage(scores, 2 / 3) <= 0.97
    draws = scores.reshape(len(scores), -1)
    missed = np.abs(draws.mean(1) - 2 / 3) > 1.96 * stats.sem(draws, axis=1)
    assert 1 - float(missed.mean()) == pytest.approx(pooled, abs=0.025)
    assert not any(mean_interval(table_of(one)).caveats for one in scores[:5].tolist())


@pytest.mark.parametrize(("clusters", "size", "naive"), [(10, 10, 0.667), (50, 10, 0.666), in_full(200, 5, 0.79)])
def test_clusters_keep_the_coverage(clusters: int, size: int, naive: float) -> None:
    """With ten clusters or two hundred the interval holds the truth 93 to 97 times in 100; without them, not."""
    rng = np.random.default_rng([clusters, size])
    groups = np.repeat(np.arange(clusters), size)
    scores = rng.normal(scale=0.7, size=(4000, clusters))[:, groups] + rng.normal(size=(4000, clusters * size))
    assert 0.93 <= coverage(scores[..., None], 0.0, groups) <= 0.97
    assert coverage(scores[..., None], 0.0) == pytest.approx(naive, abs=0.025)
    assert not mean_interval(table_of(scores[0].tolist(), clusters=groups.tolist())).caveats


@pytest.mark.parametrize("groups", UNEQUAL)
@pytest.mark.parametrize("shared", [0.3, in_full(0.0), in_full(1.0)])
def test_clusters_of_unequal_size_keep_the_coverage(groups: NDArray[np.int_], shared: float) -> None:
    """However the sizes differ, 93 to 97 times in 100 the interval holds the truth; weak ones hold more, and a flag."""
    rng = np.random.default_rng(len(groups))
    noise = rng.normal(size=(4000, len(groups)))
    scores = shared * rng.normal(size=(4000, groups.max() + 1))[:, groups] + noise
    error = standard_error(table_of(scores[0].tolist(), clusters=groups.tolist()))
    caveats = mean_interval(table_of(scores[0].tolist(), clusters=groups.tolist())).caveats
    assert any("their spread is uncertain" in caveat for caveat in caveats) is (error.degrees < 5)
    assert 0.93 <= coverage(scores[..., None], 0.0, groups) <= (0.98 if error.degrees < 5 else 0.97)


@pytest.mark.parametrize("sizes", [[30] * 3 + [2] * 30, [1] * 60 + [20] * 3, [1] * 90 + [10] * 6])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_a_few_clusters_that_decide_are_said(sizes: list[int], shared: float) -> None:
    """Where questions of large clusters are alike, degrees that take them for independent are too many, and it says so.

    The degrees are those of the definition, with matrices.
    """
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(3)
    each = 1.0 - shared
    scores = rng.random(len(sizes))[groups] * shared + each * np.tile([0.0, 1.0], len(groups))[: len(groups)]
    error = standard_error(table_of(scores.tolist(), clusters=groups.tolist()))
    assert error.shared == pytest.approx(_shared_degrees(groups, 0.999 if shared else 0.0))
    caveats = mean_interval(table_of(scores.tolist(), clusters=groups.tolist())).caveats
    assert any("a few of them decide" in caveat for caveat in caveats) is (shared > 0)


def _shared_degrees(groups: NDArray[np.int_], rho: float) -> float:
    n, same = len(groups), groups[:, None] == groups[None, :]
    covariance = np.where(same, rho, 0.0) + (1.0 - rho) * np.eye(n)
    centre = np.eye(n) - 1.0 / n
    each = [(groups == one).astype(float) for one in np.unique(groups)]
    ways = np.array([centre @ one / np.sqrt(1.0 - one.mean()) for one in each])
    found = ways @ covariance @ ways.T
    return float(np.trace(found) ** 2 / np.trace(found @ found))


@pytest.mark.parametrize("times", [5, in_full(20)])
def test_a_question_asked_several_times_is_one(times: int) -> None:
    """20 questions that are each in the data set five times, decided by the question: covered as a cluster each."""
    rng = np.random.default_rng(times)
    answers = (rng.random((4000, 20)) < 0.6).astype(float)
    groups = np.repeat(np.arange(20), times)
    assert 0.93 <= coverage(answers[:, groups][..., None], 0.6, groups) <= 0.98
    assert coverage(answers[:, groups][..., None], 0.6) < 0.7


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng, size: rng.lognormal(0, 2, size), np.exp(2)),
        in_full(lambda rng, size: rng.lognormal(0, 1, size), np.exp(0.5)),
        (lambda rng, size: rng.pareto(2.1, size), 1 / 1.1),
        in_full(lambda rng, size: rng.pareto(1.5, size), 2.0),
        in_full(lambda rng, size: rng.exponential(size=size), 1.0),
        (lambda rng, size: rng.choice([0.0, 1000.0], size, p=[0.97, 0.03]) + rng.random(size), 30.5),
    ],
)
@pytest.mark.parametrize("n", [100, in_full(200), in_full(1000)])
def test_heavy_tails_are_flagged_where_they_are_not_covered(draw: Callable[..., Floats], truth: float, n: int) -> None:
    """Scores of which a few decide the mean: in at most 7 of 100 does an interval miss the truth without a caveat."""
    scores = draw(np.random.default_rng(n), (4000, n))
    low, high = intervals(scores[..., None])
    missed = (truth < low) | (high < truth)
    assert float(np.mean(missed & ~flagged(scores))) <= 0.07
    for trial in range(12):
        caveats = mean_interval(table_of(scores[trial].tolist())).caveats
        assert any("far from the others" in caveat for caveat in caveats) is bool(flagged(scores)[trial])


@pytest.mark.parametrize("n", [10, 20, in_full(50), 100, in_full(300)])
def test_wilson_covers_at_extreme_proportions(n: int) -> None:
    """Over passing rates of 80 to 99%, computed exactly, 93 to 97 in 100 hold the truth."""
    rates = np.linspace(0.8, 0.99, 400)
    found = [wilson_interval(successes, n) for successes in range(n + 1)]
    holds = np.array([[rate in interval for interval in found] for rate in rates])
    weights = stats.binom.pmf(np.arange(n + 1), n, rates[:, None])
    covered = (weights * holds).sum(1)
    assert 0.93 <= float(covered.mean()) <= 0.97
    assert float(covered.min()) > 0.83


@pytest.mark.parametrize(
    ("rate", "n", "covered"),
    [
        (0.9, 20, 0.957),
        (0.9, 50, 0.970),
        (0.9, 100, 0.936),
        (0.97, 20, 0.979),
        (0.97, 50, 0.937),
        (0.97, 100, 0.969),
        (0.97, 300, 0.941),
    ],
)
def test_wilson_covers_where_the_normal_interval_does_not(rate: float, n: int, covered: float) -> None:
    """Computed exactly: at least 93 in 100, more than 97 from 20 or 50 questions only, and none is in doubt."""
    found = [mean_interval(table_of([1.0] * passed + [0.0] * (n - passed))) for passed in range(n + 1)]
    weights = stats.binom.pmf(np.arange(n + 1), n, rate)
    exactly = float(weights[[rate in interval for interval in found]].sum())
    assert exactly == pytest.approx(covered, abs=0.01)
    assert 0.93 <= exactly <= (0.98 if n <= 50 else 0.97)
    assert not any(interval.doubtful for interval in found)


@pytest.mark.parametrize(("n", "highest"), [(10, 0.985), (20, 0.97), in_full(50, 0.97)])
@pytest.mark.parametrize("repeats", [3, in_full(5)])
def test_few_questions_with_repeats_cover_at_extreme_means(n: int, repeats: int, highest: float) -> None:
    """Means of 85 to 99% from 20 or 50 repeated questions: 93 to 97 in 100; from 10 questions, rather more."""
    rng = np.random.default_rng([n, repeats])
    truths = rng.uniform(0.85, 0.99, 4000)
    assert 0.93 <= coverage(fresh(rng, around(rng, truths, n, 4.0), repeats), truths) <= highest


def test_few_questions_with_partial_credit_cover() -> None:
    """Scores anywhere in [0, 1], 20 questions, one draw each: 93 to 97 in 100 hold the truth."""
    rng = np.random.default_rng(9)
    truths = rng.uniform(0.7, 0.95, 4000)
    assert 0.93 <= coverage(around(rng, truths, 20, 3.0)[..., None], truths) <= 0.97


def test_few_clusters_cover_at_extreme_means() -> None:
    """Passing rates of 80 to 95% in 20 clusters of 5 related questions: 93 to 97 in 100 hold the truth."""
    rng = np.random.default_rng(10)
    groups = np.repeat(np.arange(20), 5)
    truths = rng.uniform(0.8, 0.95, 4000)
    scores = fresh(rng, around(rng, truths, 20, 4.0)[:, groups], 2)
    assert 0.93 <= coverage(scores, truths, groups) <= 0.97


def test_no_failure_in_n_questions_covers() -> None:
    """When all passed, the interval still holds the truth 95 times in 100, for the lowest mean that passes so often."""
    truth = 0.05 ** (1 / 30)
    interval = mean_interval(table_of([[1.0] * 3] * 30))
    assert interval.low <= truth
    assert interval.low == pytest.approx(truth, abs=0.02)
