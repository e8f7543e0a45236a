"""`log_to_mlflow()`: results go to the outbox first, and to the server within a limit."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy_cachectl.context.evaluations import Evaluation
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.ruling import current_phase, last_phase
from dspy_cachectl.errors import CachectlError, ConfigurationError, MissingExtraError, StoreError
from dspy_cachectl.reports.comparison import Comparison, Comparisons
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.tracking import client, delivery
from dspy_cachectl.tracking.deadline import check_limit
from dspy_cachectl.tracking.delivery import LogOutcome
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.outgoing import Outgoing
from dspy_cachectl.tracking.phase_records import PhaseResults, of_phase, of_run
from dspy_cachectl.tracking.report_records import of_comparisons, of_report
from dspy_cachectl.tracking.resolve import Target, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspy.evaluate.evaluate import EvaluationResult

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
    make = _maker(run_or_result, result)
    where = {"run_id": run_id, "tracking_uri": tracking_uri, "experiment": experiment}
    return _log(make, timeout=check_limit(timeout), **where)


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
    return _log(functools.partial(of_report, report, evaluations), timeout=LIMIT, run_id=run_id)


def log_results(results: PhaseResults, *, timeout: float) -> LogOutcome:
    """Log what is known of an evaluation that has just ended, or of a compile.

    Args:
        results: What is known.
        timeout: As for `log_to_mlflow`.

    Returns:
        What became of it.
    """
    return _log(functools.partial(of_phase, results), timeout=timeout)


def _log(make: _Make, *, timeout: float, **where: str | None) -> LogOutcome:
    if os.environ.get(SWITCH_VARIABLE, "").strip().lower() in {"off", "0", "false", "no"}:
        return LogOutcome("disabled", reason=f"{SWITCH_VARIABLE} turns it off")
    began = time.monotonic()
    missing = _fault_of(client.load)
    target = resolve(**where)  # now that MLflow can tell its address
    address = target.tracking_uri or ""
    # All records are safe on disk before the first request.
    kept = [(one, _fault_of(Outbox().put, one.record, one.files)) for one in make(target)]
    if missing is None:
        client.load(address)
    until = max(began + timeout, time.monotonic() + min(timeout, LEAST_LIMIT))
    send = functools.partial(_send, address=address, until=until, missing=missing)
    outcomes = [send(one, problem) for one, problem in kept if not one.record.feedback]
    worst = max(reversed(outcomes), key=lambda outcome: _WORSE.index(outcome.status))
    what = f"the results of {kept[0][0].record.run_name!r}"
    _warn(worst, what)
    if worst.status == "logged":  # else the feedback waits with the results that it is about
        said = [send(one, problem) for one, problem in kept if one.record.feedback]
        for outcome in said:
            _warn(outcome, f"all the feedback on {what}")
        if all(outcome.status == "logged" for outcome in said):
            delivery.deliver_waiting(address, until=until)
    return replace(worst, seconds=time.monotonic() - began)


def _maker(value: Any, result: Any) -> _Make:
    """Return what makes the records of a value."""
    if isinstance(value, PhaseRun):
        return functools.partial(of_phase, _results(value, result))
    if result is not None:
        raise ConfigurationError("result= goes with a phase: log_to_mlflow(run, result=result)")
    if isinstance(value, EvalReport):
        return functools.partial(of_report, value, ())
    if isinstance(value, Comparison):
        return functools.partial(of_comparisons, Comparisons(value.reports, (value,)))
    if isinstance(value, Comparisons):
        return functools.partial(of_comparisons, value)
    return functools.partial(of_phase, replace(_results(current_phase() or last_phase(), value), logged={}))


def _results(run: PhaseRun | None, result: Any) -> PhaseResults:
    evaluations = [item for item in (run.evaluations if run is not None else ()) if item.ended is not None]
    if result is not None:
        evaluations = [_evaluation(result, evaluations)]
    if run is None:
        return PhaseResults(evaluations)
    return PhaseResults(evaluations, run.stats, logged=run.logged, provenance=of_run(run))


def _evaluation(result: Any, evaluations: list[Evaluation]) -> Evaluation:
    """Return the evaluation of a phase that a result is of, or what the result itself tells."""
    try:
        score, n = float(result.score), len(result.results)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"log_to_mlflow takes a phase (`with phase('eval') as run`), a report or a comparison of evaluate(), or "
            f"what dspy.Evaluate returned, not {type(result).__name__}"
        ) from error
    same = [item for item in evaluations if item.score == score and item.n == n]
    now = time.time()
    return same[-1] if same else Evaluation(metric="", n=n, started=now, ended=now, score=score)


def _fault_of(do: Callable[..., object], *arguments: object) -> CachectlError | None:
    """Return why MLflow, or the outbox, cannot be used: the other one may do."""
    try:
        do(*arguments)
    except (MissingExtraError, StoreError) as error:
        return error
    return None


def _send(
    outgoing: Outgoing, problem: CachectlError | None, *, address: str, until: float, missing: CachectlError | None
) -> LogOutcome:
    record, unkept = outgoing.record, None if problem is None else outgoing.files
    if problem is not None:
        logger.warning("the results of %r cannot wait in the outbox: %s", record.run_name, problem)
    if missing is not None:
        return LogOutcome("pending" if unkept is None else "failed", record.uid, record.run_id, str(missing))
    return delivery.deliver(record, address=address, limit=max(0.0, until - time.monotonic()), unkept=unkept)


def _warn(outcome: LogOutcome, what: str) -> None:
    if outcome.status == "failed":
        logger.warning("lost to MLflow: %s: %s", what, outcome.reason)
    elif outcome.status != "logged":
        logger.warning(
            "not in MLflow yet: %s: %s. Waiting in the outbox (%s); deliver with "
            "`dspy-cachectl mlflow sync` or dspy_cachectl.tracking.sync().",
            what,
            outcome.reason,
            Outbox().path,
        )
