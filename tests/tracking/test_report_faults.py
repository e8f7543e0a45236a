"""Servers that fail while a report is logged: nothing hangs, nothing is lost, and what waits is delivered once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import mlflow
import pytest

from dspy_cachectl.tracking.delivery import MOST_TRIES
from dspy_cachectl.tracking.outbox import Outbox
from tests.endpoint import Endpoint
from tests.tracking import servers
from tests.tracking.conftest import Forks
from tests.tracking.delivered import FILES, assert_delivered_once, kinds
from tests.tracking.rest import Rest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the black hole, fork and SIGSTOP are of POSIX")

LIMIT = 2.0


def _assert_in_time(results: dict[str, dict[str, Any]], outbox: Outbox) -> list[str]:
    """Every call returned in time and said what to do, every process ended in time; what waits."""
    uids = []
    for name, result in results.items():
        assert (result["code"], result["exit"] <= 5.0) == (0, True), (name, result)
        assert result["told"], name
        for outcome in result["told"]:
            assert (outcome["status"], outcome["took"] <= LIMIT + 1) == ("pending", True), (name, result)
            uids.append(outcome["uid"])
        assert result["errors"].count("dspy-cachectl mlflow sync") == len(result["told"]), (name, result)
    waiting = {entry.uid: entry for entry in outbox.pending()}
    assert sorted(waiting) == sorted(uids)
    for entry in waiting.values():
        files = entry.read().artifacts
        assert kinds(files) == FILES
        assert all((entry.folder / "artifacts" / path).stat().st_size for path in files)
    return sorted(uids)


def _sync_from_a_shell(*arguments: str) -> Any:
    command = [sys.executable, "-m", "dspy_cachectl", "mlflow", "sync", "--json", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


def test_a_server_that_is_no_good_costs_a_report_its_limit_and_no_more(
    server: Rest, forks: Forks, outbox: Outbox
) -> None:
    """By `evaluate` and by hand: the calls return in time, the process ends, and two syncs at once deliver once."""
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
        cases = {name: {"env": {"MLFLOW_TRACKING_URI": url, **databricks}} for name, url in addresses.items()}
        results = forks.run(cases, do="log", limit=LIMIT, again=[None])
    waiting = _assert_in_time(results, outbox)
    assert len(waiting) == 2 * len(cases)
    for silent in ("hang", "black hole", "drip", "databricks"):
        assert "it is asked again in" in results[silent]["told"][1]["reason"]
    done = forks.sync(processes=2, uri=server.url)
    assert [uid for uid, status in done if status == "delivered"] == waiting
    assert _sync_from_a_shell("--uri", server.url) == []
    for uid in waiting:
        run = assert_delivered_once(server, uid)
        assert [(step, value) for step, value, _ in server.history(run.id, "dspy_cachectl/score/mean")] == [(1, 0.25)]


def test_a_server_that_fails_in_the_middle_costs_a_report_its_limit_and_no_more(
    server: Rest, forks: Forks, outbox: Outbox
) -> None:
    """Whatever it has taken already: it is silent, sends a byte a second, breaks off, or is gone."""
    faults = {
        "holds": ["runs/create", "runs/log-batch", "runs/log-inputs", "upload:1", "upload:3", "runs/update"],
        "drips": ["upload:2"],
        "cuts": ["upload:2"],
        "dies": ["runs/create", "upload:1"],
    }
    with contextlib.ExitStack() as stack:
        proxies = {}
        for fault, calls in faults.items():
            for call in calls:
                proxies[f"{fault} {call}"] = proxy = stack.enter_context(servers.Proxy.to(server.url))
                setattr(proxy, fault, call)
        cases: dict[str, Any] = {name: {"env": {"MLFLOW_TRACKING_URI": proxy.url}} for name, proxy in proxies.items()}
        cases["drips upload:2"]["executor"] = True
        results = forks.run(cases, do="log", limit=LIMIT)
        waiting = _assert_in_time(results, outbox)
        assert [name for name, proxy in proxies.items() if not proxy.stopped.is_set()] == []
        assert len(waiting) == len(cases)
        done = forks.sync(processes=2, uri=server.url)
    assert [uid for uid, status in done if status == "delivered"] == waiting
    assert forks.sync() == []
    for uid in waiting:
        assert_delivered_once(server, uid)


@pytest.mark.parametrize("call", ["runs/create", "upload:2"])
def test_a_server_that_is_stopped_for_a_while_takes_a_report_once(
    server: Rest, forks: Forks, outbox: Outbox, call: str
) -> None:
    """The request that it had not answered may count when it wakes up, and what was given up is delivered."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.calls[call] = lambda: os.killpg(server.pid, signal.SIGSTOP)
        try:
            results = forks.run({call: {"env": {"MLFLOW_TRACKING_URI": proxy.url}}}, do="log", limit=LIMIT)
        finally:
            os.killpg(server.pid, signal.SIGCONT)
        (waiting,) = _assert_in_time(results, outbox)
        assert proxy.stopped.is_set()
        proxy.calls.clear()
        assert forks.sync(processes=2)[-1] == (waiting, "delivered")
        assert forks.sync() == []
    assert_delivered_once(server, waiting)


def test_a_run_that_was_begun_is_found_under_another_address(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """The server's name has changed since, and its default experiment is not the run's."""
    experiment = server.create_experiment(outbox.root.parent.parent.name)
    with servers.Proxy.to(server.url) as proxy:
        proxy.holds = "runs/log-batch"
        env = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_EXPERIMENT_ID": experiment}
        (waiting,) = _assert_in_time(forks.run({"": {"env": env}}, do="log", limit=LIMIT), outbox)
    assert forks.sync(uri=server.url) == [(waiting, "delivered")]
    assert_delivered_once(server, waiting, experiment=experiment)


def test_a_large_report_that_was_cut_off_is_whole_after_a_sync(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """Half of its table had arrived when the process was killed: all of it is there, and every metric once."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.cuts = "upload:3"
        case = {"env": {"MLFLOW_TRACKING_URI": proxy.url}, "report": "large"}
        (pid,) = forks.start({"large": case}, do="log", limit=120).values()
        assert proxy.stopped.wait(60)
        os.kill(pid, signal.SIGKILL)
        assert forks.results()["large"]["code"] == -signal.SIGKILL
        proxy.cuts = None
        proxy.let_go()
        ((waiting, status),) = forks.sync()
    assert status == "delivered"
    run = assert_delivered_once(server, waiting, every=True)
    name = f"dspy_cachectl/rows_{waiting[:8]}.json"
    assert len(server.download(run, name)) > 500_000
    mlflow.set_tracking_uri(server.url)
    table = mlflow.load_table(name, run_ids=[run.id])
    assert (len(table), table["score"].sum(), table["repeat"].sum()) == (2000, 250, 1000)


def test_what_waited_is_delivered_with_what_comes_later(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """The server is well again; what it never takes and what another is to have is in nobody's way, or not for long."""
    with servers.Proxy.to(server.url) as proxy, servers.refusing() as nobody:
        there = {"MLFLOW_TRACKING_URI": proxy.url}
        elsewhere = {"unknown": {**there, "MLFLOW_RUN_ID": "0" * 32}, "away": {"MLFLOW_TRACKING_URI": nobody}}
        stuck = _logged(forks.run({name: {"env": env} for name, env in elsewhere.items()}, do="log", limit=LIMIT))
        proxy.delays = "runs/search"
        waiting = _logged(forks.run({"1": {"env": there}, "2": {"env": there}}, do="log", limit=LIMIT))
        assert len(outbox.pending()) == 4
        proxy.delays = None
        later = _logged(forks.run({"": {"env": there, "again": [None] * 3}}, do="log", limit=60))
    assert set(later.values()) == {"logged"}
    assert sorted(entry.uid for entry in outbox.pending()) == sorted(stuck)
    assert [entry.failure().tries for entry in outbox.pending()] == [MOST_TRIES, 1]  # type: ignore[union-attr]
    for uid in (*later, *waiting):
        assert_delivered_once(server, uid)


def test_what_waited_takes_no_more_than_is_left_of_the_limit(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """Nor does it cost the server its good name: the process goes on logging there."""
    limit = 5.0
    with servers.Proxy.to(server.url) as proxy:
        case = {"env": {"MLFLOW_TRACKING_URI": proxy.url}}
        proxy.delays = "runs/log-batch:1"
        (waiting,) = _logged(forks.run({"": case}, do="log", limit=LIMIT))
        proxy.delays = "runs/log-batch:3"
        (result,) = forks.run({"": {**case, "again": [None]}}, do="log", limit=limit).values()
        assert proxy.stopped.is_set()
    assert (result["code"], result["exit"] <= 5.0) == (0, True), result
    assert [(told["status"], told["took"] <= limit + 1) for told in result["told"]] == [("logged", True)] * 2, result
    assert outbox.pending() == []
    for uid in (waiting, *(told["uid"] for told in result["told"])):
        assert_delivered_once(server, uid)


def _logged(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {told["uid"]: told["status"] for result in results.values() for told in result["told"]}


SECRETS = {
    "api_key": "sk-hidden-0000000000000001",
    "headers": {"X-Team-Token": "hidden-2", "Authorization": "Bearer hidden-3", "X-Tenant": "hidden-4"},
    "extra_headers": {"X-Api-Key": "hidden-5"},
}


def test_no_secret_is_in_what_is_written(server: Rest, forks: Forks, outbox: Outbox, endpoint: Endpoint) -> None:
    """Not those of the LM, nor those of an address: in no record, file, tag or trace, with all that autolog logs."""
    experiment = server.create_experiment(outbox.root.parent.parent.name)
    with servers.refusing() as nobody, servers.answering(500) as broken, servers.hanging() as hang:
        again = [url.replace("://", "://me:hidden-6@") + "?token=hidden-7" for url in (nobody, broken, hang)]
        url = server.url.replace("://", "://me:hidden-8@")
        case = {"env": {"MLFLOW_TRACKING_URI": url, "MLFLOW_EXPERIMENT_ID": experiment}, "again": again}
        case["lm"] = {"api_base": endpoint.url, **SECRETS}
        (result,) = forks.run({"": case}, do="log", limit=LIMIT, patience=60).values()
    assert [told["status"] for told in result["told"]] == ["logged", "pending", "pending", "pending"]
    ours = [line for line in result["errors"].splitlines() if "dspy-cachectl" in line]
    assert len(ours) >= 3
    waiting = {path: path.read_bytes() for path in outbox.root.rglob("*") if path.is_file()}
    assert sum(path.name == "failure.json" for path in waiting) >= 3

    run = server.run(result["told"][0]["run_id"])
    assert run.tags["dspy_cachectl.uid"] == result["told"][0]["uid"]
    assert "test-model" in run.params["lm_params"]
    paths = [path for path in server.artifacts(run.id, "") if path.endswith(".json")] + server.artifacts(run.id)
    assert {*FILES} < {*kinds(paths)}
    traces = server.traces(experiment)
    assert [len(trace.calls) for trace in traces] == [1, 1, 1]
    everything = [result["told"], ours, waiting, run, [server.download(run, path) for path in paths]]
    everything += map(vars, traces)
    assert [text for text in map(repr, everything) if "hidden" in text] == []


_WITHOUT_MLFLOW = """
import json, sys

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "mlflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker)
import dspy
import dspy_cachectl as cachectl

class Echo(dspy.Module):
    def forward(self, question):
        return dspy.Prediction(answer=question)

def is_zero(example, prediction, trace=None):
    return prediction.answer == "0"

dspy.configure(lm=cachectl.LM("openai/test-model", api_key="sk-test-secret"))
devset = [dspy.Example(question=str(number % 4)).with_inputs("question") for number in range(8)]
found = cachectl.evaluate(Echo(), devset, is_zero, display_progress=False, predictions=False, mlflow=True)
print(json.dumps(found.score))
"""


def test_without_mlflow_a_report_waits_and_is_delivered_later(
    server: Rest, child: Callable[..., Any], outbox: Outbox
) -> None:
    """The warning says what to install; the command line delivers where that is done, to where it was meant to go."""
    done = child(_WITHOUT_MLFLOW, env={"MLFLOW_TRACKING_URI": server.url})
    assert done.data == 0.25
    assert "pip install 'dspy-cachectl[mlflow]'" in done.stderr
    assert "dspy-cachectl mlflow sync" in done.stderr
    (waiting,) = (entry.uid for entry in outbox.pending())
    assert [(item["uid"], item["status"]) for item in _sync_from_a_shell()] == [(waiting, "delivered")]
    assert_delivered_once(server, waiting)
