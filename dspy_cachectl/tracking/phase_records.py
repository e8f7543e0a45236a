"""What is logged of phases and single evaluations, and under which names. Pure, but for uid, time and steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dspy_cachectl.accounting.ledger import Stats
from dspy_cachectl.tracking.outgoing import (
    PREFIX,
    Outgoing,
    first_step,
    ledger_metrics,
    ledger_table,
    milliseconds,
    points,
    tags,
)
from dspy_cachectl.tracking.record import Dataset, Feedback, Model, Point, Record, new_uid, safe_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dspy_cachectl.context.evaluations import Evaluation
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.tracking.resolve import Target


@dataclass(frozen=True)
class PhaseResults:
    """What is to be logged of one phase, one evaluation or one compile.

    Attributes:
        evaluations: Its evaluations, all ended, in their order.
        stats: Its counters.
        kind: What it is, where it is neither an evaluation nor a phase.
        logged: The uid that a run of its own was first logged as, by where it went: logging it again makes no other.
        provenance: What is known of phase, program and data, by the fields of a report's provenance.
        model: The program that was evaluated, if it is known.
        dataset: The questions, if they are known.
        now: When it is logged, in seconds since 1970.
    """

    evaluations: Sequence[Evaluation] = ()
    stats: Stats | None = None
    kind: str | None = None
    logged: dict[tuple[str | None, ...], str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    model: Model | None = None
    dataset: Dataset | None = None
    now: float = field(default_factory=time.time)


def of_run(run: PhaseRun | None) -> dict[str, Any]:
    """Return what is known of a phase, by the fields of a report's provenance."""
    return {} if run is None else {"phase": run.name, "policy": run.policy.name, "run_id": run.run_id}


def of_phase(results: PhaseResults, target: Target) -> list[Outgoing]:
    """Return what is delivered of a phase: a record for each MLflow run that its evaluations belong to.

    The evaluations of one run are the steps of its metrics. Where all belong to one run, the stats are those of the
    whole phase; where they belong to several, each run gets those of its own evaluations. What the metric said comes
    last, in records of their own.

    Args:
        results: What is to be logged.
        target: Where it goes, unless an evaluation had a run of its own.
    """
    groups: dict[Target, list[Evaluation]] = {}
    for evaluation in results.evaluations:
        its_target = target.of(evaluation.mlflow_run_id)
        # Taken out and put back: the group of the last evaluation has to be the last one.
        groups[its_target] = [*groups.pop(its_target, []), evaluation]
    made, said = [], []
    for its_target, group in (groups or {target: []}).items():
        of_group = results if len(groups) <= 1 else replace(results, stats=_together(group))
        outgoing = _of_group(of_group, its_target, group, first_step(its_target, len(group)))
        made.append(outgoing)
        said += feedback(outgoing.record, group, now=results.now)
    return [*made, *said]


def feedback(about: Record, evaluations: Iterable[Evaluation], *, now: float) -> list[Outgoing]:
    """Return what is delivered of the metric's judgements: a record of their own, which may take longer.

    Args:
        about: The record of these evaluations.
        evaluations: The evaluations.
        now: The time, in seconds since 1970.
    """
    found = tuple(
        Feedback(
            metric=item.metric or "metric",
            evaluation=item.key,
            experiment_id=item.experiment_id,
            linked=item.mlflow_run_id is not None and item.mlflow_run_id in {about.run_id, *about.children},
            values=tuple((one.trace_id, one.value, one.rationale) for one in item.judgements),
        )
        for item in evaluations
        if item.judgements and item.experiment_id is not None
    )
    if not found:
        return []
    phase = f"{PREFIX}.phase"
    record = Record.to(
        about,
        started=about.started,
        ended=milliseconds(now),
        owner=None if about.run_id is not None else about.owner or about.uid,
        tags={phase: about.tags[phase]} if phase in about.tags else {},
        feedback=found,
    )
    return [Outgoing(record)]


def _together(evaluations: Iterable[Evaluation]) -> Stats | None:
    known = [one.stats for one in evaluations if one.stats is not None]
    return Stats.of(row for stats in known for row in stats.by.items()) if known else None


def _of_group(results: PhaseResults, target: Target, group: Sequence[Evaluation], step: int) -> Outgoing:
    uid, phase = new_uid(), results.provenance.get("phase")
    metrics = [point for offset, evaluation in enumerate(group) for point in _points(evaluation, step + offset)]
    ledger: dict[str, bytes] = {}
    if results.stats is not None:
        counters = results.stats.as_dict()
        metrics += points(ledger_metrics(counters), step + max(len(group) - 1, 0), results.now)
        ledger = ledger_table(uid, counters["by"])
    errors = [safe_line(evaluation.error) for evaluation in group if evaluation.error]
    last = group[-1] if group else None
    record = Record.to(
        target,
        uid=uid,
        owner=_owner(results, target, uid),
        started=milliseconds(min((evaluation.started for evaluation in group), default=results.now)),
        ended=milliseconds(max((_end(evaluation) for evaluation in group), default=results.now)),
        run_name=phase or "evaluation",
        failed=last is not None and last.error is not None,
        metrics=tuple(metrics),
        tags=tags(
            results.kind or ("phase" if last is None else "eval"),
            results.provenance,
            metric=(last and last.metric) or None,
            error=errors[-1] if errors else None,
        ),
        artifacts=tuple(ledger),
        tables=tuple(ledger),
        dataset=results.dataset,
        model=results.model,
    )
    return Outgoing(record, ledger)


def _owner(results: PhaseResults, target: Target, uid: str) -> str | None:
    if target.run_id is not None:
        return None
    owner = results.logged.setdefault((target.tracking_uri, target.experiment_id, target.experiment), uid)
    return None if owner == uid else owner


def _points(evaluation: Evaluation, step: int) -> Iterable[Point]:
    found = {"score/percent": evaluation.score, "score/n": evaluation.n, "cost/wall_s": evaluation.seconds}
    return points(found, step, _end(evaluation))


def _end(evaluation: Evaluation) -> float:
    # And not `ended`: the clock may have been set meanwhile.
    return evaluation.started + evaluation.seconds
