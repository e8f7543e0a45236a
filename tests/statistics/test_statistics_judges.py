"""Agreement of those who judge, and scores that a few labels correct."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.agreement import cohen_kappa, krippendorff_alpha
from dspy_cachectl.statistics.corrected import corrected_mean
from dspy_cachectl.statistics.quantiles import two_sided_t
from dspy_cachectl.statistics.variance import standard_error_of
from tests.statistics.simulate import Floats, in_full

OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [[value for value in unit if value is not None] for unit in zip(*OBSERVERS, strict=True)]
"""The example of Krippendorff (2011), section C: four observers, twelve units, values missing."""


@pytest.mark.parametrize(("kind", "expected"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_is_that_of_its_source(kind: str, expected: float) -> None:
    """To its three digits; the order of values, a shift and a scale change nothing."""
    found = krippendorff_alpha(UNITS, kind=kind)
    assert (expected, 11) == (round(found.value, 3), found.units)
    assert found.low < found.value < found.high <= 1.0
    moved = [[1e6 + 10 * value for value in reversed(unit)] for unit in UNITS]
    assert found.value == pytest.approx(krippendorff_alpha(moved, kind=kind).value, abs=1e-9)


def test_alpha_where_all_agree_and_where_there_is_nothing_to_agree_on() -> None:
    """1 where all agree, not a number where all values are one, and an error where nothing was judged twice."""
    assert 1.0 == krippendorff_alpha([[0, 0], [1, 1], [0, 0, 0]]).value
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]).value)
    assert math.isnan(cohen_kappa([(1.0, 1.0)] * 5).value)
    for call in (
        lambda: krippendorff_alpha([[1], []]),
        lambda: krippendorff_alpha(UNITS, kind="x"),
        lambda: cohen_kappa([]),
    ):
        with pytest.raises(ConfigurationError):
            call()


@pytest.mark.parametrize("kind", ["nominal", pytest.param("interval", marks=pytest.mark.exhaustive)])
def test_alpha_is_about_0_where_judges_know_nothing(kind: str) -> None:
    """And its interval holds what a large sample says, in nine of ten samples at least."""
    rng = np.random.default_rng(0)
    assert 0.0 == pytest.approx(krippendorff_alpha(rng.integers(0, 3, (3000, 3)).tolist(), kind=kind).value, abs=0.03)

    def judged(n: int) -> list[list[float]]:
        truth = rng.integers(0, 4, n)
        return [[float(t if rng.random() < 0.7 else rng.integers(0, 4)) for _ in range(3)] for t in truth]

    true = krippendorff_alpha(judged(4_000), kind=kind).value
    found = [krippendorff_alpha(judged(60), kind=kind, seed=seed) for seed in range(40)]
    assert sum(one.low <= true <= one.high for one in found) >= 35


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_statsmodels(seed: int) -> None:
    """Value and interval, to 1e-9."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 30, (3, 3)) + np.diag([40, 20, 10])
    pairs = [(float(i), float(j)) for i in range(3) for j in range(3) for _ in range(table[i, j])]
    expected = cohens_kappa(table)
    found = cohen_kappa(pairs)
    assert found.value == pytest.approx(expected.kappa, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((expected.kappa_low, expected.kappa_upp), abs=1e-9)


def judged(rng: np.random.Generator, passing: float, right: float, n: int) -> tuple[Floats, Floats]:
    """What people would say of n answers, and what a judge says that is right so often."""
    truth = (rng.random(n) < passing).astype(float)
    return truth, np.where(rng.random(n) < right, truth, 1 - truth)


def of_a_few(truth: Floats, labelled: int) -> list[float | None]:
    """The labels of the first so many."""
    return [float(one) if place < labelled else None for place, one in enumerate(truth)]


@pytest.mark.parametrize(
    ("passing", "trials"),
    [(0.7, 1200), *(in_full(passing, 10_000) for passing in (0.5, 0.6, 0.7, 0.8, 0.9))],
)
def test_a_corrected_score_covers_and_is_narrower_than_the_labels(passing: float, trials: int) -> None:
    """A judge that is right in 80%, 50 labels of 1,000: 93 to 97% hold the truth. The judge alone is far from it."""
    rng = np.random.default_rng([round(100 * passing), 1])
    covered = narrower = 0
    widths, alone, judges = [], [], []
    for _ in range(trials):
        truth, scores = judged(rng, passing, 0.8, 1000)
        found = corrected_mean(scores.tolist(), of_a_few(truth, 50))
        covered += passing in found.interval
        narrower += found.interval.width < found.labels_interval.width
        widths.append(found.interval.width)
        alone.append(found.labels_interval.width)
        judges.append(found.judge)
    assert 0.93 <= covered / trials <= 0.97
    assert np.mean(widths) < np.mean(alone)
    assert narrower / trials > (0.9 if passing < 0.85 else 0.6)
    assert np.mean(judges) == pytest.approx(0.2 + 0.6 * passing, abs=0.005)


@pytest.mark.parametrize(
    ("passing", "right"), [(0.9, 0.95), *(in_full(*row) for row in ((0.5, 0.99), (0.7, 0.95), (0.9, 0.6), (0.7, 0.5)))]
)
def test_it_covers_with_a_good_judge_and_with_a_useless_one(passing: float, right: float) -> None:
    """A judge that errs once in 50 is not taken for one that never does; one that guesses counts for nothing."""
    rng = np.random.default_rng([round(100 * passing), round(100 * right)])
    trials, found = 800, []
    for _ in range(trials):
        truth, scores = judged(rng, passing, right, 1000)
        found.append(corrected_mean(scores.tolist(), of_a_few(truth, 50)))
    assert np.mean([passing in one.interval for one in found]) >= 0.93
    if right == 0.5:
        assert np.mean([one.weight for one in found]) < 0.15


def test_it_covers_on_a_scale_of_its_own() -> None:
    """Scores from 1 to 5, a judge that is too kind by one: the correction takes that back."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(600):
        truth = np.clip(np.round(rng.normal(3, 1, 500)), 1, 5)
        scores = np.clip(truth + rng.integers(0, 3, 500), 1, 6)
        found = corrected_mean(scores.tolist(), of_a_few(truth, 60))
        covered += 3.0 in found.interval
    assert 0.93 <= covered / 600 <= 0.97


def clustered(rng: np.random.Generator, clusters: int, size: int, right: float) -> tuple[Floats, Floats, list[int]]:
    """What people and a judge say of answers of which 70% pass, correlated by 0.5 within a cluster."""
    group = np.repeat(np.arange(clusters), size)
    of_group, own = rng.random(clusters) < 0.7, rng.random(len(group)) < 0.7
    truth = np.where(rng.random(len(group)) < math.sqrt(0.5), of_group[group], own).astype(float)
    return truth, np.where(rng.random(len(group)) < right, truth, 1.0 - truth), group.tolist()


@pytest.mark.parametrize(
    ("clusters", "size", "labelled", "trials", "ignored"),
    [
        (40, 5, 100, 200, 0.87),
        *(in_full(*row) for row in [(200, 5, 50, 2000, 0.95), (200, 5, 200, 1000, 0.92), (20, 5, 50, 4000, 0.88)]),
        in_full(10, 50, 100, 2000, 0.6),
    ],
)
def test_it_covers_with_clusters(clusters: int, size: int, labelled: int, trials: int, ignored: float) -> None:
    """Of 5 questions with a correlation of 0.5, and of 50: as though they were independent it covers less."""
    rng = np.random.default_rng([clusters, size, labelled])
    covered = as_independent = narrower = 0
    for _ in range(trials):
        truth, scores, groups = clustered(rng, clusters, size, 0.8)
        some = set(rng.permutation(len(truth))[:labelled].tolist())
        labels = [float(one) if place in some else None for place, one in enumerate(truth)]
        found = corrected_mean(scores.tolist(), labels, clusters=groups)
        covered += 0.7 in found.interval
        narrower += found.interval.width < found.labels_interval.width
        as_independent += 0.7 in corrected_mean(scores.tolist(), labels).interval
    assert 0.925 <= covered / trials <= 0.975
    assert as_independent / trials < ignored
    assert narrower / trials > 0.5 or clusters < 40


def test_clusters_by_hand() -> None:
    """CR2 of a regression on who has a label, by its definition with matrices; and each its own is none at all."""
    rng = np.random.default_rng(2)
    n, labelled = 60, 25
    groups = rng.integers(0, 12, n)
    labels = rng.normal(0, 1, n) + rng.normal(0, 1, 12)[groups]
    scores = labels + rng.normal(0, 1, n)
    found = corrected_mean(scores.tolist(), of_a_few(labels, labelled), clusters=groups.tolist())
    has = np.arange(n) < labelled
    values = np.where(has, labels - found.weight * scores, found.weight * scores)
    x = np.column_stack([has, ~has]).astype(float)
    hat = x @ np.linalg.inv(x.T @ x) @ x.T
    degrees = standard_error_of(values[:labelled].tolist(), groups[:labelled].tolist()).degrees
    residuals = (values - hat @ values) * np.where(has, math.sqrt(degrees / (degrees - 1)), 1.0)
    squares = 0.0
    for group in range(12):
        rows = np.flatnonzero(groups == group)
        roots, vectors = np.linalg.eigh(np.eye(len(rows)) - hat[np.ix_(rows, rows)])
        adjusted = vectors @ np.diag(np.where(roots > 1e-12, roots, np.inf) ** -0.5) @ vectors.T @ residuals[rows]
        squares += (np.linalg.inv(x.T @ x) @ x[rows].T @ adjusted).sum() ** 2
    assert math.sqrt(squares) == pytest.approx(found.error)
    assert found.interval.width == pytest.approx(2 * two_sided_t(0.95, degrees - 1) * found.error)
    assert 12 == found.clusters
    alone, apart = (corrected_mean(scores.tolist(), of_a_few(labels, 25), clusters=one) for one in (None, range(n)))
    assert (alone.mean, alone.error, alone.labels_interval.width) == pytest.approx(
        (apart.mean, apart.error, apart.labels_interval.width)
    )


def test_few_clusters_are_said_to_be_few() -> None:
    """A few decide nothing; of one nothing is known; where all labels are in one, the judge has no weight."""
    rng = np.random.default_rng(3)
    truth, scores, _ = clustered(rng, 20, 5, 0.8)
    few = corrected_mean(scores.tolist(), of_a_few(truth, 50), clusters=[place % 4 for place in range(100)])
    assert few.interval.doubtful
    assert any("4 clusters of these sizes are worth" in one for one in few.interval.caveats)
    one = corrected_mean(scores.tolist(), of_a_few(truth, 50), clusters=[int(place >= 50) for place in range(100)])
    assert (0.0, one.labels_interval) == (one.weight, one.interval)
    assert any("one cluster" in said for said in one.interval.caveats)
    pairs = list(zip(truth.tolist(), scores.tolist(), strict=True))
    assert math.isnan(cohen_kappa(pairs, clusters=[0] * 100).low)
    assert math.isnan(krippendorff_alpha(pairs, clusters=[0] * 100).low)
    twice = [place // 2 for place in range(200)]  # the same again is no news
    for agreement in (cohen_kappa, krippendorff_alpha):
        found = agreement([one for pair in pairs for one in (pair, pair)], clusters=twice)
        assert found.low == pytest.approx(agreement(pairs).low, abs=0.02)


@pytest.mark.exhaustive
def test_agreement_covers_with_clusters() -> None:
    """A judge that is wrong by the passage: kappa and alpha are in their intervals, as if independent too rarely."""
    rng, held = np.random.default_rng(4), dict.fromkeys(("kappa", "alpha", "independent"), 0)
    true = cohen_kappa(list(zip(*by_passage(rng, 20_000), strict=True))).value
    trials = 1000
    for _ in range(trials):
        pairs = list(zip(*by_passage(rng, 40), strict=True))
        groups = [place // 5 for place in range(200)]
        found = {
            "kappa": cohen_kappa(pairs, clusters=groups),
            "alpha": krippendorff_alpha(pairs, clusters=groups),
            "independent": cohen_kappa(pairs),
        }
        for name, one in found.items():
            held[name] += one.low <= true <= one.high
    assert min(held["kappa"], held["alpha"]) / trials >= 0.92
    assert held["independent"] / trials < 0.8


def by_passage(rng: np.random.Generator, clusters: int) -> tuple[list[float], list[float]]:
    """What people say of five answers to each passage, and a judge that is right in all of them in 80%, or guesses."""
    truth = (rng.random((clusters, 5)) < 0.5).astype(float)
    guessed = (rng.random((clusters, 5)) < 0.5).astype(float)
    knows = rng.random((clusters, 1)) < 0.6
    return truth.ravel().tolist(), np.where(knows, truth, guessed).ravel().tolist()


def test_by_hand() -> None:
    """Twelve labels of twenty, against the formulas written out with numpy."""
    rng = np.random.default_rng(5)
    labels, scores = rng.normal(0, 1, 20), rng.normal(0, 1, 20)
    scores = 2.0 * labels + scores
    found = corrected_mean(scores.tolist(), of_a_few(labels, 12))
    y, f, u = labels[:12], scores[:12], scores[12:]
    weight = np.cov(y, f)[0, 1] / ((1 + 12 / 8) * scores.var(ddof=1))
    assert weight == pytest.approx(found.weight)
    assert np.mean(y - weight * f) + weight * u.mean() == pytest.approx(found.mean)
    residual = y - weight * f
    error = math.sqrt(((residual - residual.mean()) ** 2).sum() / 10 / 12 + weight**2 * u.var(ddof=1) / 8)
    assert error == pytest.approx(found.error)
    assert 2 * two_sided_t(0.95, 10) * error == pytest.approx(found.interval.width)
    assert stats.t.ppf(0.975, 10) == pytest.approx(two_sided_t(0.95, 10))


def test_what_cannot_be_corrected_is_as_the_labels_say() -> None:
    """All labelled, a judge that says one thing, labels that are all alike; and too few of them are an error."""
    labels = [1.0, 0.0, 1.0] * 10
    whole = corrected_mean([1.0] * 30, [*labels])
    assert (whole.labels, 0.0, whole.labels_interval) == (whole.mean, whole.weight, whole.interval)
    constant = corrected_mean([1.0] * 60, [*labels, *[None] * 30])
    assert (pytest.approx(2 / 3), 0.0) == (constant.mean, constant.weight)
    alike = corrected_mean([1.0, 0.0] * 30, [*[1.0] * 30, *[None] * 30])
    assert alike.interval.doubtful or alike.interval == alike.labels_interval
    with pytest.raises(ConfigurationError, match="9 labels are too few"):
        corrected_mean([1.0] * 30, [*labels[:9], *[None] * 21])


def test_few_labels_are_said_to_be_few() -> None:
    """And so are few of a kind, on which no verdict should rest."""
    scores = [float(place % 3 != 0) for place in range(100)]
    few = corrected_mean(scores, [*scores[:20], *[None] * 80])
    assert any("20 labels are few" in one for one in few.interval.caveats)
    rare = corrected_mean(scores, [*[1.0] * 48, 0.0, 0.0, *[None] * 50])
    assert rare.interval.doubtful
    assert any("only 2 of 50 labels are of the rarer kind" in one for one in rare.interval.caveats)
