"""Servers that fail: nothing hangs, nothing is lost, and what waits is delivered once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.tracking import sync
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.tracking import forked, servers
from tests.tracking.rest import Rest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the black hole, fork and SIGKILL are of POSIX")

LIMIT = 2.0

_SYNC = """
import json, sys
from dspy_cachectl.tracking import push, sync

push.load()
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([(item.uid, item.status) for item in sync(uri=sys.argv[1])]))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(state: Path, tmp_path: Path) -> Iterator[Start]:
    """Start Python in a child process, with its streams on pipes; what is left of it at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _sync_at_once(start: Start, url: str, *, processes: int) -> list[tuple[str, str]]:
    running = [start("-c", _SYNC, url) for _ in range(processes)]
    assert [_hear(process) for process in running] == ["ready\n"] * processes
    for process in running:
        _say(process)
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0] * processes
    return [(uid, status) for output in outputs for uid, status in json.loads(output.splitlines()[-1])]


def _assert_delivered_once(server: Rest, uid: str) -> None:
    record = Record.from_json((Outbox().root / "done" / uid / "record.json").read_bytes())
    (run,) = server.runs_of(record.owner or uid)  # a phase that is logged twice is one run
    assert run.status == "FINISHED"
    assert run.metrics["dspy_cachectl/n_examples"] == 8.0
    assert [(step, value) for step, value, _ in server.history(run.id, "dspy_cachectl/score")] == [(0, 25.0)]


def test_no_fault_of_a_server_holds_up_or_loses_anything(server: Rest, start: Start, outbox: Outbox) -> None:
    """Each fault: the call returns within its limit, the process ends with 0, and two syncs deliver once."""
    with contextlib.ExitStack() as stack:
        hang = stack.enter_context(servers.hanging())
        addresses = {
            "hang": hang,
            "black hole": stack.enter_context(servers.black_hole()),
            "refused": stack.enter_context(servers.refusing()),
            "500": stack.enter_context(servers.answering(500)),
            "429": stack.enter_context(servers.answering(429, Retry_After="20")),
            "drip": stack.enter_context(servers.dripping()),
            "databricks": "databricks",
        }
        databricks = {"DATABRICKS_HOST": hang, "DATABRICKS_TOKEN": "not-a-token"}
        cases: dict[str, Any] = {
            name: {"env": {"MLFLOW_TRACKING_URI": address, **databricks}, "limit": LIMIT}
            for name, address in addresses.items()
        }
        cases["left under way"] = {**cases["hang"], "limit": 60, "leave": True}
        output, _ = start(forked.__file__, json.dumps(cases)).communicate(timeout=120)
    results = json.loads(output.splitlines()[-1])

    assert results.keys() == cases.keys()
    for name, result in results.items():
        assert (result["code"], result["exit"] <= 5.0) == (0, True), (name, result)
    del results["left under way"]
    for name, result in results.items():
        first, second = result["told"]["seconds"]
        assert result["told"]["statuses"] == ["pending", "pending"], (name, result)
        assert first <= LIMIT + 1, (name, result)
        assert second <= 1, (name, result)  # the circuit is open, or the server refuses at once
        assert result["errors"].count("dspy-cachectl mlflow sync") == 2, (name, result)

    waiting = {entry.uid for entry in outbox.pending()}
    assert waiting >= {uid for result in results.values() for uid in result["told"]["uids"]}
    assert len(waiting) == 2 * len(results) + 1
    done = _sync_at_once(start, server.url, processes=2)
    assert sorted(uid for uid, status in done if status == "delivered") == sorted(waiting)
    assert sync(uri=server.url) == []
    for uid in waiting:
        _assert_delivered_once(server, uid)


def test_a_kill_at_any_point_loses_nothing_and_makes_no_second_run(server: Rest, start: Start, outbox: Outbox) -> None:
    """Killed while a request is in the air, whichever it is: the next sync leaves one run with single points."""
    calls = ["runs/search", "runs/create", "runs/log-batch", "runs/update"]
    with contextlib.ExitStack() as stack:
        proxies = {call: stack.enter_context(servers.Proxy.to(server.url)) for call in calls}
        for call, proxy in proxies.items():
            proxy.holds = call
        cases = {call: {"env": {"MLFLOW_TRACKING_URI": proxy.url}, "limit": 120} for call, proxy in proxies.items()}
        process = start(forked.__file__, json.dumps(cases))
        for call, pid in json.loads(_hear(process)).items():
            assert proxies[call].stopped.wait(60), proxies[call].seen
            os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    assert {result["code"] for result in json.loads(output.splitlines()[-1]).values()} == {-signal.SIGKILL}

    waiting = [entry.uid for entry in outbox.pending()]
    assert len(waiting) == len(calls)
    assert sorted(_sync_at_once(start, server.url, processes=1)) == sorted((uid, "delivered") for uid in waiting)
    for uid in waiting:
        _assert_delivered_once(server, uid)
        assert len(server.runs_of(uid, deleted=True)) == 1
