"""What a paired comparison says, and what would settle one that says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from dspy_cachectl.statistics.intervals import Interval
from dspy_cachectl.statistics.power import (
    POWER,
    detectable_multiple,
    difference_variance,
    minimal_detectable_effect,
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
        repeats: How many draws per question and program, the questions as they are; None where no number of
            them is enough, or it cannot be told from one draw per question.
        target_error: The standard error of the difference that they reach, in units of the score.
        sentence: The same in words.
    """

    questions: int | None
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

    @property
    def ties(self) -> int:
        """The number of questions on which both scored the same."""
        return self.n - self.wins - self.losses

    @property
    def minimal_detectable_effect(self) -> float:
        """The smallest true difference that so many questions find with a probability of `POWER`."""
        return minimal_detectable_effect(self.planning_error, level=self.interval.level)

    @property
    def verdict(self) -> Verdict:
        """BETTER, WORSE, NO DIFFERENCE OF SIZE d, or INCONCLUSIVE (see `verdict_of`)."""
        return verdict_of(self.interval, self.p_value, self.minimal_detectable_effect, self.smallest_difference)

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


def verdict_of(interval: Interval, p_value: float, effect: float, smallest_difference: float) -> Verdict:
    """The verdict of a comparison.

    BETTER or WORSE where the interval excludes 0 and the p-value says so too (they are two tests for McNemar,
    and one for t). NO DIFFERENCE OF SIZE d where the interval lies within (-d, d), and the comparison could
    have seen d: its minimal detectable effect is at most d. Else INCONCLUSIVE: what is
    not significant is not shown to be absent (Altman & Bland, BMJ 311 (1995) 485).

    Args:
        interval: The confidence interval of the difference.
        p_value: The two-sided p-value; significant below 1 - interval.level.
        effect: The minimal detectable effect, in units of the score.
        smallest_difference: d, the smallest difference that matters, in units of the score.

    Returns:
        The verdict.
    """
    if 0.0 not in interval and p_value < 1.0 - interval.level:
        return Verdict.BETTER if interval.low > 0.0 else Verdict.WORSE
    inside = -smallest_difference < interval.low and interval.high < smallest_difference
    if inside and effect <= smallest_difference:
        return Verdict.NO_DIFFERENCE
    return Verdict.INCONCLUSIVE


def needed_to_settle(comparison: PairedComparison) -> Needed:
    """How many questions, or repeats, would settle an inconclusive comparison.

    Where the comparison is too small to see d, until it is not: SE = d / (z_{a/2} + z_b), so that a true
    difference of d is found with the power wanted (Miller, arXiv 2411.00640, section 5). Where it is large
    enough and its interval still holds both 0 and d, the observed difference e lies between them; then until
    0 or d is excluded with that power if e is the truth: SE = max(e, d - e) / (z_{a/2} + z_b).

    Args:
        comparison: The comparison as it is.

    Returns:
        The numbers, and a sentence.
    """
    n, error = comparison.n, comparison.planning_error
    size, seen = comparison.smallest_difference, abs(comparison.difference)
    is_too_small = comparison.minimal_detectable_effect > size
    target = (size if is_too_small else max(seen, size - seen)) / detectable_multiple(level=comparison.interval.level)
    if not math.isfinite(error):
        return Needed(
            questions=None,
            repeats=None,
            target_error=target,
            sentence="One question or cluster, or an unknown scale, cannot tell what would settle it; evaluate more.",
        )
    questions = max(n + 1, questions_needed(n, error, target))
    repeats, or_repeats = _repeats_to_settle(comparison, target)
    if is_too_small:
        aim = f"would find a difference of {size:g} with a probability of {POWER:.0%}"
    else:
        aim = f"would settle it with a probability of {POWER:.0%} if the difference is the one seen ({seen:.3g})"
    return Needed(
        questions=questions,
        repeats=repeats,
        target_error=target,
        sentence=f"{questions} questions instead of {n} {aim}; {or_repeats}.",
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
