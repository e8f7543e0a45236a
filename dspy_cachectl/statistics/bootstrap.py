"""The bootstrap interval of a statistic that is no mean."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.intervals import MANY_QUESTIONS, Interval
from dspy_cachectl.statistics.quantiles import check_level, needed
from dspy_cachectl.statistics.scores import QuestionScores, ScoreTable

FEWEST_RESAMPLES = 2_000
# How many positions are drawn at once: 16 MB of them, whatever the number of questions.
_BATCH = 2_000_000


def bootstrap_interval(
    table: ScoreTable,
    statistic: Callable[[Sequence[QuestionScores]], float],
    *,
    level: float = 0.95,
    resamples: int = FEWEST_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap: whole questions are drawn with replacement, or whole clusters.

    For a median, a quantile, a corpus-level F1. For a mean, `mean_interval` is shorter and better. Source:
    Efron, Annals of Statistics 7 (1979), as computed by `scipy.stats.bootstrap`; resampling by question as in
    Miller, arXiv 2411.00640.

    Args:
        table: The scores, n questions.
        statistic: Takes the rows of a resample (a question may come up several times), returns one number.
        level: The nominal coverage, in (0, 1).
        resamples: How many resamples, at least 2,000.
        seed: The seed of the resamples; the same seed gives the same interval.

    Returns:
        The interval, in units of the statistic, flagged below about 100 questions or clusters.

    Raises:
        ConfigurationError: `level` is no probability, too few resamples, or fewer than two questions or
            clusters.
        MissingExtraError: scipy is not installed.
    """
    check_level(level)
    if resamples < FEWEST_RESAMPLES:
        raise ConfigurationError(
            f"{resamples} resamples are too few for the ends of an interval; use at least {FEWEST_RESAMPLES}"
        )
    units = _units(table)
    if len(units) < 2:
        raise ConfigurationError("a bootstrap needs at least two questions, and two clusters where there are any")
    stats = needed("scipy.stats", "a bootstrap interval")

    import numpy as np

    def of_units(chosen: Any) -> float:
        return float(statistic([row for unit in chosen for row in units[unit]]))

    found = stats.bootstrap(
        (np.arange(len(units)),),
        of_units,
        vectorized=False,
        n_resamples=resamples,
        batch=max(1, _BATCH // len(units)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    few = len(units) < MANY_QUESTIONS
    what = "questions" if table.clusters is None else "clusters"
    return Interval(
        low=float(found.low),
        high=float(found.high),
        level=level,
        method=f"percentile bootstrap by {what[:-1]}, {resamples:,} resamples, seed {seed}",
        units=len(units),
        caveats=(f"{len(units)} {what} are few: a bootstrap of them is too short",) if few else (),
    )


def _units(table: ScoreTable) -> list[list[QuestionScores]]:
    if table.clusters is None:
        return [[row] for row in table.questions]
    members: dict[Hashable, list[QuestionScores]] = {}
    for row in table.questions:
        members.setdefault(row.cluster, []).append(row)
    return list(members.values())
