"""A real tracking server for the session, and an outbox for each test."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.tracking import delivery
from dspy_cachectl.tracking.deadline import TimeLimiter
from dspy_cachectl.tracking.outbox import Outbox
from tests.endpoint import Endpoint
from tests.limits import PATIENCE
from tests.tracking.rest import Rest

_MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # without it, mlflow waits for a list from the internet
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",  # its threads look once a second whether they may end
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
            yield Rest(url, pid=process.pid, folder=folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait(PATIENCE)


def _await_health(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=PATIENCE):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the tracking server did not start\n{log.read_text(errors='replace')}")


class Forks:
    """Children of a process of `tests.tracking.children`, which share the outbox of a test."""

    def __init__(self, forking: Forking, state: Path, folder: Path) -> None:
        self._forking = forking
        self._common = {
            "folder": str(folder),
            "env": {"DSPY_CACHECTL_STATE": str(state), "DSPY_CACHECTL_STORE": str(folder / "store")},
        }

    def start(self, cases: dict[str, dict[str, Any]], **common: Any) -> dict[str, int]:
        """Fork a child for each case, one when the last has begun to log; their process ids."""
        plain = {name: {**self._common, **common, **case} for name, case in cases.items()}
        for case in plain.values():
            case["env"] = {**self._common["env"], **case["env"]}
        self._forking.say(plain)
        return dict(self._forking.hear())

    def results(self) -> dict[str, dict[str, Any]]:
        """What they told and how they ended, when they have."""
        return dict(self._forking.hear())

    def run(self, cases: dict[str, dict[str, Any]], **common: Any) -> dict[str, dict[str, Any]]:
        """Start them and wait for them."""
        self.start(cases, **common)
        return self.results()

    def sync(self, *, processes: int = 1, uri: str | None = None) -> list[tuple[str, str]]:
        """Let so many processes deliver what waits, at once; what became of each record in each."""
        results = self.run({str(number): {"env": {}} for number in range(processes)}, do="sync", uri=uri)
        assert {result["code"] for result in results.values()} == {0}, results
        return sorted((uid, status) for result in results.values() for uid, status in result["told"])


class Forking:
    """A process that has imported everything and forks children. Another one takes its place if a test breaks off."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owed = 0

    def say(self, cases: dict[str, Any]) -> None:
        """Have it fork children; two answers come."""
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(json.dumps(cases) + "\n")
        process.stdin.flush()
        self._owed = 2

    def hear(self) -> Any:
        """Its next answer."""
        assert self._process is not None
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        self._owed -= 1
        return answer

    def end_what_is_left(self) -> None:
        """Kill it, with its children, if an answer was not waited for."""
        if self._owed:
            self.end()

    def end(self) -> None:
        """Kill it, with its children."""
        process, self._process, self._owed = self._process, None, 0
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.communicate()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            ours = ("MLFLOW_", "DSPY_CACHECTL_")
            environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.tracking.children"],
                cwd=Path(__file__).resolve().parents[2],
                env={**environment, **_QUIET},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == "ready\n"
        return self._process


@pytest.fixture(scope="session")
def forking() -> Iterator[Forking]:
    """A process that has imported everything."""
    process = Forking()
    yield process
    process.end()


@pytest.fixture
def forks(forking: Forking, state: Path, tmp_path: Path) -> Iterator[Forks]:
    """Children of it that share the outbox of the test."""
    yield Forks(forking, state, tmp_path)
    forking.end_what_is_left()


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
    monkeypatch.setattr(delivery, "limiter", TimeLimiter())
    return folder


@pytest.fixture
def mlflow_set(state: Path, server: Rest) -> Iterator[None]:
    """MLflow set to the server; no run of it is active afterwards."""
    import mlflow

    mlflow.set_tracking_uri(server.url)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def experiment(mlflow_set: None, server: Rest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of an experiment of the test's own, which MLflow uses."""
    import mlflow

    number = server.create_experiment(uuid.uuid4().hex)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    yield number
    mlflow.flush_trace_async_logging()


@pytest.fixture
def autolog(experiment: str) -> Iterator[Callable[..., None]]:
    """Turn MLflow's autolog on, with whatever options; it is off afterwards."""
    import mlflow

    yield mlflow.dspy.autolog
    mlflow.dspy.autolog(disable=True)


@pytest.fixture
def program(experiment: str, endpoint: Endpoint, lm: Callable[..., cachectl.LM]) -> Any:
    """A program whose answers are a number each, and MLflow set to the server."""
    endpoint.configure(answers={"question": ["2", "4", "5", "6"]})
    dspy.configure(lm=lm())
    return dspy.Predict("question -> answer")


@pytest.fixture
def exported_in_background(experiment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let MLflow export traces in threads of its own, as it does where nobody says anything."""
    import mlflow

    monkeypatch.delenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING")
    mlflow.tracing.reset()
    yield
    mlflow.flush_trace_async_logging()
    mlflow.tracing.reset()


@pytest.fixture
def outbox(state: Path) -> Outbox:
    """The outbox of that folder."""
    return Outbox()
