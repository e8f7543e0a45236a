"""`log_to_mlflow` where packages are missing: with the small MLflow, and with none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_cachectl.tracking import sync
from dspy_cachectl.tracking.outbox import Outbox
from tests.tracking.rest import Rest

pytestmark = pytest.mark.usefixtures("state")

_WITHOUT = """
import json, sys
from importlib.machinery import PathFinder

class Hiding:
    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        hidden = name.partition(".")[0] in sys.argv[2].split(",")
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.tracking import log_to_mlflow

with phase("eval") as run:
    pass
outcome = log_to_mlflow(run, tracking_uri=sys.argv[1])
print(json.dumps([outcome.status, outcome.uid, outcome.reason]))
"""


def _log_without(url: str, *modules: str) -> tuple[list[str], str]:
    command = [sys.executable, "-c", _WITHOUT, url, ",".join(modules)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout), done.stderr


def test_the_small_mlflow_is_enough(server: Rest) -> None:
    """What mlflow-skinny lacks is not needed."""
    missing = ("numpy", "pandas", "sqlalchemy", "alembic", "flask", "pyarrow", "sklearn", "matplotlib")
    (status_, uid, _), _ = _log_without(server.url, *missing)
    assert status_ == "logged"
    assert len(server.runs_of(uid)) == 1


def test_without_mlflow_the_record_waits(server: Rest, outbox: Outbox) -> None:
    """The reason says what to install, and a sync where it is installed delivers."""
    (status_, uid, reason), warned = _log_without(server.url, "mlflow")
    assert status_ == "pending"
    for said in (reason, warned):
        assert "pip install 'dspy-cachectl[mlflow]'" in said
    assert [(item.uid, item.status) for item in sync()] == [(uid, "delivered")]
    assert len(server.runs_of(uid)) == 1
