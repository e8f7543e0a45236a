"""MLflow's client: importing all of it before a thread that may hang does, and telling early that nobody listens.

Only `MlflowClient` is used, never the fluent functions (which keep state of their own per thread), so that it
works in any thread and with `mlflow-skinny`.
"""

from __future__ import annotations

import importlib
import logging
import socket
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dspy_cachectl.errors import CachectlError, MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

logger = logging.getLogger(__name__)

PREFLIGHT = 2.0
"""Seconds within which a server has to accept a connection."""

_NEEDED = ("mlflow.tracking", "mlflow.entities", "mlflow.exceptions")
_IMPORTED_LATER = {
    "": ("mlflow.tracking.request_header.registry", "mlflow.tracing.client", "netrc"),
    "database": (
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.workspace_aware_mixin",
        "alembic.command",
        "alembic.config",
        "sqlalchemy.dialects.sqlite",
    ),
    "databricks": ("databricks.sdk", "mlflow.utils.databricks_utils"),
}
"""What MLflow imports on its first request, by the kind of address. A thread that may hang must not do it."""


class UnreachableError(CachectlError):
    """A server does not accept connections.

    Attributes:
        slow: Whether it took the whole preflight to find out, and would again.
    """

    def __init__(self, message: str, *, slow: bool) -> None:
        super().__init__(message)
        self.slow = slow


def load(address: str | None = None) -> ModuleType:
    """Import MLflow, and what it would import later to talk to this address. The first time takes seconds.

    Returns:
        MLflow.

    Raises:
        MissingExtraError: MLflow is not installed, or cannot be imported.
    """
    try:
        mlflow = importlib.import_module("mlflow")
        for name in _NEEDED:
            importlib.import_module(name)
        # mlflow-tracing alone has the module, and nothing to log with in it.
        from mlflow.tracking import MlflowClient  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("logging to MLflow", extra="mlflow", detail=str(error)) from error
    for name in (*_IMPORTED_LATER[""], *_IMPORTED_LATER[_kind(address)]):
        try:
            importlib.import_module(name)
        except ImportError:  # where it is needed, the push fails on it and says so
            logger.debug("%s cannot be imported", name)
    return mlflow


def connect(address: str) -> Any:
    """Return a client for an address.

    Raises:
        UnreachableError: It is an http(s) address where nobody listens; MLflow would go on trying for minutes.
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
        message = f"{parts.hostname}:{port} does not accept connections: {error}"
        raise UnreachableError(message, slow=isinstance(error, TimeoutError)) from error


def _kind(address: str | None) -> str:
    scheme = (address or "").partition(":")[0]
    if scheme.startswith(("databricks", "uc")):
        return "databricks"
    return "database" if scheme.startswith(("sqlite", "postgresql", "mysql", "mssql")) else ""
