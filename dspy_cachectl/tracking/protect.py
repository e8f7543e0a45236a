"""Bounds for the requests that MLflow makes itself: autolog, `mlflow.start_run()`, `mlflow.log_metric()`, ..."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from dspy_cachectl.boundary.shown import harmless, logger_for
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking.resolve import default_uri

logger = logger_for(__name__)

_NO_SDK = "MLFLOW_ENABLE_DB_SDK"
_DATABRICKS = (
    "None of this bounds requests to Databricks: its SDK asks for the host's configuration first and repeats that for "
    "minutes, and no variable limits it. Where a personal access token is enough (not OAuth), set "
    f"{_NO_SDK}=false, and the limits hold there too."
)


@dataclass(frozen=True)
class Protection:
    """What bounds MLflow's own requests now.

    Attributes:
        set: The variables that were set.
        kept: Those that were set already, and were left as they are.
        warnings: What stays unbounded, in words.
    """

    set: Mapping[str, str]
    kept: Mapping[str, str]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"set {name}={value}" for name, value in self.set.items()]
        lines += [f"left {name}={value}" for name, value in self.kept.items()]
        return "\n".join(map(harmless, [*lines, *self.warnings]))


def protect_mlflow(*, timeout: int = 10, retries: int = 1) -> Protection:
    """Limit how long MLflow's own requests may take in this process and the processes it starts.

    By MLflow's defaults a request to a server that does not answer ends after 20 minutes. With these it takes about
    `timeout * (retries + 1)` seconds. MLflow reads the variables at every request, so it does not matter whether it
    has been imported. What is set in the environment already stays.

    Args:
        timeout: Whole seconds for each try. The clock starts again with every byte that arrives.
        retries: How many more tries.

    Returns:
        What was set, what was left, and what cannot be bounded: print it. Warnings are logged, too.

    Raises:
        ConfigurationError: An argument is not a whole number, or too small.
    """
    for name, number, least in (("timeout", timeout, 1), ("retries", retries, 0)):
        if type(number) is not int or number < least:
            raise ConfigurationError(f"{name} must be a whole number, {least} or more, not {number!r}")
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        # A server that is overloaded would else decide how long we wait.
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    }
    kept = {name: os.environ[name] for name in wanted if name in os.environ}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    scheme = (default_uri(sys.modules.get("mlflow")) or "").partition(":")[0]
    with_sdk = os.environ.get(_NO_SDK, "").strip().lower() not in {"false", "0"}
    warnings = (_DATABRICKS,) if with_sdk and scheme in {"databricks", "databricks-uc", "uc"} else ()
    for warning in warnings:
        logger.warning("%s", warning)
    return Protection({name: value for name, value in wanted.items() if name not in kept}, kept, warnings)
