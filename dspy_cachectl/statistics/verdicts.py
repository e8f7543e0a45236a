"""What a comparison says, and what would settle one that says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from dspy_cachectl.statistics.intervals import Interval
from dspy_cachectl.statistics.power import detectable_multiple, questions_needed, repeats_needed


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
class Plan:
    """What `needed_to_settle` plans from. Errors and differences are in units of the score.

    Attributes:
        n: The number of paired questions now.
        error: The standard error of the difference; infinite if unknown.
        repeats: The number of draws per question, of the program that has fewer.
        draws_part: w_A/K_A + w_B/K_B, what the draws add to one question's variance; None if unknown.
        within: w_A + w_B; None if unknown.
        difference: The difference observed.
        effect: The minimal detectable effect now.
        smallest_difference: The smallest difference that matters.
        level: One minus the type I error, in (0, 1).
        power: The power wanted, in (0, 1).
    """

    n: int
    error: float
    repeats: float
    draws_part: float | None
    within: float | None
    difference: float
    effect: float
    smallest_difference: float
    level: float
    power: float


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


def needed_to_settle(plan: Plan) -> Needed:
    """How many questions, or repeats, would settle an inconclusive comparison.

    Where the comparison is too small to see d, until it is not: SE = d / (z_{a/2} + z_b), so that a true
    difference of d is found with the power wanted (Miller, arXiv 2411.00640, section 5). Where it is large
    enough and its interval still holds both 0 and d, the observed difference e lies between them; then until
    0 or d is excluded with that power if e is the truth: SE = max(e, d - e) / (z_{a/2} + z_b).

    Args:
        plan: The comparison as it is.

    Returns:
        The numbers, and a sentence.
    """
    multiple = detectable_multiple(level=plan.level, power=plan.power)
    size, seen = plan.smallest_difference, abs(plan.difference)
    is_too_small = plan.effect > size
    target = (size if is_too_small else max(seen, size - seen)) / multiple
    if not math.isfinite(plan.error):
        return Needed(
            questions=None,
            repeats=None,
            target_error=target,
            sentence="One question or cluster, or an unknown scale, cannot tell what would settle it; evaluate more.",
        )
    questions = max(plan.n + 1, questions_needed(plan.n, plan.error, target))
    repeats = None
    if plan.draws_part is not None and plan.within is not None:
        floor = math.sqrt(max(0.0, plan.error**2 - plan.draws_part / plan.n))
        found = repeats_needed(plan.n, limit_error=floor, within=plan.within, target_error=target)
        repeats = None if found is None else max(math.floor(plan.repeats) + 1, found)
    if is_too_small:
        aim = f"would find a difference of {size:g} with a probability of {plan.power:.0%}"
    else:
        aim = f"would settle it with a probability of {plan.power:.0%} if the difference is the one seen ({seen:.3g})"
    return Needed(
        questions=questions,
        repeats=repeats,
        target_error=target,
        sentence=f"{questions} questions instead of {plan.n} {aim}; {_repeats_text(plan, repeats)}.",
    )


def _repeats_text(plan: Plan, repeats: int | None) -> str:
    if plan.within is None:
        return "whether repeats would, two draws per question would tell"
    if repeats is None:
        return "with these questions, no number of repeats would"
    return f"so would {repeats} repeats of each of these questions, of both programs"
