"""Looking more than once: how sure one has to be at each look, so that all looks together are wrong as rarely as one.

Each rule gives the nominal level of the interval at a look: the interval with that level, at every look, holds the
truth at all looks together with the level that was asked for (a repeated confidence interval; Jennison & Turnbull,
Group Sequential Methods (2000), chapter 9). A verdict at a look is that of `compare_paired` with that level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.quantiles import NORMAL, check_level, needed
from dspy_cachectl.statistics.variance import StandardError

# A look whose share of the error is below this decides nothing, and a level has to stay below 1.
_LEAST = 1e-12
_REACH = 8.5
_PER_PANEL = 16
_FEATURE = "looking more than once"
ANY_TIME_BEST_AT = 100
"""At how many questions the any-time bound is the tightest. It is fixed before the first look, whatever is asked."""

FEWEST_DEGREES = 10.0
"""With fewer degrees of freedom than this, t's of one look and the next are less alike than the steps of one path that
the bounds are made for: Jennison & Turnbull (2000), section 11.4."""
DECIDES_NOTHING = 1.0 - _LEAST
"""The level of a look that is given no error."""


class Bound(str, Enum):
    """How the error is shared out among the looks.

    Attributes:
        OBRIEN_FLEMING: Hardly any of it to the early looks, so that the last one is about as powerful as a single look.
        POCOCK: About the same to all, which stops sooner where the difference is large, and finds fewer small ones.
        ANY_TIME: As many looks as one likes, at whatever time, without a number of questions that is fixed before.
    """

    OBRIEN_FLEMING = "obrien-fleming"
    POCOCK = "pocock"
    ANY_TIME = "any-time"


def may_decide(error: StandardError) -> bool:
    """Tell whether a look before the last one may decide: not where it rests on few clusters.

    What error it would be given passes to the looks after it. Where questions are independent, even the first look has
    more of them than degrees are needed.

    Args:
        error: The standard error of a score at the look.
    """
    return error.clusters is None or error.degrees >= FEWEST_DEGREES


def look_level(asked: Sequence[int], most: int, *, bound: Bound = Bound.OBRIEN_FLEMING, level: float = 0.95) -> float:
    """The nominal level of the interval at the last of some looks.

    Args:
        asked: How many questions had been asked at each look until now, rising; the looks need not be planned.
        most: How many are asked at most; it is fixed before the first look, and means nothing to `Bound.ANY_TIME`.
        bound: How the error is shared out.
        level: The level of all looks together, in (0, 1).

    Returns:
        The level of the interval at the last look, at least `level` and below 1.

    Raises:
        ConfigurationError: No look, numbers that do not rise or exceed `most`, or a level that is no probability.
        MissingExtraError: scipy is not installed.
    """
    check_level(level)
    if not asked or asked[0] < 1 or any(after <= before for before, after in itertools.pairwise(asked)):
        raise ConfigurationError(f"looks come after rising numbers of questions, and not after {list(asked)}")
    if bound is Bound.ANY_TIME:
        z = any_time_bound(asked[-1], level=level)
    elif asked[-1] > most:
        raise ConfigurationError(f"{asked[-1]:,} questions are more than the {most:,} that were planned")
    else:
        z = group_sequential_bounds([one / most for one in asked], bound=bound, level=level)[-1]
    return min(DECIDES_NOTHING, max(level, 1.0 - 2.0 * NORMAL.cdf(-z)))


def error_spent(fraction: float, *, bound: Bound = Bound.OBRIEN_FLEMING, level: float = 0.95) -> float:
    """How much of the error a group-sequential bound has given out after a share of the questions, on both sides.

    4 (1 - Phi(z / sqrt(t))), z the normal quantile of alpha/4: each side has half of alpha; or alpha ln(1 + (e - 1) t).
    Source: Lan & DeMets, Biometrika 70 (1983) 659-663, whose functions these are, like the bounds of O'Brien & Fleming
    and of Pocock.

    Args:
        fraction: t, the share of the questions that have been asked, in (0, 1].
        bound: Which of the two.
        level: One minus the error of all looks together.

    Returns:
        The error given out until then.
    """
    alpha = 1.0 - level
    if bound is Bound.POCOCK:
        return alpha * math.log1p((math.e - 1.0) * fraction)
    return 4.0 * NORMAL.cdf(NORMAL.inv_cdf(alpha / 4.0) / math.sqrt(fraction))


def group_sequential_bounds(
    fractions: Sequence[float], *, bound: Bound = Bound.OBRIEN_FLEMING, level: float = 0.95
) -> tuple[float, ...]:
    """How many standard errors a difference must measure at each look, for looks that nobody has to plan.

    At each look as much error is made possible as its spending function adds: with S(t) a Brownian motion, the density
    of S at a look among those paths that have not crossed is carried from one look to the next by numerical
    integration (Gauss-Legendre, in panels). Sources: Armitage, McPherson & Rowe, J. Royal Statistical Society A 132
    (1969) 235-244; Lan & DeMets, Biometrika 70 (1983); Jennison & Turnbull (2000), chapters 7 and 19.

    Args:
        fractions: The share of the questions at each look, rising, in (0, 1].
        bound: How the error is shared out.
        level: One minus the error of all looks together.

    Returns:
        The bounds, symmetric about 0, one a look; infinite where a look gets no error that counts.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    np: Any = needed("numpy", _FEATURE)
    found: list[float] = []
    points, weights = np.zeros(1), np.ones(1)  # all paths begin at 0
    for before, now, after in zip((0.0, *fractions), fractions, (*fractions[1:], 1.0), strict=False):
        step = math.sqrt(now - before)
        spent = error_spent(before, bound=bound, level=level) if before else 0.0
        share = error_spent(now, bound=bound, level=level) - spent
        z = _bound_that_gives(share, points / step, weights, math.sqrt(now) / step)
        found.append(z)
        nodes, sizes = _panels(np, min(z, _REACH) * math.sqrt(now), min(step, math.sqrt(after - now) or step))
        kernel = np.exp(-0.5 * ((nodes[:, None] - points) / step) ** 2) / (step * math.sqrt(2.0 * math.pi))
        points, weights = nodes, sizes * (kernel @ weights)
    return tuple(found)


def _bound_that_gives(share: float, points: Any, weights: Any, reach: float) -> float:
    """Return z such that this share of paths, a step of one from these points, is beyond z * reach on either side."""
    if share < _LEAST:
        return math.inf
    ndtr, root = needed("scipy.special", _FEATURE).ndtr, needed("scipy.optimize", _FEATURE).brentq
    return float(root(lambda z: 2.0 * weights @ ndtr(points - z * reach) - share, 0.0, _REACH, xtol=1e-10))


def _panels(np: Any, half: float, width: float) -> tuple[Any, Any]:
    """Return nodes and weights of an integral from -half to half, in panels of about twice a width."""
    count = max(4, math.ceil(half / width))
    nodes, weights = np.polynomial.legendre.leggauss(_PER_PANEL)
    size = half / count
    centres = -half + size * (2 * np.arange(count) + 1)
    return (centres[:, None] + size * nodes).ravel(), np.tile(size * weights, count)


def any_time_bound(asked: int, *, level: float = 0.95) -> float:
    """How many standard errors a difference must measure, at any time, however often one looks.

    sqrt(2 (v + 1) / v * ln(sqrt(v + 1) / alpha)), v = n rho^2: the asymptotic confidence sequence of Waudby-Smith,
    Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", arXiv
    2103.06476, theorem 2.2, with rho as in their section 2 the one that makes it tightest at `ANY_TIME_BEST_AT`.

    Args:
        asked: n, how many questions have been asked.
        level: One minus the error of all looks together.

    Returns:
        The bound, symmetric about 0.
    """
    alpha = 1.0 - level
    twice = -2.0 * math.log(alpha)
    v = asked * (twice + math.log(twice + 1.0)) / ANY_TIME_BEST_AT
    return math.sqrt(2.0 * (v + 1.0) / v * math.log(math.sqrt(v + 1.0) / alpha))
