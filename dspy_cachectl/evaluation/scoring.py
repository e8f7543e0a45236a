"""A user's metric, made safe: one number for each answer, or the reason why there is none."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.context.evaluations import metric_name
from dspy_cachectl.errors import CachectlError, ConfigurationError


@dataclass(frozen=True, slots=True)
class Scored:
    """What a metric said of one answer.

    Attributes:
        score: The score; the failure score where there is none.
        failed: Why there is none, or None.
        kept: Whether it was said of this answer in an earlier evaluation.
    """

    score: float
    failed: str | None = None
    kept: bool = False


def check_metric(metric: Any) -> None:
    """Refuse a metric that cannot be called with an example and a prediction.

    Raises:
        ConfigurationError: If it is not callable, or does not take two arguments.
    """
    if not callable(metric):
        raise ConfigurationError(f"the metric is called with (example, prediction); {metric!r} is not callable")
    try:
        signature = inspect.signature(metric)
    except (TypeError, ValueError):
        return  # some callables of C do not tell; the first call will
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ConfigurationError(
            f"the metric {metric_name(metric)!r} is called with (example, prediction), and takes {signature}: {error}"
        ) from error


def score_with(metric: Callable[..., Any], example: Any, prediction: Any, *, failure_score: float) -> Scored:
    """Ask a metric for a score. What it raises is a failure with a reason, never a silent 0.0.

    A replay's missing answer is no failure of the metric and goes through.

    Args:
        metric: Returns a number, a bool, or something with a `score`.
        example: The example.
        prediction: What the program answered.
        failure_score: What counts where there is no score.
    """
    try:
        said = metric(example, prediction)
    except CachectlError:
        raise
    except Exception as error:  # noqa: BLE001 - a user's code; the reason is kept and counted
        return Scored(failure_score, f"the metric raised {type(error).__name__}: {error}")
    value = said if isinstance(said, (bool, int, float)) else getattr(said, "score", said)
    try:
        score = float(value)
    except (TypeError, ValueError):
        return Scored(failure_score, f"the metric returned {type(said).__name__}, which is not a number")
    if not math.isfinite(score):
        return Scored(failure_score, f"the metric returned {score}")
    return Scored(score)
