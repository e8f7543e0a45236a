"""Many comparisons at once, and the luck of the best of many."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
