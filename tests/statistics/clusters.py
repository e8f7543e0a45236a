"""Clustered comparisons by the thousand: their p-values by sums over clusters, compared with the real ones on some.

`of_clusters` draws which cluster each question is in, and `differences` what the questions differ by.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dspy_cachectl.evaluation.growing import sizes_of_looks
from dspy_cachectl.statistics.looks import DECIDES_NOTHING, FEWEST_DEGREES, Bound, look_level
from dspy_cachectl.statistics.paired import compare_paired
from dspy_cachectl.statistics.verdicts import Verdict
from tests.statistics.tables import table_of

Floats = NDArray[np.float64]
Whole = NDArray[np.int_]
SETTLED = {Verdict.BETTER, Verdict.WORSE}


def of_clusters(rng: np.random.Generator, kind: str, trials: int, n: int, mean: int) -> Whole:
    """The cluster of each question in the order in which they are asked, shape (trials, n); the last one may be cut."""
    draw = {
        "equal": lambda: np.full((trials, n), mean),
        "geometric": lambda: rng.geometric(1 / mean, (trials, n)),
        "lognormal": lambda: np.maximum(1, np.round(rng.lognormal(np.log(mean) - 0.5, 1.0, (trials, n)))),
        "ones and large": lambda: rng.choice([1, 4 * mean + 1], (trials, n), p=[0.8, 0.2]),
    }[kind]
    ends = draw().astype(int).cumsum(axis=1)
    return np.array([np.searchsorted(row, np.arange(n), side="right") for row in ends])


def differences(rng: np.random.Generator, clusters: Whole, alike: float, *, binary: bool) -> Floats:
    """What two equal programs differ by, shape (trials, n): `alike` of the variance is the clusters'."""

    def scattered() -> Floats:
        shared = rng.standard_normal((len(clusters), int(clusters.max()) + 1))
        own = rng.standard_normal(clusters.shape)
        return np.sqrt(alike) * np.take_along_axis(shared, clusters, axis=1) + np.sqrt(1 - alike) * own

    if not binary:
        return scattered()
    difficulty = scattered()
    before, after = (difficulty + scattered() < 0.35 for _ in range(2))
    return after.astype(float) - before


def compared(
    values: Floats, clusters: Whole, levels: float | Floats = 0.95, *, checked: int = 4
) -> tuple[Floats, NDArray[Any]]:
    """The p-value of each trial, and whether it has a verdict at a level, which may be its own."""
    level = np.broadcast_to(levels, len(values))
    clusters = np.broadcast_to(clusters, values.shape)
    n, mean = values.shape[1], values.mean(1)
    apart = values - mean[:, None]
    per_cluster = functools.partial(_per_cluster, clusters)
    sizes, sums = per_cluster(None), per_cluster(apart)
    count = (sizes > 0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = _alike(sizes, sums, per_cluster(apart**2).sum(1), count, n)
        error = np.sqrt((sums**2 / (1 - sizes / n)).sum(1)) / n
        degrees = _degrees(sizes, n, np.zeros(len(values)))
        sure = np.minimum(degrees, _degrees(sizes, n, alike))
        p_values = 2 * stats.t.sf(np.abs(mean) / error, sure)
        skewed = (apart**3).mean(1) ** 2 > 0.04 * n * (apart**2).mean(1) ** 3
    equal = error <= 1e-12 * np.abs(values).max(1)
    p_values = np.where(equal, np.where(np.isclose(mean, 0), 1.0, 0.5**count), p_values)
    doubtful = ~equal & (skewed | (degrees < 5 - 1e-9) | ((values != 0).sum(1) < 10))
    # Where all clusters agree, the interval is that of the rule of three.
    reach = values.max(1, initial=0) - values.min(1, initial=0)
    holds_zero = equal & (np.abs(mean) <= -np.log1p(-level) / count * (np.abs(mean) + reach))
    found = (count > 1) & (p_values < 1 - level) & ~doubtful & ~holds_zero
    for trial in {*range(checked), *np.flatnonzero(found)[:checked].tolist()}:
        _check(values[trial], clusters[trial], float(level[trial]), float(p_values[trial]), verdict=bool(found[trial]))
    return p_values, found


def settled_share(values: Floats, clusters: Whole, bound: Bound) -> float:
    """The share of trials that had a verdict at any of the looks that `settle` takes."""
    n, ended = values.shape[1], np.zeros(len(values), dtype=bool)
    looks = np.array(sizes_of_looks(n, None))
    enough = np.stack([_of_sizes(clusters[:, :now]) >= FEWEST_DEGREES - 1e-9 for now in looks[:-1]], axis=1)
    takes = np.concatenate([enough, np.ones((len(values), 1), dtype=bool)], axis=1)
    ways, which = np.unique(takes, axis=0, return_inverse=True)
    for place, now in enumerate(looks):
        asked = [tuple(looks[: place + 1][way[: place + 1]].tolist()) if way[place] else () for way in ways]
        levels = np.array([_level(one, n, bound) for one in asked])
        ended |= compared(values[:, :now], clusters[:, :now], levels[which.ravel()])[1]
    return float(ended.mean())


@functools.cache
def _level(asked: tuple[int, ...], n: int, bound: Bound) -> float:
    return look_level(asked, n, bound=bound) if asked else DECIDES_NOTHING


def _of_sizes(clusters: Whole) -> Floats:
    """The degrees of freedom that clusters of such sizes leave."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(_degrees(_per_cluster(clusters), clusters.shape[1], np.zeros(len(clusters))))


def _per_cluster(clusters: Whole, values: Floats | None = None) -> Floats:
    """What values, or the number of them, come to in each cluster of each trial."""
    trials, most = len(clusters), int(clusters.max()) + 1
    places = (np.arange(trials)[:, None] * most + clusters).ravel()
    found = np.bincount(places, None if values is None else values.ravel(), trials * most)
    return found.reshape(trials, most).astype(float)


def _alike(sizes: Floats, sums: Floats, squares: Floats, count: Whole, n: int) -> Floats:
    """The correlation of a cluster's questions, by the one-way analysis of variance, within 0 and 0.999."""
    means = sums / np.maximum(sizes, 1)
    between = (sizes * means**2).sum(1) / (count - 1)
    within = (squares - (sizes * means**2).sum(1)) / (n - count)
    typical = (n - (sizes**2).sum(1) / n) / (count - 1)
    return np.clip(np.nan_to_num((between - within) / (between + (typical - 1) * within)), 0, 0.999)


def _degrees(sizes: Floats, n: int, alike: Floats) -> Floats:
    """Satterthwaite's degrees of freedom of CR2: 2 E^2 / Var of the sum over clusters of S_c^2 / (1 - w_c)."""
    shares = sizes / n
    weights = np.where(sizes > 0, 1 / (1 - shares), 0.0)
    total = sizes * (1 + (sizes - 1) * alike[:, None])  # the variance of a cluster's sum
    of_all = total.sum(1, keepdims=True)
    # cov(S_c, S_e) = [c = e] v_c - w_e v_c - w_c v_e + w_c w_e v, v the variance of the sum of all
    vv, vw, ww = ((weights * one).sum(1) for one in (total**2, total * shares, shares**2))
    beside = 2 * shares * total - shares**2 * of_all
    crossed = 2 * vv * ww + 2 * vw**2 + of_all[:, 0] ** 2 * ww**2 - 4 * of_all[:, 0] * vw * ww
    squared = crossed + (weights**2 * total * (total - 2 * beside)).sum(1)
    return np.asarray((weights * (total - beside)).sum(1) ** 2 / squared)


def _check(values: Floats, clusters: Whole, level: float, p_value: float, *, verdict: bool) -> None:
    zeros = table_of([0.0] * len(values), clusters=clusters.tolist())
    found = compare_paired(zeros, table_of(values.tolist(), clusters=clusters.tolist()), level=level)
    if found.error.units > 1:
        assert np.isclose(found.p_value, p_value, rtol=1e-6, atol=0), (found, p_value)
    assert (found.verdict in SETTLED) is verdict, (found, p_value)
