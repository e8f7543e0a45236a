"""Quantiles, and what the formulas borrow from scipy: imported when it is needed and not before, as it takes a second.

An evaluation without error bars needs none of it.
"""

from __future__ import annotations

import importlib
import math
from numbers import Real
from statistics import NormalDist
from typing import Any

from dspy_cachectl.errors import ConfigurationError, MissingExtraError

NORMAL = NormalDist()


def needed(module: str, feature: str) -> Any:
    """Return a module of scipy.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(feature, extra="stats") from error


def two_sided_quantile(level: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for a level of 0.95."""
    return NORMAL.inv_cdf(1.0 - (1.0 - level) / 2.0)


def two_sided_t(level: float, degrees: float) -> float:
    """The same of Student's t with this many degrees of freedom."""
    # scipy.special loads three times faster than scipy.stats, and its t is the one that scipy.stats calls.
    return float(needed("scipy.special", "a t interval").stdtrit(degrees, 1.0 - (1.0 - level) / 2.0))


def spread_of_error(level: float, degrees: float) -> tuple[float, float]:
    """By how much the true standard error may differ from one estimated with this many degrees of freedom.

    Returns:
        The two factors sqrt(degrees / chi^2) between which it lies with probability `level`, for normal values.
    """
    chi2 = needed("scipy.special", "the range of a standard error").chdtri
    tail = (1.0 - level) / 2.0
    return math.sqrt(degrees / float(chi2(degrees, tail))), math.sqrt(degrees / float(chi2(degrees, 1.0 - tail)))


def two_sided_t_test(statistic: float, degrees: float) -> float:
    """The probability that Student's t is at least as far from 0 as `statistic`."""
    return min(1.0, 2.0 * float(needed("scipy.special", "a t test").stdtr(degrees, -abs(statistic))))


def is_number(value: Any) -> bool:
    """Tell whether something is a finite number, and not a bool."""
    return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)


def check_level(level: float, name: str = "level") -> None:
    """Refuse a level, or a power, that is not a probability between 0 and 1.

    Raises:
        ConfigurationError: It is 0, 1, outside of them, or not a number.
    """
    if not (is_number(level) and 0.0 < level < 1.0):
        raise ConfigurationError(f"{name} must lie between 0 and 1 (for example 0.95), not {level!r}")
