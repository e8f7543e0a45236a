"""A real tracking server for the session, and an outbox for each test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspy_cachectl.tracking import delivery
from dspy_cachectl.tracking.deadline import Guard
from dspy_cachectl.tracking.outbox import Outbox
from tests.tracking.rest import Rest

_MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # without it, mlflow waits for a list from the internet
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A `mlflow server` on sqlite."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    environment = {**os.environ, **_QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await_health(process, url, log)
            yield Rest(url)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait(30)


def _await_health(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the tracking server did not start\n{log.read_text(errors='replace')}")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder, and a process in which MLflow was told nothing."""
    folder = tmp_path / "state"
    monkeypatch.setenv("DSPY_CACHECTL_STATE", str(folder))
    for name in _MLFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in _QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(delivery, "guard", Guard())
    return folder


@pytest.fixture
def outbox(state: Path) -> Outbox:
    """The outbox of that folder."""
    return Outbox()
