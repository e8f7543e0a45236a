"""The standard error of a mean over questions, independent or clustered."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from dspy_cachectl.statistics.scores import ScoreTable, sample_variance

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardError:
    """The standard error of a mean over questions, in units of the score.

    Attributes:
        value: The standard error: clustered where the questions are. Infinite where one question, or one
            cluster, leaves nothing to estimate it from.
        independent: What it would be if the questions were independent of each other.
        units: How many independent units it rests on: clusters, or questions. The t of an interval has one
            degree of freedom less.
        clusters: The number of clusters C, or None.
        design_effect: (value / independent)^2, by how much clustering multiplies the variance; None without
            clusters, or where either error is 0 or infinite.
    """

    value: float
    independent: float
    units: int
    clusters: int | None = None
    design_effect: float | None = None


def standard_error(table: ScoreTable) -> StandardError:
    """The standard error of the mean score: questions are drawn, and draws within them.

    SE = sqrt(S^2(sbar_i) / n), over the means of the questions and never over all n*K draws, which are not
    independent (Miller, arXiv 2411.00640, section 2). With clusters, see `clustered_standard_error`.

    Args:
        table: The scores, n questions.

    Returns:
        The standard error, in units of the score.
    """
    return standard_error_of(table.means, table.clusters)


def standard_error_of(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> StandardError:
    """The standard error of the mean of one value per question.

    Args:
        values: One value per question, shape (n,), n >= 1: mean scores, or differences of them.
        clusters: The cluster of each, shape (n,), or None.

    Returns:
        The standard error, in units of the values.
    """
    n = len(values)
    independent = math.sqrt(sample_variance(values) / n) if n > 1 else math.inf
    independent = _clean(independent, values)
    if clusters is None:
        return StandardError(value=independent, independent=independent, units=n)
    return clustered_standard_error(values, clusters, independent)


def clustered_standard_error(
    values: Sequence[float], clusters: Sequence[Hashable], independent: float
) -> StandardError:
    """The cluster-robust standard error of a mean, with the correction for few clusters.

    SE_c = sqrt(C/(C-1) * sum_c (sum_{i in c} (x_i - xbar))^2) / n: Liang & Zeger, Biometrika 73 (1986);
    Miller, arXiv 2411.00640, equation 4, times C/(C-1). Use it with t(C-1).

    Args:
        values: One value per question, shape (n,).
        clusters: The cluster of each question, shape (n,).
        independent: The standard error that ignores the clusters.

    Returns:
        The standard error with the number of clusters and the design effect.
    """
    n = len(values)
    mean = math.fsum(values) / n
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value - mean)
    count = len(members)
    if count < 2:
        return StandardError(value=math.inf, independent=independent, units=count, clusters=count)
    squares = math.fsum(math.fsum(residuals) ** 2 for residuals in members.values())
    value = _clean(math.sqrt(count / (count - 1) * squares) / n, values)
    usable = 0.0 < independent < math.inf and value > 0.0
    return StandardError(
        value=value,
        independent=independent,
        units=count,
        clusters=count,
        design_effect=(value / independent) ** 2 if usable else None,
    )


def _clean(error: float, values: Sequence[float]) -> float:
    # Equal values must give exactly 0, and their mean may be off by the last bit.
    scale = max(abs(value) for value in values)
    return 0.0 if error <= _ROUNDING * scale else error
