"""`evaluate(..., mlflow=...)` on a real server: the report is in its run, whatever opened it."""

from __future__ import annotations

import logging
from typing import Any

import mlflow
import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking import log
from dspy_cachectl.tracking.outbox import Outbox
from tests.endpoint import Endpoint
from tests.tracking import servers
from tests.tracking.overlap import report_of
from tests.tracking.rest import Rest, Run


@pytest.fixture
def autolog(program: Any) -> Any:
    """MLflow's own logging of evaluations."""
    mlflow.dspy.autolog(log_traces=False, log_traces_from_eval=False, log_evals=True)
    yield
    mlflow.dspy.autolog(disable=True)


def _only(server: Rest, experiment: str) -> Run:
    (found,) = (run for run in server.all_runs(experiment) if "dspy_cachectl.uid" in run.tags)
    return found


def test_a_report_gets_a_run_of_its_own(server: Rest, experiment: str, program: Any) -> None:
    """What `evaluate` returned is what the server has; the ledger is the evaluation's own."""
    report = report_of(program, repeats=2, mlflow=True)
    found = _only(server, experiment)
    assert found.status == "FINISHED"
    assert found.metrics["dspy_cachectl/score/mean"] == report.score
    assert found.metrics["dspy_cachectl/cache/requests"] == 12.0 == report.provenance.counters["requests"]
    assert found.tags["dspy_cachectl.cache_run_id"] == report.run_id


def test_without_being_asked_nothing_is_logged(server: Rest, experiment: str, outbox: Outbox, program: Any) -> None:
    """Nothing is even written."""
    report_of(program)
    assert outbox.waiting() == []
    assert server.all_runs(experiment) == []


def test_a_report_goes_to_the_run_that_autolog_opened(
    server: Rest, experiment: str, program: Any, autolog: None
) -> None:
    """Beside autolog's own metric and table, which stay."""
    report = report_of(program, mlflow=True)
    found = _only(server, experiment)
    assert found.metrics["dspy_cachectl/score/mean"] == report.score
    assert found.metrics["eval"] == pytest.approx(100 * report.score)
    assert not any(name.startswith("dspy_cachectl") for name in found.params)
    for table in ("result_table.json", f"dspy_cachectl/rows_{found.tags['dspy_cachectl.uid'][:8]}.json"):
        assert len(mlflow.load_table(table, run_ids=[found.id])) == 6


def test_the_runs_of_the_repeats_are_below_the_report(
    server: Rest, experiment: str, program: Any, autolog: None
) -> None:
    """Autolog opens a run for each repeat: the report's own run is their parent."""
    before = {run.id for run in server.all_runs(experiment)}
    report_of(program, repeats=3, mlflow=True)
    found = _only(server, experiment)
    children = [run for run in server.all_runs(experiment) if run.id not in before and run.id != found.id]
    assert [run.tags.get("mlflow.parentRunId") for run in children] == [found.id] * 3


def test_a_report_goes_to_the_active_run(server: Rest, experiment: str, program: Any) -> None:
    """And leaves it open."""
    with mlflow.start_run() as active:
        report_of(program, repeats=2, mlflow=True)
        found = _only(server, experiment)
        assert (found.id, found.status) == (active.info.run_id, "RUNNING")


def test_a_report_goes_to_the_run_that_is_named(server: Rest, experiment: str, program: Any) -> None:
    """Rather than to the active one."""
    named = server.create_run(experiment)
    with mlflow.start_run():
        report_of(program, mlflow=named)
    assert _only(server, experiment).id == named


def test_a_fault_of_ours_costs_no_report(
    program: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is paid for: whatever goes wrong after it is a warning."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(log, "of_report", broken)
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        assert report_of(program, mlflow=True).n == 6
    assert "could not be logged to MLflow: RuntimeError('no')" in caplog.text


def test_something_that_is_no_run_is_refused(program: Any, endpoint: Endpoint) -> None:
    """Before anything is paid for."""
    with pytest.raises(ConfigurationError, match="the id of a run, not 7"):
        report_of(program, mlflow=7)
    assert endpoint.requests == 0


@pytest.mark.usefixtures("experiment")
def test_what_a_report_costs_in_requests(server: Rest, program: Any) -> None:
    """In a run of its own and in a given one (of another experiment), each time with a new program and a known one."""
    counts = []
    with servers.Proxy.to(server.url) as proxy:
        for where in (None, None, server.create_run(), server.create_run()):
            made = report_of(program, 3, mark=f"{len(counts)} ")
            proxy.seen = []
            assert log.log_to_mlflow(made, tracking_uri=proxy.url, run_id=where, timeout=60.0).status == "logged"
            counts.append((proxy.seen.count("upload"), len(proxy.seen)))
    assert counts == [(5, 18), (5, 15), (5, 16), (5, 13)]
