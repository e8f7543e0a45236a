"""Where results go: the tracking server, the run and the experiment, found in memory and without a request."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking import installed

if TYPE_CHECKING:
    from types import ModuleType
    from urllib.parse import SplitResult

_SCHEME = re.compile(r"(?P<name>[^/:]*):")
_SERVERS = {"http", "https"}
_SCHEMES = {*_SERVERS, "file", "databricks", "databricks-uc", "uc", "sqlite", "postgresql", "mysql", "mssql"}
_WITHOUT_SCHEME = {"databricks", "databricks-uc", "uc"}
_HOST = re.compile(r"[\w.\-:%~]+")
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
        problem: Why the address that was given cannot be used; empty where it can.
    """

    tracking_uri: str | None = None
    run_id: str | None = None
    experiment_id: str | None = None
    experiment: str | None = None
    is_named: bool = False
    problem: str = ""

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
        The target. No request is made for it. Where the address cannot be used it has none, and says why: results
        that are paid for wait for another.
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
    address, problem = None, ""
    try:
        given = default_uri(mlflow) or installed.default_address() if tracking_uri is None else tracking_uri
        address = absolute(given)
    except ConfigurationError as error:
        problem = str(error)
    return Target(address, found or None, experiment_id, experiment, is_named=bool(run_id), problem=problem)


def default_uri(mlflow: ModuleType | None) -> str | None:
    """Return the address that MLflow would use; without MLflow, the one of the environment."""
    if mlflow is not None:
        return str(mlflow.get_tracking_uri())
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def absolute(uri: str | None) -> str | None:
    """Return an address that means the same from any working directory.

    Raises:
        ConfigurationError: It is no address. The message does not show it, since what is malformed may be a password.
    """
    if uri is None:
        return None
    uri = str(uri)
    fault = _fault_of(uri)
    if fault is not None:
        raise ConfigurationError(
            f"the tracking address cannot be used: {fault}; correct MLFLOW_TRACKING_URI, mlflow.set_tracking_uri(), "
            "tracking_uri= or --uri, wherever it was given"
        )
    # A single letter is a drive of Windows.
    if len(_scheme_of(uri)) <= 1 and uri not in _WITHOUT_SCHEME:
        return Path(uri).absolute().as_uri()
    return _RELATIVE_DATABASE.sub(lambda begin: f"{begin[0]}{Path.cwd().as_posix()}/", uri)


def _scheme_of(uri: str) -> str:
    found = _SCHEME.match(uri)
    return found["name"].lower() if found is not None else ""


def _fault_of(uri: str) -> str | None:
    """Return why a text is no tracking address, without quoting from it; None where it may be one."""
    if not uri.strip():
        return "it is empty"
    if uri != uri.strip() or not uri.isprintable():
        return "it begins or ends with a blank, or holds a character that cannot be printed"
    scheme = _scheme_of(uri)
    if uri.startswith("//") or (":" in uri and not scheme) or (not scheme and "@" in uri and "/" not in uri):
        return "it begins with no scheme, such as http://"
    if len(scheme) > 1 and scheme.partition("+")[0] not in _SCHEMES and scheme not in _plugins():
        return "what stands before its first colon is no scheme that MLflow knows, such as http or sqlite"
    try:
        parts = urlsplit(uri)
        return _fault_of_server(uri, parts) if scheme in _SERVERS else None
    except ValueError:  # its text quotes what may be a part of a password
        return f"its host or port is none. {_ESCAPE}"


_ESCAPE = "In a user's name or password, / # ? @ : [ are written %2F %23 %3F %40 %3A %5B"


def _fault_of_server(uri: str, parts: SplitResult) -> str | None:
    host = parts.hostname
    if not host or parts.port == 0 or "://" not in uri or _HOST.fullmatch(host) is None or " " in uri:
        return f"its host or port is none. {_ESCAPE}"
    if parts.fragment or "#" in uri or "@" in f"{parts.path}{parts.query}":
        return f"a server never gets to see what stands behind a #, and an @ stands before the host. {_ESCAPE}"
    return None


def _plugins() -> set[str]:
    return {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
