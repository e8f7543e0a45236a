"""Children that evaluate, log their reports, and are struck: forked from one that has imported everything. A script.

Each line of its input is a JSON object of cases by name: `{"do": ..., "env": {...}, "folder": ..., ...}`. For each line
it forks the children, one when the last is about to make its first request, and prints two lines: their process ids;
and, when all have told what they had to tell (null for one that was killed), that with their exit codes, how long
their exit took in seconds, and what they wrote. `"keep": true` in all cases never asks for the dead, as a parent does
that does not wait for its children.

Of a child that logs, `limit` is its limit, `patience` another one for what it logs first, `report` what it logs, `kill`
where it kills itself, and `again` where it logs the same again.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
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
import statsmodels.api
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.cloud_artifact_repo import CloudArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

import dspy_cachectl as cachectl
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.tracking import delivery, log, log_to_mlflow, outbox, push, sync
from dspy_cachectl.tracking.deadline import Guard
from dspy_cachectl.tracking.outbox import Entry, Outbox
from tests.reports.made_up import report
from tests.tracking.forked import Child, Parent

for _module in (databricks.sdk, matplotlib.figure, mlflow.tracking, scipy.stats, statsmodels.api):
    assert _module.__name__ in sys.modules

QUESTIONS = 8
REPEATS = 2


class Echo(dspy.Module):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=question)


def is_zero(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(prediction.answer == "0")


def evaluate(**options: Any) -> EvalReport:
    """A report that scores 0.25, of a program that asks nobody."""
    dspy.configure(lm=cachectl.LM("openai/test-model", api_base="http://127.0.0.1:9", api_key="sk-test-secret"))
    devset = [dspy.Example(question=str(number % 4)).with_inputs("question") for number in range(QUESTIONS)]
    return cachectl.evaluate(
        Echo(), devset, is_zero, repeats=REPEATS, predictions=False, display_progress=False, num_threads=2, **options
    )


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
    """Log: what `evaluate` found, by itself and then again; or a report that is made up."""
    outcomes = _watch(case.get("patience", case["limit"]))
    Guard.run = _before(Guard.run, parent.ready)  # type: ignore[method-assign]
    if kill := case.get("kill"):
        _kill_at(kill)
    if case.get("executor"):
        _artifact_repository_registry.register("mlflow-artifacts", Executing)
    if case.get("report"):
        found, again = globals()[case["report"]](), [None]
    else:
        found, again = traced(case["lm"]) if case.get("lm") else evaluate(mlflow=True), case.get("again", [])
    for address in again:
        began = time.monotonic()
        outcome = log_to_mlflow(found, tracking_uri=address, timeout=case["limit"])
        outcomes.append({**asdict(outcome), "took": time.monotonic() - began})
    return outcomes


class Executing(MlflowArtifactsRepository):
    """A store that uploads several files as MLflow does to Databricks and S3: in the threads of an executor."""

    log_artifacts = CloudArtifactRepository.log_artifacts

    def _get_write_credential_infos(self, remote_file_paths: list[str]) -> list[str]:
        return remote_file_paths

    def _upload_to_cloud(self, cloud_credential_info: str, src_file_path: str, artifact_file_path: str) -> None:
        self.log_artifact(src_file_path, artifact_file_path.rpartition("/")[0])


def do_sync(case: dict[str, Any], parent: Parent) -> list[tuple[str, str]]:
    """Deliver what waits, at a word that others may be given at the same time."""
    push.load(case.get("uri"))
    parent.ready()
    parent.wait()
    return [(item.uid, item.status) for item in sync(uri=case.get("uri"))]


def _watch(limit: float) -> list[dict[str, Any]]:
    """Give `evaluate` a limit of ours, and take the time that its logging takes."""
    outcomes: list[dict[str, Any]] = []
    real = log.log_report

    def log_report(*arguments: Any, **options: Any) -> Any:
        began = time.monotonic()
        outcome = real(*arguments, **options, timeout=limit)
        outcomes.append({**asdict(outcome), "took": time.monotonic() - began})
        return outcome

    log.log_report = log_report  # type: ignore[assignment]
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


def _kill_at(where: str) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    wrap, owner, name = {
        "before it is written": (_before, Outbox, "put"),
        "while it is written": (_after, outbox, "_write"),
        "when it is written": (_before, delivery, "deliver"),
        "before it is done": (_before, Entry, "finish"),
        "while it is done": (_after, outbox, "_replace"),
        "when it is done": (_after, Entry, "finish"),
    }[where]
    setattr(owner, name, wrap(getattr(owner, name), die))


def _work(case: dict[str, Any], parent: Parent) -> Any:
    os.environ.update(case["env"])
    os.chdir(case["folder"])
    return {"log": do_log, "sync": do_sync}[case["do"]](case, parent)


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
