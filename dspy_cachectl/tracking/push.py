"""Delivering a record to an MLflow server. Doing it twice leaves the server as doing it once.

Only `MlflowClient` is used, never the fluent functions (which keep state of their own per thread), so that it
works in any thread and with `mlflow-skinny`.
"""

from __future__ import annotations

import importlib
import logging
import math
import socket
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dspy_cachectl.errors import CachectlError, MissingExtraError
from dspy_cachectl.tracking import feedback, models
from dspy_cachectl.tracking.attachments import attach, find_run
from dspy_cachectl.tracking.record import UID_TAG, Point, Record, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

logger = logging.getLogger(__name__)

PREFLIGHT = 2.0
"""Seconds within which a server has to accept a connection."""

_MEANT_FOR_TAG = "dspy_cachectl.meant_for_run"

_MOST_OF_A_MODEL = 100

_NEEDED = ("mlflow.tracking", "mlflow.entities", "mlflow.exceptions")
_IMPORTED_LATER = {
    "": ("mlflow.tracking.request_header.registry", "mlflow.tracing.client", "netrc"),
    "database": (
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.workspace_aware_mixin",
        "alembic.command",
        "alembic.config",
        "sqlalchemy.dialects.sqlite",
    ),
    "databricks": ("databricks.sdk", "mlflow.utils.databricks_utils"),
}
"""What MLflow imports on its first request, by the kind of address. A thread that may hang must not do it."""


class UnreachableError(CachectlError):
    """A server does not accept connections.

    Attributes:
        slow: Whether it took the whole preflight to find out, and would again.
    """

    def __init__(self, message: str, *, slow: bool) -> None:
        super().__init__(message)
        self.slow = slow


class ClaimLostError(CachectlError):
    """Somebody else is delivering this record, or has delivered it.

    Attributes:
        created: The run that was created for it all the same, because it was lost meanwhile.
    """

    def __init__(self, created: str | None = None) -> None:
        super().__init__("another thread or process is delivering it")
        self.created = created


def load(tracking_uri: str | None = None) -> ModuleType:
    """Import MLflow, and what it would import later to talk to this address. The first time takes seconds.

    Returns:
        MLflow.

    Raises:
        MissingExtraError: MLflow is not installed, or cannot be imported.
    """
    try:
        mlflow = importlib.import_module("mlflow")
        for name in _NEEDED:
            importlib.import_module(name)
        # mlflow-tracing alone has the module, and nothing to log with in it.
        from mlflow.tracking import MlflowClient  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("logging to MLflow", extra="mlflow", detail=str(error)) from error
    for name in (*_IMPORTED_LATER[""], *_IMPORTED_LATER[_kind(tracking_uri)]):
        try:
            importlib.import_module(name)
        except ImportError:  # where it is needed, the push fails on it and says so
            logger.debug("%s cannot be imported", name)
    return mlflow


def push(
    record: Record,
    *,
    tracking_uri: str,
    elsewhere: bool = False,
    extra_tags: dict[str, str] | None = None,
    still_ours: Callable[[], bool] = lambda: True,
    files: Path | None = None,
    until: float = math.inf,
) -> str:
    """Deliver a record. It may take as long as the server likes: call it through a guard.

    Args:
        record: What to deliver.
        tracking_uri: Where to, with whatever credentials it takes.
        elsewhere: Whether this is another server than the one the record names. A run that is not known there
            is replaced by one of the record's own, and experiments are told by their name only.
        extra_tags: Tags to add to the record's.
        still_ours: Asked before each change; False ends the delivery.
        files: The folder with the record's artifacts; None where they could not be kept, and are left out.
        until: When to stop sending feedback, on the monotonic clock.

    Returns:
        The id of the run that holds the results now; empty for feedback whose traces are in no run.

    Raises:
        UnreachableError: Nobody listens at the address.
        ClaimLostError: `still_ours` said so.
        FeedbackLeftError: There is feedback that could not be logged yet.
        Exception: Whatever MLflow raises.
    """
    preflight(tracking_uri)
    client = _client(tracking_uri)
    tags = {**record.tags, **(extra_tags or {})}
    run_id = record.run_id
    if record.feedback:
        return _judge(client, record, tracking_uri, elsewhere=elsewhere, until=until, still_ours=still_ours)
    own = run_id is None
    if run_id is not None and elsewhere and find_run(client, run_id) is None:
        tags[_MEANT_FOR_TAG] = run_id
        own = True
    if run_id is None or own:
        run_id = _own_run(client, record, elsewhere=elsewhere, still_ours=still_ours)
    _check(still_ours)
    model_id = None
    if record.model is not None:
        model_id = models.model_id(
            client,
            record.model,
            experiment_id=client.get_run(run_id).info.experiment_id,
            run_id=run_id,
            server=without_credentials(tracking_uri),
            check=lambda: _check(still_ours),
        )
        _check(still_ours)
    _log(client, run_id, record, tags=tags, params=record.params if own else {}, model_id=model_id)
    attach(client, run_id, record, files=files, check=lambda: _check(still_ours), model_id=model_id)
    if own:
        _check(still_ours)
        _terminate(client, run_id, record)
    return run_id


def _judge(
    client: Any, record: Record, tracking_uri: str, *, elsewhere: bool, until: float, still_ours: Callable[[], bool]
) -> str:
    run_id = record.run_id
    if run_id is None and record.owner is not None:
        experiment_id = _experiment(client, record, elsewhere=elsewhere, still_ours=still_ours)
        found = _runs_of(client, _places(client, record, experiment_id, elsewhere=elsewhere), record)
        if not found:
            raise feedback.FeedbackLeftError("the run that the feedback belongs to is not there yet")
        run_id = found[0]
    feedback.deliver(
        client,
        record,
        tracking_uri=tracking_uri,
        run_id=run_id,
        until=until,
        patient=feedback.is_patient(record, elsewhere=elsewhere),
        check=lambda: _check(still_ours),
    )
    return run_id or ""


def discard(run_id: str, *, tracking_uri: str) -> None:
    """Delete a run that was created and is not wanted.

    Raises:
        Exception: Whatever MLflow raises.
    """
    _client(tracking_uri).delete_run(run_id)


def preflight(tracking_uri: str, *, limit: float = PREFLIGHT) -> None:
    """Fail soon where MLflow would go on trying for minutes: at an http(s) address where nobody listens.

    Raises:
        UnreachableError: No connection within the limit.
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme not in {"http", "https"} or parts.hostname is None:
        return
    if urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(parts.hostname):
        return  # the proxy may reach what we cannot
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=limit).close()
    except OSError as error:
        message = f"{parts.hostname}:{port} does not accept connections: {error}"
        raise UnreachableError(message, slow=isinstance(error, TimeoutError)) from error


def _client(tracking_uri: str) -> Any:
    return importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=tracking_uri)


def _own_run(client: Any, record: Record, *, elsewhere: bool, still_ours: Callable[[], bool]) -> str:
    experiment_id = _experiment(client, record, elsewhere=elsewhere, still_ours=still_ours)
    found = _runs_of(client, _places(client, record, experiment_id, elsewhere=elsewhere), record)
    if found:
        return _only(client, found, still_ours)
    _check(still_ours)
    tags = {UID_TAG: record.owner or record.uid, "mlflow.source.name": "dspy-cachectl"}
    run = client.create_run(experiment_id, start_time=record.started, tags=tags, run_name=record.run_name)
    if not still_ours():
        raise ClaimLostError(run.info.run_id)
    # A request that was given up on may have reached the server all the same, now or in an earlier try.
    found = _runs_of(client, [experiment_id], record)
    return _only(client, list(dict.fromkeys([*found, run.info.run_id])), still_ours)


def _places(client: Any, record: Record, experiment_id: str, *, elsewhere: bool) -> list[str]:
    other = record.experiment_id
    if not elsewhere or other is None or other == experiment_id:
        return [experiment_id]
    # It may be the same server under another address, and an earlier try has left a run there.
    exceptions = importlib.import_module("mlflow.exceptions")
    try:
        client.get_experiment(other)
    except exceptions.MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "INVALID_PARAMETER_VALUE"}:
            return [experiment_id]
        raise
    return [experiment_id, other]


def _runs_of(client: Any, experiments: list[str], record: Record) -> list[str]:
    runs = client.search_runs(
        experiments, filter_string=f"tags.`{UID_TAG}` = '{record.owner or record.uid}'", max_results=100
    )
    # The first one is kept: one with results, as another record of the same run may have left them there.
    return [run.info.run_id for run in sorted(runs, key=lambda run: (not run.data.metrics, run.info.run_id))]


def _only(client: Any, run_ids: list[str], still_ours: Callable[[], bool]) -> str:
    keep, *rest = run_ids
    for run_id in rest:
        _check(still_ours)
        client.delete_run(run_id)
    return keep


def _experiment(client: Any, record: Record, *, elsewhere: bool, still_ours: Callable[[], bool]) -> str:
    if record.experiment is not None:
        found = client.get_experiment_by_name(record.experiment)
        if found is None:
            _check(still_ours)
            try:
                return str(client.create_experiment(record.experiment))
            except Exception:
                # Somebody else may have created it since: names are unique.
                found = client.get_experiment_by_name(record.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)
    return record.experiment_id if record.experiment_id is not None and not elsewhere else "0"


def _log(client: Any, run_id: str, record: Record, *, tags: dict[str, str], params: Any, model_id: str | None) -> None:
    entities = importlib.import_module("mlflow.entities")
    of_model = {} if model_id is None else {"model_id": model_id}  # older clients do not know the argument
    linked = _linked(record)
    client.log_batch(  # one request; the client itself keeps to the server's limits by making it several
        run_id,
        metrics=[
            entities.Metric(
                point.key, point.value, point.timestamp, point.step, **(of_model if point in linked else {})
            )
            for point in record.metrics
        ],
        params=[entities.Param(key, value) for key, value in params.items()],
        tags=[entities.RunTag(key, value) for key, value in {**tags, UID_TAG: record.owner or record.uid}.items()],
    )


def _linked(record: Record) -> set[Point]:
    # MLflow refuses for ever a batch that comes twice with more points of a model than this.
    last = {point.key: point for point in sorted(record.metrics, key=lambda point: point.step)}
    return set(list(last.values())[:_MOST_OF_A_MODEL])


def _terminate(client: Any, run_id: str, record: Record) -> None:
    status = "FAILED" if record.failed else "FINISHED"
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if store is None:
        client.set_terminated(run_id, status=status, end_time=record.ended)
        return
    # What `set_terminated` does, but for the link that it prints to standard output, which takes another request
    # and shows the password of an address that has one.
    run_status = importlib.import_module("mlflow.entities").RunStatus.from_string(status)
    store.update_run_info(run_id, run_status=run_status, end_time=record.ended, run_name=None)


def _check(still_ours: Callable[[], bool]) -> None:
    if not still_ours():
        raise ClaimLostError


def _kind(tracking_uri: str | None) -> str:
    scheme = (tracking_uri or "").partition(":")[0]
    if scheme.startswith(("databricks", "uc")):
        return "databricks"
    return "database" if scheme.startswith(("sqlite", "postgresql", "mysql", "mssql")) else ""
