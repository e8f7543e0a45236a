"""The tracking server of the tests of tracking."""

from tests.tracking.conftest import mlflow_set, outbox, server, state  # noqa: F401 - fixtures
