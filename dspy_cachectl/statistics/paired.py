"""The paired comparison of two programs on the same questions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import replace

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.intervals import (
    Doubts,
    Interval,
    doubts,
    equal_scores_interval,
    rule_of_three,
    t_interval,
    wilson_interval,
)
from dspy_cachectl.statistics.quantiles import (
    check_level,
    is_number,
    needed,
    spread_of_error,
    two_sided_quantile,
    two_sided_t_test,
)
from dspy_cachectl.statistics.scores import Implied, QuestionScores, ScoreTable, are_ends, range_of, sample_variance
from dspy_cachectl.statistics.variance import StandardError, standard_error_of, within_variance
from dspy_cachectl.statistics.verdicts import PairedComparison, Verdict

FEW_DIFFERENCES = 10
"""With fewer questions than this on which the two differ, a t test rests on next to nothing."""

_TWENTIETH = 0.05
_ROUNDING = 1e-12
# With no wins and no losses, the observed difference is itself a root, and not the one that is looked for.
_NUDGE = 1e-9


def compare_paired(
    baseline: ScoreTable,
    candidate: ScoreTable,
    *,
    smallest_difference: float | None = None,
    level: float = 0.95,
) -> PairedComparison:
    """Is the candidate better than the baseline, on the same questions?

    d_i = sbar_i^B - sbar_i^A, SE_d = sqrt(S^2(d_i) / n), t(n-1): Miller, arXiv 2411.00640, section 4. Clustered, with
    the fewer degrees of freedom of two estimates (`StandardError.sure_degrees`): 5.5% of equal programs get a verdict
    at most.
    Passed or failed, all draws of a question alike, and no clusters: mid-p McNemar with Tango's interval. For the
    verdict see `verdict_of`.

    Args:
        baseline: The scores of program A. Questions pair by their ids, in whatever order they come.
        candidate: The scores of program B.
        smallest_difference: d, the smallest difference that matters, in units of the score, above 0; None for a
            twentieth of the scale, which is 0.05 where scores lie in [0, 1].
        level: The nominal coverage of the interval, in (0, 1); a p-value is significant below 1 - level.

    Returns:
        The comparison, with the questions that did not pair.

    Raises:
        ConfigurationError: No common question, a question in two different clusters, a difference of 0 or
            less, or a level that is no probability.
        MissingExtraError: scipy is not installed.
    """
    check_level(level)
    if smallest_difference is not None and not (is_number(smallest_difference) and smallest_difference > 0.0):
        raise ConfigurationError(
            f"smallest_difference must be above 0, in units of the score (say 0.05), not {smallest_difference!r}"
        )
    a, b, only_a, only_b = pair(baseline, candidate)
    # Of all scores at once: a table of zeros alone would be on the scale of 0 to 1, whatever the other is on.
    ends = _ends(a, b)
    reach = ends[1] - ends[0]
    differences = [minus(after, before) for before, after in zip(a.means, b.means, strict=True)]
    wins = sum(difference > 0.0 for difference in differences)
    losses = sum(difference < 0.0 for difference in differences)
    error = standard_error_of(differences, a.clusters)
    difference = minus(b.mean, a.mean)
    if error.clusters is None and are_ends(ends, (*a.means, *b.means)):
        test, p_value = "mid-p McNemar", mid_p_mcnemar(wins, losses)
        interval = tango_interval(wins, losses, a.n, level=level, size=reach)
        planning, planning_range = _discordance(wins + losses, a.n, error, reach=reach, level=level)
    else:
        test, p_value, interval = _test(differences, difference, error, reach=reach, level=level)
        planning, planning_range = _planning_error(error, interval, difference)
    within_a, within_b = within_variance(a), within_variance(b)
    between = None
    if within_a is not None and within_b is not None and a.n > 1:
        between = max(0.0, sample_variance(differences) - within_a / a.repeats - within_b / b.repeats)
    return PairedComparison(
        n=a.n,
        only_baseline=only_a,
        only_candidate=only_b,
        baseline_mean=a.mean,
        candidate_mean=b.mean,
        difference=difference,
        error=error,
        unpaired_error=math.hypot(
            standard_error_of(a.means, a.clusters).value, standard_error_of(b.means, a.clusters).value
        ),
        planning_error=planning,
        planning_range=planning_range,
        interval=interval,
        p_value=p_value,
        test=test,
        correlation=correlation(a.means, b.means),
        wins=wins,
        losses=losses,
        between=between,
        within_baseline=within_a,
        within_candidate=within_b,
        repeats_baseline=a.repeats,
        repeats_candidate=b.repeats,
        smallest_difference=_TWENTIETH * (reach or 1.0) if smallest_difference is None else smallest_difference,
        unseen=0.0 if test == "mid-p McNemar" else rule_of_three(error.units, level=level) * reach,
    )


def is_even_among(among: int, alone: PairedComparison, baseline: ScoreTable, candidate: ScoreTable) -> bool:
    """Whether NO DIFFERENCE is the verdict of a comparison that is one of several, too.

    Bonferroni: each interval has the level at which all of them hold together, so the probability that even one true
    difference of d is denied is at most half of one minus the level, whatever the dependence between them.

    Args:
        among: How many comparisons are made together.
        alone: The comparison as it is alone.
        baseline: The scores that it compares.
        candidate: See `baseline`.
    """
    if alone.verdict is not Verdict.NO_DIFFERENCE:
        return False
    level = 1.0 - (1.0 - alone.interval.level) / among
    held = compare_paired(baseline, candidate, smallest_difference=alone.smallest_difference, level=level)
    return held.verdict is Verdict.NO_DIFFERENCE


def pair(
    baseline: ScoreTable, candidate: ScoreTable
) -> tuple[ScoreTable, ScoreTable, tuple[str, ...], tuple[str, ...]]:
    """The questions that two tables share, in the baseline's order, and those that they do not.

    Args:
        baseline: The scores of program A.
        candidate: The scores of program B.

    Returns:
        Both tables cut down to the n common questions; the ids only the baseline has; those only the
        candidate has. A question's cluster may be given in either table.

    Raises:
        ConfigurationError: No common question, or one that is in two different clusters.
    """
    others = {row.question: row for row in candidate.questions}
    rows = [(row, others[row.question]) for row in baseline.questions if row.question in others]
    if not rows:
        raise ConfigurationError(
            f"none of the {baseline.n} questions of the baseline is among the {candidate.n} of the candidate; evaluate "
            "both on the same questions"
        )
    clusters = [_cluster(before, after) for before, after in rows]
    common = {before.question for before, _ in rows}
    return (
        ScoreTable.of(
            (replace(row, cluster=cluster) for (row, _), cluster in zip(rows, clusters, strict=True)),
            baseline.scale,
        ),
        ScoreTable.of(
            (replace(row, cluster=cluster) for (_, row), cluster in zip(rows, clusters, strict=True)),
            candidate.scale,
        ),
        tuple(name for name in baseline.names if name not in common),
        tuple(name for name in candidate.names if name not in common),
    )


def _ends(one: ScoreTable, other: ScoreTable) -> tuple[float, float]:
    if one.scale is not None and other.scale is not None:
        return min(one.scale[0], other.scale[0]), max(one.scale[1], other.scale[1])
    return range_of(score for table in (one, other) for scores in table.scores for score in scores)


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation, as in Miller, arXiv 2411.00640, section 4.

    Args:
        first: One value per question, shape (n,), in any unit.
        second: The same of the other program.

    Returns:
        A number in [-1, 1], or None where one of them is constant or n is below 2.
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    try:
        return max(-1.0, min(1.0, statistics.correlation(first, second)))
    except statistics.StatisticsError:  # they differ by so little that the squares of it are 0
        return None


def _test(
    differences: Sequence[float], difference: float, error: StandardError, *, reach: float, level: float
) -> tuple[str, float, Interval]:
    if error.units < 2 or error.value == 0.0:
        interval = equal_scores_interval(difference, error.units, (-reach, reach), level=level)
        # The mid-p of a sign test in which all units agree: 2 * 0.5^n - 0.5^n.
        return "sign", 1.0 if difference == 0.0 else 0.5**error.units, interval
    found = doubts(error, differences, "the difference")
    changed = sum(value != 0.0 for value in differences)
    if changed < FEW_DIFFERENCES:
        seen = f"the two differ on {changed} {'question' if changed == 1 else 'questions'} only"
        found = Doubts(found.few, (*found.seen, seen))
    name = "paired t" if error.clusters is None else "cluster-robust paired t"
    p_value = two_sided_t_test(difference / error.value, error.sure_degrees)
    sure = replace(error, degrees=error.sure_degrees)
    return name, p_value, t_interval(difference, sure, level=level, found=found)


def minus(after: float, before: float) -> float:
    """Return how much a mean is above another, or 0 where they are equal but for rounding."""
    # Equal means of unequal draws differ in the last bit, and a win by that much is no win.
    return 0.0 if math.isclose(after, before, rel_tol=_ROUNDING) else after - before


def _planning_error(error: StandardError, interval: Interval, difference: float) -> tuple[float, tuple[float, float]]:
    if error.units >= 2 and error.value > 0.0:
        low, high = spread_of_error(interval.level, error.sure_degrees)
        return error.value, (low * error.value, high * error.value)
    # A spread of 0 among n questions does not promise one of 0 among the next n; its interval says how much.
    half = max(interval.high - difference, difference - interval.low)
    most = half / two_sided_quantile(interval.level)
    return most, (0.0, most)


def _discordance(
    changed: int, n: int, error: StandardError, *, reach: float, level: float
) -> tuple[float, tuple[float, float]]:
    # One question's difference is the size of the scale or nothing, so its variance is at most the share of those that
    # differ, and that share has an interval. With none, or all the same, that is all that is known.
    share = wilson_interval(changed, n, level=level)
    low, high = (reach * math.sqrt(end / n) for end in (share.low, share.high))
    return (error.value if 0.0 < error.value < math.inf else high), (low, high)


def _cluster(before: QuestionScores, after: QuestionScores) -> Hashable | None:
    if before.cluster is None or after.cluster is None or before.cluster == after.cluster:
        return after.cluster if before.cluster is None else before.cluster
    given = [cluster for cluster in (before.cluster, after.cluster) if not isinstance(cluster, Implied)]
    if len(given) == 1:
        return given[0]
    raise ConfigurationError(
        f"question {before.question!r} is in cluster {before.cluster!r} of the baseline and in {after.cluster!r} "
        "of the candidate; give both evaluations the same clusters"
    )


def mid_p_mcnemar(wins: int, losses: int) -> float:
    """The mid-p value of McNemar's test: are wins and losses equally likely?

    p = 2 * sum_{j <= min(b, c)} C(b+c, j) / 2^(b+c) - C(b+c, min(b, c)) / 2^(b+c), at most 1. It keeps the
    type I error and finds more than the exact test. Source: Fagerland, Lydersen & Laake, BMC Medical Research
    Methodology 13 (2013) 91.

    Args:
        wins: The number of questions that only the candidate passed.
        losses: The number of questions that only the baseline passed.

    Returns:
        The two-sided p-value; 1 where there are neither wins nor losses.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    discordant, fewer = wins + losses, min(wins, losses)
    if discordant == 0:
        return 1.0
    binom = needed("scipy.stats", "McNemar's test").binom
    return min(1.0, float(2.0 * binom.cdf(fewer, discordant, 0.5) - binom.pmf(fewer, discordant, 0.5)))


def tango_interval(wins: int, losses: int, n: int, *, level: float = 0.95, size: float = 1.0) -> Interval:
    """The score interval of the difference of two paired proportions, (wins - losses) / n.

    The differences d at which |wins - losses - n d| / sqrt(n (2 q(d) + d (1 - d))) is at most z, q(d) the
    most likely share of losses at d. It has a width where wins and losses are 0, where the t interval has
    none. Source: Tango, Statistics in Medicine 17 (1998) 891-908.

    Args:
        wins: The number of questions that only the candidate passed.
        losses: The number of questions that only the baseline passed.
        n: The number of questions.
        level: The nominal coverage, in (0, 1).
        size: The difference between passing and failing, in units of the score.

    Returns:
        The interval, within [-size, size].

    Raises:
        MissingExtraError: scipy is not installed.
    """
    z = two_sided_quantile(level)
    find = needed("scipy.optimize", "the interval of a paired difference").brentq
    observed = (wins - losses) / n

    def beyond(difference: float) -> float:
        # Squared and multiplied out, so that it stays finite where the variance is 0.
        distance = wins - losses - n * difference
        return distance**2 - z * z * n * _score_variance(wins, losses, n, difference)

    low = -1.0 if losses == n else float(find(beyond, -1.0, observed - _NUDGE))
    high = 1.0 if wins == n else float(find(beyond, observed + _NUDGE, 1.0))
    return Interval(low=size * low, high=size * high, level=level, method="Tango", units=n)


def _score_variance(wins: int, losses: int, n: int, difference: float) -> float:
    linear = (2 * n - wins + losses) * difference - (wins + losses)
    constant = -losses * difference * (1.0 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8.0 * n * constant))
    share = (root - linear) / (4.0 * n)
    return max(0.0, 2.0 * share + difference * (1.0 - difference))
