"""The standard error of a mean over questions, independent or clustered, and where its variance comes from.

It comes from the questions, or from the draws; and so one knows what to buy more of.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from dspy_cachectl.statistics.scores import ScoreTable, sample_variance

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardError:
    """The standard error of a mean over questions, in units of the score.

    Attributes:
        value: The standard error: clustered where the questions are. Infinite where one question, or one
            cluster, leaves nothing to estimate it from.
        independent: What it would be if the questions were independent of each other.
        units: How many independent units it rests on: clusters, or questions.
        degrees: The degrees of freedom of the t of its interval: n - 1, or what clusters of these sizes leave (see
            `clustered_standard_error`); 0 where there is one unit.
        shared: What the degrees would be if questions of one cluster were correlated as much as they are here (see
            `_shared_degrees`); None without clusters.
        clusters: The number of clusters C, or None.
        design_effect: (value / independent)^2, by how much clustering multiplies the variance; None without
            clusters, or where either error is 0 or infinite.
    """

    value: float
    independent: float
    units: int
    degrees: float
    shared: float | None = None
    clusters: int | None = None
    design_effect: float | None = None

    @property
    def sure_degrees(self) -> float:
        """The fewer of `degrees` and `shared`: with these a test keeps its error, however alike a cluster's questions.

        With `degrees`, 6 to 7 of 100 equal programs get a verdict where clusters are unequal and their questions much
        alike; with these at most 5.5, and fewer the more a single cluster dominates.
        """
        return self.degrees if self.shared is None else min(self.degrees, self.shared)


def standard_error(table: ScoreTable) -> StandardError:
    """The standard error of the mean score: questions are drawn, and draws within them.

    SE = sqrt(S^2(sbar_i) / n), over the means of the questions and never over all n*K draws, which are not
    independent (Miller, arXiv 2411.00640, section 2). With clusters, see `clustered_standard_error`.

    Args:
        table: The scores, n questions.

    Returns:
        The standard error, in units of the score.
    """
    return standard_error_of(table.means, table.clusters)


def standard_error_of(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> StandardError:
    """The standard error of the mean of one value per question.

    Args:
        values: One value per question, shape (n,), n >= 1: mean scores, or differences of them.
        clusters: The cluster of each, shape (n,), or None.

    Returns:
        The standard error, in units of the values.
    """
    n = len(values)
    independent = math.sqrt(sample_variance(values) / n) if n > 1 else math.inf
    independent = _clean(independent, values)
    if clusters is None:
        return StandardError(value=independent, independent=independent, units=n, degrees=n - 1)
    return clustered_standard_error(values, clusters, independent)


def clustered_standard_error(
    values: Sequence[float], clusters: Sequence[Hashable], independent: float
) -> StandardError:
    """The cluster-robust standard error of a mean, and its degrees of freedom, for clusters of any sizes.

    With w_c = n_c / n, the share of cluster c: SE_c = sqrt(sum_c (sum_{i in c} (x_i - xbar))^2 / (1 - w_c)) / n, which
    is CR2 of a model with an intercept only, unbiased if questions are independent. Its degrees of freedom are
    Satterthwaite's, 1 / (sum_c w_c^2 + sum_{c != e} q_c q_e), q_c = w_c^2 / (1 - w_c): C - 1 where all clusters are of
    one size, and fewer the more a few of them dominate. Sources: Bell & McCaffrey, Survey Methodology 28 (2002);
    Pustejovsky & Tipton, J. Business & Economic Statistics 36 (2018).

    Args:
        values: One value per question, shape (n,).
        clusters: The cluster of each question, shape (n,).
        independent: The standard error that ignores the clusters.

    Returns:
        The standard error with the number of clusters and the design effect.
    """
    n = len(values)
    mean = math.fsum(values) / n
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value - mean)
    count = len(members)
    if count < 2:
        return StandardError(value=math.inf, independent=independent, units=count, degrees=0, clusters=count)
    shares = [len(residuals) / n for residuals in members.values()]
    squares = math.fsum(
        math.fsum(residuals) ** 2 / (1.0 - share) for residuals, share in zip(members.values(), shares, strict=True)
    )
    parts = [share**2 / (1.0 - share) for share in shares]
    crossed = math.fsum(parts) ** 2 - math.fsum(part**2 for part in parts)
    value = _clean(math.sqrt(squares) / n, values)
    usable = 0.0 < independent < math.inf and value > 0.0
    return StandardError(
        value=value,
        independent=independent,
        units=count,
        degrees=1.0 / (math.fsum(share**2 for share in shares) + crossed),
        shared=_shared_degrees(list(members.values()), n),
        clusters=count,
        design_effect=(value / independent) ** 2 if usable else None,
    )


def _shared_degrees(members: Sequence[Sequence[float]], n: int) -> float:
    """Satterthwaite's degrees of freedom of CR2 where questions of a cluster are correlated by rho.

    tr(M)^2 / tr(M^2), M_ce = g_c' V g_e, where g_c x is what cluster c adds to the estimate and V = 1 + tau within a
    cluster, tau = rho / (1 - rho); rho is the analysis of variance's. Source: Imbens & Kolesar, Review of Economics
    and Statistics 98 (2016), section 4. An interval with these covers too much where few clusters dominate, and with
    those of independent questions it covers too little: so a verdict takes the fewer (see `sure_degrees`), and for an
    interval of a mean they are what a caveat goes by.

    Args:
        members: The residuals of each cluster's questions, from the mean of all.
        n: The number of questions.
    """
    sizes = [float(len(residuals)) for residuals in members]
    tau = _odds_of_correlation(members, sizes, n)
    weights = [size * size / (1.0 - size / n) / n**2 for size in sizes]  # of what a cluster's mean adds, squared
    moments = [math.fsum(w * size**power for w, size in zip(weights, sizes, strict=True)) for power in range(3)]
    once = tau * math.fsum(size * size for size in sizes) / n**2 - 1.0 / n
    each = -tau / n
    crossed = (
        once**2 * moments[0] ** 2
        + 2.0 * each**2 * (moments[2] * moments[0] + moments[1] ** 2)
        + 4.0 * once * each * moments[1] * moments[0]
    )
    trace, squared = 0.0, crossed
    for weight, size in zip(weights, sizes, strict=True):
        own, common = weight * (1.0 / size + tau), weight * (once + 2.0 * each * size)
        trace += own + common
        squared += own * (own + 2.0 * common)
    return trace**2 / squared


def _odds_of_correlation(members: Sequence[Sequence[float]], sizes: Sequence[float], n: int) -> float:
    """Return rho / (1 - rho) of the questions of a cluster, rho in [0, 0.999], by the one-way analysis of variance."""
    count, total = len(members), math.fsum(math.fsum(residuals) for residuals in members)
    means = [math.fsum(residuals) / size for residuals, size in zip(members, sizes, strict=True)]
    mean = total / n
    between = math.fsum(size * (one - mean) ** 2 for size, one in zip(sizes, means, strict=True)) / (count - 1)
    squares = (math.fsum((x - one) ** 2 for x in residuals) for residuals, one in zip(members, means, strict=True))
    within = math.fsum(squares) / (n - count) if n > count else 0.0
    typical = (n - math.fsum(size * size for size in sizes) / n) / (count - 1)
    whole = between + (typical - 1.0) * within
    rho = min(max((between - within) / whole, 0.0), 0.999) if n > count and whole > 0.0 else 0.0
    return rho / (1.0 - rho)


def _clean(error: float, values: Sequence[float]) -> float:
    # Equal values must give exactly 0, and their mean may be off by the last bit.
    scale = max(abs(value) for value in values)
    return 0.0 if error <= _ROUNDING * scale else error


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

    within: float | None = None
    between: float | None = None
    share_within: float | None = None
    limit_error: float | None = None
    advice: str


def within_variance(table: ScoreTable) -> float | None:
    """The mean over questions of the variance of their draws (divisor K_i - 1), unbiased for E[Var(s | question)].

    Source: Miller, arXiv 2411.00640, section 3.

    Args:
        table: The scores, n questions.

    Returns:
        w in squared units of the score, from the questions with two or more draws; None if there are none.
    """
    variances = [sample_variance(scores) for scores in table.scores if len(scores) > 1]
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
