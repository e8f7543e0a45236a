"""Tracking addresses that are none: refused before anything is paid for, or the results wait, and nothing is told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlflow
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking import sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.resolve import absolute
from tests.endpoint import Endpoint
from tests.reports.made_up import report
from tests.tracking.overlap import report_of
from tests.tracking.rest import Rest

SECRET = "covert"
MALFORMED = [
    f"http://me:{SECRET}/b@host",
    f"http://me:{SECRET}#x@host",
    f"http://me:12#{SECRET}@host",
    f"http://me:12/{SECRET}@host",
    f"http://me:12?{SECRET}@host",
    f"me:{SECRET}@host",
    f"{SECRET}@host",
    f"me_x:{SECRET}@host",
    f":{SECRET}@host",
    f"//me:{SECRET}@host",
    f"http://host#access_token={SECRET}",
    f"http://me:{SECRET}@[::1/x",
    f"http:me:{SECRET}@host",
    f"http:///{SECRET}",
    f"http://me:{SECRET}@",
    f"http://me:{SECRET}@host:port",
    f"http://me:{SECRET}@host:0",
    f"http://me:{SECRET}@host:65536",
    f"http://me:{SECRET}@ho st",
    f"http://me:{SECRET}@host\0",
    f" http://me:{SECRET}@host",
    f"http://me:{SECRET}@host\n",
    f"gopher://me:{SECRET}@host",
    f"postgresql://me:{SECRET}@[::1/x",
    "",
    "   ",
]
GOOD = [
    *("http://host", "https://me:p%2Fw@host:5000/x?a=1", "http://[::1]:5000", "http://bücher.example"),
    *(
        "databricks",
        "databricks://profile",
        "uc",
        "file:///a@b",
        "sqlite:////a b/c.db",
        "postgresql+psycopg2://me:a/b@h/d",
    ),
]


@pytest.mark.parametrize("address", MALFORMED)
def test_what_is_no_address_is_refused_without_showing_it(address: str) -> None:
    """The message says what is wrong, and holds nothing of what may be a password; nor does its cause."""
    with pytest.raises(ConfigurationError, match="tracking address cannot be used") as caught:
        absolute(address)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("address", GOOD)
def test_what_mlflow_can_use_is_left_as_it_is(address: str) -> None:
    """Servers, databases, folders and Databricks."""
    assert absolute(address) == address


@pytest.mark.parametrize("given", ["environment", "mlflow"])
def test_it_is_refused_before_anything_is_paid_for(
    program: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """By `evaluate` and by the pair of callbacks, wherever it was set; not where logging is turned off."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it too, and it is taken back at the end
    address = f"http://me:{SECRET}/b@host"
    mlflow.set_tracking_uri(None if given == "environment" else address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ConfigurationError, match="tracking address"):
        report_of(program, mlflow=True)
    with pytest.raises(ConfigurationError, match="tracking address"):
        cachectl.mlflow_callbacks()
    assert endpoint.requests == 0
    monkeypatch.setenv("DSPY_CACHECTL_MLFLOW", "off")
    assert report_of(program, mlflow=True).n == 6


def _texts(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("given", ["argument", "environment", "mlflow"])
def test_what_is_paid_for_already_waits(
    server: Rest,
    outbox: Outbox,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: str,
) -> None:
    """Nothing is raised and nothing lost; another address delivers it; the password is nowhere."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it too, and it is taken back at the end
    for address in (f"http://me:{SECRET}/b@host", f"http://me:{SECRET}@[::1/x", f"//me:{SECRET}@host"):
        mlflow.set_tracking_uri(address if given == "mlflow" else None)
        if given == "environment":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with caplog.at_level(logging.DEBUG, logger="dspy_cachectl"):
            outcome = log_to_mlflow(report([1, 0]), tracking_uri=address if given == "argument" else None)
        assert (outcome.status, "cannot be used" in outcome.reason) == ("pending", True)
        assert [one.status for one in sync()] == ["pending"]
        with pytest.raises(ConfigurationError):
            sync(uri=address)
        assert SECRET not in f"{outcome}{caplog.text}{outbox.waiting()}"
        assert SECRET.encode() not in _texts(state)
        assert [one.status for one in sync(uri=server.url)] == ["logged"]
        (run,) = server.runs_of(str(outcome.uid))
        assert SECRET not in repr([run, *(server.download(run, path) for path in server.artifacts(run.id))])
    mlflow.set_tracking_uri(None)
