"""What a metric said about each answer, on the trace of that answer.

Autolog logs it while the evaluation runs, when most traces have not reached the server yet, and drops what does not
arrive. So it is done again here for what is missing, after the traces.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking.deadline import in_daemon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspy_cachectl.tracking.push import Push
    from dspy_cachectl.tracking.record import Feedback

logger = logger_for(__name__)

EVALUATION_TAG = "dspy_cachectl.evaluation"
"""The tag of the traces of one evaluation, as `spans` sets it; importing that would import DSPy."""

AWAITED = 3600.0
"""Seconds after which a trace that the server does not have is given up."""

_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds before traces are looked for again: a flush may return while MLflow still hands the last ones on."""

_PAGE = 500
_LINKED_AT_ONCE = 100
_AT_ONCE = 4
"""How many assessments are sent at a time: MLflow takes them one by one only."""


class FeedbackLeftError(CachectlError):
    """Some feedback is not logged yet; what is logged stays logged."""


def deliver(push: Push) -> str:
    """Log the feedback that a server does not have yet.

    The traces are linked to the record's run, where they belong to none or another.

    Returns:
        The run; empty where the traces are in none.

    Raises:
        FeedbackLeftError: Something is left for the next time.
        LeaseLostError: The record is no longer ours to deliver.
        Exception: Whatever MLflow raises.
    """
    record, run_id = push.record, push.record.run_id
    if run_id is None and record.owner is not None:
        run_id = push.run_of_owner()
        if run_id is None:
            raise FeedbackLeftError("the run that the feedback belongs to is not there yet")
    # Whether traces that the server does not have may still arrive there.
    patient = not push.elsewhere and age_of(record.ended / 1000) < AWAITED
    left = absent = 0
    for group in record.feedback:
        known = _arrived(push, group, pauses=_PAUSES if patient else ())
        if not group.linked and run_id is not None:
            arrived = [trace for trace, _, _ in group.values if trace in known]
            for first in range(0, len(arrived), _LINKED_AT_ONCE):
                push.check()
                push.client.link_traces_to_run(arrived[first : first + _LINKED_AT_ONCE], run_id)
        missing = [row for row in group.values if row[0] in known and group.metric not in known[row[0]]]
        left += _assess(push, group.metric, missing)
        if missing:  # a proxy that asks for a login answers everything: said is what the server shows
            shown = _known(push, group)
            left = max(
                left, sum(group.metric not in shown.get(trace, ()) for trace, _, _ in group.values if trace in known)
            )
        absent += sum(trace not in known for trace, _, _ in group.values)
    _say_what_is_left(left, absent, total=sum(len(group.values) for group in record.feedback), patient=patient)
    return run_id or ""


def _say_what_is_left(left: int, absent: int, *, total: int, patient: bool) -> None:
    if patient:
        left += absent
    if left:
        arrived = f"; {absent} traces have not arrived" if absent and patient else ""
        raise FeedbackLeftError(f"the feedback on {left} of {total} answers is not logged yet{arrived}")
    if absent:
        logger.warning(
            "the feedback on %d of %d answers is left out: the server does not have their traces", absent, total
        )


_flushing: list[futures.Future[Any]] = []
_flush_lock = threading.Lock()


def flush(until: float) -> bool:
    """Send the traces of this process that are still on their way. It is not waited for longer than until then.

    Returns:
        Whether all were sent. False, too, where this process has made none.
    """
    mlflow = sys.modules.get("mlflow")
    if mlflow is None or not hasattr(mlflow, "flush_trace_async_logging"):
        return False
    with _flush_lock:
        # A flush has no limit. One that hangs is waited for, and none is started beside it.
        if all(one.done() for one in _flushing):
            _flushing[:] = [in_daemon(mlflow.flush_trace_async_logging)]
        (under_way,) = _flushing
    futures.wait([under_way], min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX))
    return under_way.done()


def _arrived(push: Push, group: Feedback, *, pauses: tuple[float, ...]) -> dict[str, set[str]]:
    known = _known(push, group)
    for pause in (0.0, *pauses):
        if all(trace in known for trace, _, _ in group.values) or time.monotonic() + pause > push.until:
            break
        time.sleep(pause)
        if not flush(push.until):
            break
        known = _known(push, group)
    return known


def _known(push: Push, group: Feedback) -> dict[str, set[str]]:
    """Return the traces of an evaluation that the server has, and what has been said about each."""
    found: dict[str, set[str]] = {}
    token: str | None = None
    while True:
        page = push.client.search_traces(
            locations=[group.experiment_id],
            filter_string=f"tags.`{EVALUATION_TAG}` = '{group.evaluation}'",
            max_results=_PAGE,
            include_spans=False,
            page_token=token,
        )
        for trace in page:
            found[trace.info.trace_id] = {one.name for one in trace.info.assessments or ()}
        token = page.token
        if not token:
            return found


def _assess(push: Push, metric: str, rows: Sequence[tuple[str, float | bool | str, str | None]]) -> int:
    """Log feedback, as far as the time allows, and return how much is left."""
    client = importlib.import_module("mlflow.tracing.client").TracingClient(push.address)
    entities = importlib.import_module("mlflow.entities")

    def log(number: int) -> int:
        mine = rows[number::_AT_ONCE]
        for done, (trace, value, why) in enumerate(mine):
            if time.monotonic() >= push.until:
                return len(mine) - done
            push.check()
            source = entities.AssessmentSource("CODE", "dspy_cachectl")
            client.log_assessment(trace, entities.Feedback(metric, value, source=source, rationale=why))
        return 0

    works = [in_daemon(functools.partial(log, number)) for number in range(min(_AT_ONCE, len(rows)))]
    futures.wait(works)
    return sum(work.result() for work in works)
