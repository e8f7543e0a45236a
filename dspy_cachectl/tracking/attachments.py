"""What a run gets beside its numbers: files, tables, the data set, and the runs below it.

Doing it twice leaves the server as doing it once: files are overwritten, the rest is merged.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

from dspy_cachectl.tracking.record import REPORT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dspy_cachectl.tracking.record import Dataset, Record

logger = logging.getLogger(__name__)

TABLES_TAG = "mlflow.loggedArtifacts"
"""Where `mlflow.load_table` looks for tables."""

PARENT_TAG = "mlflow.parentRunId"
"""What makes a run appear below another one."""

_LONGEST_TAG = 8000
_NAMING_WAIT = 5.0
_SOURCE = json.dumps({"tags": {"mlflow.source.name": "dspy-cachectl"}})


def attach(
    client: Any,
    run_id: str,
    record: Record,
    *,
    files: Path | None,
    check: Callable[[], None],
    model_id: str | None = None,
) -> None:
    """Add to a run what a record has beside its numbers. Where it has nothing, no request is made.

    Args:
        client: An `MlflowClient`.
        run_id: The run.
        record: The record.
        files: The folder with its artifacts, or None where there is none.
        check: Called before each change; raises where the record is no longer ours to deliver.
        model_id: The model that was evaluated, or None.

    Raises:
        Exception: Whatever MLflow or `check` raises.
    """
    inputs = _inputs(record, model_id)
    if inputs:
        check()
        client.log_inputs(run_id, **inputs)
    if record.artifacts and files is not None:
        _upload(client, run_id, files, check)
        if record.tables:
            with _naming(run_id):
                _name_tables(client, run_id, record, check)
    for child in _children(client, run_id, record):
        if child.info.run_id != run_id and PARENT_TAG not in child.data.tags:
            check()
            client.set_tag(child.info.run_id, PARENT_TAG, run_id)


def find_run(client: Any, run_id: str) -> Any | None:
    """Return a run; None if the server does not know it.

    Raises:
        Exception: Whatever else MLflow raises.
    """
    exceptions = importlib.import_module("mlflow.exceptions")
    try:
        return client.get_run(run_id)
    except exceptions.MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _upload(client: Any, run_id: str, files: Path, check: Callable[[], None]) -> None:
    try:
        # One by one: `log_artifacts` has an executor upload to some stores, and exit waits for an executor's threads.
        for path in sorted(path for path in files.rglob("*") if path.is_file()):
            check()
            client.log_artifact(run_id, str(path), path.parent.relative_to(files).as_posix())
    except Exception:
        check()  # the folder moves away when somebody else has delivered the record
        raise


def _inputs(record: Record, model_id: str | None) -> dict[str, list[Any]]:
    inputs: dict[str, list[Any]] = {}
    if record.dataset is not None:
        inputs["datasets"] = [_input(record.dataset)]
    if model_id is not None:
        inputs["models"] = [importlib.import_module("mlflow.entities").LoggedModelInput(model_id)]
    return inputs


def _input(dataset: Dataset) -> Any:
    entities = importlib.import_module("mlflow.entities")
    return entities.DatasetInput(
        entities.Dataset(
            name=dataset.name,
            digest=dataset.digest,
            source_type="code",
            source=_SOURCE,
            profile=json.dumps({"num_rows": dataset.questions}),
        ),
        [entities.InputTag("mlflow.data.context", "eval")],
    )


_naming_lock = threading.Lock()
_named: dict[str, threading.Lock] = {}


@contextlib.contextmanager
def _naming(run_id: str) -> Iterator[None]:
    """Let the threads of this process add to a run's tables one after the other: each reads the list and writes it."""
    with _naming_lock:
        lock = _named.setdefault(run_id, threading.Lock())
    # Not for ever: the one before may hang.
    held = lock.acquire(timeout=_NAMING_WAIT)
    try:
        yield
    finally:
        if held:
            lock.release()


def _name_tables(client: Any, run_id: str, record: Record, check: Callable[[], None]) -> None:
    known = client.get_run(run_id).data.tags.get(TABLES_TAG, "[]")
    try:
        tables = list(json.loads(known))
    except (ValueError, TypeError):
        logger.warning("run %s has a tag %s that is not a list of tables; it is left alone", run_id, TABLES_TAG)
        return
    merged = tables + [table for path in record.tables if (table := {"path": path, "type": "table"}) not in tables]
    text = json.dumps(merged)
    if len(text) > _LONGEST_TAG:
        logger.warning("run %s has too many tables for mlflow.load_table to find another", run_id)
    elif merged != tables:
        check()
        client.set_tag(run_id, TABLES_TAG, text)


def _children(client: Any, run_id: str, record: Record) -> Iterator[Any]:
    for run in (find_run(client, child) for child in record.children):
        if run is not None and run.info.lifecycle_stage == "active":
            yield run
    if record.compares:
        experiment = client.get_run(run_id).info.experiment_id
        for digest in record.compares:
            yield from client.search_runs([experiment], filter_string=f"tags.`{REPORT_TAG}` = '{digest}'")
