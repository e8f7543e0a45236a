"""What the formulas borrow from scipy and statsmodels, imported when it is needed and not before.

Both take a second to import, and neither is needed to run an evaluation without error bars.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

from dspy_cachectl.errors import ConfigurationError, MissingExtraError

_EXTRA = "stats"
_NORMAL = NormalDist()


def normal_quantile(probability: float) -> float:
    """The value below which a standard normal variable stays with this probability."""
    return _NORMAL.inv_cdf(probability)


def normal_cdf(value: float) -> float:
    """The probability that a standard normal variable is at most `value`."""
    return _NORMAL.cdf(value)


def t_quantile(probability: float, degrees: float) -> float:
    """The value below which Student's t with this many degrees of freedom stays with this probability."""
    return float(_special("a t interval").stdtrit(degrees, probability))


def t_two_sided_p(statistic: float, degrees: float) -> float:
    """The probability that Student's t is at least as far from 0 as `statistic`."""
    return min(1.0, 2.0 * float(_special("a t test").stdtr(degrees, -abs(statistic))))


def two_sided_quantile(level: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for a level of 0.95."""
    return normal_quantile(1.0 - (1.0 - level) / 2.0)


def check_level(level: float, name: str = "level") -> float:
    """Refuse a level, or a power, that is not a probability between 0 and 1.

    Raises:
        ConfigurationError: It is 0, 1, outside of them, or not a number.
    """
    if not (math.isfinite(level) and 0.0 < level < 1.0):
        raise ConfigurationError(f"{name} must lie between 0 and 1 (for example 0.95), not {level!r}")
    return level


def stats_module(feature: str) -> Any:
    """`scipy.stats`.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        import scipy.stats  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(feature, extra=_EXTRA) from error
    return scipy.stats


def optimize_module(feature: str) -> Any:
    """`scipy.optimize`.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        import scipy.optimize  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(feature, extra=_EXTRA) from error
    return scipy.optimize


def multitest_module(feature: str) -> Any:
    """`statsmodels.stats.multitest`.

    Raises:
        MissingExtraError: statsmodels is not installed.
    """
    try:
        from statsmodels.stats import multitest  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(feature, extra=_EXTRA) from error
    return multitest


def _special(feature: str) -> Any:
    # scipy.special loads three times faster than scipy.stats, and its t is the one that scipy.stats calls.
    try:
        import scipy.special  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(feature, extra=_EXTRA) from error
    return scipy.special
