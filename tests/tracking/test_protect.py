"""`protect_mlflow()`: it sets what MLflow reads, leaves what the user set, and says what it cannot do."""

from __future__ import annotations

import logging
import os
from typing import Any

import mlflow
import pytest
from mlflow import environment_variables

import dspy_cachectl
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking import protect_mlflow
from tests.tracking import servers

_NAMES = (
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER",
)


@pytest.fixture(autouse=True)
def _nothing_set(state: object, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in (*_NAMES, "MLFLOW_ENABLE_DB_SDK"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    yield
    mlflow.set_tracking_uri(None)


def test_mlflow_reads_what_is_set() -> None:
    """The names are MLflow's own, and what it says it set is what MLflow sees."""
    protection = dspy_cachectl.protect_mlflow()
    assert {name: os.environ[name] for name in _NAMES} == protection.set
    assert [getattr(environment_variables, name).get() for name in _NAMES] == [10, 1, 1, False]
    assert (protection.kept, protection.warnings) == ({}, ())
    assert "set MLFLOW_HTTP_REQUEST_TIMEOUT=10" in str(protection)


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and not touched."""
    monkeypatch.setenv(_NAMES[0], "77")
    protection = protect_mlflow(timeout=3, retries=0)
    assert protection.kept == {_NAMES[0]: "77"}
    assert (os.environ[_NAMES[0]], os.environ[_NAMES[1]]) == ("77", "0")
    assert "left MLFLOW_HTTP_REQUEST_TIMEOUT=77" in str(protection)


def test_a_request_of_mlflow_ends() -> None:
    """A server that answers 429 and asks for an hour of patience is given up after the tries that were allowed."""
    protect_mlflow(timeout=1, retries=1)
    with servers.answering(429, Retry_After="3600") as url:
        client = mlflow.MlflowClient(tracking_uri=url)
        with pytest.raises(mlflow.MlflowException, match="429"):
            client.get_run("0" * 32)


@pytest.mark.parametrize("address", ["databricks", "databricks://profile"])
def test_it_says_what_it_cannot_do(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On Databricks the limits do not hold, and the way out is named; without the SDK they do."""
    mlflow.set_tracking_uri(address)
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        protection = protect_mlflow()
    assert "MLFLOW_ENABLE_DB_SDK=false" in str(protection)
    assert [record.getMessage() for record in caplog.records] == list(protection.warnings)
    monkeypatch.setenv("MLFLOW_ENABLE_DB_SDK", "false")
    assert protect_mlflow().warnings == ()


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"timeout": 2.5}, {"retries": -1}, {"retries": True}])
def test_a_limit_that_mlflow_could_not_read_is_refused(arguments: dict[str, Any]) -> None:
    """And nothing is set."""
    with pytest.raises(ConfigurationError, match="whole number"):
        protect_mlflow(**arguments)
    assert not any(name in os.environ for name in _NAMES)
