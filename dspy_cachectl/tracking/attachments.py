"""What a run gets beside its numbers: the model of its program, files, tables, the data set, and the runs below it.

No file of the model is kept: a saved program holds its LM's key.

Doing it twice leaves the server as doing it once: files are overwritten, the rest is merged.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import tempfile
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dspy_cachectl.tracking.record import LONGEST_TAG, REPORT_TAG, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspy_cachectl.tracking.push import Push
    from dspy_cachectl.tracking.record import Model, Record

logger = logging.getLogger(__name__)

TABLES_TAG = "mlflow.loggedArtifacts"
"""Where `mlflow.load_table` looks for tables."""

PARENT_TAG = "mlflow.parentRunId"
"""What makes a run appear below another one."""

IDENTITY_TAG = "dspy_cachectl.program"
"""The tag by which a program's model is found again."""

_EXTERNAL_TAG = "mlflow.model.isExternal"
_UNKNOWN = {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "NOT_IMPLEMENTED"}
_NAMING_WAIT = 5.0
_SOURCE = json.dumps({"tags": {"mlflow.source.name": "dspy-cachectl"}})


def model_id(push: Push, run_id: str) -> str | None:
    """Return the id of the model of a record's program in the experiment of its run. It is made if there is none.

    Args:
        push: The try to deliver the record.
        run_id: The record's run.

    Returns:
        The id; None where the record has no program, or the server is too old to know models.

    Raises:
        LeaseLostError: The record is no longer ours to deliver.
        Exception: Whatever else MLflow raises.
    """
    model = push.record.model
    if model is None:
        return None
    experiment_id = push.client.get_run(run_id).info.experiment_id
    exceptions = importlib.import_module("mlflow.exceptions")
    try:
        found = _found(push, model, experiment_id)
    except (NotImplementedError, exceptions.MlflowException) as error:
        if getattr(error, "error_code", "NOT_IMPLEMENTED") not in _UNKNOWN:
            raise
        _say_once(without_credentials(push.address))
        return None
    first = found[0] if found else _made(push, model, experiment_id, run_id)
    if str(getattr(first.status, "value", first.status)) != "READY":
        push.check()
        push.client.finalize_logged_model(first.model_id, "READY")
    return str(first.model_id)


def _made(push: Push, model: Model, experiment_id: str, run_id: str) -> Any:
    push.check()
    made = push.client.create_logged_model(
        experiment_id,
        name=model.name,
        source_run_id=run_id,
        tags={IDENTITY_TAG: model.identity, _EXTERNAL_TAG: "true"},
        params=dict(model.params),
        model_type="dspy",
    )
    # Somebody else may have made one at the same moment: all take the oldest.
    first = (_found(push, model, experiment_id) or [made])[0]
    if made.model_id != first.model_id:
        push.check()
        push.client.delete_logged_model(made.model_id)
    return first


def _found(push: Push, model: Model, experiment_id: str) -> list[Any]:
    models = push.client.search_logged_models(
        [experiment_id], filter_string=f"tags.`{IDENTITY_TAG}` = '{model.identity}'", max_results=50
    )
    return sorted(models, key=lambda one: (one.creation_timestamp, one.model_id))


@functools.cache
def _say_once(server: str) -> None:
    logger.warning("%s knows no models, so results are logged without the program", server)


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
    entities = importlib.import_module("mlflow.entities")
    inputs: dict[str, list[Any]] = {}
    if record.dataset is not None:
        dataset = entities.Dataset(
            name="devset",
            digest=record.dataset.digest,
            source_type="code",
            source=_SOURCE,
            profile=json.dumps({"num_rows": record.dataset.questions}),
        )
        inputs["datasets"] = [entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", "eval")])]
    if model_id is not None:
        inputs["models"] = [entities.LoggedModelInput(model_id)]
    return inputs


_naming = threading.Lock()


def _name_tables(push: Push, run_id: str) -> None:
    """Add to a run's tables. This process's threads do it one after the other: each reads the list and writes it."""
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
    if len(text) > LONGEST_TAG:
        logger.warning("run %s has too many tables for mlflow.load_table to find another", run_id)
    elif merged != tables:
        push.check()
        push.client.set_tag(run_id, TABLES_TAG, text)


def _children(push: Push, run_id: str) -> Iterator[Any]:
    for run in (push.find(push.client.get_run, child) for child in push.record.children):
        if run is not None and run.info.lifecycle_stage == "active":
            yield run
    if push.record.compares:
        experiment = push.client.get_run(run_id).info.experiment_id
        for digest in push.record.compares:
            yield from push.client.search_runs([experiment], filter_string=f"tags.`{REPORT_TAG}` = '{digest}'")
