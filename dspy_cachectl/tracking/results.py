"""What is logged, and under which names: from an evaluation and its stats to records. Pure, but for the uid."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dspy_cachectl._version import __version__
from dspy_cachectl.ledger import FIELDS
from dspy_cachectl.tracking.record import Point, Record, plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dspy_cachectl.ledger import Tally
    from dspy_cachectl.tracking.resolve import Target

PREFIX = "dspy_cachectl"

_METRIC_OF = {
    "calls": "lm_calls",
    "prompt_tokens_spent": "prompt_tokens",
    "completion_tokens_spent": "completion_tokens",
    "cost_spent": "cost_usd",
    "cost_saved": "cost_saved_usd",
    "seconds_spent": "lm_s",
    "seconds_saved": "lm_s_saved",
}
"""The counters whose metric has another name than the counter."""


@dataclass(frozen=True)
class Scored:
    """One evaluation.

    Attributes:
        score: Its score in percent; None if it ended in an error.
        n: How many examples it had.
        metric: The metric's name, if known.
        started: When it began, in seconds since 1970.
        ended: When it ended.
        mlflow_run_id: The MLflow run that was active when it began.
        error: What it ended in, if not in a score.
    """

    score: float | None
    n: int
    metric: str | None
    started: float
    ended: float
    mlflow_run_id: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Results:
    """What is to be logged of one phase.

    Attributes:
        phase: The phase's name, or None outside one.
        policy: The name of its policy.
        cache_run_id: The run id of its draws.
        stats: Its counters.
        evaluations: Its evaluations, in their order.
        now: When it is logged, in seconds since 1970.
    """

    phase: str | None
    policy: str | None
    cache_run_id: str | None
    stats: Tally | None
    evaluations: Sequence[Scored]
    now: float


def records(
    results: Results,
    resolve: Callable[[str | None], Target],
    first_step: Callable[[Target, int], int] = lambda _target, _count: 0,
) -> list[tuple[Record, Target]]:
    """Return what is to be delivered: one record for each MLflow run that the evaluations belong to.

    The evaluations of one run are the steps of its metrics; the stats are those of the whole phase and go to
    the run of the last evaluation.

    Args:
        results: What is to be logged.
        resolve: Finds the target for a run captured in memory.
        first_step: Returns the first free step of a target, given how many are wanted.

    Returns:
        Records and their targets; the last one holds the stats.
    """
    groups: dict[str | None, tuple[Target, list[Scored]]] = {}
    for evaluation in results.evaluations:
        target = resolve(evaluation.mlflow_run_id)
        # Taken out and put back: the group of the last evaluation has to be the last one.
        _, group = groups.pop(target.run_id, (target, []))
        groups[target.run_id] = (target, [*group, evaluation])
    if not groups:
        groups[None] = (resolve(None), [])
    last = next(reversed(groups))
    return [
        (_record(results, target, group, first_step(target, len(group)), whole=key == last), target)
        for key, (target, group) in groups.items()
    ]


def _record(results: Results, target: Target, group: Sequence[Scored], step: int, *, whole: bool) -> Record:
    now = _ms(results.now)
    points = [point for offset, scored in enumerate(group) for point in _points(scored, step + offset)]
    if whole and results.stats is not None:
        last_step = step + max(len(group) - 1, 0)
        points += [Point(key, value, now, last_step) for key, value in counters(results.stats)]
    errors = [scored.error for scored in group if scored.error]
    tags = {
        "version": __version__,
        "kind": "eval" if group else "phase",
        "phase": results.phase,
        "policy": results.policy,
        "cache_run_id": results.cache_run_id,
        "metric": group[-1].metric if group else None,
        "error": plain_text(errors[-1]) if errors else None,
    }
    return Record(
        uid=uuid.uuid4().hex,
        started=_ms(min((scored.started for scored in group), default=results.now)),
        ended=_ms(max((scored.ended for scored in group), default=results.now)),
        tracking_uri=target.tracking_uri,
        run_id=target.run_id,
        experiment_id=target.experiment_id,
        experiment=target.experiment,
        run_name=results.phase or "evaluation",
        failed=bool(group) and group[-1].error is not None,
        metrics=tuple(points),
        tags={f"{PREFIX}.{name}": value for name, value in tags.items() if value is not None},
    )


def counters(stats: Tally) -> Iterable[tuple[str, float]]:
    """Return the metrics of a phase's counters, zeros included, so that runs can be compared."""
    for name in FIELDS:
        yield f"{PREFIX}/{_METRIC_OF.get(name, name)}", float(getattr(stats, name))
    yield f"{PREFIX}/cache_hits", float(stats.served)
    yield f"{PREFIX}/cache_misses", float(stats.calls - stats.served)
    if stats.calls:
        yield f"{PREFIX}/hit_rate", stats.served / stats.calls
    yield f"{PREFIX}/tokens_spent", float(stats.tokens_spent)
    yield f"{PREFIX}/tokens_saved", float(stats.tokens_saved)


def _points(scored: Scored, step: int) -> Iterable[Point]:
    at = _ms(scored.ended)
    if scored.score is not None:
        yield Point(f"{PREFIX}/score", float(scored.score), at, step)
    yield Point(f"{PREFIX}/n_examples", float(scored.n), at, step)
    yield Point(f"{PREFIX}/wall_s", max(0.0, scored.ended - scored.started), at, step)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
