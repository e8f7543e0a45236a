"""The mean score with everything that belongs beside it."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_cachectl.statistics.intervals import Interval, mean_interval
from dspy_cachectl.statistics.scores import ScoreTable
from dspy_cachectl.statistics.standard_errors import StandardError, standard_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean score and what it rests on. Scores and errors are in units of the score.

    Attributes:
        mean: The mean over questions, failures as 0.
        error: Its standard error.
        interval: Its confidence interval.
        n: The number of questions.
        draws: The number of distinct draws of all questions together.
        repeats: The harmonic mean of the number of draws per question.
        failures: How many of the draws failed.
        mean_without_failures: The mean with failed draws left out; None where every draw failed.
        n_without_failures: How many questions are left then.
    """

    mean: float
    error: StandardError
    interval: Interval
    n: int
    draws: int
    repeats: float
    failures: int
    mean_without_failures: float | None
    n_without_failures: int


def estimate(table: ScoreTable, *, level: float = 0.95) -> Estimate:
    """The mean score, its standard error and its interval, with failures as 0 and left out.

    Source: Miller, arXiv 2411.00640; see `standard_error` and `mean_interval`.

    Args:
        table: The scores, n questions.
        level: The nominal coverage of the interval, in (0, 1).

    Returns:
        The estimate. For the interval without failures, call this with `table.without_failures()`.

    Raises:
        ConfigurationError: `level` is no probability.
        MissingExtraError: scipy is not installed.
    """
    answered = table.without_failures() if table.failures < table.draws else None
    return Estimate(
        mean=table.mean,
        error=standard_error(table),
        interval=mean_interval(table, level=level),
        n=table.n,
        draws=table.draws,
        repeats=table.repeats,
        failures=table.failures,
        mean_without_failures=None if answered is None else answered.mean,
        n_without_failures=0 if answered is None else answered.n,
    )
