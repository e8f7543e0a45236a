"""What a metric said about each answer, on the trace of that answer.

Autolog logs it while the evaluation runs, when most traces have not reached the server yet, and drops what does not
arrive. So it is done again here for what is missing, after the traces.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dspy_cachectl.errors import CachectlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dspy_cachectl.tracking.record import Feedback, Record

logger = logging.getLogger(__name__)

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


def deliver(
    client: Any,
    record: Record,
    *,
    tracking_uri: str,
    run_id: str | None,
    until: float,
    patient: bool,
    check: Callable[[], None],
) -> None:
    """Log the feedback that a server does not have yet.

    Args:
        client: An `MlflowClient`.
        record: The record with the feedback.
        tracking_uri: The server, with credentials.
        run_id: The run that the traces are linked to where they belong to none or another; None if there is none yet.
        until: When to stop, on the monotonic clock.
        patient: Whether traces that the server does not have may still arrive.
        check: Called before each change; raises where the record is no longer ours to deliver.

    Raises:
        FeedbackLeftError: Something is left for the next time.
        Exception: Whatever MLflow or `check` raises.
    """
    left = absent = total = 0
    for group in record.feedback:
        total += len(group.values)
        known = _arrived(client, group, until=until, pauses=_PAUSES if patient else ())
        if not group.linked and run_id is not None:
            for some in _portions([trace for trace, _, _ in group.values if trace in known]):
                check()
                client.link_traces_to_run(some, run_id)
        missing = [row for row in group.values if row[0] in known and group.metric not in known[row[0]]]
        left += _assess(tracking_uri, group.metric, missing, until=until, check=check)
        absent += sum(trace not in known for trace, _, _ in group.values)
    if left or (absent and patient):
        raise FeedbackLeftError(
            f"the feedback on {left + (absent if patient else 0)} of {total} answers is not logged yet"
            + (f"; {absent} traces have not arrived" if absent and patient else "")
        )
    if absent:
        logger.warning(
            "the feedback on %d of %d answers is left out: the server does not have their traces", absent, total
        )


def is_patient(record: Record, *, elsewhere: bool) -> bool:
    """Tell whether traces that a server does not have may still arrive there."""
    return not elsewhere and time.time() - record.ended / 1000 < AWAITED


_flushing: list[threading.Thread] = []
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
        under_way = next((thread for thread in _flushing if thread.is_alive()), None)
        if under_way is None:
            under_way = threading.Thread(
                target=mlflow.flush_trace_async_logging, name="dspy-cachectl-flush", daemon=True
            )
            under_way.start()
            _flushing[:] = [under_way]
    under_way.join(max(0.0, until - time.monotonic()))
    return not under_way.is_alive()


def _arrived(client: Any, group: Feedback, *, until: float, pauses: tuple[float, ...]) -> dict[str, set[str]]:
    known = _known(client, group)
    for pause in (0.0, *pauses):
        if all(trace in known for trace, _, _ in group.values) or time.monotonic() + pause > until:
            break
        time.sleep(pause)
        if not flush(until):
            break
        known = _known(client, group)
    return known


def _known(client: Any, group: Feedback) -> dict[str, set[str]]:
    """Return the traces of an evaluation that the server has, and what has been said about each."""
    found: dict[str, set[str]] = {}
    token: str | None = None
    while True:
        page = client.search_traces(
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


def _assess(
    tracking_uri: str,
    metric: str,
    rows: Sequence[tuple[str, Any, str | None]],
    *,
    until: float,
    check: Callable[[], None],
) -> int:
    """Log feedback, as far as the time allows, and return how much is left."""
    entities = importlib.import_module("mlflow.entities")
    client = importlib.import_module("mlflow.tracing.client").TracingClient(tracking_uri)
    waiting = iter(rows)
    lock, done, failures = threading.Lock(), [0], list[BaseException]()

    def work() -> None:
        while not failures and time.monotonic() < until:
            with lock:
                row = next(waiting, None)
            if row is None:
                return
            trace, value, why = row
            try:
                check()
                source = entities.AssessmentSource("CODE", "dspy_cachectl")
                client.log_assessment(trace, entities.Feedback(metric, value, source=source, rationale=why))
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits for it
                failures.append(error)
                return
            with lock:
                done[0] += 1

    threads = [threading.Thread(target=work, name="dspy-cachectl-feedback", daemon=True) for _ in rows[:_AT_ONCE]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(rows) - done[0]


def _portions(traces: list[str]) -> Iterator[list[str]]:
    return (traces[first : first + _LINKED_AT_ONCE] for first in range(0, len(traces), _LINKED_AT_ONCE))
