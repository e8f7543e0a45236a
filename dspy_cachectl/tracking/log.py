"""`log_to_mlflow()`: results go to the outbox first, and to the server within a limit."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from dspy_cachectl.errors import ConfigurationError, MissingExtraError, StoreError
from dspy_cachectl.tracking import delivery, push, reports, results
from dspy_cachectl.tracking.deadline import check_limit
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.parcels import Parcel
from dspy_cachectl.tracking.record import plain_text, without_credentials
from dspy_cachectl.tracking.resolve import Target, resolve
from dspy_cachectl.tracking.results import Results, Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dspy.evaluate.evaluate import EvaluationResult

    from dspy_cachectl.context.evaluations import Evaluation
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.reports.comparison import Comparison
    from dspy_cachectl.reports.comparisons import Comparisons
    from dspy_cachectl.reports.report import EvalReport
    from dspy_cachectl.tracking.outbox import Entry
    from dspy_cachectl.tracking.record import Record

logger = logging.getLogger(__name__)

SWITCH_VARIABLE = "DSPY_CACHECTL_MLFLOW"
"""The environment variable that turns logging off, set to `off`, `0`, `false` or `no`."""

_WORSE = ("logged", "disabled", "pending", "failed")

LEAST_LIMIT = 1.0
"""Seconds that a push gets even where importing MLflow has used up the limit."""


@dataclass(frozen=True)
class LogOutcome:
    """What became of results that were to be logged. Where they make several records, it tells of the last.

    Attributes:
        status: `"logged"`: the server has them. `"pending"`: they wait in the outbox. `"disabled"`: logging is
            turned off, and nothing was written. `"failed"`: neither the server nor the outbox took them.
        uid: The record's identity in the outbox; None if there is no record.
        run_id: The MLflow run that holds them or is meant to; None if it is not known yet.
        reason: Why they are not logged; empty if they are.
        seconds: How long it took.
    """

    status: Literal["logged", "pending", "disabled", "failed"]
    uid: str | None
    run_id: str | None
    reason: str
    seconds: float


def log_to_mlflow(
    run_or_result: PhaseRun | EvaluationResult | EvalReport | Comparison | Comparisons,
    *,
    result: EvaluationResult | None = None,
    run_id: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    timeout: float = 10.0,
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
    began = time.monotonic()
    timeout = check_limit(timeout)

    def find(captured: str | None) -> Target:
        return resolve(run_id=run_id, captured=captured, tracking_uri=tracking_uri, experiment=experiment)

    value: Any = run_or_result
    kind = reports.evaluation_type(value)
    if kind is None:
        return _log_results(_results(value, result), find, of=value, timeout=timeout, began=began)
    if result is not None:
        raise ConfigurationError("result= goes with a phase: log_to_mlflow(run, result=result)")
    if kind == "report":
        return _log_report(value, find, evaluations=(), timeout=timeout, began=began)
    return _log_comparisons(value, find, timeout=timeout, began=began)


def log_report(
    report: EvalReport, evaluations: Sequence[Evaluation], *, run_id: str | None = None, timeout: float = 10.0
) -> LogOutcome:
    """Log a report, knowing of the evaluations that it was made of.

    Args:
        report: The report.
        evaluations: Its evaluations, a repeat each. Where they ran in one MLflow run, it is the report's; of several,
            as autolog opens them for the repeats, the report's run becomes the parent.
        run_id: The MLflow run to log to.
        timeout: As for `log_to_mlflow`.

    Returns:
        What became of it.
    """
    return _log_report(
        report,
        lambda captured: resolve(run_id=run_id, captured=captured),
        evaluations=evaluations,
        timeout=timeout,
        began=time.monotonic(),
    )


def log_results(found: Results, *, timeout: float) -> LogOutcome:
    """Log what is known of an evaluation that has just ended, or of a compile.

    Args:
        found: What is known.
        timeout: As for `log_to_mlflow`.

    Returns:
        What became of it.
    """
    return _log_results(
        found, lambda captured: resolve(captured=captured), of=None, timeout=timeout, began=time.monotonic()
    )


def _log_results(
    found: Results, find: Callable[[str | None], Target], *, of: Any, timeout: float, began: float
) -> LogOutcome:
    def parcels() -> list[Parcel]:
        made = [_owners.owned(parcel, of) for parcel in results.parcels(found, find, _steps.first)]
        for parcel in list(made):
            here = [item for item in found.evaluations if find(item.mlflow_run_id).run_id == parcel.target.run_id]
            made += results.feedback(parcel.record, parcel.target, here, now=found.now)
        return made

    what = f"the results of phase {found.phase!r}" if found.phase else "the results"
    return _log(parcels, what=what, timeout=timeout, began=began)


def _log_report(
    report: EvalReport,
    find: Callable[[str | None], Target],
    *,
    evaluations: Sequence[Evaluation],
    timeout: float,
    began: float,
) -> LogOutcome:
    seen = list(dict.fromkeys(item.mlflow_run_id for item in evaluations if item.mlflow_run_id is not None))

    def parcels() -> list[Parcel]:
        target = find(seen[0] if len(seen) == 1 else None)
        children = seen if len(seen) > 1 else ()
        step = _steps.first(target, report.repeats)
        parcel = reports.of_report(report, target, first_step=step, children=children)
        return [parcel, *results.feedback(parcel.record, target, evaluations, now=time.time())]

    return _log(parcels, what=f"the report {report.name!r}", timeout=timeout, began=began)


def _log_comparisons(
    compared: Comparison | Comparisons, find: Callable[[str | None], Target], *, timeout: float, began: float
) -> LogOutcome:
    def parcels() -> list[Parcel]:
        target = find(None)
        pairs = len(getattr(compared, "pairs", (compared,)))
        return [reports.of_comparisons(compared, target, first_step=_steps.first(target, pairs))]

    return _log(parcels, what="the comparison", timeout=timeout, began=began)


def _log(make: Callable[[], list[Parcel]], *, what: str, timeout: float, began: float) -> LogOutcome:
    if os.environ.get(SWITCH_VARIABLE, "").strip().lower() in {"off", "0", "false", "no"}:
        return LogOutcome("disabled", None, None, f"{SWITCH_VARIABLE} turns it off", time.monotonic() - began)
    missing = _load()
    # All records are safe on disk before the first request.
    jobs = [(parcel, _put(parcel)) for parcel in make()]
    outcomes: list[LogOutcome] = []
    left_over: list[LogOutcome] = []
    for parcel, entry in jobs:
        if missing is None:
            push.load(parcel.target.tracking_uri)
        left = max(timeout - (time.monotonic() - began), 0.0 if outcomes else min(timeout, LEAST_LIMIT))
        if parcel.record.feedback and any(outcome.status != "logged" for outcome in outcomes):
            continue  # it waits with the results that it is about
        outcome = _send(parcel.record, parcel.target, entry, limit=left, missing=missing)
        (left_over if parcel.record.feedback else outcomes).append(outcome)
    worst = max(outcomes, key=lambda outcome: _WORSE.index(outcome.status))
    last = outcomes[-1]
    _warn(worst, what)
    for outcome in left_over:
        _warn(outcome, f"all the feedback on {what}")
    address = jobs[-1][0].target.tracking_uri
    if address is not None and all(outcome.status == "logged" for outcome in (worst, *left_over)):
        delivery.deliver_waiting(address, limit=timeout - (time.monotonic() - began))
    return LogOutcome(worst.status, last.uid, last.run_id, worst.reason, time.monotonic() - began)


class _Steps:
    """Counts the steps that this process has logged to a run, so that a later evaluation has a later step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: Counter[tuple[str | None, str]] = Counter()

    def first(self, target: Target, count: int) -> int:
        if target.run_id is None:
            return 0
        key = (target.tracking_uri, target.run_id)
        with self._lock:
            step = self._next[key]
            self._next[key] += max(count, 1)
        return step


_steps = _Steps()


class _Owners:
    """Remembers the runs that were made for a phase, so that logging it again makes no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uids: WeakKeyDictionary[Any, dict[tuple[str | None, ...], str]] = WeakKeyDictionary()

    def owned(self, parcel: Parcel, of: Any) -> Parcel:
        """Return the parcel of a phase, bound for the run that an earlier one of it made."""
        target = parcel.target
        if target.run_id is not None or not isinstance(of, _phase_run()):
            return parcel
        key = (target.tracking_uri, target.experiment_id, target.experiment)
        with self._lock:
            owner = self._uids.setdefault(of, {}).setdefault(key, parcel.record.uid)
        return parcel if owner == parcel.record.uid else replace(parcel, record=replace(parcel.record, owner=owner))


_owners = _Owners()


def _phase_run() -> type:
    from dspy_cachectl.context.phases import PhaseRun

    return PhaseRun


def _results(run_or_result: Any, result: Any) -> Results:
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.context.ruling import current_phase, last_phase

    now = time.time()
    if isinstance(run_or_result, PhaseRun):
        phase: PhaseRun | None = run_or_result
    elif result is not None:
        raise ConfigurationError("result= goes with a phase: log_to_mlflow(run, result=result)")
    else:
        phase, result = current_phase() or last_phase(), run_or_result
    evaluations = [
        Scored.of(item) for item in (phase.evaluations if phase is not None else ()) if item.ended is not None
    ]
    if result is not None:
        evaluations = [_scored(result, evaluations, now)]
    if phase is None:
        return Results(None, None, None, None, evaluations, now)
    return Results(phase.name, phase.policy.name, phase.run_id, phase.stats, evaluations, now)


def _scored(result: Any, evaluations: list[Scored], now: float) -> Scored:
    try:
        score, n = float(result.score), len(result.results)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"log_to_mlflow takes a phase (`with phase('eval') as run`), a report or a comparison of evaluate(), or "
            f"what dspy.Evaluate returned, not {type(result).__name__}"
        ) from error
    same = [item for item in evaluations if item.score == score and item.n == n]
    if same:
        return same[-1]
    return Scored(score, n, None, now, now)


def _load() -> MissingExtraError | None:
    try:
        push.load()
    except MissingExtraError as error:
        return error
    return None


def _put(parcel: Parcel) -> Entry | StoreError:
    try:
        return Outbox().put(parcel.record, parcel.files)
    except StoreError as error:
        return error


def _send(
    record: Record, target: Target, entry: Entry | StoreError, *, limit: float, missing: MissingExtraError | None
) -> LogOutcome:
    address = target.tracking_uri
    if missing is not None or address is None:
        reason = str(missing or "no tracking server is named")
        return _not_sent(record, entry, reason)
    if isinstance(entry, StoreError):
        return _send_unwritten(record, address, entry, limit=limit)
    sent = delivery.deliver(entry, record, tracking_uri=address, limit=limit)
    status: Literal["logged", "pending"] = "logged" if sent.status == "delivered" else "pending"
    return LogOutcome(status, record.uid, sent.run_id, sent.reason, 0.0)


def _send_unwritten(record: Record, address: str, problem: StoreError, *, limit: float) -> LogOutcome:
    bare = without_credentials(address)
    try:
        run_id = delivery.guard.run(lambda: push.push(record, tracking_uri=address), limit=limit, target=bare)
    except Exception as error:  # noqa: BLE001 - whatever the server or its client does, the caller goes on
        return _not_sent(record, problem, plain_text(error, longest=300))
    without = ", and its files are not logged" if record.artifacts else ""
    logger.warning("the results of run %s could not be kept%s: %s", run_id, without, problem)
    return LogOutcome("logged", record.uid, run_id, "", 0.0)


def _not_sent(record: Record, entry: Entry | StoreError, reason: str) -> LogOutcome:
    if isinstance(entry, StoreError):
        return LogOutcome("failed", record.uid, record.run_id, f"{reason}; {entry}", 0.0)
    return LogOutcome("pending", record.uid, record.run_id, reason, 0.0)


def _warn(outcome: LogOutcome, what: str) -> None:
    if outcome.status == "failed":
        logger.warning("%s are lost to MLflow: %s", what, outcome.reason)
    elif outcome.status == "pending":
        logger.warning(
            "MLflow does not have %s yet: %s. They wait in the outbox (%s); deliver them with "
            "`dspy-cachectl mlflow sync` or dspy_cachectl.tracking.sync().",
            what,
            outcome.reason,
            Outbox().root / "pending",
        )
