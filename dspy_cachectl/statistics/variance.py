"""Where the variance of a score comes from: the questions, or the draws; and so what to buy more of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from dspy_cachectl.statistics.scores import ScoreTable, sample_variance
from dspy_cachectl.statistics.standard_errors import standard_error


class Remedy(str, Enum):
    """What makes the error bar shorter."""

    QUESTIONS = "more questions"
    REPEATS = "more repeats"
    EITHER = "measure more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What would make the error bar shorter, and by how much. Errors are in units of the score.

    Attributes:
        remedy: More repeats where the draws make up more of the variance than the questions do, more questions
            where they do not, either where that cannot be told.
        error: The standard error now.
        error_with_twice_the_questions: What it would become, the repeats as they are.
        error_with_twice_the_repeats: What it would become, the questions as they are; None if unknown.
        sentence: All of that in words.
    """

    remedy: Remedy
    error: float
    error_with_twice_the_questions: float
    error_with_twice_the_repeats: float | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceSplit:
    """The variance of a score within and between questions. Variances are in squared units of the score.

    `within`, `between`, `share_within` and `limit_error` are None where no question has two draws, and all but
    `within` where there is only one question, or only one cluster.

    Attributes:
        within: w, the mean variance over the draws of one question.
        between: b, the variance of the questions' true means.
        share_within: w / (w + b), in [0, 1]; None as well where both are 0.
        repeats: K, the harmonic mean of the number of draws per question.
        error: The standard error of the mean score, clustered where there are clusters.
        limit_error: What it cannot fall below however often the same questions are repeated.
        advice: What to buy more of.
    """

    within: float | None
    between: float | None
    share_within: float | None
    repeats: float
    error: float
    limit_error: float | None
    advice: Advice


def within_variance(table: ScoreTable) -> float | None:
    """The mean over questions of the variance of their draws (divisor K_i - 1), unbiased for E[Var(s | question)].

    Source: Miller, arXiv 2411.00640, section 3.

    Args:
        table: The scores, n questions.

    Returns:
        w in squared units of the score, from the questions with two or more draws; None if there are none.
    """
    variances = [found for row in table.questions if (found := row.variance) is not None]
    return math.fsum(variances) / len(variances) if variances else None


def variance_split(table: ScoreTable) -> VarianceSplit:
    """Split the variance by the law of total variance: Var(sbar) = (b + w/K) / n.

    w = mean_i S_i^2; b = max(0, S^2(sbar_i) - w/K), K the harmonic mean of the draws per question; the limit
    of the standard error at K = infinity is sqrt(SE^2 - w/(nK)), which is sqrt(b/n) without clusters. The
    draws of different questions are independent, so clusters change nothing about w/(nK). Before b is cut off
    at 0, both estimates are unbiased. Source: Miller, arXiv 2411.00640, section 3.

    Args:
        table: The scores, n questions.

    Returns:
        The parts, and the advice that follows from them.
    """
    within, repeats = within_variance(table), table.repeats
    error = standard_error(table).value
    measurable = within is not None and table.n > 1
    draws_part = within / repeats if within is not None else 0.0
    between = max(0.0, sample_variance(table.means) - draws_part) if measurable else None
    limit = None
    if measurable and math.isfinite(error):
        limit = math.sqrt(max(0.0, error**2 - draws_part / table.n))
    share = None
    if within is not None and between is not None and within + between > 0.0:
        share = within / (within + between)
    return VarianceSplit(
        within=within,
        between=between,
        share_within=share,
        repeats=repeats,
        error=error,
        limit_error=limit,
        advice=_advise(table, error, limit),
    )


def _advise(table: ScoreTable, error: float, limit: float | None) -> Advice:
    n, repeats = table.n, table.repeats
    questions_error = error / math.sqrt(2.0)
    if limit is None or error == 0.0:
        return Advice(
            remedy=Remedy.EITHER,
            error=error,
            error_with_twice_the_questions=questions_error,
            error_with_twice_the_repeats=None,
            sentence=_unknown(table, error),
        )
    draws_part = max(0.0, error**2 - limit**2)
    repeats_error = math.sqrt(limit**2 + draws_part / 2.0)
    remedy = Remedy.REPEATS if draws_part > limit**2 else Remedy.QUESTIONS
    share = draws_part / error**2
    sentence = (
        f"{share:.0%} of the variance of the score comes from the draws: twice the repeats ({2 * repeats:.3g}) would "
        f"take the standard error from {error:.3g} to {repeats_error:.3g}, and no number of them below {limit:.3g}; "
        f"twice the questions ({2 * n}), for as many calls, would take it to {questions_error:.3g}. "
    )
    if remedy is Remedy.REPEATS:
        sentence += "More questions are better where they can be had; more repeats do nearly as much."
    else:
        sentence += "More questions, not more repeats."
    return Advice(
        remedy=remedy,
        error=error,
        error_with_twice_the_questions=questions_error,
        error_with_twice_the_repeats=repeats_error,
        sentence=sentence,
    )


def _unknown(table: ScoreTable, error: float) -> str:
    if not math.isfinite(error):
        return "One question, or one cluster, says nothing of the spread: evaluate more of them."
    if error == 0.0:
        return "Every question or cluster scored the same, so there is no spread to divide: use more or harder ones."
    return (
        "With one draw per question it cannot be told what questions and draws contribute: 2 repeats would tell. "
        f"Twice the questions ({2 * table.n}) would take the standard error from {error:.3g} to "
        f"{error / math.sqrt(2.0):.3g}."
    )
