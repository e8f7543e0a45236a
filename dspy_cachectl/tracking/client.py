"""MLflow's client: importing all of it before a thread that may hang does, and telling early that nobody listens.

Only `MlflowClient` is used, never the fluent functions (which keep state of their own per thread), so that it
works in any thread and with `mlflow-skinny`.
"""

from __future__ import annotations

import importlib
import logging
import socket
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from dspy_cachectl.errors import CachectlError, MissingExtraError
from dspy_cachectl.tracking.deadline import DeadlineError

logger = logging.getLogger(__name__)

PREFLIGHT = 2.0
"""Seconds within which a server has to accept a connection."""

_IMPORTED_LATER = {
    ("",): ("mlflow.tracking.request_header.registry", "mlflow.tracing.client", "netrc"),
    ("sqlite", "postgresql", "mysql", "mssql"): (
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.workspace_aware_mixin",
        "alembic.command",
        "alembic.config",
        "sqlalchemy.dialects.sqlite",
    ),
    ("databricks", "uc"): ("databricks.sdk", "mlflow.utils.databricks_utils"),
}
"""What MLflow imports on its first request, by how the address begins. A thread that may hang must not do it."""


class UnreachableError(CachectlError):
    """A server does not accept connections, and says so at once."""


def load(address: str = "") -> None:
    """Import MLflow, and what it would import later to talk to this address. The first time takes seconds.

    Raises:
        MissingExtraError: MLflow is not installed, or cannot be imported.
    """
    try:
        # mlflow-tracing alone has the module, and nothing to log with in it.
        from mlflow.tracking import MlflowClient  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("logging to MLflow", extra="mlflow", detail=str(error)) from error
    scheme = address.partition(":")[0]
    for name in (name for begins, names in _IMPORTED_LATER.items() if scheme.startswith(begins) for name in names):
        try:
            importlib.import_module(name)
        except ImportError:  # where it is needed, the push fails on it and says so
            logger.debug("%s cannot be imported", name)


def connect(address: str) -> Any:
    """Return a client for an address.

    Raises:
        UnreachableError: It is an http(s) address where nobody listens; MLflow would go on trying for minutes.
        DeadlineError: It does not even refuse.
    """
    _preflight(address)
    return importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=address)


def _preflight(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or parts.hostname is None:
        return
    if urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(parts.hostname):
        return  # the proxy may reach what we cannot
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=PREFLIGHT).close()
    except OSError as error:
        kind = DeadlineError if isinstance(error, TimeoutError) else UnreachableError
        raise kind(f"{parts.hostname}:{port} does not accept connections: {error}") from error
