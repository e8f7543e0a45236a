"""Intervals and standard errors: agreement with scipy and statsmodels, and what holds for any scores."""

from __future__ import annotations

import math
from statistics import median

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.bootstrap import bootstrap_interval
from dspy_cachectl.statistics.intervals import (
    effective_wilson_interval,
    equal_scores_interval,
    mean_interval,
    rule_of_three,
    t_interval,
    wilson_interval,
)
from dspy_cachectl.statistics.scores import QuestionScores
from dspy_cachectl.statistics.variance import StandardError, standard_error
from tests.statistics.tables import table_of

unit_scores = st.lists(
    st.lists(st.integers(0, 8).map(lambda eighths: eighths / 8), min_size=1, max_size=4), min_size=2, max_size=30
)


def scores_of(rng: np.random.Generator, n: int, repeats: int) -> list[list[float]]:
    return rng.beta(2, 1, (n, repeats)).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_t_interval_is_scipys(level: float) -> None:
    """The interval of a mean is scipy's t interval of the questions' means."""
    table = table_of(scores_of(np.random.default_rng(1), 150, 3))
    low, high = stats.t.interval(level, 149, loc=np.mean(table.means), scale=stats.sem(table.means))
    interval = mean_interval(table, level=level)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-10)
    assert (interval.method, interval.caveats) == ("t(149)", ())


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 20), (12, 20), (97, 100), (300, 300), (1, 1)])
def test_the_wilson_interval_is_statsmodels(successes: int, n: int) -> None:
    """0/1 scores with one draw each get statsmodels' Wilson interval, at the ends of the scale too."""
    low, high = proportion_confint(successes, n, alpha=0.1, method="wilson")
    interval = mean_interval(table_of([1] * successes + [0] * (n - successes)), level=0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
    assert (interval.method, interval.caveats) == ("Wilson", ())


def test_the_clustered_error_is_statsmodels() -> None:
    """The clustered standard error and its interval are statsmodels' for a regression on a constant."""
    rng = np.random.default_rng(2)
    groups = rng.permutation(np.repeat(np.arange(25), 6))
    scores = rng.normal(rng.normal(size=25)[groups] + 3, 1)
    fit = OLS(scores, np.ones(150)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    table = table_of(scores.tolist(), clusters=groups.tolist())
    error = standard_error(table)
    assert error.value == pytest.approx(float(fit.bse[0]), rel=1e-10)
    interval = mean_interval(table)
    assert (interval.low, interval.high) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-9)
    assert interval.method == "cluster-robust t(24)"
    assert error.design_effect == pytest.approx((error.value / stats.sem(scores)) ** 2)


def test_the_clustered_error_is_unbiased_for_independent_questions() -> None:
    """Clusters of 1, 3, 12 and 40 that share nothing: its square is right on average, and its t has few degrees."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(4), [1, 3, 12, 40])
    scores = rng.normal(size=(2000, 56))
    found = [standard_error(table_of(row, clusters=groups.tolist())) for row in scores.tolist()]
    assert float(np.mean([error.value**2 for error in found])) == pytest.approx(1 / 56, rel=0.06)
    shares = np.array([1, 3, 12, 40]) / 56
    crossed = np.outer(shares**2 / (1 - shares), shares**2 / (1 - shares))
    expected = 1 / ((shares**2).sum() + crossed.sum() - np.trace(crossed))
    assert found[0].degrees == pytest.approx(expected, rel=1e-12)
    assert 1.0 < expected < 2.0


def test_clusters_of_one_are_no_clusters() -> None:
    """With every question a cluster of its own, clustering changes nothing."""
    scores = scores_of(np.random.default_rng(4), 120, 2)
    clustered, plain = table_of(scores, clusters=list(range(120))), table_of(scores)
    assert standard_error(clustered).value == pytest.approx(standard_error(plain).value)
    assert standard_error(clustered).design_effect == pytest.approx(1.0)
    assert mean_interval(clustered).low == pytest.approx(mean_interval(plain).low)


def test_repeats_that_are_replays_change_nothing() -> None:
    """Every draw listed five times gives the standard error that it gives once."""
    scores = [1.0, 0.0, 0.25, 1.0, 0.5]
    once, five_times = table_of(scores), table_of([[score] * 5 for score in scores])
    assert standard_error(once) == standard_error(five_times)


def test_the_rule_of_three() -> None:
    """At 95% the bound is 3/n to a quarter of a percent, never below the exact one, and at most 1."""
    assert rule_of_three(300) == pytest.approx(3 / 300, rel=0.0025)
    assert rule_of_three(300) >= 1 - 0.05 ** (1 / 300)
    assert rule_of_three(2) == 1.0


def test_all_passed_with_repeats_leaves_room_for_failures() -> None:
    """Every question passed five times: the five are as good as one, and the interval is Wilson's of 60 passes."""
    assert mean_interval(table_of([[1] * 5] * 60)) == wilson_interval(60, 60)


@pytest.mark.parametrize("scale", [(0.0, 100.0), (-1.0, 1.0), (0.0, 5.0), (-3.0, 0.0)])
@pytest.mark.parametrize("repeats", [1, 2])
def test_passed_and_failed_are_what_they_are_on_any_scale(scale: tuple[float, float], repeats: int) -> None:
    """0 and 100, or -1 and 1, or 0 and 5: the interval of 0 and 1, stretched, with its caveats."""
    low, high = scale
    passes = (np.random.default_rng(3).random((30, repeats)) < 0.9).astype(float)
    plain = mean_interval(table_of(passes.tolist()))
    found = mean_interval(table_of((low + (high - low) * passes).tolist()))
    assert (found.low, found.high) == pytest.approx((low + (high - low) * plain.low, low + (high - low) * plain.high))
    assert (found.method, found.caveats) == (plain.method, plain.caveats)
    assert found.high <= high


def test_equal_scores_leave_room_on_both_sides() -> None:
    """All questions at 0.7: at most 3/n of the others are at 0, or at 1."""
    interval = mean_interval(table_of([0.7] * 100))
    share = rule_of_three(100)
    assert (interval.low, interval.high) == pytest.approx((0.7 - 0.7 * share, 0.7 + 0.3 * share))


def test_equal_scores_on_an_unknown_scale_bound_nothing() -> None:
    """All questions at 4.0, of who knows how much: no interval is made up."""
    interval = mean_interval(table_of([4.0] * 50))
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert "the range of the scores is not known" in interval.caveats[-1]


@pytest.mark.parametrize("clusters", [None, ["a"]])
def test_one_question_says_so(clusters: list[str] | None) -> None:
    """One question has no spread: the error is unknown and the interval the whole scale."""
    table = table_of([[0.5, 1.0]], clusters=clusters)
    assert standard_error(table).value == math.inf
    interval = mean_interval(table)
    assert (interval.low, interval.high) == (0.0, 1.0)
    assert "says nothing of the spread" in interval.caveats[0]


def test_one_cluster_says_so() -> None:
    """Many questions in one cluster are one unit, and bound nothing but the scale seen."""
    table = table_of([0.5, 1.0, 3.0], clusters=["a", "a", "a"])
    assert standard_error(table).value == math.inf
    interval = mean_interval(table)
    assert (interval.low, interval.high) == pytest.approx((0.5, 3.0))


def test_few_questions_are_flagged() -> None:
    """Below about 100 questions an interval other than Wilson's own carries a caveat."""
    scores = scores_of(np.random.default_rng(5), 99, 3)
    assert "99 questions are few" in mean_interval(table_of(scores)).caveats[0]
    assert mean_interval(table_of([*scores, [0.5, 0.6, 0.7]])).caveats == ()


def test_a_mean_at_the_end_of_the_scale_is_flagged() -> None:
    """Five questions of 200 decide the mean: a caveat, and the interval stays on the scale."""
    table = table_of([[1, 1, 1]] * 195 + [[1, 1, 0]] * 5)
    interval = mean_interval(table)
    assert "few questions far from the others decide the mean" in interval.caveats[0]
    assert interval.method.startswith("Wilson, effective n")
    assert interval.high < 1.0
    assert interval.doubtful


def test_few_questions_in_the_middle_of_the_scale_have_one_caveat() -> None:
    """40 questions with a mean near 0.6: few, and nothing else."""
    scores = scores_of(np.random.default_rng(2), 40, 3)
    interval = mean_interval(table_of(scores))
    assert len(interval.caveats) == 1
    assert not interval.doubtful


def test_clusters_that_dominate_are_flagged() -> None:
    """Two clusters of 80 among eight of 4 are worth less than five degrees of freedom; ten equal ones are not few."""
    scores = scores_of(np.random.default_rng(6), 192, 1)
    dominated = table_of(scores, clusters=[0] * 80 + [1] * 80 + [2 + i // 4 for i in range(32)])
    equal = table_of(scores[:190], clusters=[i % 10 for i in range(190)])
    assert any("10 clusters of these sizes are worth" in caveat for caveat in mean_interval(dominated).caveats)
    assert mean_interval(equal).caveats == ()


def test_effective_wilson_is_wilson_for_coin_flips() -> None:
    """With the standard error of plain coin flips and many questions it is Wilson's interval."""
    p, n = 0.9, 100_000
    error = StandardError(value=math.sqrt(p * (1 - p) / n), independent=0.0, units=n, degrees=n - 1)
    found, expected = effective_wilson_interval(p, error), wilson_interval(90_000, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_the_bootstrap_is_seeded_and_agrees_with_t_for_a_mean() -> None:
    """The same seed gives the same interval, and that of a mean is close to the t interval."""
    table = table_of(scores_of(np.random.default_rng(7), 200, 3))

    def mean(rows: list[QuestionScores]) -> float:
        return sum(row.mean for row in rows) / len(rows)

    first, again = (bootstrap_interval(table, mean, seed=11) for _ in range(2))  # type: ignore[arg-type]
    assert first == again
    assert (first.method, first.caveats) == ("percentile bootstrap by question, 2,000 resamples, seed 11", ())
    expected = mean_interval(table)
    assert (first.low, first.high) == pytest.approx((expected.low, expected.high), abs=0.1 * expected.width)


def test_the_bootstrap_draws_whole_clusters() -> None:
    """Resampling by cluster gives the wider interval that the clusters ask for, and flags few of them."""
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(40), 10)
    scores = (rng.normal(size=40)[groups] + rng.normal(scale=0.3, size=400)).tolist()

    def middle(rows: list[QuestionScores]) -> float:
        return median(row.mean for row in rows)

    plain = bootstrap_interval(table_of(scores), middle)  # type: ignore[arg-type]
    clustered = bootstrap_interval(table_of(scores, clusters=groups.tolist()), middle)  # type: ignore[arg-type]
    assert clustered.width > 2 * plain.width
    assert clustered.method.startswith("percentile bootstrap by cluster")
    assert "40 clusters are few" in clustered.caveats[0]


def test_bad_arguments_are_refused() -> None:
    """Levels that are no probabilities and too few resamples are errors that say so."""
    table = table_of([0.0, 1.0])
    for level in (0.0, 1.0, 95, math.nan):
        with pytest.raises(ConfigurationError, match="level must lie between 0 and 1"):
            mean_interval(table, level=level)
    with pytest.raises(ConfigurationError, match="use at least 2000"):
        bootstrap_interval(table, len, resamples=1999)
    with pytest.raises(ConfigurationError, match="at least two questions"):
        bootstrap_interval(table_of([1.0]), len)


@given(unit_scores)
def test_an_interval_holds_the_mean_and_stays_near_the_scale(scores: list[list[float]]) -> None:
    """The interval of scores in [0, 1] contains the mean, and with few questions it stays in [0, 1]."""
    table = table_of(scores)
    interval = mean_interval(table)
    assert interval.low <= table.mean + 1e-12
    assert table.mean - 1e-12 <= interval.high
    assert interval.low >= 0.0
    assert interval.high <= 1.0


@given(unit_scores)
def test_an_interval_of_failures_mirrors_that_of_successes(scores: list[list[float]]) -> None:
    """Turning every score s into 1 - s turns the interval round."""
    found = mean_interval(table_of(scores))
    mirrored = mean_interval(table_of([[1 - score for score in row] for row in scores]))
    assert (1 - found.high, 1 - found.low) == pytest.approx((mirrored.low, mirrored.high), abs=1e-9)


@given(unit_scores, st.floats(2, 1000), st.floats(-100, -2))
def test_an_interval_moves_and_stretches_with_the_scale(scores: list[list[float]], scale: float, shift: float) -> None:
    """The t interval of a + b*s is a + b times that of s, and the error b times its."""
    table, moved = table_of(scores), table_of([[shift + scale * s for s in row] for row in scores])
    error, stretched = standard_error(table), standard_error(moved)
    assert stretched.value == pytest.approx(scale * error.value, rel=1e-6, abs=1e-9)
    found, expected = t_interval(moved.mean, stretched), t_interval(table.mean, error)
    assert found.low == pytest.approx(shift + scale * expected.low, rel=1e-6, abs=1e-6)


@given(unit_scores, st.floats(0.5, 0.98))
def test_a_higher_level_is_a_wider_interval(scores: list[list[float]], level: float) -> None:
    """More confidence never makes the interval narrower."""
    table = table_of(scores)
    narrow, wide = mean_interval(table, level=level), mean_interval(table, level=level + 0.01)
    assert wide.low <= narrow.low + 1e-12
    assert narrow.high <= wide.high + 1e-12


@given(unit_scores, st.randoms(use_true_random=False))
def test_the_order_of_questions_does_not_matter(scores: list[list[float]], random: object) -> None:
    """Shuffled questions give the same interval to the last bits."""
    shuffled = list(scores)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found, expected = mean_interval(table_of(shuffled)), mean_interval(table_of(scores))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.floats(0, 1), st.integers(1, 500))
def test_equal_scores_stay_on_the_scale(score: float, n: int) -> None:
    """The interval of n equal scores contains the score and stays in [0, 1]."""
    interval = equal_scores_interval(score, n, (0.0, 1.0))
    assert -1e-12 <= interval.low <= score <= interval.high <= 1.0 + 1e-12
