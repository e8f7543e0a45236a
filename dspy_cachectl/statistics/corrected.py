"""The mean that people would give, from the scores of a judge for all questions and a few labels of people."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.intervals import (
    Doubts,
    Interval,
    effective_wilson_interval,
    few_degrees,
    mean_interval,
    t_interval,
)
from dspy_cachectl.statistics.scores import ScoreTable, sample_variance
from dspy_cachectl.statistics.variance import StandardError, standard_error, standard_error_of

Values = Sequence[tuple[Hashable, float]]
"""Values of questions, each with the cluster of its question, or what tells it from others."""

FEWEST_LABELS = 10
"""With fewer labels there is nothing to correct by."""
_FEW_LABELS = 30
_FEW_OF_A_KIND = 5
_FEW_MISTAKES = 3
"""With fewer mistakes of the judge than this, how often it makes them is hardly known."""


@dataclass(frozen=True, slots=True)
class CorrectedMean:
    """A mean score, corrected by labels.

    Attributes:
        mean: The estimate of the mean label of all questions.
        interval: Its confidence interval.
        error: Its standard error.
        weight: How much the judge counts: 0 where it says nothing of the labels, 1 where it says the same.
        labels: The mean of the labels alone.
        labels_interval: Its interval.
        judge: The mean of the judge's scores of all questions, as it is.
        labelled: How many questions have a label.
        n: How many questions there are.
        clusters: How many clusters they are in; None where they are independent.
        design_effect: By how much the clusters multiply the variance.
    """

    mean: float
    interval: Interval
    error: float
    weight: float
    labels: float
    labels_interval: Interval
    judge: float
    labelled: int
    n: int
    clusters: int | None = None
    design_effect: float | None = None


def corrected_mean(
    scores: Sequence[float],
    labels: Sequence[float | None],
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> CorrectedMean:
    """Return the mean that all questions would have if people labelled them: prediction-powered inference.

    theta = w mean_U(f) + mean_L(y - w f), with the judge's scores f, the labels y of the questions L, and the others U:
    Angelopoulos, Bates, Fannjiang, Jordan & Zrnic, Science 382 (2023) 669-674. The weight is the one with the least
    variance, cov(y, f) / ((1 + n_L / n_U) var(f)), within 0 and 1: Angelopoulos, Duchi & Zrnic, "PPI++", arXiv
    2311.01453, section 6. Two numbers are estimated from the labels, so there are n_L - 2 degrees of freedom; on a
    scale of 0 and 1 the interval is Wilson's with the effective number of questions, which holds near the ends as well.
    Where a judge made fewer than 3 mistakes on such a scale, one more of each kind counts in the error (as in Agresti &
    Coull, American Statistician 52 (1998) 119-126): what was not seen among 50 may happen among 1,000. Of clusters the
    sums count (see `_of_both`), with the degrees of freedom that those of the labels leave. Where a judge says nothing
    of the labels, or its error cannot be told, the labels stand alone.

    Args:
        scores: The judge's score of each question, shape (n,).
        labels: What people say of it, on the same scale, shape (n,); None where they were not asked. Which were asked
            must not depend on what was answered: a random sample.
        clusters: The cluster of each question, shape (n,); None where they are independent.
        level: The nominal coverage, in (0, 1).

    Raises:
        ConfigurationError: There are fewer than 10 labels.
        MissingExtraError: scipy is not installed.
    """
    units = range(len(scores)) if clusters is None else clusters
    rows = list(zip(scores, labels, units, strict=True))
    pairs = [(label, score) for score, label, _ in rows if label is not None]
    if len(pairs) < FEWEST_LABELS:
        raise ConfigurationError(
            f"{len(pairs)} labels are too few to correct a score by: {FEWEST_LABELS} are the least"
        )
    labelled = [unit for _, label, unit in rows if label is not None]
    others = [(score, unit) for score, label, unit in rows if label is None]
    said = ScoreTable(
        tuple(map(str, range(len(pairs)))),
        tuple([(label,) for label, _ in pairs]),
        groups=() if clusters is None else tuple(labelled),
    )
    alone, count = mean_interval(said, level=level), len(pairs)
    weight, counted = _weight(pairs, [score for score, _ in others], scores)
    beside = [object() for _ in counted[count:]]  # each stands alone
    left = [(unit, label - weight * score) for (label, score), unit in zip(counted, [*labelled, *beside], strict=True)]
    further = [(unit, weight * score) for score, unit in others]
    error = _error(left, further, count, is_clustered=clusters is not None) if weight else standard_error(said)
    common: dict[str, Any] = {
        "labels": said.mean,
        "labels_interval": alone,
        "judge": fmean(scores),
        "labelled": count,
        "n": len(scores),
        "clusters": None if clusters is None else len(set(clusters)),
        "design_effect": error.design_effect,
    }
    if not (weight and 0.0 < error.value < math.inf):
        return CorrectedMean(said.mean, alone, standard_error(said).value, 0.0, **common)
    mean = fmean(label - weight * score for label, score in pairs) + weight * fmean(score for score, _ in others)
    found = Doubts(tuple(_few(count)), (*_seen(pairs), *few_degrees(error)))
    if _is_pass_or_fail(pairs, scores):
        within = min(max(mean, 0.5 / count), 1.0 - 0.5 / count)
        interval = effective_wilson_interval(within, error, level=level, found=found)
    else:
        interval = t_interval(mean, error, level=level, found=found)
    return CorrectedMean(mean, interval, error.value, weight, **common)


def _weight(
    pairs: Sequence[tuple[float, float]], others: Sequence[float], scores: Sequence[float]
) -> tuple[float, Sequence[tuple[float, float]]]:
    """Return the weight of the judge with the least variance, and the pairs that the error is told by."""
    counted = list(pairs)
    if _is_pass_or_fail(pairs, scores) and sum(abs(label - score) > 0.5 for label, score in pairs) < _FEW_MISTAKES:
        counted += [(1.0, 0.0), (0.0, 1.0)]
    spread = sample_variance(scores)
    if not others or spread == 0.0:
        return 0.0, counted
    labels, judged = fmean(label for label, _ in counted), fmean(score for _, score in counted)
    together = math.fsum((label - labels) * (score - judged) for label, score in counted) / (len(counted) - 1)
    return min(1.0, max(0.0, together / ((1.0 + len(pairs) / len(others)) * spread))), counted


def _error(left: Values, others: Values, count: int, *, is_clustered: bool) -> StandardError:
    """Return the standard error of the sum of two means, of questions that may share clusters; infinite if not known.

    Args:
        left: What the judge leaves of each label.
        others: What the judge says of each other question, by its weight.
        count: How many labels there are; what is left of others is counted besides.
        is_clustered: Whether clusters were given.
    """
    values, further, beside = [value for _, value in left], [value for _, value in others], len(left) - count
    of_labels = sample_variance(values) * (len(left) - 1) / (len(left) - 2) / count
    independent = math.sqrt(of_labels + (sample_variance(further) / len(further) if len(further) > 1 else 0.0))
    if not is_clustered:
        return StandardError(value=independent, independent=independent, units=count, degrees=count - 2)
    degrees = standard_error_of(values, [unit for unit, _ in left]).degrees
    is_known = degrees - 1.0 > beside and (len(others) < 2 or len({unit for unit, _ in others}) > 1)
    value = _of_both(left, others, count, degrees) if is_known else math.inf
    clusters = len({unit for unit, _ in (*left, *others)}) - beside
    return StandardError(
        value=value,
        independent=independent,
        units=clusters,
        degrees=degrees - 1.0 - beside,
        clusters=clusters,
        design_effect=(value / independent) ** 2 if is_known and independent else None,
    )


def _of_both(left: Values, others: Values, count: int, degrees: float) -> float:
    """Return CR2's standard error of mean(left) + mean(others), with one degree of freedom lost to the weight.

    The sum is the contrast (1, 1) of a regression on which questions have a label. So its variance is the sum over
    clusters of (sum_L r / (n_L sqrt(1 - l_c / n_L)) + sum_U r / (n_U sqrt(1 - u_c / n_U)))^2, with residuals r, and
    l_c of n_L labels and u_c of n_U others in cluster c; without clusters S_L^2 / n_L + S_U^2 / n_U. Source:
    Pustejovsky & Tipton, J. Business & Economic Statistics 36 (2018), section 2.
    """
    sums: defaultdict[Hashable, float] = defaultdict(float)
    for some, scale in ((left, math.sqrt(degrees / (degrees - 1.0) * len(left) / count)), (others, 1.0)):
        middle, members = fmean(value for _, value in some), defaultdict(list)
        for unit, value in some:
            members[unit].append(value - middle)
        for unit, residuals in members.items():
            share = len(residuals) / len(some)
            if share < 1.0:
                sums[unit] += scale * math.fsum(residuals) / (len(some) * math.sqrt(1.0 - share))
    return math.sqrt(math.fsum(one**2 for one in sums.values()))


def _is_pass_or_fail(pairs: Sequence[tuple[float, float]], scores: Sequence[float]) -> bool:
    return {label for label, _ in pairs} <= {0.0, 1.0} and all(0.0 <= score <= 1.0 for score in scores)


def _few(count: int) -> list[str]:
    return [f"{count} labels are few: the interval may be too short"] if count < _FEW_LABELS else []


def _seen(pairs: Sequence[tuple[float, float]]) -> list[str]:
    labels = [label for label, _ in pairs]
    rarer = min(labels.count(0.0), labels.count(1.0))
    if set(labels) <= {0.0, 1.0} and rarer < _FEW_OF_A_KIND:
        return [f"only {rarer} of {len(labels)} labels are of the rarer kind: the interval may be too short"]
    return []
