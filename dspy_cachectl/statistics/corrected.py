"""The mean that people would give, from the scores of a judge for all questions and a few labels of people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.intervals import Doubts, Interval, effective_wilson_interval, mean_interval, t_interval
from dspy_cachectl.statistics.scores import QuestionScores, ScoreTable
from dspy_cachectl.statistics.variance import StandardError

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


def corrected_mean(scores: Sequence[float], labels: Sequence[float | None], *, level: float = 0.95) -> CorrectedMean:
    """Return the mean that all questions would have if people labelled them: prediction-powered inference.

    theta = w mean_U(f) + mean_L(y - w f), with the judge's scores f, the labels y of the questions L, and the others U:
    Angelopoulos, Bates, Fannjiang, Jordan & Zrnic, Science 382 (2023) 669-674. The weight is the one with the least
    variance, cov(y, f) / ((1 + n_L / n_U) var(f)), within 0 and 1: Angelopoulos, Duchi & Zrnic, "PPI++", arXiv
    2311.01453, section 6. Two numbers are estimated from the labels, so there are n_L - 2 degrees of freedom; on a
    scale of 0 and 1 the interval is Wilson's with the effective number of questions, which holds near the ends as well.
    Where a judge made fewer than 3 mistakes on such a scale, one more of each kind counts in the error (as in Agresti &
    Coull, American Statistician 52 (1998) 119-126): what was not seen among 50 may happen among 1,000.

    Args:
        scores: The judge's score of each question, shape (n,).
        labels: What people say of it, on the same scale, shape (n,); None where they were not asked. Which were asked
            must not depend on what was answered: a random sample.
        level: The nominal coverage, in (0, 1).

    Raises:
        ConfigurationError: There are fewer than 10 labels.
        MissingExtraError: scipy is not installed.
    """
    pairs = [(label, score) for score, label in zip(scores, labels, strict=True) if label is not None]
    others = [score for score, label in zip(scores, labels, strict=True) if label is None]
    if len(pairs) < FEWEST_LABELS:
        raise ConfigurationError(
            f"{len(pairs)} labels are too few to correct a score by: {FEWEST_LABELS} are the least"
        )
    said = ScoreTable(tuple(QuestionScores(str(place), (label,)) for place, (label, _) in enumerate(pairs)))
    alone, count = mean_interval(said, level=level), len(pairs)
    weight, error = _weight_and_error(pairs, others, scores)
    mean = fmean(label - weight * score for label, score in pairs) + (weight * fmean(others) if others else 0.0)
    common: dict[str, Any] = {
        "labels": said.mean,
        "labels_interval": alone,
        "judge": fmean(scores),
        "labelled": count,
        "n": len(scores),
    }
    if not others or error == 0.0:
        return CorrectedMean(said.mean, alone, error, 0.0, **common)
    value = StandardError(value=error, independent=error, units=count, degrees=count - 2)
    found = Doubts(tuple(_few(count)), tuple(_seen(pairs)))
    if _is_pass_or_fail(pairs, scores):
        within = min(max(mean, 0.5 / count), 1.0 - 0.5 / count)
        interval = effective_wilson_interval(within, value, level=level, found=found)
    else:
        interval = t_interval(mean, value, level=level, found=found)
    return CorrectedMean(mean, interval, error, weight, **common)


def _weight_and_error(
    pairs: Sequence[tuple[float, float]], others: Sequence[float], scores: Sequence[float]
) -> tuple[float, float]:
    """Return the weight of the judge with the least variance, and the standard error with it."""
    counted = list(pairs)
    if _is_pass_or_fail(pairs, scores) and sum(abs(label - score) > 0.5 for label, score in pairs) < _FEW_MISTAKES:
        counted += [(1.0, 0.0), (0.0, 1.0)]
    spread = _variance(scores)
    if not others or spread == 0.0:
        return 0.0, math.sqrt(_variance([label for label, _ in pairs]) / len(pairs))
    labels, judged = fmean(label for label, _ in counted), fmean(score for _, score in counted)
    together = math.fsum((label - labels) * (score - judged) for label, score in counted) / (len(counted) - 1)
    weight = min(1.0, max(0.0, together / ((1.0 + len(pairs) / len(others)) * spread)))
    left = [label - weight * score for label, score in counted]
    of_labels = _variance(left, lost=2) / len(pairs)
    of_others = weight**2 * _variance(others) / len(others) if len(others) > 1 else 0.0
    return weight, math.sqrt(of_labels + of_others)


def _variance(values: Sequence[float], lost: int = 1) -> float:
    """Return the variance, with the degrees of freedom that are lost."""
    middle = fmean(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - lost)


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
