"""The program that was evaluated, as a model of MLflow. No file of it is: a saved program holds its LM's key."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspy_cachectl.tracking.record import Model

logger = logging.getLogger(__name__)

IDENTITY_TAG = "dspy_cachectl.program"
"""The tag by which a program's model is found again."""

_EXTERNAL_TAG = "mlflow.model.isExternal"
_UNKNOWN = {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "NOT_IMPLEMENTED"}
_said: set[str] = set()


def model_id(
    client: Any, model: Model, *, experiment_id: str, run_id: str, server: str, check: Callable[[], None]
) -> str | None:
    """Return the id of a program's model in an experiment. It is created if there is none.

    Args:
        client: An `MlflowClient`.
        model: The model.
        experiment_id: The experiment.
        run_id: The run that a new one comes from.
        server: The server's address, to say once what it lacks.
        check: Called before each change; raises where the record is no longer ours to deliver.

    Returns:
        The id; None where the server, or the client, is too old to know models.

    Raises:
        Exception: Whatever else MLflow or `check` raises.
    """
    exceptions = importlib.import_module("mlflow.exceptions")
    try:
        found = _found(client, model, experiment_id)
    except (AttributeError, NotImplementedError) as error:
        _say(server, error)
        return None
    except exceptions.MlflowException as error:
        if error.error_code in _UNKNOWN:
            _say(server, error)
            return None
        raise
    if not found:
        check()
        made = client.create_logged_model(
            experiment_id,
            name=model.name,
            source_run_id=run_id,
            tags={**model.tags, IDENTITY_TAG: model.identity, _EXTERNAL_TAG: "true"},
            params=dict(model.params),
            model_type="dspy",
        )
        # Somebody else may have made one at the same moment: all take the oldest.
        found = _found(client, model, experiment_id) or [made]
        if made.model_id != found[0].model_id:
            check()
            client.delete_logged_model(made.model_id)
    first = found[0]
    if str(getattr(first.status, "value", first.status)) != "READY":
        check()
        client.finalize_logged_model(first.model_id, "READY")
    return str(first.model_id)


def _found(client: Any, model: Model, experiment_id: str) -> list[Any]:
    models = client.search_logged_models(
        [experiment_id], filter_string=f"tags.`{IDENTITY_TAG}` = '{model.identity}'", max_results=50
    )
    return sorted(models, key=lambda one: (one.creation_timestamp, one.model_id))


def _say(server: str, error: Exception) -> None:
    if server not in _said:
        _said.add(server)
        logger.warning("%s knows no models, so results are logged without the program: %s", server, error)
