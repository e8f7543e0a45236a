"""The paired comparison of two programs on the same questions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics import _scipy
from dspy_cachectl.statistics.intervals import Interval, doubts, equal_scores_interval, t_interval
from dspy_cachectl.statistics.mcnemar import mid_p_mcnemar, tango_interval
from dspy_cachectl.statistics.power import minimal_detectable_effect
from dspy_cachectl.statistics.scores import QuestionScores, ScoreTable, sample_variance
from dspy_cachectl.statistics.standard_errors import StandardError, standard_error_of
from dspy_cachectl.statistics.variance import within_variance
from dspy_cachectl.statistics.verdicts import Needed, Plan, Verdict, needed_to_settle, verdict_of

FEW_DIFFERENCES = 10
"""With fewer questions than this on which the two differ, a t test rests on next to nothing."""

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Candidate minus baseline, on the questions that both answered. In units of the score.

    Attributes:
        n: The number of paired questions.
        only_baseline: The questions that only the baseline has; they are in no number here.
        only_candidate: The questions that only the candidate has.
        baseline_mean: The baseline's mean over the pairs.
        candidate_mean: The candidate's mean over the pairs.
        difference: candidate_mean - baseline_mean.
        error: The standard error of the difference, clustered where the questions are.
        unpaired_error: What it would be without pairing, sqrt(SE_A^2 + SE_B^2).
        interval: The confidence interval of the difference.
        p_value: The two-sided p-value.
        test: Where it comes from: "paired t", "cluster-robust paired t", "mid-p McNemar", or "sign" where
            every question differs by the same amount.
        correlation: Of the two programs' question means, in [-1, 1]; None where one of them is constant.
        wins: The number of questions on which the candidate scored higher.
        ties: The number on which they scored the same.
        losses: The number on which the baseline scored higher.
        between: omega^2, the variance over questions of the true differences; None if a program has one draw
            per question. With it and the two below, `difference_variance` plans the next comparison.
        within_baseline: The baseline's variance over the draws of one question; None likewise.
        within_candidate: The candidate's; None likewise.
        minimal_detectable_effect: The smallest true difference that `n` such questions find with `power`.
        smallest_difference: d, the smallest difference that matters.
        power: The power of the minimal detectable effect, and of `needed`.
        verdict: BETTER, WORSE, NO DIFFERENCE OF SIZE d, or INCONCLUSIVE.
        needed: What would settle an inconclusive comparison; None for another verdict.
    """

    n: int
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]
    baseline_mean: float
    candidate_mean: float
    difference: float
    error: StandardError
    unpaired_error: float
    interval: Interval
    p_value: float
    test: str
    correlation: float | None
    wins: int
    ties: int
    losses: int
    between: float | None
    within_baseline: float | None
    within_candidate: float | None
    minimal_detectable_effect: float
    smallest_difference: float
    power: float
    verdict: Verdict
    needed: Needed | None

    @property
    def verdict_text(self) -> str:
        """The verdict with its size: for example "NO DIFFERENCE OF SIZE 0.05"."""
        if self.verdict is Verdict.NO_DIFFERENCE:
            return f"{self.verdict.value} {self.smallest_difference:g}"
        return str(self.verdict.value)


def compare_paired(
    baseline: ScoreTable,
    candidate: ScoreTable,
    *,
    smallest_difference: float = 0.05,
    level: float = 0.95,
    power: float = 0.8,
) -> PairedComparison:
    """Is the candidate better than the baseline, on the same questions?

    d_i = sbar_i^B - sbar_i^A, SE_d = sqrt(S^2(d_i) / n), t(n-1), or clustered with t(C-1): Miller, arXiv
    2411.00640, section 4. Scores of 0 and 1 with one draw each and no clusters: mid-p McNemar with Tango's
    interval. For the verdict see `verdict_of`.

    Args:
        baseline: The scores of program A. Questions pair by their ids, in whatever order they come.
        candidate: The scores of program B.
        smallest_difference: d, the smallest difference that matters, in units of the score, above 0.
        level: The nominal coverage of the interval, in (0, 1); a p-value is significant below 1 - level.
        power: The power for which the minimal detectable effect and what is needed are computed, in (0, 1).

    Returns:
        The comparison, with the questions that did not pair.

    Raises:
        ConfigurationError: No common question, a question in two different clusters, a difference of 0 or
            less, or a level or power that is no probability.
        MissingExtraError: scipy is not installed.
    """
    _scipy.check_level(level)
    if not (math.isfinite(smallest_difference) and smallest_difference > 0.0):
        raise ConfigurationError(
            f"smallest_difference must be above 0, in units of the score (say 0.05), not {smallest_difference!r}"
        )
    a, b, only_a, only_b = pair(baseline, candidate)
    differences = [_minus(after, before) for before, after in zip(a.means, b.means, strict=True)]
    wins = sum(difference > 0.0 for difference in differences)
    losses = sum(difference < 0.0 for difference in differences)
    error = standard_error_of(differences, a.clusters)
    difference = _minus(b.mean, a.mean)
    test, p_value, interval = _test(a, b, difference, error, wins=wins, losses=losses, level=level)
    planning = _planning_error(error, interval, difference, level)
    effect = minimal_detectable_effect(planning, level=level, power=power)
    within_a, within_b = within_variance(a), within_variance(b)
    draws_part = None
    if within_a is not None and within_b is not None:
        draws_part = within_a / a.repeats + within_b / b.repeats
    verdict = verdict_of(interval, p_value, effect, smallest_difference)
    plan = Plan(
        n=a.n,
        error=planning,
        repeats=min(a.repeats, b.repeats),
        draws_part=draws_part,
        within=None if within_a is None or within_b is None else within_a + within_b,
        difference=difference,
        effect=effect,
        smallest_difference=smallest_difference,
        level=level,
        power=power,
    )
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
        interval=interval,
        p_value=p_value,
        test=test,
        correlation=correlation(a.means, b.means),
        wins=wins,
        ties=a.n - wins - losses,
        losses=losses,
        between=None if draws_part is None or a.n < 2 else max(0.0, sample_variance(differences) - draws_part),
        within_baseline=within_a,
        within_candidate=within_b,
        minimal_detectable_effect=effect,
        smallest_difference=smallest_difference,
        power=power,
        verdict=verdict,
        needed=needed_to_settle(plan) if verdict is Verdict.INCONCLUSIVE else None,
    )


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
    clusters: list[Hashable | None] | None = None
    if baseline.clusters is not None or candidate.clusters is not None:
        clusters = [_cluster(before, after) for before, after in rows]
    common = {before.question for before, _ in rows}
    return (
        _table([before for before, _ in rows], clusters),
        _table([after for _, after in rows], clusters),
        tuple(row.question for row in baseline.questions if row.question not in common),
        tuple(row.question for row in candidate.questions if row.question not in common),
    )


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation, as in Miller, arXiv 2411.00640, section 4.

    Args:
        first: One value per question, shape (n,), in any unit.
        second: The same of the other program.

    Returns:
        A number in [-1, 1], or None where one of them is constant or n is below 2.
    """
    n = len(first)
    if n < 2:
        return None
    if len(set(first)) == 1 or len(set(second)) == 1:
        return None
    centre, other = math.fsum(first) / n, math.fsum(second) / n
    x, y = [value - centre for value in first], [value - other for value in second]
    spread = math.sqrt(math.fsum(u * u for u in x)) * math.sqrt(math.fsum(v * v for v in y))
    if spread == 0.0:
        return None
    return max(-1.0, min(1.0, math.fsum(u * v for u, v in zip(x, y, strict=True)) / spread))


def _test(
    a: ScoreTable,
    b: ScoreTable,
    difference: float,
    error: StandardError,
    *,
    wins: int,
    losses: int,
    level: float,
) -> tuple[str, float, Interval]:
    binary = a.is_binary and b.is_binary and a.is_single and b.is_single
    if binary and error.clusters is None:
        return "mid-p McNemar", mid_p_mcnemar(wins, losses), tango_interval(wins, losses, a.n, level=level)
    if error.units < 2 or error.value == 0.0:
        low = min(a.score_range[0], b.score_range[0])
        high = max(a.score_range[1], b.score_range[1])
        reach = high - low
        interval = equal_scores_interval(difference, error.units, (-reach, reach), level=level)
        # The mid-p of a sign test in which all units agree: 2 * 0.5^n - 0.5^n.
        return "sign", 1.0 if difference == 0.0 else 0.5**error.units, interval
    caveats = list(doubts(error, a.n, None))
    if wins + losses < FEW_DIFFERENCES:
        caveats.append(f"the two differ on {wins + losses} questions only")
    name = "paired t" if error.clusters is None else "cluster-robust paired t"
    p_value = _scipy.t_two_sided_p(difference / error.value, error.units - 1)
    return name, p_value, t_interval(difference, error, level=level, caveats=tuple(caveats))


def _minus(after: float, before: float) -> float:
    # Equal means of unequal draws differ in the last bit, and a win by that much is no win.
    return 0.0 if math.isclose(after, before, rel_tol=_ROUNDING) else after - before


def _planning_error(error: StandardError, interval: Interval, difference: float, level: float) -> float:
    # A spread of 0 among n questions does not promise one of 0 among the next n; its interval says how much.
    if error.units < 2 or error.value > 0.0:
        return error.value
    half = max(interval.high - difference, difference - interval.low)
    return half / _scipy.two_sided_quantile(level)


def _cluster(before: QuestionScores, after: QuestionScores) -> Hashable | None:
    if before.cluster is None or after.cluster is None or before.cluster == after.cluster:
        return after.cluster if before.cluster is None else before.cluster
    raise ConfigurationError(
        f"question {before.question!r} is in cluster {before.cluster!r} of the baseline and in {after.cluster!r} "
        "of the candidate; give both evaluations the same clusters"
    )


def _table(rows: list[QuestionScores], clusters: list[Hashable | None] | None) -> ScoreTable:
    if clusters is None:
        return ScoreTable(tuple(rows))
    return ScoreTable(
        tuple(
            QuestionScores(row.question, row.scores, row.failed, cluster)
            for row, cluster in zip(rows, clusters, strict=True)
        )
    )
