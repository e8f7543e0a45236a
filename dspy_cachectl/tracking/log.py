"""`log_to_mlflow()`: results go to the outbox first, and to the server within a limit."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy_cachectl.errors import ConfigurationError, MissingExtraError, StoreError
from dspy_cachectl.tracking import client, delivery, phase_records, report_records
from dspy_cachectl.tracking.deadline import check_limit
from dspy_cachectl.tracking.delivery import LogOutcome
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.outgoing import Outgoing
from dspy_cachectl.tracking.phase_records import PhaseResults
from dspy_cachectl.tracking.resolve import Target, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspy.evaluate.evaluate import EvaluationResult

    from dspy_cachectl.context.evaluations import Evaluation
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.reports.comparison import Comparison, Comparisons
    from dspy_cachectl.reports.report import EvalReport

logger = logging.getLogger(__name__)

SWITCH_VARIABLE = "DSPY_CACHECTL_MLFLOW"
"""The environment variable that turns logging off, set to `off`, `0`, `false` or `no`."""

LIMIT = 10.0
"""Seconds that logging may take where nobody says how many."""

LEAST_LIMIT = 1.0
"""Seconds that a push gets even where importing MLflow has used up the limit."""

_WORSE = ("logged", "busy", "pending", "damaged", "failed")

_Make = Callable[[Target], list[Outgoing]]


def log_to_mlflow(
    run_or_result: PhaseRun | EvaluationResult | EvalReport | Comparison | Comparisons,
    *,
    result: EvaluationResult | None = None,
    run_id: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    timeout: float = LIMIT,
) -> LogOutcome:
    """Log results to MLflow, without ever hanging and without losing them.

    The results are written to the outbox on disk, and then sent. If the server has not taken them within the
    limit they wait there, a warning says so, and `dspy-cachectl mlflow sync` delivers them later; so do the next
    results that the server takes, with what is left of their own limit. The run is the one named, the one that
    was active when the evaluation began, the one active in this thread, the one in `MLFLOW_RUN_ID`, or else a
    new one. No request is made to find it.

    Args:
        run_or_result: A phase: all of its evaluations are logged, as steps, and its stats. Or what
            `dspy.Evaluate` returned: its score, and the stats of the phase that is open or was closed last. Or a
            report, with its repeats as steps; or a comparison, whose run becomes the parent of the runs of the
            reports that it compares, where they are in the same experiment and have no parent yet.
        result: With a phase: log this result in place of the phase's evaluations.
        run_id: The MLflow run to log to.
        tracking_uri: The server to log to. By default, the one that MLflow is set to.
        experiment: The name of the experiment for a run of its own. It is created if there is none.
        timeout: Seconds to wait for the server; with 0 the results only go to the outbox. Importing MLflow for
            the first time counts too, but sending gets a second even if that took them all.

    Returns:
        What became of them.

    Raises:
        ConfigurationError: An argument cannot be used.
    """
    make, what = _subject(run_or_result, result)
    where = functools.partial(resolve, run_id=run_id, tracking_uri=tracking_uri, experiment=experiment)
    return _log(make, what, where, timeout=check_limit(timeout))


def log_report(report: EvalReport, evaluations: Sequence[Evaluation], *, run_id: str | None = None) -> LogOutcome:
    """Log a report, knowing of the evaluations that it was made of.

    Args:
        report: The report.
        evaluations: Its evaluations, a repeat each. Where they ran in one MLflow run, it is the report's; of several,
            as autolog opens them for the repeats, the report's run becomes the parent.
        run_id: The MLflow run to log to.

    Returns:
        What became of it.
    """
    make = functools.partial(_of_report, report, evaluations)
    return _log(make, f"the report {report.name!r}", functools.partial(resolve, run_id=run_id), timeout=LIMIT)


def log_results(results: PhaseResults, *, timeout: float) -> LogOutcome:
    """Log what is known of an evaluation that has just ended, or of a compile.

    Args:
        results: What is known.
        timeout: As for `log_to_mlflow`.

    Returns:
        What became of it.
    """
    return _log(*_of_results(results), resolve, timeout=timeout)


def _log(make: _Make, what: str, where: Callable[[], Target], *, timeout: float) -> LogOutcome:
    if _is_off():
        return LogOutcome("disabled", reason=f"{SWITCH_VARIABLE} turns it off")
    began = time.monotonic()
    missing = _load()
    target = where()  # now that MLflow can tell its address
    address = target.tracking_uri or ""
    # All records are safe on disk before the first request.
    kept = [(one, _put(one)) for one in make(target)]
    if missing is None:
        client.load(address)
    until = max(began + timeout, time.monotonic() + min(timeout, LEAST_LIMIT))
    send = functools.partial(_send, address=address, until=until, missing=missing)
    outcomes = [send(one, problem) for one, problem in kept if not one.record.feedback]
    worst, last = max(outcomes, key=lambda outcome: _WORSE.index(outcome.status)), outcomes[-1]
    _warn(worst, what)
    if worst.status == "logged":  # else the feedback waits with the results that it is about
        said = [send(one, problem) for one, problem in kept if one.record.feedback]
        for outcome in said:
            _warn(outcome, f"all the feedback on {what}")
        if all(outcome.status == "logged" for outcome in said):
            delivery.deliver_waiting(address, until=until)
    return LogOutcome(worst.status, last.uid, last.run_id, worst.reason, time.monotonic() - began)


_next_steps: Counter[tuple[str | None, str]] = Counter()
_steps_lock = threading.Lock()


def _first_step(target: Target, count: int) -> int:
    """Return the first free step of a run, so that what this process logs to it later has later steps."""
    if target.run_id is None:
        return 0
    key = (target.tracking_uri, target.run_id)
    with _steps_lock:
        step = _next_steps[key]
        _next_steps[key] += max(count, 1)
    return step


def _subject(value: Any, result: Any) -> tuple[_Make, str]:
    """Return what makes the records, and what they are about."""
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.context.ruling import current_phase, last_phase
    from dspy_cachectl.reports.comparison import Comparison, Comparisons
    from dspy_cachectl.reports.report import EvalReport

    if isinstance(value, PhaseRun):
        return _of_results(_results(value, result))
    if result is not None:
        raise ConfigurationError("result= goes with a phase: log_to_mlflow(run, result=result)")
    if isinstance(value, EvalReport):
        return functools.partial(_of_report, value, ()), f"the report {value.name!r}"
    if isinstance(value, (Comparison, Comparisons)):
        return functools.partial(_of_comparisons, value), "the comparison"
    return _of_results(replace(_results(current_phase() or last_phase(), value), logged={}))


def _of_results(results: PhaseResults) -> tuple[_Make, str]:
    what = f"the results of phase {results.phase!r}" if results.phase else "the results"
    return functools.partial(phase_records.of_phase, results, first_step=_first_step), what


def _of_report(report: EvalReport, evaluations: Sequence[Evaluation], target: Target) -> list[Outgoing]:
    seen = list(dict.fromkeys(item.mlflow_run_id for item in evaluations if item.mlflow_run_id is not None))
    target = target.of(seen[0] if len(seen) == 1 else None)
    children = seen if len(seen) > 1 else ()
    step = _first_step(target, report.repeats)
    outgoing = report_records.of_report(report, target, first_step=step, children=children)
    return [outgoing, *phase_records.feedback(outgoing.record, evaluations, now=time.time())]


def _of_comparisons(compared: Comparison | Comparisons, target: Target) -> list[Outgoing]:
    step = _first_step(target, len(getattr(compared, "pairs", (compared,))))
    return [report_records.of_comparisons(compared, target, first_step=step)]


def _results(phase: PhaseRun | None, result: Any) -> PhaseResults:
    now = time.time()
    evaluations = [item for item in (phase.evaluations if phase is not None else ()) if item.ended is not None]
    if result is not None:
        evaluations = [_evaluation(result, evaluations, now)]
    if phase is None:
        return PhaseResults(now, evaluations)
    name, policy = phase.name, phase.policy.name
    return PhaseResults(now, evaluations, phase.stats, name, policy, phase.run_id, logged=phase.logged)


def _evaluation(result: Any, evaluations: list[Evaluation], now: float) -> Evaluation:
    """Return the evaluation of a phase that a result is of, or what the result itself tells."""
    from dspy_cachectl.context.evaluations import Evaluation

    try:
        score, n = float(result.score), len(result.results)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"log_to_mlflow takes a phase (`with phase('eval') as run`), a report or a comparison of evaluate(), or "
            f"what dspy.Evaluate returned, not {type(result).__name__}"
        ) from error
    same = [item for item in evaluations if item.score == score and item.n == n]
    return same[-1] if same else Evaluation(metric="", n=n, started=now, ended=now, score=score)


def _is_off() -> bool:
    return os.environ.get(SWITCH_VARIABLE, "").strip().lower() in {"off", "0", "false", "no"}


def _load() -> MissingExtraError | None:
    try:
        client.load()
    except MissingExtraError as error:
        return error
    return None


def _put(outgoing: Outgoing) -> StoreError | None:
    try:
        Outbox().put(outgoing.record, outgoing.files)
    except StoreError as error:
        return error
    return None


def _send(
    outgoing: Outgoing, problem: StoreError | None, *, address: str, until: float, missing: MissingExtraError | None
) -> LogOutcome:
    record, limit = outgoing.record, max(0.0, until - time.monotonic())
    if missing is not None or not address:
        outcome = LogOutcome("pending", record.uid, record.run_id, str(missing or "no tracking server is named"))
    else:
        unkept = None if problem is None else outgoing.files
        outcome = delivery.deliver(record, address=address, limit=limit, unkept=unkept)
    if problem is not None and outcome.status == "logged":
        logger.warning("the results of run %s could not be kept: %s", outcome.run_id, problem)
    elif problem is not None:
        outcome = replace(outcome, status="failed", reason=f"{outcome.reason}; {problem}")
    return outcome


def _warn(outcome: LogOutcome, what: str) -> None:
    if outcome.status == "failed":
        logger.warning("%s are lost to MLflow: %s", what, outcome.reason)
    elif outcome.status != "logged":
        logger.warning(
            "MLflow does not have %s yet: %s. They wait in the outbox (%s); deliver them with "
            "`dspy-cachectl mlflow sync` or dspy_cachectl.tracking.sync().",
            what,
            outcome.reason,
            Outbox().path,
        )
