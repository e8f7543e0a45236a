"""What is logged, and under which names: from an evaluation and its stats to records. Pure, but for the uid."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dspy_cachectl._version import __version__
from dspy_cachectl.accounting.ledger import FIELDS, Stats
from dspy_cachectl.tracking.parcels import PREFIX, Parcel, ledger_table, milliseconds, named
from dspy_cachectl.tracking.record import Dataset, Feedback, Model, Point, Record, plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dspy_cachectl.accounting.ledger import Tally
    from dspy_cachectl.context.evaluations import Evaluation, Judgement
    from dspy_cachectl.tracking.resolve import Target

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
        stats: What happened to its calls; None if that is not known.
        judgements: What the metric said about the answers that MLflow has traces of.
        key: What these traces are found by.
        experiment_id: The MLflow experiment that they are in.
    """

    score: float | None
    n: int
    metric: str | None
    started: float
    ended: float
    mlflow_run_id: str | None = None
    error: str | None = None
    stats: Stats | None = None
    judgements: Sequence[Judgement] = ()
    key: str = ""
    experiment_id: str | None = None

    @classmethod
    def of(cls, evaluation: Evaluation) -> Scored:
        """Return an evaluation that has ended."""
        return cls(
            evaluation.score,
            evaluation.n,
            evaluation.metric,
            evaluation.started,
            evaluation.started if evaluation.ended is None else evaluation.ended,
            evaluation.mlflow_run_id,
            evaluation.error,
            evaluation.stats,
            evaluation.judgements,
            evaluation.key,
            evaluation.experiment_id,
        )


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
        kind: What it is, where it is neither an evaluation nor a phase.
        facts: What is known of program and data, as tags.
        model: The program that was evaluated, if it is known.
        dataset: The questions, if they are known.
    """

    phase: str | None
    policy: str | None
    cache_run_id: str | None
    stats: Stats | None
    evaluations: Sequence[Scored]
    now: float
    kind: str | None = None
    facts: Mapping[str, str | None] = field(default_factory=dict)
    model: Model | None = None
    dataset: Dataset | None = None


def parcels(
    results: Results,
    resolve: Callable[[str | None], Target],
    first_step: Callable[[Target, int], int] = lambda _target, _count: 0,
) -> list[Parcel]:
    """Return what is delivered of a phase: a record for each MLflow run that its evaluations belong to.

    The evaluations of one run are the steps of its metrics. Where all belong to one run, the stats are those of the
    whole phase; where they belong to several, each run gets those of its own evaluations.

    Args:
        results: What is to be logged.
        resolve: Finds the target for a run captured in memory.
        first_step: Returns the first free step of a target, given how many are wanted.
    """
    groups: dict[str | None, tuple[Target, list[Scored]]] = {}
    for evaluation in results.evaluations:
        target = resolve(evaluation.mlflow_run_id)
        # Taken out and put back: the group of the last evaluation has to be the last one.
        _, group = groups.pop(target.run_id, (target, []))
        groups[target.run_id] = (target, [*group, evaluation])
    if not groups:
        groups[None] = (resolve(None), [])
    return [
        _parcel(
            results if len(groups) == 1 else replace(results, stats=_together(group)),
            target,
            group,
            first_step(target, len(group)),
        )
        for target, group in groups.values()
    ]


def feedback(about: Record, target: Target, evaluations: Iterable[Scored | Evaluation], *, now: float) -> list[Parcel]:
    """Return what is delivered of the metric's judgements: a record of their own, which may take longer.

    Args:
        about: The record of these evaluations.
        target: Where that goes.
        evaluations: The evaluations.
        now: The time, in seconds since 1970.
    """
    found = tuple(
        Feedback(
            metric=item.metric or "metric",
            evaluation=item.key,
            experiment_id=item.experiment_id,
            linked=item.mlflow_run_id is not None and item.mlflow_run_id in {target.run_id, *about.children},
            values=tuple((one.trace_id, one.value, one.rationale) for one in item.judgements),
        )
        for item in evaluations
        if item.judgements and item.experiment_id is not None
    )
    if not found:
        return []
    record = Record(
        uid=uuid.uuid4().hex,
        started=about.started,
        ended=milliseconds(now),
        tracking_uri=about.tracking_uri,
        run_id=about.run_id,
        experiment_id=about.experiment_id,
        experiment=about.experiment,
        owner=None if about.run_id is not None else about.owner or about.uid,
        tags={name: value for name, value in about.tags.items() if name == f"{PREFIX}.phase"},
        feedback=found,
    )
    return [Parcel(record, target)]


def _together(evaluations: Iterable[Scored]) -> Stats | None:
    known = [one.stats for one in evaluations if one.stats is not None]
    return Stats.of(row for stats in known for row in stats.by.items()) if known else None


def _parcel(results: Results, target: Target, group: Sequence[Scored], step: int) -> Parcel:
    now, uid = milliseconds(results.now), uuid.uuid4().hex
    points = [point for offset, scored in enumerate(group) for point in _points(scored, step + offset)]
    ledger: dict[str, bytes] = {}
    if results.stats is not None:
        last_step = step + max(len(group) - 1, 0)
        points += [Point(key, value, now, last_step) for key, value in counters(results.stats)]
        ledger = ledger_table(uid, results.stats.as_dict()["by"])
    errors = [scored.error for scored in group if scored.error]
    tags = {
        "version": __version__,
        "kind": results.kind or ("eval" if group else "phase"),
        "phase": results.phase,
        "policy": results.policy,
        "cache_run_id": results.cache_run_id,
        "metric": group[-1].metric if group else None,
        "error": plain_text(errors[-1]) if errors else None,
        **results.facts,
    }
    record = Record(
        uid=uid,
        started=milliseconds(min((scored.started for scored in group), default=results.now)),
        ended=milliseconds(max((scored.ended for scored in group), default=results.now)),
        tracking_uri=target.tracking_uri,
        run_id=target.run_id,
        experiment_id=target.experiment_id,
        experiment=target.experiment,
        run_name=results.phase or "evaluation",
        failed=bool(group) and group[-1].error is not None,
        metrics=tuple(points),
        tags=named(tags),
        artifacts=tuple(ledger),
        tables=tuple(ledger),
        dataset=results.dataset,
        model=results.model,
    )
    return Parcel(record, target, ledger)


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
    at = milliseconds(scored.ended)
    if scored.score is not None:
        yield Point(f"{PREFIX}/score", float(scored.score), at, step)
    yield Point(f"{PREFIX}/n_examples", float(scored.n), at, step)
    yield Point(f"{PREFIX}/wall_s", max(0.0, scored.ended - scored.started), at, step)
