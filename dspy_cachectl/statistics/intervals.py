"""Intervals of a mean score: t, Wilson, and what is left to say when every question scored the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dspy_cachectl.statistics.quantiles import check_level, needed, two_sided_t
from dspy_cachectl.statistics.scores import ScoreTable
from dspy_cachectl.statistics.variance import StandardError, standard_error

MANY_QUESTIONS = 100
"""Below about this many questions the central limit theorem is not to be relied on (Bowyer et al.)."""
MUCH_SKEWNESS = 0.04
"""Nor where the squared skewness is above this times n: few scores far from the others decide the mean."""
FEW_DEGREES = 5.0
"""Below this many degrees of freedom the clustered standard error is itself uncertain."""
FEW_SHARED = 8.0
"""Below this many, where questions of a cluster are as much alike as these, an interval may cover less than it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        low: The lower end, in units of the estimate; minus infinity where nothing bounds it.
        high: The upper end.
        level: The nominal coverage, for example 0.95.
        method: How it was computed, in words.
        units: How many independent questions, or clusters, it rests on.
        caveats: Why its coverage may not be the nominal one, a sentence each; empty where nothing is known.
        doubtful: Whether the scores themselves show it, and not their small number alone: no verdict rests on it.
    """

    low: float
    high: float
    level: float
    method: str
    units: int
    caveats: tuple[str, ...] = ()
    doubtful: bool = False

    @property
    def width(self) -> float:
        """The distance between the ends."""
        return self.high - self.low

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Doubts:
    """Why an interval may not cover what it says.

    Attributes:
        few: That there are few questions, in a sentence; empty where there are many.
        seen: What the scores themselves show, a sentence each.
    """

    few: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return self.few + self.seen


def mean_interval(table: ScoreTable, *, level: float = 0.95) -> Interval:
    """The interval of the mean score, by the method that holds for the scores at hand.

    - Passed or failed, all draws of a question alike, no clusters: Wilson.
    - Every question scored the same: what n equal questions allow (`rule_of_three`).
    - Otherwise t of the mean of per-question means (Miller, arXiv 2411.00640), with n - 1 degrees of freedom, or those
      of the clusters (see `clustered_standard_error`).
    - Where that is in doubt (see `doubts`; Bowyer et al., arXiv 2503.01747), or there are few clusters, and the ends of
      the scale are known: Wilson with the effective number of questions. The t interval of 20 questions with a mean
      of 0.97 covers 73 to 85% instead of 95%; this one 97%.

    Args:
        table: The scores, n questions.
        level: The nominal coverage, in (0, 1).

    Returns:
        The interval, in units of the score, flagged where its coverage is in doubt.

    Raises:
        ConfigurationError: `level` is no probability.
        MissingExtraError: scipy is not installed.
    """
    check_level(level)
    ends = table.score_range
    if table.clusters is None and table.is_binary and set(ends).issuperset(table.means):
        passed = sum(mean == ends[1] for mean in table.means)
        return wilson_interval(passed, table.n, level=level, ends=ends)
    error = standard_error(table)
    if error.units < 2 or error.value == 0.0:
        return equal_scores_interval(table.mean, error.units, ends, level=level)
    found = doubts(error, table.means, "the mean")
    is_bounded = ends == (0.0, 1.0) or table.is_binary
    if is_bounded and (found.all or error.units < MANY_QUESTIONS):
        return effective_wilson_interval(table.mean, error, level=level, ends=ends, found=found)
    return t_interval(table.mean, error, level=level, found=found)


def t_interval(mean: float, error: StandardError, *, level: float = 0.95, found: Doubts = Doubts()) -> Interval:
    """The interval mean +- t * SE, with the degrees of freedom of the standard error.

    Source: Miller, arXiv 2411.00640; for clusters Bell & McCaffrey, Survey Methodology 28 (2002).

    Args:
        mean: The estimate.
        error: Its standard error, in the same units, of at least two independent units.
        level: The nominal coverage, in (0, 1).
        found: What is to be said of the interval.

    Returns:
        The interval.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    method = f"t({error.degrees:.4g})" if error.clusters is None else f"cluster-robust t({error.degrees:.3g})"
    half = two_sided_t(level, error.degrees) * error.value
    return Interval(
        low=mean - half,
        high=mean + half,
        level=level,
        method=method,
        units=error.units,
        caveats=found.all,
        doubtful=bool(found.seen),
    )


def wilson_interval(successes: int, n: int, *, level: float = 0.95, ends: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """The score interval of a proportion.

    centre (p + z^2/2n) / (1 + z^2/n), half-width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n): Wilson, J. Am.
    Stat. Assoc. 22 (1927), as computed by scipy.

    Args:
        successes: How many of the questions passed.
        n: The number of questions, one draw each.
        level: The nominal coverage, in (0, 1).
        ends: What failing and passing score.

    Returns:
        The interval, within the scale.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    test = needed("scipy.stats", "a Wilson interval").binomtest(successes, n)
    found = test.proportion_ci(confidence_level=level, method="wilson")
    low, size = ends[0], ends[1] - ends[0]
    return Interval(
        low=low + size * float(found.low), high=low + size * float(found.high), level=level, method="Wilson", units=n
    )


def effective_wilson_interval(
    mean: float,
    error: StandardError,
    *,
    level: float = 0.95,
    ends: tuple[float, float] = (0.0, 1.0),
    found: Doubts = Doubts(),
) -> Interval:
    """Wilson's interval for a mean of scores on a scale with two ends that are no plain coin flips.

    For a scale of 0 to 1, the number of questions is replaced by the effective one, m(1-m)/SE^2, and the normal
    quantile by t's. Repeats, partial credit and clusters are in SE. Sources: Kott, Survey Methodology 43 (2017);
    Franco et al., J. Survey Statistics and Methodology 7 (2019), who recommend it for clustered samples.

    Args:
        mean: The mean score, between the ends.
        error: Its standard error, finite and above 0.
        level: The nominal coverage, in (0, 1).
        ends: The ends of the scale.
        found: What is to be said of the interval.

    Returns:
        The interval, within the scale.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    lowest, size = ends[0], ends[1] - ends[0]
    share, spread = (mean - lowest) / size, error.value / size
    effective = share * (1.0 - share) / spread**2
    t = two_sided_t(level, error.degrees)
    shrink = 1.0 + t * t / effective
    centre = (share + t * t / (2.0 * effective)) / shrink
    half = t * math.sqrt(spread**2 + (t / (2.0 * effective)) ** 2) / shrink
    return Interval(
        low=lowest + size * max(0.0, centre - half),
        high=lowest + size * min(1.0, centre + half),
        level=level,
        method=f"Wilson, effective n = {effective:.1f}",
        units=error.units,
        caveats=found.all,
        doubtful=bool(found.seen),
    )


def rule_of_three(n: int, *, level: float = 0.95) -> float:
    """The largest share of questions that may be different when n in a row were the same.

    -ln(1 - level) / n, which is 3/n at 95%: Hanley & Lippman-Hand, J. Am. Med. Assoc. 249 (1983). One-sided.

    Args:
        n: The number of independent questions (or clusters), all of which passed.
        level: The probability with which the bound holds, in (0, 1).

    Returns:
        The bound of the failure rate, at most 1.
    """
    return min(1.0, -math.log1p(-level) / n)


def equal_scores_interval(
    mean: float, units: int, score_range: tuple[float, float], *, level: float = 0.95
) -> Interval:
    """The interval where every question scored the same, so that the estimated spread is 0.

    By the rule of three at most 3/n of all questions score otherwise, at worst at an end of the range.

    Args:
        mean: What every question scored.
        units: The number of questions, or of clusters, n.
        score_range: The lowest and the highest score possible. Equal ends say that it is unknown.
        level: The nominal coverage, in (0, 1).

    Returns:
        [mean - 3/n (mean - lowest), mean + 3/n (highest - mean)], flagged where n is small or the range unknown.
    """
    share = rule_of_three(units, level=level)
    lowest, highest = score_range
    caveats: tuple[str, ...] = ()
    if units < 2:
        caveats = ("one question, or one cluster, says nothing of the spread",)
    elif units < MANY_QUESTIONS:
        caveats = (f"all {units} questions or clusters scored the same, so their spread cannot be estimated",)
    if lowest == highest:
        lowest, highest = -math.inf, math.inf
        caveats = (*caveats, "all scored the same, and the range of the scores is not known")
    return Interval(
        low=mean - share * (mean - lowest),
        high=mean + share * (highest - mean),
        level=level,
        method=f"rule of three: all {units} scored the same",
        units=units,
        caveats=caveats,
    )


def doubts(error: StandardError, values: Sequence[float], what: str) -> Doubts:
    """Why the central limit theorem may not hold for a mean.

    Source for the number of questions: Bowyer et al., arXiv 2503.01747. What t's coverage loses to first order is
    in proportion to the squared skewness over n (Hall, The Bootstrap and Edgeworth Expansion (1992), section 2.6);
    for passes and failures that is (1 - 4p(1-p)) / (p(1-p)n).

    Args:
        error: The standard error of the mean.
        values: One value per question, shape (n,).
        what: What their mean is called.

    Returns:
        The doubts; none where there are enough questions and clusters, and no few values decide.
    """
    n = len(values)
    few = [f"{n} questions are few: below about {MANY_QUESTIONS} an interval may cover less than it says"]
    few, seen = few if n < MANY_QUESTIONS else [], []
    if _squared_skewness(values) > MUCH_SKEWNESS * n:
        seen.append(f"few questions far from the others decide {what}: the interval may cover less than it says")
    uncertain = few_degrees(error)
    seen += uncertain
    if not uncertain and error.shared is not None and error.shared < FEW_SHARED:
        few.append(
            f"{error.clusters} clusters of these sizes, with questions so much alike in each, are worth "
            f"{error.shared:.1f} degrees of freedom: a few of them decide, and an interval may cover less than it says"
        )
    return Doubts(tuple(few), tuple(seen))


def few_degrees(error: StandardError) -> list[str]:
    """Return that the spread of few clusters is uncertain, in a sentence, where it is."""
    if error.clusters is None or error.degrees >= FEW_DEGREES:
        return []
    return [
        f"{error.clusters} clusters of these sizes are worth {error.degrees:.1f} degrees of freedom: below about "
        f"{FEW_DEGREES:.0f} their spread is uncertain"
    ]


def _squared_skewness(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    residuals = [value - mean for value in values]
    scale = max(map(abs, residuals))
    if scale == 0.0:
        return 0.0
    square = math.fsum((residual / scale) ** 2 for residual in residuals) / len(values)
    cube = math.fsum((residual / scale) ** 3 for residual in residuals) / len(values)
    return cube**2 / square**3
