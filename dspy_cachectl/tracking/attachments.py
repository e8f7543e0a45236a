"""What a run gets beside its numbers: files, tables, the data set, and the runs below it.

Doing it twice leaves the server as doing it once: files are overwritten, the rest is merged.
"""

from __future__ import annotations

import importlib
import json
import logging
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
_SOURCE = json.dumps({"tags": {"mlflow.source.name": "dspy-cachectl"}})


def attach(client: Any, run_id: str, record: Record, *, files: Path | None, check: Callable[[], None]) -> None:
    """Add to a run what a record has beside its numbers. Where it has nothing, no request is made.

    Args:
        client: An `MlflowClient`.
        run_id: The run.
        record: The record.
        files: The folder with its artifacts, or None where there is none.
        check: Called before each change; raises where the record is no longer ours to deliver.

    Raises:
        Exception: Whatever MLflow or `check` raises.
    """
    if record.dataset is not None:
        check()
        client.log_inputs(run_id, datasets=[_input(record.dataset)])
    if record.artifacts and files is not None:
        check()
        try:
            client.log_artifacts(run_id, str(files))
        except Exception:
            check()  # the folder moves away when somebody else has delivered the record
            raise
        if record.tables:
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
