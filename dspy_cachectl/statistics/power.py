"""How many questions a comparison needs, and how small a difference it can see."""

from __future__ import annotations

import math

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics import _scipy


def detectable_multiple(*, level: float = 0.95, power: float = 0.8) -> float:
    """How many standard errors a difference must measure to be found: z_{a/2} + z_b, 2.80 at 95% and 80%.

    Args:
        level: One minus the type I error of the two-sided test, in (0, 1).
        power: The probability of finding the difference, in (0, 1).

    Returns:
        The multiple, without a unit.

    Raises:
        ConfigurationError: `level` or `power` is no probability, or the power is below the type I error.
    """
    _scipy.check_level(level)
    _scipy.check_level(power, "power")
    multiple = _scipy.two_sided_quantile(level) + _scipy.normal_quantile(power)
    if multiple <= 0.0:
        raise ConfigurationError(
            f"a power of {power!r} is below the type I error of a test at {level!r}; use 0.8 or more"
        )
    return multiple


def difference_variance(
    *,
    between: float,
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

    Raises:
        ConfigurationError: A negative or infinite variance, or fewer than one repeat.
    """
    for name, variance in (
        ("between", between),
        ("within_baseline", within_baseline),
        ("within_candidate", within_candidate),
    ):
        if not (math.isfinite(variance) and variance >= 0.0):
            raise ConfigurationError(f"{name} is a variance and must be finite and not negative, not {variance!r}")
    for name, repeats in (("repeats_baseline", repeats_baseline), ("repeats_candidate", repeats_candidate)):
        if not repeats >= 1:
            raise ConfigurationError(f"{name} must be at least 1, not {repeats!r}")
    return between + within_baseline / repeats_baseline + within_candidate / repeats_candidate


def sample_size(difference: float, *, variance: float, level: float = 0.95, power: float = 0.8) -> int:
    """How many questions show a true difference: n = (z_{a/2} + z_b)^2 * variance / difference^2.

    Source: Miller, arXiv 2411.00640, section 5. With clusters, multiply `variance` by the design effect.

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
    _check_difference(difference)
    if not (math.isfinite(variance) and variance >= 0.0):
        raise ConfigurationError(f"the variance must be finite and not negative, not {variance!r}")
    needed = (detectable_multiple(level=level, power=power) / difference) ** 2 * variance
    return max(2, math.ceil(needed))


def minimal_detectable_effect(error: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that a comparison with this standard error finds with this power.

    (z_{a/2} + z_b) * SE, which is 2.80 SE at 95% and 80%: Miller, arXiv 2411.00640, section 5.

    Args:
        error: The standard error of the difference, in units of the score; infinite if unknown.
        level: One minus the type I error of the two-sided test, in (0, 1).
        power: The probability of finding the difference, in (0, 1).

    Returns:
        The difference, in units of the score.

    Raises:
        ConfigurationError: A negative standard error, or a level or power that is no probability.
    """
    if not error >= 0.0:
        raise ConfigurationError(f"a standard error cannot be {error!r}; give a number of 0 or more")
    return detectable_multiple(level=level, power=power) * error


def achieved_power(difference: float, error: float, *, level: float = 0.95) -> float:
    """The probability that a two-sided test finds a true difference.

    Phi(|d|/SE - z) + Phi(-|d|/SE - z), z the quantile of the level: the power of the two-sided normal test.

    Args:
        difference: The true difference, in units of the score.
        error: The standard error of its estimate, above 0.
        level: One minus the type I error of the test, in (0, 1).

    Returns:
        A probability; 1 - level where the difference is 0.

    Raises:
        ConfigurationError: A standard error that is not above 0, or a level that is no probability.
    """
    _scipy.check_level(level)
    if not error > 0.0:
        raise ConfigurationError(f"the standard error must be above 0, not {error!r}")
    shift, z = abs(difference) / error, _scipy.two_sided_quantile(level)
    return _scipy.normal_cdf(shift - z) + _scipy.normal_cdf(-shift - z)


def _check_difference(difference: float) -> None:
    if not math.isfinite(difference) or difference == 0.0:
        raise ConfigurationError(
            f"the difference to find must be finite and not 0 (for example 0.05), not {difference!r}"
        )


def questions_needed(n: int, error: float, target_error: float) -> int:
    """How many questions bring a standard error down to a target: n (SE / target)^2.

    Clusters are in the standard error, so this holds for them as long as they keep their size.

    Args:
        n: The number of questions now.
        error: The standard error with them, in any unit.
        target_error: The standard error wanted, in the same unit, above 0.

    Returns:
        The number of questions in all.

    Raises:
        ConfigurationError: A target that is not above 0, or a standard error that is not finite.
    """
    _check_target(target_error)
    if not math.isfinite(error):
        raise ConfigurationError(f"a standard error of {error!r} says nothing of how many questions are needed")
    return math.ceil(n * (error / target_error) ** 2)


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

    Raises:
        ConfigurationError: A target that is not above 0.
    """
    _check_target(target_error)
    room = target_error**2 - limit_error**2
    if room <= 0.0:
        return None
    return max(1, math.ceil(within / (n * room)))


def _check_target(target_error: float) -> None:
    if not target_error > 0.0:
        raise ConfigurationError(f"the standard error to reach must be above 0, not {target_error!r}")
