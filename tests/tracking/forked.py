"""Logs from many child processes, which are forked from one that has imported everything: run as a script.

Its argument is a JSON object of cases by name: `{"env": {...}, "limit": seconds, "leave": bool}`. Each child
evaluates something that scores 25, logs it twice, tells how that went and how long it took, and ends when it is
told to, one child after the other. A child that leaves logs in a thread and ends while that is under way.

First line of output: the children's process ids by name. Last line: what they told (null for one that was
killed), their exit codes, how long their exit took in seconds, and what they wrote.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import databricks.sdk
import dspy
import mlflow
import mlflow.tracking

from dspy_cachectl.phases.phase import phase
from dspy_cachectl.tracking import delivery, log_to_mlflow

assert databricks.sdk.__name__ in sys.modules
assert mlflow.tracking.__name__ in sys.modules


class Echo(dspy.Module):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=question)


def is_zero(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(prediction.answer == "0")


def log(case: dict[str, Any], _: object) -> dict[str, Any]:
    """What a child does."""
    os.environ.update(case["env"])
    devset = [dspy.Example(question=str(number % 4)).with_inputs("question") for number in range(8)]
    with phase("eval") as run:
        dspy.Evaluate(devset=devset, metric=is_zero, num_threads=2)(Echo())
    if case.get("leave"):
        threading.Thread(target=log_to_mlflow, args=(run,), kwargs={"timeout": case["limit"]}, daemon=True).start()
        while not delivery.guard._flights:
            time.sleep(0.01)
        return {}
    first, second = (log_to_mlflow(run, timeout=case["limit"]) for _ in range(2))
    return {
        "statuses": [first.status, second.status],
        "uids": [first.uid, second.uid],
        "seconds": [first.seconds, second.seconds],
    }


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
        late = threading.Timer(30.0, os.kill, (self.pid, signal.SIGKILL))
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


def main(cases: dict[str, dict[str, Any]]) -> None:
    assert threading.active_count() == 1, threading.enumerate()
    gc.freeze()  # the children need not search and copy what was imported
    children = {name: Child(case, log) for name, case in cases.items()}
    print(json.dumps({name: child.pid for name, child in children.items()}), flush=True)
    told = {name: child.told() for name, child in children.items()}
    print(json.dumps({name: {"told": told[name], **child.end()} for name, child in children.items()}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
