"""Processes that are killed while they log or deliver a report: what was written is delivered, and once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

import pytest

from dspy_cachectl.tracking.outbox import Outbox
from tests.limits import PATIENCE
from tests.tracking import servers
from tests.tracking.conftest import Forks
from tests.tracking.delivered import assert_delivered_once
from tests.tracking.rest import Rest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork and SIGKILL are of POSIX")

BY_ITSELF = [
    "before it is written",
    "while it is written",
    "when it is written",
    "before it is done",
    "while it is done",
    "when it is done",
]
NOT_WRITTEN, DONE = {"before it is written", "while it is written"}, {"when it is done"}
ANSWER_LOST = [
    "runs/search:1",
    "runs/create",
    "runs/search:2",
    "runs/log-batch",
    "runs/log-inputs",
    "upload:1",
    "upload:2",
    "upload:3",
    "runs/set-tag",
    "runs/update",
]
HALF_SENT = ["runs/create", "runs/log-batch", "upload:3"]


@pytest.mark.parametrize(
    ("lost", "half"),
    [
        pytest.param(["runs/create", "runs/log-batch", "upload:2", "runs/update"], ["upload:3"], id="some"),
        pytest.param(ANSWER_LOST, HALF_SENT, id="all", marks=pytest.mark.exhaustive),
    ],
)
def test_a_kill_at_any_point_loses_no_report_and_makes_no_second_run(
    lost: list[str], half: list[str], server: Rest, forks: Forks, outbox: Outbox
) -> None:
    """Killed between two steps, or with a request in the air; a sync is killed, too; the next ones deliver once."""
    experiment, other = (server.create_experiment(f"{outbox.path.parents[2].name} {number}") for number in (1, 2))
    with contextlib.ExitStack() as stack:

        def struck(**fault: str) -> tuple[servers.Proxy, dict[str, Any]]:
            proxy = stack.enter_context(servers.Proxy.to(server.url))
            for name, call in fault.items():
                setattr(proxy, name, call)
            return proxy, {"env": {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_EXPERIMENT_ID": experiment}}

        by_us = {f"{call} answered": struck(holds=call) for call in lost}
        by_us |= {f"half of {call}": struck(cuts=call) for call in half}
        by_us["half of upload:3"][1]["report"] = "large"
        by_us["between two batches"] = struck(holds="runs/log-batch:2")
        by_us["between two batches"][1]["report"] = "wide"
        # In an experiment of its own, in which the program's model is not yet.
        by_us["model created"] = struck(holds="logged-models")
        by_us["model created"][1]["env"]["MLFLOW_EXPERIMENT_ID"] = other
        cases: dict[str, dict[str, Any]] = {where: {**struck()[1], "kill": where} for where in BY_ITSELF}
        cases |= {name: case for name, (_, case) in by_us.items()}

        # A parent that does not ask for its dead children is Linux's to look through.
        pids = forks.start(cases, do="log", limit=PATIENCE, keep=sys.platform == "linux")
        for name, (proxy, _) in by_us.items():
            assert proxy.stopped.wait(PATIENCE), (name, proxy.seen)
            os.kill(pids[name], signal.SIGKILL)
        results = forks.results()
        assert {name: (result["code"], result["told"]) for name, result in results.items()} == dict.fromkeys(
            cases, (-signal.SIGKILL, None)
        )
        waiting = sorted(entry.uid for entry in outbox.waiting())
        assert len(waiting) == len(cases) - len(NOT_WRITTEN) - len(DONE)

        for proxy, _ in by_us.values():
            proxy.holds = proxy.cuts = None
            proxy.let_go()
        _kill_a_sync(forks, by_us["runs/create answered"][0])
        delivered = [uid for uid, status in forks.sync(processes=2) if status == "logged"]
        assert len(delivered) == len(set(delivered))
        assert outbox.waiting() == []
        assert forks.sync() == []
    runs = [(place, run.tags["dspy_cachectl.uid"]) for place in (experiment, other) for run in server.all_runs(place)]
    assert len(runs) == len(waiting) + len(DONE)
    assert set(waiting) < {uid for _, uid in runs}
    found = [assert_delivered_once(server, uid, experiment=place) for place, uid in runs]
    assert len(server.models(other)) == 1
    large = [run for run in found if run.metrics["dspy_cachectl/score/n"] == 1000]
    (table,) = [path for path in server.artifacts(large[0].id) if "/rows_" in path]
    assert len(server.download(large[0], table)) > 500_000


def _kill_a_sync(forks: Forks, proxy: servers.Proxy) -> None:
    """Kill a process that delivers, at the last request of a record."""
    proxy.stopped.clear()
    proxy.calls["runs/update"] = lambda: os.kill(pid, signal.SIGKILL)
    (pid,) = forks.start({"": {"do": "sync", "env": {}}}).values()
    assert proxy.stopped.wait(PATIENCE), proxy.seen
    assert forks.results()[""]["code"] == -signal.SIGKILL
    proxy.calls.clear()
