"""What a paired comparison says, and what would settle one that says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from dspy_cachectl.statistics.intervals import MANY_QUESTIONS, Interval
from dspy_cachectl.statistics.power import (
    POWER,
    detectable_multiple,
    difference_variance,
    questions_needed,
    repeats_needed,
)
from dspy_cachectl.statistics.variance import StandardError


class Verdict(str, Enum):
    """The verdict of a comparison."""

    BETTER = "BETTER"
    WORSE = "WORSE"
    NO_DIFFERENCE = "NO DIFFERENCE OF SIZE"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What would settle an inconclusive comparison; each number by itself is enough.

    Attributes:
        questions: How many questions in all, the repeats as they are; None where it cannot be told.
        questions_range: Between which that number lies, as the spread that it rests on is an estimate.
        repeats: How many draws per question and program, the questions as they are; None where no number of
            them is enough, or it cannot be told from one draw per question.
        target_error: The standard error of the difference that they reach, in units of the score.
        sentence: The same in words.
    """

    questions: int | None
    questions_range: tuple[int, int] | None
    repeats: int | None
    target_error: float
    sentence: str


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
        planning_error: What plans rest on: `error`, or what the interval says where the spread is 0.
        planning_range: Between which it lies, with the interval's level: an error is itself an estimate.
        interval: The confidence interval of the difference.
        p_value: The two-sided p-value.
        test: Where it comes from: "paired t", "cluster-robust paired t", "mid-p McNemar", or "sign" where
            every question differs by the same amount.
        correlation: Of the two programs' question means, in [-1, 1]; None where one of them is constant.
        wins: The number of questions on which the candidate scored higher.
        losses: The number on which the baseline scored higher.
        between: omega^2, the variance over questions of the true differences; None if a program has one draw
            per question. With it and the four below, `difference_variance` plans the next comparison.
        within_baseline: The baseline's variance over the draws of one question; None likewise.
        within_candidate: The candidate's; None likewise.
        repeats_baseline: The harmonic mean of the baseline's number of draws per question.
        repeats_candidate: The candidate's.
        smallest_difference: d, the smallest difference that matters.
        unseen: What differences that none of the questions showed may add to the mean difference: by the rule of
            three a share 3/n of the questions may differ by the whole scale. 0 where the interval holds it.
    """

    n: int
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]
    baseline_mean: float
    candidate_mean: float
    difference: float
    error: StandardError
    unpaired_error: float
    planning_error: float
    planning_range: tuple[float, float]
    interval: Interval
    p_value: float
    test: str
    correlation: float | None
    wins: int
    losses: int
    between: float | None
    within_baseline: float | None
    within_candidate: float | None
    repeats_baseline: float
    repeats_candidate: float
    smallest_difference: float
    unseen: float = 0.0

    def __repr__(self) -> str:
        low, high = self.interval.low, self.interval.high
        return f"<{self.difference:+.4g} [{low:+.4g}, {high:+.4g}], p={self.p_value:.2g}, n={self.n}>"

    @property
    def ties(self) -> int:
        """The number of questions on which both scored the same."""
        return self.n - self.wins - self.losses

    @property
    def detectable_multiple(self) -> float:
        """How many standard errors a difference must measure to be found with a probability of `POWER`."""
        return detectable_multiple(degrees=self.error.sure_degrees, level=self.interval.level)

    @property
    def minimal_detectable_effect(self) -> float:
        """The smallest true difference that so many questions find with a probability of `POWER`."""
        return self._detectable(self.planning_error)

    @property
    def minimal_detectable_range(self) -> tuple[float, float]:
        """Between which it lies: the standard error that it rests on is itself an estimate."""
        low, high = self.planning_range
        return self._detectable(low), self._detectable(high)

    def _detectable(self, error: float) -> float:
        # With one question or cluster nothing is found, however equal its scores are.
        return self.detectable_multiple * error if math.isfinite(self.detectable_multiple) else math.inf

    @property
    def verdict(self) -> Verdict:
        """BETTER, WORSE, NO DIFFERENCE OF SIZE d, or INCONCLUSIVE (see `verdict_of`)."""
        return verdict_of(self.interval, self.p_value, self.smallest_difference, unseen=self.unseen)

    @property
    def verdict_text(self) -> str:
        """The verdict with its size: for example "NO DIFFERENCE OF SIZE 0.05"."""
        verdict = self.verdict
        size = f" {self.smallest_difference:g}" if verdict is Verdict.NO_DIFFERENCE else ""
        return f"{verdict.value}{size}"

    @property
    def needed(self) -> Needed | None:
        """What would settle an inconclusive comparison; None for another verdict."""
        return needed_to_settle(self) if self.verdict is Verdict.INCONCLUSIVE else None


def verdict_of(interval: Interval, p_value: float, smallest_difference: float, *, unseen: float = 0.0) -> Verdict:
    """The verdict of a comparison.

    BETTER or WORSE where the interval excludes 0 and the p-value says so too (they are two tests for McNemar, and one
    for t), and nothing that the scores show makes the interval doubtful. NO DIFFERENCE OF SIZE d where the interval
    lies within (-d, d), nothing is to be said against it, and what was not seen cannot come to d either: wrong in
    about 2.5% at a true difference of d. Else INCONCLUSIVE: what is not significant is not shown to be absent
    (Altman & Bland, BMJ 311 (1995) 485).

    Args:
        interval: The confidence interval of the difference.
        p_value: The two-sided p-value; significant below 1 - interval.level.
        smallest_difference: d, the smallest difference that matters, in units of the score.
        unseen: What differences that none of the questions showed may add, in units of the score.

    Returns:
        The verdict.
    """
    if 0.0 not in interval and p_value < 1.0 - interval.level and not interval.doubtful:
        return Verdict.BETTER if interval.low > 0.0 else Verdict.WORSE
    inside = -smallest_difference < interval.low and interval.high < smallest_difference
    if inside and not interval.caveats and unseen <= smallest_difference:
        return Verdict.NO_DIFFERENCE
    return Verdict.INCONCLUSIVE


def needed_to_settle(comparison: PairedComparison) -> Needed:
    """How many questions, or repeats, would settle an inconclusive comparison.

    Where the comparison is too small to see d, until it is not: so many that a true difference of d is found with the
    power wanted (Miller, arXiv 2411.00640, section 5). Where it is large enough and its interval still holds both 0
    and d, the observed difference e lies between them; then until 0 or d is excluded with that power if e is the
    truth: a difference of max(e, d - e). And never fewer than rule out what no question showed.

    Args:
        comparison: The comparison as it is.

    Returns:
        The numbers, and a sentence.
    """
    n, error = comparison.n, comparison.planning_error
    size, seen = comparison.smallest_difference, abs(comparison.difference)
    is_too_small = comparison.minimal_detectable_effect > size
    aim = size if is_too_small else max(seen, size - seen)
    target = aim / detectable_multiple(level=comparison.interval.level)
    if not math.isfinite(error) or comparison.error.units < 2:
        return Needed(
            questions=None,
            questions_range=None,
            repeats=None,
            target_error=target,
            sentence="One question or cluster, or an unknown scale, cannot tell what would settle it; evaluate more.",
        )
    least = max(n + 1, math.ceil(n * comparison.unseen / size), MANY_QUESTIONS if comparison.interval.caveats else 0)

    def questions_at(error: float) -> int:
        per_degree = n / (comparison.error.sure_degrees + 1.0)
        ratio = n * (error / aim) ** 2
        return max(least, questions_needed(ratio, per_degree=per_degree, level=comparison.interval.level))

    low, questions, high = (questions_at(one) for one in sorted((*comparison.planning_range, error)))
    repeats, or_repeats = _repeats_to_settle(comparison, target)
    between = f"{low:,} to {high:,}" if low < high else f"{questions:,}"
    if is_too_small:
        what = f"would find a difference of {size:g} with a probability of {POWER:.0%}"
    else:
        what = f"would settle it with a probability of {POWER:.0%} if the difference is the one seen ({seen:.3g})"
    return Needed(
        questions=questions,
        questions_range=(low, high),
        repeats=repeats,
        target_error=target,
        sentence=(
            f"{between} questions instead of {n:,} {what}; {or_repeats}. Looking again after each addition "
            f"finds a difference where there is none in more than {1.0 - comparison.interval.level:.0%}: settle on a "
            "number and look once, or let cachectl.settle() look, which keeps to it."
        ),
    )


def _repeats_to_settle(comparison: PairedComparison, target: float) -> tuple[int | None, str]:
    n, before, after = comparison.n, comparison.within_baseline, comparison.within_candidate
    if before is None or after is None:
        return None, "whether repeats would, two draws per question would tell"
    draws_part = difference_variance(
        within_baseline=before,
        within_candidate=after,
        repeats_baseline=comparison.repeats_baseline,
        repeats_candidate=comparison.repeats_candidate,
    )
    limit = math.sqrt(max(0.0, comparison.planning_error**2 - draws_part / n))
    found = repeats_needed(n, limit_error=limit, within=before + after, target_error=target)
    if found is None:
        return None, "with these questions, no number of repeats would"
    repeats = max(math.floor(min(comparison.repeats_baseline, comparison.repeats_candidate)) + 1, found)
    return repeats, f"so would {repeats} repeats of each of these questions, of both programs"
