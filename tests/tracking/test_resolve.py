"""Where results go is found in memory, in one order, and without a request."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from dspy_cachectl.tracking.resolve import absolute, resolve
from tests.tracking import servers


@pytest.fixture
def nobody(state: Path) -> Iterator[str]:
    """MLflow is set to a server that never answers: a request would hang the test."""
    with servers.hanging() as url:
        mlflow.set_tracking_uri(url)
        yield url
        mlflow.set_tracking_uri(None)


def _activate(monkeypatch: pytest.MonkeyPatch, run_id: str) -> None:
    info = type("Info", (), {"run_id": run_id})
    monkeypatch.setattr(mlflow, "active_run", lambda: type("Run", (), {"info": info}))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"run_id": "named", "captured": "seen"}, ("named", "argument")),
        ({"captured": "seen"}, ("seen", "evaluation")),
        ({}, ("active", "active run")),
    ],
)
def test_the_run_nearest_to_the_caller_wins(
    nobody: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], expected: tuple[str, str]
) -> None:
    """Named, captured, active: in this order."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "environment")
    _activate(monkeypatch, "active")
    target = resolve(**given)
    assert (target.run_id, target.source) == expected
    assert target.tracking_uri == nobody


def test_without_an_active_run_the_environment_names_it(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MLFLOW_RUN_ID`, unless an experiment is asked for; then a run of its own."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "environment")
    assert resolve().run_id == "environment"
    assert resolve(experiment="x").run_id is None
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert (resolve().run_id, resolve().source) == (None, "none")


def test_the_experiment_is_mlflows_own(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id that `set_experiment` leaves, or the name of the environment; the named one over both."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    assert (resolve().experiment_id, resolve().experiment) == (None, "by name")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    assert (resolve().experiment_id, resolve().experiment) == ("7", None)
    assert (resolve(experiment="x").experiment_id, resolve(experiment="x").experiment) == (None, "x")


def test_it_needs_no_mlflow(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MLflow the environment says where results go, or nothing does."""
    monkeypatch.delitem(sys.modules, "mlflow")
    assert resolve().tracking_uri is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    monkeypatch.setenv("MLFLOW_RUN_ID", "environment")
    assert (resolve().tracking_uri, resolve().run_id) == ("http://host:5000", "environment")


def test_an_address_means_the_same_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Paths are made absolute when they are recorded; everything else is left as it is."""
    monkeypatch.chdir(tmp_path)
    here = tmp_path.as_posix()
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{here}/mlflow.db"
    assert absolute("sqlite:///mlflow.db?timeout=3") == f"sqlite:///{here}/mlflow.db?timeout=3"
    assert absolute("mlruns") == (tmp_path / "mlruns").as_uri()
    for same in ("sqlite:////a/b.db", "sqlite:///:memory:", "http://h", "databricks", "databricks://p", "file:///a"):
        assert absolute(same) == same
