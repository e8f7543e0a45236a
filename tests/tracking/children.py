"""Children that evaluate, log their reports, and are struck: forked from one that has imported everything. A script.

Each line of its input is a JSON object of cases by name: `{"do": ..., "env": {...}, "folder": ..., ...}`. For each line
it forks the children, one when the last has begun to log, and prints two lines: their process ids;
and, when all have told what they had to tell (null for one that was killed), that with their exit codes, how long
their exit took in seconds, and what they wrote. `"keep": true` in all cases never asks for the dead, as a parent does
that does not wait for its children.

Of a child that logs, `limit` is its limit, `patience` another one for what it logs first, `report` what it logs, `kill`
where it kills itself, and `again` where it logs the same again.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import databricks.sdk
import dspy
import matplotlib.figure
import mlflow
import mlflow.tracking
import scipy.stats
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.cloud_artifact_repo import CloudArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

import dspy_cachectl as cachectl
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.tracking import client, delivery, log, outbox, sync
from dspy_cachectl.tracking.deadline import TimeLimiter
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Lease, Outbox
from tests.limits import SOON
from tests.reports.made_up import report

for _module in (databricks.sdk, matplotlib.figure, mlflow.tracking, scipy.stats):
    assert _module.__name__ in sys.modules
with contextlib.suppress(ModuleNotFoundError):  # which MLflow does not bring along
    importlib.import_module("statsmodels.api")

QUESTIONS = 8
REPEATS = 2


class Echo(dspy.Module):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=question)


def is_zero(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(prediction.answer == "0")


def questions() -> list[dspy.Example]:
    return [dspy.Example(question=str(number % 4)).with_inputs("question") for number in range(QUESTIONS)]


def evaluate(**options: Any) -> EvalReport:
    """A report that scores 0.25, of a program that asks nobody."""
    dspy.configure(lm=cachectl.LM("openai/test-model", api_base="http://127.0.0.1:9", api_key="sk-test-secret"))
    return cachectl.evaluate(
        Echo(),
        questions(),
        is_zero,
        repeats=REPEATS,
        predictions=False,
        display_progress=False,
        num_threads=2,
        **options,
    )


def phase() -> PhaseRun:
    """A phase with an evaluation that scores 25."""
    with cachectl.phase("eval") as run:
        dspy.Evaluate(devset=questions(), metric=is_zero, num_threads=2, display_progress=False)(Echo())
    return run


def large() -> EvalReport:
    """A report of 2,000 draws whose table is a megabyte."""
    return report([(number % 4 == 0, 0) for number in range(1000)], preview="What is {}? " + "word " * 80)


def wide() -> EvalReport:
    """A report of 1,000 repeats, whose metrics are more than a batch takes."""
    return report([[number % 4 == 0 for number in range(1000)], [0] * 1000])


def traced(options: dict[str, Any]) -> EvalReport:
    """A report of a program that asks a provider, while MLflow logs all it can by itself."""
    dspy.configure(lm=cachectl.LM("openai/test-model", **options))
    mlflow.dspy.autolog(log_traces=True, log_evals=True)
    devset = [dspy.Example(question=str(number)).with_inputs("question") for number in range(3)]
    program = dspy.Predict("question -> answer")
    found = cachectl.evaluate(program, devset, is_zero, display_progress=False, num_threads=1, mlflow=True)
    mlflow.flush_trace_async_logging()
    return found


def do_log(case: dict[str, Any], parent: Parent) -> list[dict[str, Any]]:
    """Log: what `evaluate` found, by itself and then again; or a phase; or a report that is made up."""
    outcomes = _watch(case.get("patience", case["limit"]))
    TimeLimiter.start = _before(TimeLimiter.start, parent.ready)  # type: ignore[method-assign]
    if kill := case.get("kill"):
        _kill_at(kill)
    if case.get("executor"):
        _artifact_repository_registry.register("mlflow-artifacts", Executing)
    if case.get("report"):
        found, again = globals()[case["report"]](), case.get("again", [None])
    else:
        found, again = traced(case["lm"]) if case.get("lm") else evaluate(mlflow=True), case.get("again", [])
    for address in again:
        began = time.monotonic()
        outcome = log_to_mlflow(found, tracking_uri=address, timeout=case["limit"])
        outcomes.append({**asdict(outcome), "took": time.monotonic() - began})
    return outcomes


def do_leave(case: dict[str, Any], parent: Parent) -> None:
    """Log in a thread, and end while that is under way."""
    TimeLimiter.start = _before(TimeLimiter.start, parent.ready)  # type: ignore[method-assign]
    threading.Thread(target=log_to_mlflow, args=(phase(),), kwargs={"timeout": case["limit"]}, daemon=True).start()
    while not delivery.limiter._under_way:
        time.sleep(0.01)


class Executing(MlflowArtifactsRepository):
    """A store that uploads several files as MLflow does to Databricks and S3: in the threads of an executor."""

    log_artifacts = CloudArtifactRepository.log_artifacts

    def _get_write_credential_infos(self, remote_file_paths: list[str]) -> list[str]:
        return remote_file_paths

    def _upload_to_cloud(self, cloud_credential_info: str, src_file_path: str, artifact_file_path: str) -> None:
        self.log_artifact(src_file_path, artifact_file_path.rpartition("/")[0])


def do_sync(case: dict[str, Any], parent: Parent) -> list[tuple[str, str]]:
    """Deliver what waits, at a word that others may be given at the same time."""
    client.load(case.get("uri") or "")
    parent.ready()
    parent.wait()
    return [(item.uid, item.status) for item in sync(uri=case.get("uri"))]


def _watch(limit: float) -> list[dict[str, Any]]:
    """Give `evaluate` a limit of ours, and take the time that its logging takes."""
    outcomes: list[dict[str, Any]] = []
    real = log.log_report

    def log_report(*arguments: Any, **options: Any) -> Any:
        began = time.monotonic()
        outcome = real(*arguments, **options)
        outcomes.append({**asdict(outcome), "took": time.monotonic() - began})
        return outcome

    log.LIMIT = limit
    log.log_report = log_report
    return outcomes


def _before(function: Callable[..., Any], first: Callable[[], None]) -> Callable[..., Any]:
    done: list[None] = []

    def wrapper(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(first())
        return function(*arguments, **options)

    return wrapper


def _after(function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **options: Any) -> Any:
        function(*arguments, **options)
        then()

    return wrapper


def _third(function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    calls: list[None] = []

    def wrapper(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            then()
        return function(*arguments)

    return wrapper


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_inside(lease: Lease) -> None:
    with lease._database.change() as sql:
        sql("DELETE FROM records WHERE uid = ?", lease.uid)
        _die()


def _kill_at(where: str) -> None:
    owner, name, function = {
        "before it is written": (Outbox, "put", _die),
        "while it is written": (outbox, "_sha256", _third(outbox._sha256, _die)),  # of the record and two files
        "when it is written": (delivery, "deliver", _die),
        "before it is done": (Lease, "finish", _die),
        "while it is done": (Lease, "finish", _die_inside),
        "when it is done": (Lease, "finish", _after(Lease.finish, _die)),
    }[where]
    setattr(owner, name, function)


class Parent:
    """What a child can say to its parent, and hear from it."""

    def __init__(self, tell: int, hear: int) -> None:
        self._tell, self._hear = tell, hear

    def ready(self) -> None:
        """Let the parent go on to the next child."""
        os.write(self._tell, b"\n")

    def wait(self) -> None:
        """Wait for the parent's word."""
        os.read(self._hear, 1)


Work = Callable[[dict[str, Any], Parent], Any]


class Child:
    """One forked process, which does its work, tells of it in JSON, and ends when it is told to."""

    def __init__(self, case: dict[str, Any], work: Work) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        told, tell = os.pipe()
        hear, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(told)
            os.close(say)
            os.dup2(self.errors.fileno(), 1)
            os.dup2(self.errors.fileno(), 2)
            os.write(tell, json.dumps(work(case, Parent(tell, hear))).encode())
            os.close(tell)
            os.read(hear, 1)
            sys.exit(0)
        os.close(tell)
        os.close(hear)
        self._told, self._say = os.fdopen(told, "rb"), say

    def await_ready(self) -> None:
        """Wait until it is ready, or has come to an end before."""
        self._told.readline()

    def go(self) -> None:
        """Give it the word, be it to go on or to end."""
        with contextlib.suppress(BrokenPipeError):  # it was killed
            os.write(self._say, b"!")

    def told(self) -> Any:
        """What it told, or None if it was killed."""
        with self._told:
            data = self._told.read()
        return json.loads(data) if data else None

    def end(self) -> dict[str, Any]:
        """Let it end, and watch; one that does not is killed."""
        late = threading.Timer(SOON, os.kill, (self.pid, signal.SIGKILL))
        began = time.monotonic()
        self.go()
        late.start()
        _, status = os.waitpid(self.pid, 0)
        took = time.monotonic() - began
        late.cancel()
        late.join()
        self.errors.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "exit": took,
            "errors": self.errors.read().decode(errors="replace"),
        }


def _work(case: dict[str, Any], parent: Parent) -> Any:
    os.environ.update(case["env"])
    os.chdir(case["folder"])
    return {"log": do_log, "leave": do_leave, "sync": do_sync}[case["do"]](case, parent)


def _run(cases: dict[str, dict[str, Any]]) -> None:
    assert threading.active_count() == 1, threading.enumerate()
    children = {}
    for name, case in cases.items():
        children[name] = Child(case, _work)
        children[name].await_ready()
    print(json.dumps({name: child.pid for name, child in children.items()}), flush=True)
    for name, case in cases.items():
        if case["do"] == "sync":
            children[name].go()
    told = {name: child.told() for name, child in children.items()}
    keep = any(case.get("keep") for case in cases.values())
    ended = {name: _dead(child) if keep else child.end() for name, child in children.items()}
    print(json.dumps({name: {"told": told[name], **ended[name]} for name in cases}), flush=True)


def _dead(child: Child) -> dict[str, Any]:
    child.go()
    status = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    return {"code": status.si_status if status.si_code == os.CLD_EXITED else -status.si_status}


def main() -> None:
    gc.freeze()  # the children need not search and copy what was imported
    print("ready", flush=True)
    for line in sys.stdin:
        _run(json.loads(line))


if __name__ == "__main__":
    main()
