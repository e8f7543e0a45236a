"""Where the variance of a score comes from: the questions, or the draws; and so what to buy more of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dspy_cachectl.statistics.scores import ScoreTable, sample_variance
from dspy_cachectl.statistics.standard_errors import standard_error


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceSplit:
    """The variance of a score within and between questions. Variances are in squared units of the score.

    Everything but `advice` is None where no question has two draws, and all but `within` and `advice` where there is
    only one question, or only one cluster.

    Attributes:
        within: w, the mean variance over the draws of one question.
        between: b, the variance of the questions' true means.
        share_within: w / (w + b), in [0, 1]; None as well where both are 0.
        limit_error: What the standard error cannot fall below however often the same questions are repeated.
        advice: What to buy more of, and what the standard error would become, in words.
    """

    within: float | None
    between: float | None
    share_within: float | None
    limit_error: float | None
    advice: str


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
    within, error = within_variance(table), standard_error(table).value
    between = share = limit = None
    if within is not None and table.n > 1:
        draws_part = within / table.repeats
        between = max(0.0, sample_variance(table.means) - draws_part)
        if within + between > 0.0:
            share = within / (within + between)
        if math.isfinite(error):
            limit = math.sqrt(max(0.0, error**2 - draws_part / table.n))
    return VarianceSplit(
        within=within,
        between=between,
        share_within=share,
        limit_error=limit,
        advice=_advice(table, error, limit),
    )


def _advice(table: ScoreTable, error: float, limit: float | None) -> str:
    n, repeats = table.n, table.repeats
    more_questions = error / math.sqrt(2.0)
    if not math.isfinite(error):
        return "One question, or one cluster, says nothing of the spread: evaluate more of them."
    if error == 0.0:
        return "Every question or cluster scored the same, so there is no spread to divide: use more or harder ones."
    if limit is None:
        return (
            "With one draw per question it cannot be told what questions and draws contribute: 2 repeats would tell. "
            f"Twice the questions ({2 * n}) would take the standard error from {error:.3g} to {more_questions:.3g}."
        )
    draws_part = max(0.0, error**2 - limit**2)
    more_repeats = math.sqrt(limit**2 + draws_part / 2.0)
    sentence = (
        f"{draws_part / error**2:.0%} of the variance of the score comes from the draws: twice the repeats "
        f"({2 * repeats:.3g}) would take the standard error from {error:.3g} to {more_repeats:.3g}, and no number "
        f"of them below {limit:.3g}; twice the questions ({2 * n}), for as many calls, would take it to "
        f"{more_questions:.3g}. "
    )
    if draws_part > limit**2:
        return sentence + "More questions are better where they can be had; more repeats do nearly as much."
    return sentence + "More questions, not more repeats."
