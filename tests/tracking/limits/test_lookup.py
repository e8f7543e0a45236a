"""`find_mlflow_run`: the run of this thread from memory, and whatever else within its limit, whatever a server does."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.limits import PATIENCE, SOON
from tests.tracking import servers
from tests.tracking.overlap import Meeting, overlapping, questions
from tests.tracking.rest import Rest

_ASKS = """
import json, os, sys, time
import dspy_cachectl as cachectl
assert "mlflow" not in sys.modules
with cachectl.phase("eval") as run:
    pass
for name, address in json.loads(sys.argv[1]).items():
    os.environ["MLFLOW_TRACKING_URI"] = address
    calls = {"find": lambda limit: cachectl.find_mlflow_run("experiment", limit)}
    calls["log"] = lambda limit: cachectl.log_to_mlflow(run, timeout=limit).status
    for what, call in calls.items():
        for limit in map(float, sys.argv[3:]):
            began = time.monotonic()
            found = call(limit)
            print(json.dumps([name, what, limit, found, time.monotonic() - began < limit + float(sys.argv[2])]))
"""


def _ask(addresses: dict[str, str], *limits: float, folder: Path) -> tuple[list[Any], list[str]]:
    """Ask from a process that has not imported MLflow; what it found, and what it logged. It ends, and by itself."""
    ended = subprocess.run(
        [sys.executable, "-c", _ASKS, json.dumps(addresses), str(SOON), *map(str, limits)],
        cwd=folder,
        env={**os.environ, "DSPY_CACHECTL_STORE": str(folder), "DATABRICKS_TOKEN": "not-a-token"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="the black hole is of POSIX")
@pytest.mark.parametrize(
    "limits",
    [pytest.param((0.5,), id="shortest"), pytest.param((0.5, 3.0, 10.0), id="all", marks=pytest.mark.exhaustive)],
)
def test_no_server_and_no_import_of_mlflow_outlasts_the_limit(
    limits: tuple[float, ...], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call is back and says why, and the process ends; MLflow is not imported when the first begins."""
    with servers.no_good() as addresses:
        monkeypatch.setenv("DATABRICKS_HOST", addresses["hang"])
        found, said = _ask(addresses, *limits, folder=tmp_path)
    assert [(name, what, limit) for name, what, limit, *_ in found] == [
        (name, what, limit) for name in addresses for what in ("find", "log") for limit in limits
    ]
    assert [one for one in found if one[3:] != [None if one[1] == "find" else "pending", True]] == []
    reasons = [line for line in said if line.startswith("no MLflow run: ")]
    assert len(reasons) == len(addresses) * len(limits)
    assert reasons[0] == "no MLflow run: importing MLflow was not done within the limit"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the lookup logged since it was last asked."""
    caplog.set_level(logging.INFO, logger="dspy_cachectl")

    def told() -> list[str]:
        lines = [record.getMessage() for record in caplog.records if record.name.endswith(".lookup")]
        caplog.clear()
        return [line.partition(": ")[2] for line in lines]

    return told


def test_the_run_is_the_nearest_one(server: Rest, experiment: str, told: Callable[[], list[str]]) -> None:
    """This thread's, active or ended; this process's; the newest of an experiment, where one is named."""
    name = str(mlflow.get_experiment(experiment).name)
    older, newer = server.create_run(experiment), server.create_run(experiment)
    found: dict[str, Any] = {}

    def in_a_thread_of_its_own(function: Callable[[], Any]) -> None:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(PATIENCE)

    def use(name: str) -> Callable[[], None]:
        def run() -> None:
            with mlflow.start_run() as active:
                found[name] = active.info.run_id
                found[f"{name}, active"] = cachectl.find_mlflow_run()
            found[f"{name}, ended"] = cachectl.find_mlflow_run()

        return run

    def look(**arguments: Any) -> Callable[[], None]:
        return lambda: found.__setitem__("looked", cachectl.find_mlflow_run(**arguments))

    with servers.Proxy.to(server.url) as proxy, _forgotten_runs():
        mlflow.set_tracking_uri(proxy.url)
        in_a_thread_of_its_own(look())
        assert (found["looked"], told()) == (None, ["none was active in this process, and no experiment is named"])
        assert proxy.seen == []
        with cachectl.configure(mlflow=False):
            in_a_thread_of_its_own(look(experiment=name))
        assert (found["looked"], proxy.seen, "turns it off" in told()[0]) == (None, [], True)
        in_a_thread_of_its_own(look(experiment=name))
        assert found["looked"] in (older, newer)
        assert told() == [f"newest of experiment {name!r}: may be another process's"]
        in_a_thread_of_its_own(look(experiment="nowhere"))
        assert (found["looked"], told()) == (None, ["there is no experiment 'nowhere'"])

        in_a_thread_of_its_own(use("first"))
        before = list(proxy.seen)
        assert found["first, active"] == found["first, ended"] == found["first"]
        assert told() == ["the active run of this thread", "the last run that ended in this thread"]
        look(experiment=name)()
        assert (found["looked"], told()) == (found["first"], ["this process's last run; it may be another thread's"])
        assert proxy.seen == before
        in_a_thread_of_its_own(lambda: (use("second")(), in_a_thread_of_its_own(use("third"))))
        look()()
        assert found["looked"] == found["third"]
    mlflow.set_tracking_uri(server.url)


@contextlib.contextmanager
def _forgotten_runs() -> Any:
    """Let MLflow know of no run of the tests before."""
    for variable in (mlflow.tracking.fluent._last_active_run_id, mlflow.tracking.fluent._active_run_stack):
        variable.reset()
    yield


@pytest.mark.parametrize("within", [False, True])
def test_two_evaluations_at_once_find_the_run_that_autolog_made_for_each(
    within: bool, server: Rest, program: Any, autolog: Callable[..., None]
) -> None:
    """In the thread of each when it has ended, and with our callbacks in the threads of its metric, too."""
    autolog(log_evals=True, log_traces=False)
    if within:
        head, tail = cachectl.mlflow_callbacks()
        dspy.configure(callbacks=[head, *dspy.settings.callbacks, tail])

    def evaluate(meeting: Meeting, n: int) -> tuple[int, set[str | None], set[str | None]]:
        seen: set[str | None] = set()

        def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
            seen.add(cachectl.find_mlflow_run())
            return True

        dspy.Evaluate(devset=questions(n), metric=metric, num_threads=2, display_progress=False)(meeting)
        return n, {cachectl.find_mlflow_run()}, seen

    found = overlapping(functools.partial(evaluate, n=3), functools.partial(evaluate, n=5))
    runs = set()
    for n, mine, seen in found:
        assert not within or seen == mine
        (run_id,) = mine
        runs.add(run_id)
        table = json.loads(server.download(server.run(str(run_id)), "result_table.json"))
        assert len(table["data"]) == n
    assert len(runs) == 2


def test_no_database_is_made_to_look_into_it(state: Path, tmp_path: Path, told: Callable[[], list[str]]) -> None:
    """Where there is none yet there is no run."""
    with _forgotten_runs():
        assert cachectl.find_mlflow_run("any") is None
    assert told() == [f"there is no database {tmp_path / 'mlflow.db'} yet"]
    assert not (tmp_path / "mlflow.db").exists()


def test_a_limit_that_is_none_is_refused() -> None:
    """As everywhere else."""
    with pytest.raises(ConfigurationError, match="a number of seconds"):
        cachectl.find_mlflow_run(timeout=-1)
