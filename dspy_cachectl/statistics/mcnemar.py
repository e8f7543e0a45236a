"""Comparing two passes over the same questions, scored 0 or 1, one draw each."""

from __future__ import annotations

import math

from dspy_cachectl.statistics.intervals import Interval
from dspy_cachectl.statistics.quantiles import needed, two_sided_quantile

# With no wins and no losses, the observed difference is itself a root, and not the one that is looked for.
_NUDGE = 1e-9


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


def tango_interval(wins: int, losses: int, n: int, *, level: float = 0.95) -> Interval:
    """The score interval of the difference of two paired proportions, (wins - losses) / n.

    The differences d at which |wins - losses - n d| / sqrt(n (2 q(d) + d (1 - d))) is at most z, q(d) the
    most likely share of losses at d. It has a width where wins and losses are 0, where the t interval has
    none. Source: Tango, Statistics in Medicine 17 (1998) 891-908.

    Args:
        wins: The number of questions that only the candidate passed.
        losses: The number of questions that only the baseline passed.
        n: The number of questions.
        level: The nominal coverage, in (0, 1).

    Returns:
        The interval, within [-1, 1].

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
    return Interval(low=low, high=high, level=level, method="Tango", units=n)


def _score_variance(wins: int, losses: int, n: int, difference: float) -> float:
    linear = (2 * n - wins + losses) * difference - (wins + losses)
    constant = -losses * difference * (1.0 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8.0 * n * constant))
    share = (root - linear) / (4.0 * n)
    return max(0.0, 2.0 * share + difference * (1.0 - difference))
