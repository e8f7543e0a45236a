"""Where results go: the tracking server, the run and the experiment, found in memory and without a request."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import ModuleType

Source = Literal["argument", "evaluation", "active run", "environment", "none"]


@dataclass(frozen=True)
class Target:
    """Where results go.

    Attributes:
        tracking_uri: The address, credentials and all: for use, not for writing down. None if unknown.
        run_id: The run, or None for a run of its own.
        source: Where the run was found.
        experiment_id: The experiment of a run of its own, if known by its id.
        experiment: The same, if known by its name. With neither, it is MLflow's default one.
    """

    tracking_uri: str | None = None
    run_id: str | None = None
    source: Source = "none"
    experiment_id: str | None = None
    experiment: str | None = None


def resolve(
    *,
    run_id: str | None = None,
    captured: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
) -> Target:
    """Find where results go.

    The run is, in this order: the one named; the one that was active in the evaluation's own thread when it
    began; the one active in this thread; `MLFLOW_RUN_ID`; none. The newest run of an experiment is never
    taken for it: it may be anybody's.

    Args:
        run_id: The run named by the user.
        captured: The run seen in memory when the evaluation began.
        tracking_uri: The address named by the user.
        experiment: The experiment named by the user. Asking for an experiment is asking for a run of its own,
            so a run in `MLFLOW_RUN_ID` is not taken then.

    Returns:
        The target. No request is made for it.
    """
    mlflow = sys.modules.get("mlflow")
    found, source = _run(mlflow, run_id, captured, experiment)
    experiment_id = None
    if experiment is None:
        # set_experiment() leaves the id there too, so this is what MLflow itself would use.
        experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or None
        experiment = None if experiment_id else os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
    return Target(absolute(tracking_uri or default_uri(mlflow)), found, source, experiment_id, experiment)


def default_uri(mlflow: ModuleType | None) -> str | None:
    """Return the address that MLflow would use; without MLflow, the one of the environment."""
    if mlflow is not None:
        return str(mlflow.get_tracking_uri())
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def absolute(uri: str | None) -> str | None:
    """Return an address that means the same from any working directory."""
    if uri is None:
        return None
    scheme, database = "sqlite:///", uri.removeprefix("sqlite:///")
    if uri.startswith(scheme):
        path, mark, options = database.partition("?")
        if not path or path.startswith(":memory:") or Path(path).is_absolute():
            return uri
        return f"{scheme}{Path.cwd().joinpath(path).as_posix()}{mark}{options}"
    # A single letter is a drive of Windows.
    if len(urlsplit(uri).scheme) <= 1 and uri not in {"databricks", "databricks-uc", "uc"}:
        return Path(uri).absolute().as_uri()
    return uri


def _run(
    mlflow: ModuleType | None, run_id: str | None, captured: str | None, experiment: str | None
) -> tuple[str | None, Source]:
    if run_id:
        return run_id, "argument"
    if captured:
        return captured, "evaluation"
    active = mlflow.active_run() if mlflow is not None else None
    if active is not None:
        return str(active.info.run_id), "active run"
    named = os.environ.get("MLFLOW_RUN_ID")
    if named and experiment is None:
        return named, "environment"
    return None, "none"
