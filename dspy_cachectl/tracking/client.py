"""MLflow's client: what has to be there before it is used, and telling early that nobody listens.

Only `MlflowClient` is used, never the fluent functions (which keep state of their own per thread), so that it
works in any thread and with `mlflow-skinny`.
"""

from __future__ import annotations

import importlib
import socket
import threading
import time
import urllib.request
from concurrent import futures
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dspy_cachectl.boundary.reading import MB
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import CachectlError, MissingExtraError
from dspy_cachectl.tracking import database
from dspy_cachectl.tracking.deadline import DeadlineError, asking, in_daemon, is_asking
from dspy_cachectl.tracking.outbox import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logger_for(__name__)

PREFLIGHT = 2.0
"""Seconds within which a server has to accept a connection."""

LARGEST_ANSWER = 64 * MB
"""How many bytes an answer may have, unpacked. The largest that is asked for are a hundred runs."""

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

_HAS_CALLS = {"_tracking_client", "store"}
"""What of a client makes requests in its turn."""


class UnreachableError(CachectlError):
    """A server does not accept connections, and says so at once."""


class AnswerError(CachectlError):
    """An answer is longer than any that was asked for."""


def prepare(address: str, *, until: float) -> None:
    """Import MLflow, and see to it that the database at an address is as MLflow wants it, within a limit.

    What is not done by then goes on, and the next call finds it done.

    Args:
        address: Where something is to be delivered, with credentials.
        until: When to give up, on the monotonic clock.

    Raises:
        MissingExtraError: MLflow is not installed, or cannot be imported.
        DatabaseError: MLflow can neither use the database nor make it usable.
        DeadlineError: The limit passed. Nobody but this machine is to blame.
    """
    works = {"importing MLflow": in_daemon(lambda: load(address))}
    if database.is_database(address):
        making = in_daemon(lambda: database.make_ready(address, state_dir() / "mlflow"))
        works["making the database ready, which goes on in a process of its own,"] = making
    for what, work in works.items():
        began = time.monotonic()
        futures.wait([work], timeout=max(0.0, min(until - began, threading.TIMEOUT_MAX)))
        if not work.done():
            raise DeadlineError(f"{what} was not done within the limit")
        work.result()


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
    if urlsplit(address).scheme.partition("+")[0] in {"file", "sqlite"}:
        return importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=address)
    with asking():
        _preflight(address)
        _bound_answers()
        return _Asking(importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=address))


class _Asking:
    """A client whose calls say that they wait for its server."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name in _HAS_CALLS:
            return _Asking(found)
        return _says(found) if callable(found) else found


def asking_like(client: Any, other: Any) -> Any:
    """Return something whose calls say that they wait for a server, where those of a client do."""
    return _Asking(other) if isinstance(client, _Asking) else other


def _says(call: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*arguments: Any, **options: Any) -> Any:
        with asking():
            return call(*arguments, **options)

    return asked


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


_patching = threading.Lock()


def _bound_answers() -> None:
    """See to it that no answer to this package is read beyond its limit. Nothing changes for who else uses requests.

    MLflow reads each answer whole, whatever its size, and goes on when its caller has long given up. It leaves the
    reading to requests, so there it is bounded, in the threads alone in which this package asks.
    """
    response = importlib.import_module("requests").Response
    with _patching:
        if getattr(response.iter_content, "of_cachectl", False):
            return
        read = response.iter_content

        def iter_content(self: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
            pieces = read(self, *arguments, **options)
            return _bounded(pieces) if is_asking() else pieces

        iter_content.of_cachectl = True  # type: ignore[attr-defined]
        response.iter_content = iter_content


def _bounded(pieces: Iterator[Any]) -> Iterator[Any]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > LARGEST_ANSWER:
            raise AnswerError(f"the server's answer is longer than {LARGEST_ANSWER:,} bytes, and no more are read")
        yield piece
