"""Traces and what was said about them, on a real server: each in its own evaluation's run, complete and once."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import dspy
import mlflow
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.tracking import feedback, status, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from tests.tracking import servers
from tests.tracking.delivered import deliver_twice
from tests.tracking.overlap import Meeting, is_even, overlapping, questions, report_of
from tests.tracking.rest import Rest


def test_each_answer_has_its_score(server: Rest, experiment: str, autolog: Callable[..., None], program: Any) -> None:
    """Every trace is shown with the report's own run, and says what the metric said of its answer, once."""
    autolog()
    report_of(program, 10, mlflow=True)
    traces = server.traces(experiment)
    assert len(traces) == 10
    for trace in traces:
        (answer,) = (
            attributes["mlflow.spanOutputs"]["answer"] for name, attributes in trace.spans if name == "Predict.forward"
        )
        assert trace.feedback == [("is_even", float(int(answer) % 2 == 0))]
    (run,) = server.all_runs(experiment)
    assert server.traces_of_run(experiment, run.id) == {trace.id for trace in traces}


@pytest.mark.parametrize("log_evals", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_the_rationale_is_the_metrics_feedback(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any, log_evals: bool
) -> None:
    """Of a metric made for GEPA, whoever logs it, with its lines; also in the table of the draws."""

    def metric(gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> Any:
        return {"score": 0.5, "feedback": f"{gold.question} was\nanswered {pred.answer}"}

    autolog(log_evals=log_evals)
    report = cachectl.evaluate(
        program, questions(4), metric, display_progress=False, predictions=False, num_threads=2, mlflow=True
    )
    said = [draw.feedback for draw in report.draws]
    traces = server.traces(experiment)
    assert sorted(said) == sorted(one for trace in traces for one in trace.rationales)
    assert [[("metric", 0.5)]] * 4 == [trace.feedback for trace in traces]
    (run,) = server.all_runs(experiment)
    (name,) = (path for path in server.artifacts(run.id) if "/rows_" in path)
    table = json.loads(server.download(run, name))
    place = table["columns"].index("feedback")
    assert said == [row[place] for row in table["data"]]


def test_what_was_loaded_has_no_trace_to_speak_of(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any, tmp_path: Any
) -> None:
    """An answer that is not computed again leaves the traces of others alone."""
    autolog()
    kept = {"predictions": tmp_path / "kept"}
    devset = questions(4)
    options: Any = {"display_progress": False, "num_threads": 1, "mlflow": True, **kept}
    cachectl.evaluate(program, devset, is_even, **options)
    cachectl.evaluate(program, [*devset, *questions(1, "new")], is_even, **options)
    mlflow.flush_trace_async_logging()
    traces = server.traces(experiment)
    assert len(traces) == 5
    assert [len(trace.feedback) for trace in traces] == [1] * 5


@pytest.mark.parametrize("exported", ["true", "false"])
def test_what_autolog_has_said_is_not_said_again(
    server: Rest,
    experiment: str,
    autolog: Callable[..., None],
    program: Any,
    exported: str,
) -> None:
    """Whether the traces are sent before the scores, where autolog's arrive, or after."""
    autolog(log_evals=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", exported)
        mlflow.tracing.reset()
        with cachectl.phase("eval") as run:
            dspy.Evaluate(devset=questions(8), metric=is_even, num_threads=4, display_progress=False)(program)
        assert log_to_mlflow(run).status == "logged"
    traces = server.traces(experiment)
    mlflow.tracing.reset()
    assert [len(trace.feedback) for trace in traces] == [1] * 8


@pytest.mark.usefixtures("exported_in_background")
def test_overlapping_evaluations_have_their_own_traces(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any
) -> None:
    """Two threads evaluate at once, each in the run that autolog opened for it."""
    autolog(log_evals=True)
    first, second = overlapping(
        lambda meeting: report_of(meeting, 6, "a", mlflow=True), lambda meeting: report_of(meeting, 9, "b", mlflow=True)
    )
    runs = {run.metrics["dspy_cachectl/score/n"]: run for run in server.all_runs(experiment)}
    assert len(runs) == 2
    for report, mark in ((first, "a"), (second, "b")):
        run = runs[report.n]
        mine = [trace for trace in server.traces(experiment) if trace.metadata["mlflow.sourceRun"] == run.id]
        asked = {dict(trace.spans)["Meeting.forward"]["mlflow.spanInputs"]["question"] for trace in mine}
        assert asked == {f"{mark}{number}" for number in range(report.n)}
        assert [len(trace.feedback) for trace in mine] == [1] * report.n
        assert run.metrics["dspy_cachectl/cache/requests"] == report.n
        assert run.metrics["dspy_cachectl/score/mean"] == report.score


def test_an_evaluation_without_a_run_takes_no_other(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any
) -> None:
    """One thread has a run, the other gets one of its own afterwards: no trace is in the first by mistake."""
    autolog()

    def in_a_run(meeting: Meeting) -> str:
        with mlflow.start_run() as active:
            report_of(meeting, 5, "a", mlflow=True)
        return str(active.info.run_id)

    named, report = overlapping(in_a_run, lambda meeting: report_of(meeting, 7, "b", mlflow=True))
    (own,) = (run for run in server.all_runs(experiment) if run.id != named)
    assert own.metrics["dspy_cachectl/score/n"] == report.n == 7
    assert (len(server.traces_of_run(experiment, named)), len(server.traces_of_run(experiment, own.id))) == (5, 7)


@pytest.mark.usefixtures("exported_in_background")
def test_traces_that_hang_hold_nothing_up(
    server: Rest,
    experiment: str,
    autolog: Callable[..., None],
    program: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The numbers are logged, what was said about the answers waits in the outbox, and a sync says it."""
    autolog()
    with cachectl.phase("eval") as run:
        dspy.Evaluate(devset=questions(5), metric=is_even, num_threads=2, display_progress=False)(program)
    let_go = threading.Event()
    flush = mlflow.flush_trace_async_logging

    def hang() -> None:
        let_go.wait()
        flush()

    with pytest.MonkeyPatch.context() as broken, caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        broken.setattr(mlflow, "flush_trace_async_logging", hang)
        broken.setattr(feedback, "_known", lambda *_: {})  # whatever has arrived in spite of it
        outcome = log_to_mlflow(run, timeout=4)
    let_go.set()
    assert outcome.status == "logged"
    (waiting,) = status()
    assert "5 traces have not arrived" in waiting.reason
    assert "feedback" in caplog.text
    assert [item.status for item in sync(uri=server.url)] == ["logged"]
    assert [len(trace.feedback) for trace in server.traces(experiment)] == [1] * 5


def test_a_server_that_is_away_gets_it_later_and_once(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any, outbox: Outbox
) -> None:
    """Numbers and feedback wait together; a sync delivers both, and another one changes nothing."""
    autolog()
    with cachectl.phase("eval") as run:
        dspy.Evaluate(devset=questions(5), metric=is_even, num_threads=2, display_progress=False)(program)
    mlflow.flush_trace_async_logging()
    with servers.refusing() as nobody:
        mlflow.set_tracking_uri(nobody)
        assert log_to_mlflow(run).status == "pending"
    assert len(status()) == 2
    uid = outbox.waiting()[0].uid
    for _ in deliver_twice(outbox, uri=server.url):
        traces = server.traces(experiment)
        assert [len(trace.feedback) for trace in traces] == [1] * 5
        (found,) = server.runs_of(uid)
        assert server.traces_of_run(experiment, found.id) == {trace.id for trace in traces}


def test_traces_that_are_lost_are_given_up(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A sync an hour later says how many scores have no trace, and keeps none of them waiting for ever."""
    autolog()
    with cachectl.phase("eval") as run:
        dspy.Evaluate(devset=questions(3), metric=is_even, num_threads=2, display_progress=False)(program)
    log_to_mlflow(run, timeout=0)
    mlflow.flush_trace_async_logging()
    (lost, *_) = [trace.id for trace in server.traces(experiment)]
    mlflow.MlflowClient(server.url).delete_traces(experiment, trace_ids=[lost])
    assert [item.status for item in sync(uri=server.url)] == ["logged", "pending"]
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"), pytest.MonkeyPatch.context() as later:
        later.setattr(feedback, "AWAITED", 0.0)
        assert [item.status for item in sync(uri=server.url)] == ["logged"]
    assert "the feedback on 1 of 3 answers is left out" in caplog.text
    assert [len(trace.feedback) for trace in server.traces(experiment)] == [1] * 2
