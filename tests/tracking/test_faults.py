"""Servers that fail while something is logged: nothing hangs, nothing is lost, and what waits is delivered once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

import pytest

from dspy_cachectl.tracking.delivery import MOST_TRIES
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.endpoint import Endpoint
from tests.limits import PATIENCE, SOON
from tests.page.unpacked import content
from tests.tracking import servers
from tests.tracking.conftest import Forks
from tests.tracking.delivered import FILES, assert_delivered_once, kinds, sync_from_a_shell
from tests.tracking.rest import Rest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the black hole, fork and SIGSTOP are of POSIX")

LIMIT = 2.0
AMPLE = 10.0
"""The limit where what happens within it is asserted, by a dozen processes at once."""
SCORE, PERCENT = "dspy_cachectl/score/mean", "dspy_cachectl/score/percent"
ENDED_BY = (
    "did not answer within",
    "does not accept connections",
    "it is asked again in",
    "MlflowException: API request",
)


def _assert_in_time(results: dict[str, dict[str, Any]], outbox: Outbox) -> dict[str, Record]:
    """Every call was ended by its limit and said what to do, every process ended; what waits."""
    uids = []
    for name, result in results.items():
        assert result["code"] == 0, (name, result)  # who does not end by itself is killed
        assert result["told"], name
        for outcome in result["told"]:
            assert (outcome["status"], outcome["took"] < SOON) == ("pending", True), (name, result)
            assert any(reason in outcome["reason"] for reason in ENDED_BY), (name, result)
            uids.append(outcome["uid"])
        assert result["errors"].count("dspy-cachectl mlflow sync") == len(result["told"]), (name, result)
    waiting = {one.uid: one.read() for one in outbox.waiting()}
    assert sorted(waiting) == sorted(uids)
    for record in waiting.values():
        files = outbox.files(record)
        assert kinds(files) == (FILES if record.model else [])
        assert all(files.values())
    return waiting


def test_a_server_that_is_no_good_costs_its_limit_and_no_more(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """Reports by `evaluate` and by hand, phases: calls and processes end, and two syncs at once deliver once."""
    with servers.no_good() as addresses:
        databricks = {"DATABRICKS_HOST": addresses["hang"], "DATABRICKS_TOKEN": "not-a-token"}
        cases = {
            name: {"env": {"MLFLOW_TRACKING_URI": url, **databricks}, "again": [None]}
            for name, url in addresses.items()
        }
        for name in ("hang", "refused"):
            cases[f"phase, {name}"] = {**cases[name], "report": "phase", "again": [None, None]}
        results = forks.run(cases, do="log", limit=AMPLE)
    waiting = _assert_in_time(results, outbox)
    assert len(waiting) == 2 * len(cases)
    for silent in ("hang", "black hole", "drip", "databricks", "phase, hang"):
        assert "it is asked again in" in results[silent]["told"][1]["reason"]
    done = forks.sync(processes=2, uri=server.url)
    assert [uid for uid, status in done if status == "logged"] == sorted(waiting)
    assert sync_from_a_shell("--uri", server.url) == []
    for uid, record in waiting.items():
        if record.model is not None:
            run = assert_delivered_once(server, uid)
            assert [(step, value) for step, value, _ in server.history(run.id, SCORE)] == [(1, 0.25)]
        elif record.owner is None:
            run = assert_delivered_once(server, uid, record=record)
            assert [(step, value) for step, value, _ in server.history(run.id, PERCENT)] == [(0, 25.0)]


def test_a_process_that_ends_while_it_logs(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """Its exit is not held up by a server that hangs, and what was under way waits."""
    with servers.hanging() as hang:
        (result,) = forks.run({"": {"env": {"MLFLOW_TRACKING_URI": hang}}}, do="leave", limit=60).values()
    assert result["code"] == 0, result
    ((waiting, record),) = ((one.uid, one.read()) for one in outbox.waiting())
    assert forks.sync(uri=server.url) == [(waiting, "logged")]
    assert_delivered_once(server, waiting, record=record)


@pytest.mark.parametrize(
    "holds",
    [
        ["runs/create", "upload:1"],
        pytest.param(
            ["runs/create", "runs/log-batch", "runs/log-inputs", "upload:1", "upload:3", "runs/update"],
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_server_that_fails_in_the_middle_costs_a_report_its_limit_and_no_more(
    holds: list[str], server: Rest, forks: Forks, outbox: Outbox
) -> None:
    """Whatever it has taken already: it is silent, sends a byte a second, breaks off, or is gone."""
    faults = {"holds": holds, "drips": ["upload:2"], "cuts": ["upload:2"], "dies": ["upload:1"]}
    with contextlib.ExitStack() as stack:
        proxies = {}
        for fault, calls in faults.items():
            for call in calls:
                proxies[f"{fault} {call}"] = proxy = stack.enter_context(servers.Proxy.to(server.url))
                setattr(proxy, fault, call)
        cases: dict[str, Any] = {name: {"env": {"MLFLOW_TRACKING_URI": proxy.url}} for name, proxy in proxies.items()}
        cases["drips upload:2"]["executor"] = True
        results = forks.run(cases, do="log", limit=AMPLE)
        waiting = _assert_in_time(results, outbox)
        assert [name for name, proxy in proxies.items() if not proxy.stopped.is_set()] == []
        assert len(waiting) == len(cases)
        done = forks.sync(processes=2, uri=server.url)
    assert [uid for uid, status in done if status == "logged"] == sorted(waiting)
    assert forks.sync() == []
    for uid in waiting:
        assert_delivered_once(server, uid)


def test_a_server_that_is_stopped_for_a_while_takes_a_report_once(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """The request that it had not answered may count when it wakes up, and what was given up is delivered."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.calls["runs/create"] = lambda: os.killpg(server.pid, signal.SIGSTOP)
        try:
            results = forks.run({"": {"env": {"MLFLOW_TRACKING_URI": proxy.url}}}, do="log", limit=LIMIT)
        finally:
            os.killpg(server.pid, signal.SIGCONT)
        (waiting,) = _assert_in_time(results, outbox)
        assert proxy.stopped.is_set()
        proxy.calls.clear()
        assert forks.sync(processes=2)[-1] == (waiting, "logged")
        assert forks.sync() == []
    assert_delivered_once(server, waiting)


def test_a_run_that_was_begun_is_found_under_another_address(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """The server's name has changed since, and its default experiment is not the run's."""
    experiment = server.create_experiment(outbox.path.parents[2].name)
    with servers.Proxy.to(server.url) as proxy:
        proxy.holds = "runs/log-batch"
        env = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_EXPERIMENT_ID": experiment}
        (waiting,) = _assert_in_time(forks.run({"": {"env": env}}, do="log", limit=LIMIT), outbox)
    assert forks.sync(uri=server.url) == [(waiting, "logged")]
    assert_delivered_once(server, waiting, experiment=experiment)


def test_what_waited_is_delivered_with_what_comes_later(server: Rest, forks: Forks, outbox: Outbox) -> None:
    """The server is well again; what it never takes and what another is to have is in nobody's way, or not for long."""
    with servers.Proxy.to(server.url) as proxy, servers.refusing() as nobody:
        there = {"MLFLOW_TRACKING_URI": proxy.url}
        elsewhere = {"unknown": {**there, "MLFLOW_RUN_ID": "0" * 32}, "away": {"MLFLOW_TRACKING_URI": nobody}}
        stuck = _logged(forks.run({name: {"env": env} for name, env in elsewhere.items()}, do="log", limit=LIMIT))
        proxy.delays = "runs/search"
        waiting = _logged(forks.run({"1": {"env": there}, "2": {"env": there}}, do="log", limit=LIMIT))
        assert len(outbox.waiting()) == 4
        proxy.delays = None
        later = _logged(forks.run({"": {"env": there, "again": [None] * 3}}, do="log", limit=60))
    assert set(later.values()) == {"logged"}
    assert sorted(entry.uid for entry in outbox.waiting()) == sorted(stuck)
    assert [one.tries for one in outbox.waiting()] == [MOST_TRIES, 1]
    for uid in (*later, *waiting):
        assert_delivered_once(server, uid)


@pytest.mark.exhaustive
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
    assert result["code"] == 0, result
    assert [(told["status"], told["took"] < SOON) for told in result["told"]] == [("logged", True)] * 2, result
    assert outbox.waiting() == []
    for uid in (waiting, *(told["uid"] for told in result["told"])):
        assert_delivered_once(server, uid)


def _logged(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {told["uid"]: told["status"] for result in results.values() for told in result["told"]}


SECRETS = {
    "api_key": "sk-covert-0000000000000001",
    "headers": {"X-Team-Token": "covert-2", "Authorization": "Bearer covert-3", "X-Tenant": "covert-4"},
    "extra_headers": {"X-Api-Key": "covert-5"},
}


def test_no_secret_is_in_what_is_written(server: Rest, forks: Forks, outbox: Outbox, endpoint: Endpoint) -> None:
    """Not those of the LM, nor those of an address: in no record, file, tag or trace, with all that autolog logs."""
    experiment = server.create_experiment(outbox.path.parents[2].name)
    with servers.refusing() as nobody, servers.answering(500) as broken, servers.hanging() as hang:
        again = [url.replace("://", "://me:covert-6@") + "?token=covert-7" for url in (nobody, broken, hang)]
        url = server.url.replace("://", "://me:covert-8@")
        case = {"env": {"MLFLOW_TRACKING_URI": url, "MLFLOW_EXPERIMENT_ID": experiment}, "again": again}
        case["lm"] = {"api_base": endpoint.url, **SECRETS}
        (result,) = forks.run({"": case}, do="log", limit=LIMIT, patience=PATIENCE).values()
    assert [told["status"] for told in result["told"]] == ["logged", "pending", "pending", "pending"]
    ours = [line for line in result["errors"].splitlines() if "dspy-cachectl" in line]
    assert len(ours) >= 3
    waiting = [(one, one.read(), outbox.files(one.read())) for one in outbox.waiting()]
    assert [bool(one.reason) for one, *_ in waiting] == [True] * 3

    run = server.run(result["told"][0]["run_id"])
    assert run.tags["dspy_cachectl.uid"] == result["told"][0]["uid"]
    assert "test-model" in run.params["lm_params"]
    paths = [path for path in server.artifacts(run.id, "") if path.endswith(".json")] + server.artifacts(run.id)
    assert {*FILES} < {*kinds(paths)}
    traces = server.traces(experiment)
    assert [len(trace.calls) for trace in traces] == [1, 1, 1]
    everything = [result["told"], ours, waiting, run, [server.download(run, path) for path in paths]]
    everything += [*map(vars, traces), *server.models(experiment)]
    everything += [content(server.download(run, path)) for path in paths if path.endswith(".html")]
    assert len(server.models(experiment)) == 1
    assert [text for text in map(repr, everything) if "covert" in text] == []
