"""Where results go: the tracking server, the run and the experiment, found in memory and without a request."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dspy_cachectl.tracking import installed

if TYPE_CHECKING:
    from types import ModuleType

_RELATIVE_DATABASE = re.compile(r"^sqlite:///(?![/:?]|[A-Za-z]:|file:|$)")


@dataclass(frozen=True)
class Target:
    """Where results go.

    Attributes:
        tracking_uri: The address, credentials and all: for use, not for writing down. None if unknown.
        run_id: The run, or None for a run of its own.
        experiment_id: The experiment of a run of its own, if known by its id.
        experiment: The same, if known by its name. With neither, it is MLflow's default one.
        is_named: Whether the user named the run.
    """

    tracking_uri: str | None = None
    run_id: str | None = None
    experiment_id: str | None = None
    experiment: str | None = None
    is_named: bool = False

    def of(self, captured: str | None) -> Target:
        """Return the target of an evaluation, given the run that was active when it began, seen in memory."""
        return self if self.is_named or not captured else replace(self, run_id=captured)


def resolve(*, run_id: str | None = None, tracking_uri: str | None = None, experiment: str | None = None) -> Target:
    """Find where results go.

    The run is, in this order: the one named; the one that was active in the evaluation's own thread when it
    began (see `Target.of`); the one active in this thread; `MLFLOW_RUN_ID`; none. The newest run of an experiment
    is never taken for it: it may be anybody's.

    Args:
        run_id: The run named by the user.
        tracking_uri: The address named by the user.
        experiment: The experiment named by the user. Asking for an experiment is asking for a run of its own,
            so a run in `MLFLOW_RUN_ID` is not taken then.

    Returns:
        The target. No request is made for it.
    """
    mlflow = installed.loaded()
    active = mlflow.active_run() if mlflow is not None else None
    of_environment = os.environ.get("MLFLOW_RUN_ID") if experiment is None else None
    found = run_id or (str(active.info.run_id) if active is not None else of_environment)
    experiment_id = None
    if experiment is None:
        # set_experiment() leaves the id there too, so this is what MLflow itself would use.
        experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or None
        experiment = None if experiment_id else os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
    address = absolute(tracking_uri or default_uri(mlflow) or installed.default_address())
    return Target(address, found or None, experiment_id, experiment, is_named=bool(run_id))


def default_uri(mlflow: ModuleType | None) -> str | None:
    """Return the address that MLflow would use; without MLflow, the one of the environment."""
    if mlflow is not None:
        return str(mlflow.get_tracking_uri())
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def absolute(uri: str | None) -> str | None:
    """Return an address that means the same from any working directory."""
    if uri is None:
        return None
    # A single letter is a drive of Windows.
    if len(urlsplit(uri).scheme) <= 1 and uri not in {"databricks", "databricks-uc", "uc"}:
        return Path(uri).absolute().as_uri()
    return _RELATIVE_DATABASE.sub(lambda begin: f"{begin[0]}{Path.cwd().as_posix()}/", uri)
