"""Evaluations made up from known truths, drawn all at once and seeded.

`intervals` is `mean_interval` for thousands of evaluations at a time. Every use of it compares it with the real
one on some of them, so that what is simulated is what is shipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dspy_cachectl.statistics.intervals import mean_interval, wilson_interval
from tests.statistics.tables import table_of

Floats = NDArray[np.float64]
CHECKED = 12


def in_full(*values: Any) -> Any:
    """A case of a simulation that only `make test-all` runs; another of its kind always runs."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


UNEQUAL = [
    np.repeat(np.arange(3), [2, 8, 40]),
    np.repeat(np.arange(20), np.maximum(1, 60 * 0.8 ** np.arange(20)).astype(int)),
    in_full(np.repeat(np.arange(20), [100] + [5] * 19)),
    in_full(np.repeat(np.arange(50), np.ceil(np.random.default_rng(1).lognormal(1.5, 1.0, 50)).astype(int))),
    in_full(np.repeat(np.arange(30), [1] * 25 + [40] * 5)),
]
"""The cluster of each question, for clusters of unequal size."""


def fresh(rng: np.random.Generator, difficulty: Floats, repeats: int) -> Floats:
    """0/1 scores, shape (trials, n, repeats), every repeat a draw of its own; `difficulty` is (trials, n)."""
    return (rng.random((*difficulty.shape, repeats)) < difficulty[..., None]).astype(float)


def replayed(rng: np.random.Generator, difficulty: Floats, repeats: int) -> Floats:
    """0/1 scores of the same shape, every repeat the first draw again."""
    return np.repeat(fresh(rng, difficulty, 1), repeats, axis=2)


def around(rng: np.random.Generator, truths: Floats, n: int, sharpness: float) -> Floats:
    """Difficulties, shape (trials, n), that scatter around each trial's truth."""
    shape = np.ones((len(truths), n))
    return rng.beta(sharpness * truths[:, None] * shape, sharpness * (1 - truths)[:, None] * shape)


def coverage(scores: Floats, truths: Floats | float, clusters: NDArray[Any] | None = None) -> float:
    """The share of evaluations whose 95% interval of the mean holds the truth."""
    low, high = intervals(scores, clusters)
    inside: float = np.mean((low <= truths) & (truths <= high))
    return float(inside)


def intervals(scores: Floats, clusters: NDArray[Any] | None = None) -> tuple[Floats, Floats]:
    """The ends of the 95% intervals of the mean, shape (trials,) each; `scores` is (trials, n, repeats)."""
    means = scores.mean(2)
    n, error = means.shape[1], stats.sem(means, axis=1)
    units, degrees = n, float(n - 1)
    if clusters is not None:
        units, degrees, error = clustered(means, clusters)
    mean, t = means.mean(1), stats.t.ppf(0.975, degrees)
    low, high = mean - t * error, mean + t * error
    if scores.min() >= 0 and scores.max() <= 1:
        low, high = _on_the_unit_scale(means, error, units, degrees)
    _check(scores, clusters, low, high, error)
    return low, high


def flagged(values: Floats) -> NDArray[np.bool_]:
    """Where few values, shape (trials, n), decide their mean."""
    apart = values - values.mean(1, keepdims=True)
    square, cube = (apart**2).mean(1), (apart**3).mean(1)
    return np.asarray(cube**2 > 0.04 * values.shape[1] * square**3)


def clustered(means: Floats, clusters: NDArray[Any]) -> tuple[int, float, Floats]:
    """CR2 and its degrees of freedom by their definition, with matrices (Pustejovsky & Tipton 2018, section 2)."""
    names, member = np.unique(clusters, return_inverse=True)
    n, units = len(member), len(names)
    apart = np.eye(n) - 1.0 / n
    residuals, directions = means @ apart, []
    for unit in range(units):
        rows = np.flatnonzero(member == unit)
        values, vectors = np.linalg.eigh(apart[np.ix_(rows, rows)])
        adjusted = vectors @ np.diag(values**-0.5) @ vectors.T @ np.full(len(rows), 1.0 / n)
        directions.append(np.zeros(n))
        directions[-1][rows] = adjusted
    parts = residuals @ np.array(directions).T
    spread = np.array(directions) @ apart @ np.array(directions).T
    return units, float(np.trace(spread) ** 2 / (spread**2).sum()), np.sqrt((parts**2).sum(1))


def _on_the_unit_scale(means: Floats, error: Floats, units: int, degrees: float) -> tuple[Floats, Floats]:
    n, t, mean = means.shape[1], stats.t.ppf(0.975, degrees), means.mean(1)
    low, high = mean - t * error, mean + t * error
    doubtful = flagged(means) | (units < 100) | (degrees < 5)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = mean * (1 - mean) / error**2
        centre = (mean + t**2 / 2 / effective) / (1 + t**2 / effective)
        half = t * np.sqrt(error**2 + (t / 2 / effective) ** 2) / (1 + t**2 / effective)
    low, high = np.where(doubtful, centre - half, low), np.where(doubtful, centre + half, high)
    equal, share = error < 1e-12, -np.log(0.05) / units
    low, high = np.where(equal, mean - share * mean, low), np.where(equal, mean + share * (1 - mean), high)
    if units == n:
        passes = [wilson_interval(passed, n) for passed in range(n + 1)]
        binary, found = ((means == 0) | (means == 1)).all(1), np.round(means.sum(1)).astype(int)
        low = np.where(binary, np.array([one.low for one in passes])[found], low)
        high = np.where(binary, np.array([one.high for one in passes])[found], high)
    return low, high


def _check(scores: Floats, clusters: NDArray[Any] | None, low: Floats, high: Floats, error: Floats) -> None:
    chosen = [*range(CHECKED), *np.flatnonzero(error < 1e-12)[:3].tolist()]
    groups = None if clusters is None else clusters.tolist()
    for trial in chosen:
        found = mean_interval(table_of(scores[trial].tolist(), clusters=groups))
        assert (found.low, found.high) == pytest.approx((low[trial], high[trial]), abs=1e-9), found
