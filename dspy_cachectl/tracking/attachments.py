"""What a run gets beside its numbers: files, tables, the data set, and the runs below it.

Doing it twice leaves the server as doing it once: files are overwritten, the rest is merged.
"""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dspy_cachectl.tracking.record import REPORT_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspy_cachectl.tracking.push import Push
    from dspy_cachectl.tracking.record import Dataset, Record

logger = logging.getLogger(__name__)

TABLES_TAG = "mlflow.loggedArtifacts"
"""Where `mlflow.load_table` looks for tables."""

PARENT_TAG = "mlflow.parentRunId"
"""What makes a run appear below another one."""

_LONGEST_TAG = 8000
_NAMING_WAIT = 5.0
_SOURCE = json.dumps({"tags": {"mlflow.source.name": "dspy-cachectl"}})


def attach(push: Push, run_id: str, *, model_id: str | None = None) -> None:
    """Add to a run what a record has beside its numbers. Where it has nothing, no request is made.

    Args:
        push: The try to deliver the record.
        run_id: The run.
        model_id: The model that was evaluated, or None.

    Raises:
        LeaseLostError: The record is no longer ours to deliver.
        Exception: Whatever MLflow raises.
    """
    inputs = _inputs(push.record, model_id)
    if inputs:
        push.check()
        push.client.log_inputs(run_id, **inputs)
    if push.files:
        _upload(push, run_id)
        if push.record.tables:
            _name_tables(push, run_id)
    for child in _children(push, run_id):
        if child.info.run_id != run_id and PARENT_TAG not in child.data.tags:
            push.check()
            push.client.set_tag(child.info.run_id, PARENT_TAG, run_id)


def _upload(push: Push, run_id: str) -> None:
    # One by one: `log_artifacts` has an executor upload to some stores, and exit waits for an executor's threads.
    for name, data in sorted(push.files.items()):
        place = PurePosixPath(name)
        with tempfile.TemporaryDirectory(prefix="dspy-cachectl-") as folder:
            path = Path(folder, place.name)
            path.write_bytes(data)
            push.check()
            push.client.log_artifact(run_id, str(path), place.parent.as_posix())


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


_naming = threading.Lock()


def _name_tables(push: Push, run_id: str) -> None:
    """Let the threads of this process add to a run's tables one after the other: each reads the list and writes it."""
    # Not for ever: the one before may hang.
    held = _naming.acquire(timeout=_NAMING_WAIT)
    try:
        _add_tables(push, run_id)
    finally:
        if held:
            _naming.release()


def _add_tables(push: Push, run_id: str) -> None:
    known = push.client.get_run(run_id).data.tags.get(TABLES_TAG, "[]")
    try:
        tables = list(json.loads(known))
    except (ValueError, TypeError):
        logger.warning("run %s has a tag %s that is not a list of tables; it is left alone", run_id, TABLES_TAG)
        return
    named = ({"path": path, "type": "table"} for path in push.record.tables)
    merged = tables + [table for table in named if table not in tables]
    text = json.dumps(merged)
    if len(text) > _LONGEST_TAG:
        logger.warning("run %s has too many tables for mlflow.load_table to find another", run_id)
    elif merged != tables:
        push.check()
        push.client.set_tag(run_id, TABLES_TAG, text)


def _children(push: Push, run_id: str) -> Iterator[Any]:
    for run in map(push.find_run, push.record.children):
        if run is not None and run.info.lifecycle_stage == "active":
            yield run
    if push.record.compares:
        experiment = push.client.get_run(run_id).info.experiment_id
        for digest in push.record.compares:
            yield from push.client.search_runs([experiment], filter_string=f"tags.`{REPORT_TAG}` = '{digest}'")
