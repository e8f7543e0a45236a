"""Many comparisons at once, and the luck of the best of many."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics import _scipy


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values: for "does any of these programs win?".

    Below alpha they keep the probability of even one false win at most alpha, whatever the dependence between
    the comparisons. Source: Holm, Scandinavian J. Statistics 6 (1979), as computed by statsmodels.

    Args:
        p_values: The p-values, shape (m,), each in [0, 1].

    Returns:
        The adjusted p-values, shape (m,), in the same order.

    Raises:
        ConfigurationError: A p-value that is no probability.
        MissingExtraError: statsmodels is not installed.
    """
    values = _checked(p_values)
    if not values:
        return ()
    found = _scipy.multitest_module("Holm's correction for many comparisons").multipletests(values, method="holm")
    return tuple(float(value) for value in found[1])


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini and Hochberg's adjusted p-values: for lists of findings, of which a share may be false.

    Below q they keep the expected share of false findings at most q, for independent or positively dependent
    comparisons. Source: Benjamini & Hochberg, J. Royal Stat. Soc. B 57 (1995), as computed by scipy.

    Args:
        p_values: The p-values, shape (m,), each in [0, 1].

    Returns:
        The adjusted p-values, shape (m,), in the same order.

    Raises:
        ConfigurationError: A p-value that is no probability.
        MissingExtraError: scipy is not installed.
    """
    values = _checked(p_values)
    if not values:
        return ()
    found = _scipy.stats_module("Benjamini and Hochberg's correction").false_discovery_control(values)
    return tuple(float(value) for value in found)


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

    Raises:
        ConfigurationError: A negative standard error, or fewer than one candidate.
    """
    if candidates < 1:
        raise ConfigurationError(f"the best of {candidates} candidates cannot be chosen; give at least 1")
    if not error >= 0.0:
        raise ConfigurationError(f"a standard error cannot be {error!r}; give a number of 0 or more")
    return error * math.sqrt(2.0 * math.log(candidates)) if candidates > 1 else 0.0


def _checked(p_values: Sequence[float]) -> list[float]:
    for position, p_value in enumerate(p_values):
        if not 0.0 <= p_value <= 1.0:
            raise ConfigurationError(
                f"p-value {position} is {p_value!r}; a p-value lies between 0 and 1. Leave out comparisons without one"
            )
    return list(p_values)
