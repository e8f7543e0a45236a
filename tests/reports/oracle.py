"""What the figures of a report and of a comparison must be: from numpy, scipy and statsmodels, by their definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special, stats

mcnemar = pytest.importorskip("statsmodels.stats.contingency_tables").mcnemar
proportion_confint = pytest.importorskip("statsmodels.stats.proportion").proportion_confint

Rows = dict[str, list[float]]
Groups = dict[str, str] | None
Figures = dict[str, Any]
EQUAL = 1e-12
FEW_SHARED = 8


def ends_of(*tables: Rows) -> tuple[float, float]:
    """The scale: 0 to 1 where it holds all scores, else the lowest and the highest."""
    scores = np.concatenate([row for table in tables for row in table.values()])
    return (0.0, 1.0) if scores.min() >= 0 and scores.max() <= 1 else (float(scores.min()), float(scores.max()))


def is_passed_or_failed(values: NDArray[Any], ends: tuple[float, float]) -> bool:
    """Whether there are two scores only, and the scale says which is which."""
    low, high = ends
    return low < high and (low == 0 or high == 0 or low == -high) and bool(np.isin(values, ends).all())


def standard_error(values: NDArray[Any], groups: Sequence[str] | None) -> Figures:
    """scipy's standard error; with groups CR2 and Satterthwaite's degrees of freedom, by matrices."""
    n, scale = len(values), float(np.abs(values).max())
    independent = float(stats.sem(values)) if n > 1 else math.inf
    independent = 0.0 if independent <= EQUAL * scale else independent
    found = {"value": independent, "independent": independent, "units": n, "degrees": n - 1}
    if groups is None:
        return {**found, "clusters": None, "design_effect": None}
    names = sorted(set(groups))
    found |= {"units": len(names), "clusters": len(names), "design_effect": None}
    if len(names) < 2:
        return found | {"value": math.inf, "degrees": 0}
    apart = np.eye(n) - 1.0 / n
    directions = np.zeros((len(names), n))
    for number, name in enumerate(names):
        rows = np.flatnonzero(np.array(groups) == name)
        spread, vectors = np.linalg.eigh(apart[np.ix_(rows, rows)])
        directions[number, rows] = vectors @ np.diag(spread**-0.5) @ vectors.T @ np.full(len(rows), 1.0 / n)
    value = float(np.linalg.norm(directions @ (values - values.mean())))
    value = 0.0 if value <= EQUAL * scale else value
    alike = np.array(groups)[:, None] == np.array(groups)[None, :]
    correlated = np.eye(n) + _odds_of_correlation(values, np.array(groups)) * alike
    found |= {
        "value": value,
        "degrees": _satterthwaite(directions @ apart @ directions.T),
        "shared": _satterthwaite(directions @ apart @ correlated @ apart @ directions.T),
    }
    if value and 0 < independent < math.inf:
        found["design_effect"] = (value / independent) ** 2
    return found


def _satterthwaite(working: NDArray[Any]) -> float:
    return float(np.trace(working) ** 2 / (working**2).sum())


def _odds_of_correlation(values: NDArray[Any], groups: NDArray[Any]) -> float:
    """rho / (1 - rho) by the one-way analysis of variance; 0 where each question is a cluster, or all are equal."""
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n, count = len(values), len(names)
    if n == count:
        return 0.0
    means = np.bincount(members, values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (count - 1)
    within = float(((values - means[members]) ** 2).sum()) / (n - count)
    typical = (n - (sizes**2).sum() / n) / (count - 1)
    whole = between + (typical - 1) * within
    rho = float(np.clip((between - within) / whole, 0.0, 0.999)) if whole > 0 else 0.0
    return rho / (1 - rho)


def equal_interval(mean: float, units: int, ends: tuple[float, float], level: float) -> tuple[float, float]:
    """The rule of three: a share that n in a row show with probability 1 - level scores at an end of the scale."""
    share = min(1.0, -math.log(1 - level) / units)
    if ends[0] == ends[1]:
        return -math.inf, math.inf
    return mean - share * (mean - ends[0]), mean + share * (ends[1] - mean)


def doubts(values: NDArray[Any], error: Figures) -> tuple[bool, bool]:
    """Whether there are few questions, and whether their scores show that the interval is too short."""
    is_varied = bool(np.ptp(values) > EQUAL * np.abs(values).max())
    skewed = is_varied and float(stats.skew(values)) ** 2 > 0.04 * len(values)
    return len(values) < 100, skewed or (error["clusters"] is not None and error["degrees"] < 5)


def mean_interval(table: Rows, groups: Sequence[str] | None, level: float) -> tuple[float, float, str]:
    """The ends of the interval of a score, and the beginning of its method."""
    values = np.array([np.mean(row) for row in table.values()])
    ends, error = ends_of(table), standard_error(values, groups)
    size = ends[1] - ends[0]
    if groups is None and is_passed_or_failed(values, ends):
        low, high = proportion_confint(int((values == ends[1]).sum()), len(values), alpha=1 - level, method="wilson")
        return ends[0] + size * low, ends[0] + size * high, "Wilson"
    if error["units"] < 2 or error["value"] == 0:
        return (*equal_interval(float(values.mean()), error["units"], ends, level), "rule of three")
    scores = np.concatenate(list(table.values()))
    on_scale = ends == (0.0, 1.0) or is_passed_or_failed(scores, ends)
    if on_scale and (any(doubts(values, error)) or error["units"] < 100):
        share, spread = (values.mean() - ends[0]) / size, error["value"] / size
        effective, t = share * (1 - share) / spread**2, stats.t.ppf(0.5 + level / 2, error["degrees"])

        def beyond(rate: float) -> float:
            return float((share - rate) ** 2 - t**2 * rate * (1 - rate) / effective)

        low, high = (optimize.brentq(beyond, *sorted((end, share)), xtol=1e-15) for end in (0.0, 1.0))
        return ends[0] + size * low, ends[0] + size * high, "Wilson, effective"
    low, high = stats.t.interval(level, error["degrees"], loc=values.mean(), scale=error["value"])
    return float(low), float(high), "t(" if groups is None else "cluster-robust t("


def within(table: Rows) -> float | None:
    """The mean variance of repeated questions."""
    found = [np.var(row, ddof=1) for row in table.values() if len(row) > 1]
    return float(np.mean(found)) if found else None


def summary(table: Rows, groups: Sequence[str] | None, level: float) -> Figures:
    """The figures of `EvalReport.summary()` that a table of distinct draws decides."""
    values = np.array([np.mean(row) for row in table.values()])
    error, inside = standard_error(values, groups), within(table)
    low, high, method = mean_interval(table, groups, level)
    repeats = stats.hmean([len(row) for row in table.values()])
    between = None
    if inside is not None and len(values) > 1:
        between = max(0.0, float(np.var(values, ddof=1) - inside / repeats))
    return {
        "score": float(values.mean()),
        "standard_error": error["value"],
        "low": low,
        "high": high,
        "method": method,
        "variance_within": inside,
        "variance_between": between,
        "clusters": error["clusters"],
        "design_effect": error["design_effect"],
    }


def tango(wins: int, losses: int, n: int, level: float) -> tuple[float, float]:
    """Where the score statistic is z, the share of losses being where the likelihood has no slope."""
    z2, ties = stats.norm.ppf(0.5 + level / 2) ** 2, n - wins - losses

    def beyond(d: float) -> float:
        low, high = max(0.0, -d), (1 - d) / 2

        def slope(q: float) -> float:
            # The slope of the log-likelihood, which is concave, times what its three denominators have in common.
            same = 1 - 2 * q - d
            return wins * q * same + losses * (q + d) * same - 2 * ties * q * (q + d)

        least, most = low + 1e-14 * (high - low), high - 1e-14 * (high - low)
        if slope(least) <= 0.0:
            q = low
        elif slope(most) >= 0.0:
            q = high
        else:
            q = float(optimize.brentq(slope, least, most, xtol=1e-15))
        return float((wins - losses - n * d) ** 2 - z2 * n * max(0.0, 2 * q + d * (1 - d)))

    seen = (wins - losses) / n
    low = -1.0 if losses == n else optimize.brentq(beyond, -1.0, seen - 1e-9, xtol=1e-14)
    high = 1.0 if wins == n else optimize.brentq(beyond, seen + 1e-9, 1.0, xtol=1e-14)
    return float(low), float(high)


def sure_degrees(error: Figures) -> float:
    """The degrees of freedom of a verdict: the fewer of the two."""
    return float(min(error["degrees"], error.get("shared", math.inf)))


def multiple(degrees: float, level: float) -> float:
    """The noncentrality at which t is beyond its quantile four times in five."""
    if degrees <= 0:
        return math.inf
    quantile = stats.t.ppf(0.5 + level / 2, degrees)

    def beyond(one: float) -> float:
        return float(0.2 - special.nctdtr(degrees, one, quantile))

    return float(optimize.brentq(beyond, 0.5, 3.0 + 2.0 * quantile, xtol=1e-13))


def comparison(before: Rows, after: Rows, groups: Groups, level: float) -> Figures:
    """The figures of `Comparison.as_dict()`, for tables of distinct draws."""
    common = [name for name in before if name in after]
    a, b = ({name: table[name] for name in common} for table in (before, after))
    clusters = None if groups is None else [groups[name] for name in common]
    first, second = (np.array([np.mean(row) for row in table.values()]) for table in (a, b))
    d = np.where(np.isclose(first, second, rtol=EQUAL, atol=0), 0.0, second - first)
    n, ends = len(d), ends_of(a, b)
    reach, error = ends[1] - ends[0], standard_error(d, clusters)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    mean, units, degrees = float(second.mean() - first.mean()), error["units"], sure_degrees(error)
    unseen = min(1.0, -math.log(1 - level) / units) * reach
    if clusters is None and is_passed_or_failed(np.concatenate([first, second]), ends):
        exact = mcnemar([[0, wins], [losses, 0]], exact=True).pvalue
        p = exact - stats.binom.pmf(min(wins, losses), wins + losses, 0.5) if wins != losses else 1.0
        low, high = (reach * end for end in tango(wins, losses, n, level))
        spread = proportion_confint(wins + losses, n, alpha=1 - level, method="wilson")
        # Of no change in n the lower end is 0, which statsmodels misses by a last bit.
        planned = [reach * math.sqrt(end / n) if end > EQUAL else 0.0 for end in spread]
        planning, unseen, test = error["value"] if 0 < error["value"] < math.inf else planned[1], 0.0, "mid-p McNemar"
    elif units < 2 or error["value"] == 0:
        low, high = equal_interval(mean, units, (-reach, reach), level)
        p, test = 1.0 if abs(mean) < EQUAL else 0.5**units, "sign"
        planning = max(high - mean, mean - low) / stats.norm.ppf(0.5 + level / 2)
        planned = [0.0, planning]
    else:
        test = "paired t" if clusters is None else "cluster-robust paired t"
        p = 2 * stats.t.sf(abs(mean) / error["value"], degrees)
        low, high = stats.t.interval(level, degrees, loc=mean, scale=error["value"])
        tails = stats.chi2.ppf([0.5 + level / 2, 0.5 - level / 2], degrees)
        planning, planned = error["value"], [error["value"] * math.sqrt(degrees / one) for one in tails]
    inside, repeats = (within(a), within(b)), [stats.hmean([len(row) for row in t.values()]) for t in (a, b)]
    between = None
    if inside[0] is not None and inside[1] is not None and n > 1:
        between = max(0.0, float(np.var(d, ddof=1) - inside[0] / repeats[0] - inside[1] / repeats[1]))
    varied = len(set(first.tolist())) > 1 and len(set(second.tolist())) > 1
    times = multiple(degrees, level)
    return {
        "n": n,
        "only_baseline": tuple(name for name in before if name not in after),
        "only_candidate": tuple(name for name in after if name not in before),
        "baseline_mean": float(first.mean()),
        "candidate_mean": float(second.mean()),
        "difference": mean,
        "error": error,
        "unpaired_error": math.hypot(*(standard_error(one, clusters)["value"] for one in (first, second))),
        "planning_error": float(planning),
        "planning_range": tuple(map(float, planned)),
        "interval": (float(low), float(high)),
        "p_value": min(1.0, float(p)),
        "test": test,
        "correlation": float(stats.pearsonr(first, second).statistic) if varied else None,
        "wins": wins,
        "losses": losses,
        "ties": int((d == 0).sum()),
        "between": between,
        "within_baseline": inside[0],
        "within_candidate": inside[1],
        "repeats_baseline": float(repeats[0]),
        "repeats_candidate": float(repeats[1]),
        "smallest_difference": (reach or 1.0) / 20,
        "unseen": unseen,
        "minimal_detectable_effect": times * planning if degrees > 0 else math.inf,
        "minimal_detectable_range": tuple(times * one if degrees > 0 else math.inf for one in planned),
        "adjusted_p_value": min(1.0, float(p)),
    }
