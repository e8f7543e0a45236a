"""How many questions a comparison needs, how small a difference it can see, and what many comparisons do to luck."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.quantiles import NORMAL, check_level, needed, two_sided_quantile, two_sided_t

POWER = 0.8
"""The power for which differences are called detectable: a true one is found four times in five."""

# Beyond this quantile of t, that of an early look with few degrees of freedom, the normal part of a noncentral t is
# nothing, and scipy's own distribution function no number.
_FAR = 1_000.0
# Below it t has no tails that a plan can rest on (and scipy's inverse of the noncentral t does not come back).
_FEWEST_DEGREES = 1.0 - 1e-9


def detectable_multiple(*, degrees: float = math.inf, level: float = 0.95, power: float = POWER) -> float:
    """How many standard errors a difference must measure to be found by a t test.

    The noncentrality at which t exceeds its two-sided quantile with this power: z_{a/2} + z_b, 2.80 at 95% and 80%,
    where the degrees of freedom are many, 3.15 for 9 of them, and more for fewer.

    Args:
        degrees: The degrees of freedom of the standard error, above 0; infinite where it is known.
        level: One minus the type I error of the two-sided test, in (0, 1).
        power: The probability of finding the difference, in (0, 1).

    Returns:
        The multiple, without a unit; infinite where there is less than one degree of freedom.

    Raises:
        ConfigurationError: `level` or `power` is no probability, or the power is below the type I error.
        MissingExtraError: scipy is not installed.
    """
    check_level(level)
    check_level(power, "power")
    multiple = two_sided_quantile(level) + NORMAL.inv_cdf(power)
    if multiple <= 0.0:
        raise ConfigurationError(
            f"a power of {power!r} is below the type I error of a test at {level!r}; use 0.8 or more"
        )
    if degrees < _FEWEST_DEGREES:
        return math.inf
    if math.isinf(degrees):
        return multiple
    special, quantile = needed("scipy.special", "a detectable difference"), two_sided_t(level, degrees)
    if quantile > _FAR:  # P(noncentral t < q) is that of chi^2 / degrees > (noncentrality / q)^2
        return float(quantile * math.sqrt(special.chdtri(degrees, 1.0 - power) / degrees))
    missed, most = special.nctdtr, multiple
    while missed(degrees, most, quantile) > 1.0 - power:
        most *= 2.0
    # `nctdtrinc` would be the root too, but only to six digits.
    root = needed("scipy.optimize", "a detectable difference").brentq
    return float(root(lambda one: missed(degrees, one, quantile) - (1.0 - power), 0.0, most, xtol=1e-13))


def difference_variance(
    *,
    between: float = 0.0,
    within_baseline: float = 0.0,
    within_candidate: float = 0.0,
    repeats_baseline: float = 1,
    repeats_candidate: float = 1,
) -> float:
    """The variance of one question's difference: omega^2 + w_A/K_A + w_B/K_B.

    Source: Miller, arXiv 2411.00640, section 5.

    Args:
        between: omega^2, the variance over questions of the true differences, in squared units of the score.
        within_baseline: w_A, the variance over the draws of one question, of the baseline.
        within_candidate: w_B, the same of the candidate.
        repeats_baseline: K_A, draws per question of the baseline.
        repeats_candidate: K_B, draws per question of the candidate.

    Returns:
        The variance, in squared units of the score. Its square root over sqrt(n) is the standard error.
    """
    return between + within_baseline / repeats_baseline + within_candidate / repeats_candidate


def sample_size(difference: float, *, variance: float, level: float = 0.95, power: float = POWER) -> int:
    """How many questions show a true difference: n = m^2 * variance / difference^2, m as in `detectable_multiple`.

    Source: Miller, arXiv 2411.00640, section 5, with t(n - 1) in place of the normal distribution: with 10 questions
    or 20 the spread is itself an estimate. With clusters, multiply `variance` by the design effect.

    Args:
        difference: The smallest difference worth finding, in units of the score, not 0.
        variance: The variance of one question's difference, see `difference_variance`.
        level: One minus the type I error of the two-sided test, in (0, 1).
        power: The probability of finding the difference, in (0, 1).

    Returns:
        The number of questions, at least 2.

    Raises:
        ConfigurationError: A difference of 0, a negative variance, or a level or power that is no probability.
    """
    if not math.isfinite(difference) or difference == 0.0:
        raise ConfigurationError(
            f"the difference to find must be finite and not 0 (for example 0.05), not {difference!r}"
        )
    if not (math.isfinite(variance) and variance >= 0.0):
        raise ConfigurationError(f"the variance must be finite and not negative, not {variance!r}")
    return questions_needed(variance / difference**2, level=level, power=power)


def questions_needed(ratio: float, *, per_degree: float = 1.0, level: float = 0.95, power: float = POWER) -> int:
    """The least n at which sqrt(n / ratio) is as large as `detectable_multiple` with that n's degrees of freedom.

    Args:
        ratio: The variance of one question's difference over the squared difference to find.
        per_degree: How many questions make one independent unit: 1, or as many as clusters need.
        level: One minus the type I error of the two-sided test, in (0, 1).
        power: The probability of finding the difference, in (0, 1).

    Returns:
        The number of questions in all, at least 2.
    """
    # As many as were needed if the spread were known: it takes no fewer.
    enough = max(2, math.ceil(detectable_multiple(level=level, power=power) ** 2 * ratio))
    too_few = enough - 1

    def is_enough(n: int) -> bool:
        multiple = detectable_multiple(degrees=n / per_degree - 1.0, level=level, power=power)
        return multiple**2 * ratio <= n

    while not is_enough(enough):
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        between = (too_few + enough) // 2
        too_few, enough = (too_few, between) if is_enough(between) else (between, enough)
    return enough


def repeats_needed(n: int, *, limit_error: float, within: float, target_error: float) -> int | None:
    """How many draws per question bring a standard error down to a target, at the questions there are.

    SE(K)^2 = limit^2 + within / (n K), solved for K.

    Args:
        n: The number of questions.
        limit_error: The standard error at infinitely many draws, in units of the score.
        within: The variance over draws: w of one program, or w_A + w_B of a comparison.
        target_error: The standard error wanted, in units of the score, above 0.

    Returns:
        The number of draws per question, or None where no number of them is enough.
    """
    room = target_error**2 - limit_error**2
    if room <= 0.0:
        return None
    return max(1, math.ceil(within / (n * room)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values: for "does any of these programs win?".

    Below alpha they keep the probability of even one false win at most alpha, whatever the dependence between
    the comparisons. Source: Holm, Scandinavian J. Statistics 6 (1979): the j-th smallest of m times m - j + 1, at
    most 1, and never below the one before it.

    Args:
        p_values: The p-values, shape (m,), each in [0, 1].

    Returns:
        The adjusted p-values, shape (m,), in the same order.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[position]))
        adjusted[position] = highest
    return tuple(adjusted)


def selection_bias(error: float, candidates: int) -> float:
    """By how much the best of M equally good candidates may look too good on the questions that chose it.

    SE * sqrt(2 ln M) bounds the expected maximum of M normal errors, independent or not, from above; it is
    2.1 SE against an expectation of 1.5 SE for M = 10, and 3.0 SE against 2.5 SE for M = 100. Report the
    winner on fresh, held-out questions instead of subtracting it. Source: Boucheron, Lugosi & Massart,
    Concentration Inequalities (2013), theorem 2.5.

    Args:
        error: The standard error of one candidate's score, in units of the score.
        candidates: M, how many candidates were scored on the same questions.

    Returns:
        The bound, in units of the score; 0 for one candidate.
    """
    return error * math.sqrt(2.0 * math.log(candidates)) if candidates > 1 else 0.0
