"""`log_to_mlflow()`: results go to the outbox first, and to the server within a limit."""

from __future__ import annotations

import contextvars
import functools
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.config import setting_now
from dspy_cachectl.context.evaluations import Evaluation
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.ruling import current_phase, last_phase
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.reports.comparison import Comparison
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import Comparisons
from dspy_cachectl.showing.stand_in import passes_on
from dspy_cachectl.tracking import delivery, installed
from dspy_cachectl.tracking.deadline import check_limit, in_daemon
from dspy_cachectl.tracking.delivery import LogOutcome
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.outgoing import Logged, Outgoing
from dspy_cachectl.tracking.phase_records import PhaseResults, of_phase, of_run
from dspy_cachectl.tracking.report_records import of_comparisons, of_report
from dspy_cachectl.tracking.resolve import Target, absolute, default_uri, resolve
from dspy_cachectl.tracking.sending import Sending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspy.evaluate.evaluate import EvaluationResult

logger = logger_for(__name__)

LIMIT = 10.0
"""Seconds that logging may take where nobody says how many."""

GRACE = 0.6
"""Seconds after the limit for which what is nearly done is waited for. A call may exceed its limit by a second."""

_Make = Callable[[Target], list[Outgoing]]


@passes_on
def log_to_mlflow(
    run_or_result: PhaseRun | EvaluationResult | EvalReport | Comparison | Comparisons | Ranking | Logged,
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
            report, with its repeats as steps; or a comparison or a ranking, whose run becomes the parent of the runs of
            the reports that it compares, where they are in the same experiment and have no parent yet. Likewise what
            `settle` and `race` return, with each look as a step.
        result: With a phase: log this result in place of the phase's evaluations.
        run_id: The MLflow run to log to.
        tracking_uri: The server to log to. By default, the one that MLflow is set to. Where it is no address, the
            results wait in the outbox.
        experiment: The name of the experiment for a run of its own. It is created if there is none.
        timeout: Seconds that the call may take, whatever they go to: writing the results down, importing MLflow,
            making its database, the server. With 0 the results only go to the outbox.

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


def check_destination() -> None:
    """Look at where results will be logged to, before anything is paid for.

    Raises:
        ConfigurationError: MLflow is set to something that is no address.
    """
    if setting_now("mlflow"):
        absolute(default_uri(installed.loaded()))


def _log(make: _Make, *, timeout: float, **where: str | None) -> LogOutcome:
    if not setting_now("mlflow"):
        return LogOutcome("disabled", reason="the setting 'mlflow' (DSPY_CACHECTL_MLFLOW) turns it off")
    began = time.monotonic()
    target = resolve(**where)  # here, since the run that is active is the one of this thread
    ours = functools.partial(contextvars.copy_context().run, _keep, make, target)
    # All records are safe on disk before MLflow is imported, and before the first request.
    keeping = delivery.limiter.start(ours, "the outbox")
    if not _is_done(keeping, until=began + (timeout or LIMIT) + GRACE):
        keeping.add_done_callback(_tell_if_lost)
        outcome = LogOutcome("pending", reason=f"writing them to the outbox was not done within {timeout:.3g} s")
        logger.warning("not in MLflow yet, nor in the outbox: %s, and goes on. The disk may be slow.", outcome.reason)
        return replace(outcome, seconds=time.monotonic() - began)
    sending = Sending(keeping.result(), target, until=began + timeout, patience=timeout)
    work = in_daemon(sending.run)
    if _is_done(work, until=began + timeout + GRACE):
        work.result()
    return replace(sending.outcome(), seconds=time.monotonic() - began)


def _is_done(work: futures.Future[Any], *, until: float) -> bool:
    left = min(until - time.monotonic(), threading.TIMEOUT_MAX)
    return bool(futures.wait([work], timeout=max(0.0, left)).done)


def _keep(make: _Make, target: Target) -> list[tuple[Outgoing, StoreError | None]]:
    """Make the records and write them to the outbox; with each, why that cannot be."""
    return [(one, _fault_of(one)) for one in make(target)]


def _fault_of(outgoing: Outgoing) -> StoreError | None:
    """Write a record to the outbox, or return why it cannot wait there: it may be sent all the same."""
    try:
        Outbox().put(outgoing.record, outgoing.files)
    except StoreError as error:
        logger.warning("the results of %r cannot wait in the outbox: %s", outgoing.record.run_name, error)
        return error
    return None


def _tell_if_lost(keeping: futures.Future[list[tuple[Outgoing, StoreError | None]]]) -> None:
    error = keeping.exception() or next((problem for _, problem in keeping.result() if problem is not None), None)
    if error is not None:
        logger.warning("lost to MLflow: results that were still being written to the outbox: %r", error)


def _maker(value: Any, result: Any) -> _Make:
    """Return what makes the records of a value."""
    if isinstance(value, PhaseRun):
        return functools.partial(of_phase, _results(value, result))
    if result is not None:
        raise ConfigurationError("result= goes with a phase: log_to_mlflow(run, result=result)")
    if isinstance(value, EvalReport):
        return functools.partial(of_report, value, ())
    if isinstance(value, Logged):
        return value.records
    if isinstance(value, Comparison):
        return functools.partial(of_comparisons, Comparisons(value.reports, (value,)))
    if isinstance(value, Comparisons):
        return functools.partial(of_comparisons, value)
    if isinstance(value, Ranking):
        compared = value.compared()
        return (
            functools.partial(of_comparisons, compared)
            if compared.pairs
            else functools.partial(of_report, value[0], ())
        )
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
