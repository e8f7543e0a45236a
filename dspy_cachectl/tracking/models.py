"""The program that was evaluated, as a model of MLflow. No file of it is: a saved program holds its LM's key."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from dspy_cachectl.tracking.record import without_credentials

if TYPE_CHECKING:
    from dspy_cachectl.tracking.push import Push
    from dspy_cachectl.tracking.record import Model

logger = logging.getLogger(__name__)

IDENTITY_TAG = "dspy_cachectl.program"
"""The tag by which a program's model is found again."""

_EXTERNAL_TAG = "mlflow.model.isExternal"
_UNKNOWN = {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "NOT_IMPLEMENTED"}
_said: set[str] = set()


def model_id(push: Push, run_id: str) -> str | None:
    """Return the id of the model of a record's program in the experiment of its run. It is made if there is none.

    Args:
        push: The try to deliver the record.
        run_id: The record's run.

    Returns:
        The id; None where the record has no program, or the server, or the client, is too old to know models.

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
    except (AttributeError, NotImplementedError, exceptions.MlflowException) as error:
        if getattr(error, "error_code", "NOT_IMPLEMENTED") not in _UNKNOWN:
            raise
        _say(push, error)
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


def _say(push: Push, error: Exception) -> None:
    server = without_credentials(push.address)
    if server not in _said:
        _said.add(server)
        logger.warning("%s knows no models, so results are logged without the program: %s", server, error)
