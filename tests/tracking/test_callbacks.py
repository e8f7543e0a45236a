"""The pair of callbacks: every evaluation logs itself, into its own run, whatever goes wrong around it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

import dspy
import mlflow
import pytest
from dspy.teleprompt.teleprompt import Teleprompter

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking.callbacks import EvaluationLogger
from dspy_cachectl.tracking.outbox import Outbox
from tests.tracking import servers
from tests.tracking.overlap import is_even, overlapping, questions
from tests.tracking.rest import Rest, Run


def _install() -> None:
    head, tail = cachectl.mlflow_callbacks()
    dspy.configure(callbacks=[head, *dspy.settings.callbacks, tail])


def _evaluate(program: Any, n: int = 6, metric: Any = is_even, **options: Any) -> Any:
    evaluate = dspy.Evaluate(
        devset=questions(n, options.pop("mark", "")), metric=metric, num_threads=4, display_progress=False, **options
    )
    return evaluate(program)


def _metrics(run: Run, *names: str) -> list[float | None]:
    return [run.metrics.get(f"dspy_cachectl/{name}") for name in names]


class Optimizer(Teleprompter):
    """An optimizer of somebody's that evaluates candidates."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def compile(self, student: Any, *, trainset: Any = None, **_: Any) -> Any:
        student(question="outside of any evaluation")
        for step, n in enumerate(self.sizes):
            _evaluate(student, n, mark=f"candidate-{step}-")
        return student


def test_an_evaluation_is_logged_into_the_run_that_autolog_opened(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any
) -> None:
    """A plain `dspy.Evaluate`: its ledger, provenance, model and feedback are there without another word."""
    autolog(log_evals=True)
    _install()
    with cachectl.phase("eval") as run:
        result = _evaluate(program)
    (found,) = server.all_runs(experiment)
    assert found.metrics["eval"] == found.metrics["dspy_cachectl/score/percent"] == result.score
    assert _metrics(found, "score/n", "cache/requests", "cache/fresh", "cache/served") == [6.0, 6.0, 6.0, 0.0]
    assert found.metrics["dspy_cachectl/cost/spent"] == run.stats.cost_spent
    tags = {"kind": "eval", "phase": "eval", "policy": "FRESH", "metric": "is_even", "model": "openai/test-model"}
    assert tags == {name: found.tags[f"dspy_cachectl.{name}"] for name in tags}
    assert found.tags["dspy_cachectl.cache_run_id"] == run.run_id
    report = cachectl.evaluate(program, questions(6), is_even, predictions=False, display_progress=False)
    made = report.provenance
    shas = {"program_sha": made.program, "devset_digest": made.data, "metric_sha": made.metric_hash}
    assert shas == {name: found.tags[f"dspy_cachectl.{name}"] for name in shas}
    assert [name for name, *_ in found.inputs] == ["devset"]
    (table,) = [path for path in server.artifacts(found.id) if "/ledger_" in path]
    assert list(mlflow.load_table(table, run_ids=[found.id])["calls"]) == [6]
    traces = [trace for trace in server.traces(experiment) if trace.metadata.get("mlflow.sourceRun") == found.id]
    assert [[name for name, _ in trace.feedback] for trace in traces] == [["is_even"]] * 6


def test_evaluations_of_one_phase_have_each_their_own_ledger(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any
) -> None:
    """One after the other, the second from this run's own draws, and calls outside of both."""
    autolog(log_traces=False, log_evals=True)
    _install()
    with cachectl.phase("eval", cachectl.Policy.REUSE):
        program(question="0")
        for n in (4, 7):
            _evaluate(program, n)
    found = sorted(_metrics(run, "score/n", "cache/calls", "cache/requests") for run in server.all_runs(experiment))
    assert found == [[4.0, 4.0, 3.0], [7.0, 7.0, 3.0]]


@pytest.mark.usefixtures("exported_in_background")
def test_two_threads(server: Rest, experiment: str, autolog: Callable[..., None], program: Any) -> None:
    """Two evaluations that overlap in one phase: each run has its own score, calls and traces."""
    autolog(log_evals=True)
    _install()
    with cachectl.phase("eval"):
        scores = overlapping(
            lambda meeting: _evaluate(meeting, 4, mark="a").score, lambda meeting: _evaluate(meeting, 7, mark="b").score
        )
    runs = {run.metrics["dspy_cachectl/score/n"]: run for run in server.all_runs(experiment)}
    for n, score in zip((4, 7), scores, strict=True):
        assert _metrics(runs[n], "score/percent", "cache/calls", "cache/requests") == [score, n, n]
        assert runs[n].metrics["eval"] == score
        traces = [trace for trace in server.traces(experiment) if trace.metadata["mlflow.sourceRun"] == runs[n].id]
        assert [len(trace.feedback) for trace in traces] == [1] * n


def test_without_autolog_each_gets_a_run_of_its_own(server: Rest, experiment: str, program: Any) -> None:
    """Outside of any phase, too; the user's run is used where there is one."""
    mlflow.dspy.autolog(disable=True)
    _install()
    _evaluate(program, 3)
    with mlflow.start_run() as active:
        _evaluate(program, 5)
    found = {run.id: _metrics(run, "score/n", "cache/calls") for run in server.all_runs(experiment)}
    assert found.pop(active.info.run_id) == [5.0, 5.0]
    assert list(found.values()) == [[3.0, 3.0]]


@pytest.mark.usefixtures("exported_in_background")
@pytest.mark.parametrize("first", [True, False])
def test_autophase(server: Rest, experiment: str, autolog: Callable[..., None], program: Any, first: bool) -> None:
    """The phase that it enters, before or after autolog opens the run, is the one that is told of."""
    if first:
        dspy.configure(callbacks=[cachectl.AutoPhase()])
        autolog(log_evals=True)
    else:
        autolog(log_evals=True)
        dspy.configure(callbacks=[*dspy.settings.callbacks, cachectl.AutoPhase()])
    auto = next(one for one in dspy.settings.callbacks if isinstance(one, cachectl.AutoPhase))
    _evaluate(program, 5)
    (run,) = auto.runs
    outcome = cachectl.log_to_mlflow(run)
    (found,) = server.all_runs(experiment)
    assert outcome.run_id == found.id
    assert _metrics(found, "score/n", "cache/requests") == [5.0, 5.0]


def test_evaluations_inside_a_compile(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any
) -> None:
    """Each candidate's score and calls are in its own run below the compile's, which has the calls of all."""
    autolog(log_evals=True, log_compiles=True)
    _install()
    with cachectl.phase("compile"):
        Optimizer([3, 5]).compile(program, trainset=[])
    runs = server.all_runs(experiment)
    (parent,) = [run for run in runs if run.tags.get("dspy_cachectl.kind") == "compile"]
    assert _metrics(parent, "cache/calls", "cache/requests", "score/percent") == [9.0, 9.0, None]
    assert parent.tags["dspy_cachectl.phase"] == "compile"
    children = {run.metrics["dspy_cachectl/score/n"]: run for run in runs if run.id != parent.id}
    assert {n: _metrics(run, "cache/calls") for n, run in children.items()} == {3.0: [3.0], 5.0: [5.0]}
    assert {run.tags["mlflow.parentRunId"] for run in children.values()} == {parent.id}


def test_a_compile_with_its_own_evaluations_in_no_run_makes_none(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any
) -> None:
    """A part of something that nobody logs is not logged, and the evaluation after it is."""
    autolog(log_traces=False)
    _install()
    with cachectl.phase("compile"):
        Optimizer([3]).compile(program, trainset=[])
    assert server.all_runs(experiment) == []
    _evaluate(program, 4)
    assert [_metrics(run, "score/n") for run in server.all_runs(experiment)] == [[4.0]]


def test_a_bootstrap(server: Rest, experiment: str, autolog: Callable[..., None], program: Any) -> None:
    """DSPy's own optimizer, whose compile calls the program: what it cost is in the compile's run."""
    autolog(log_compiles=True, log_evals=True)
    _install()
    trainset = [dspy.Example(question=str(n), answer="2").with_inputs("question") for n in range(4)]
    with cachectl.phase("compile") as run:
        dspy.BootstrapFewShot(metric=is_even, max_bootstrapped_demos=2).compile(program, trainset=trainset)
    (found,) = server.all_runs(experiment)
    assert found.tags["dspy_cachectl.kind"] == "compile"
    assert _metrics(found, "cache/calls", "cache/requests") == [run.stats.calls, run.stats.requests]
    assert run.stats.calls > 0


def test_what_a_report_logs_is_not_logged_again(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any
) -> None:
    """`evaluate(mlflow=True)` tells of all its repeats itself; without it, the pair tells of each."""
    autolog(log_evals=True)
    _install()
    cachectl.evaluate(program, questions(4), is_even, predictions=False, display_progress=False, mlflow=True)
    (found,) = server.all_runs(experiment)
    assert "dspy_cachectl/score/mean" in found.metrics
    assert "dspy_cachectl/score/percent" not in found.metrics
    cachectl.evaluate(program, questions(4), is_even, predictions=False, display_progress=False)
    (later,) = [run for run in server.all_runs(experiment) if run.id != found.id]
    assert "dspy_cachectl/score/percent" in later.metrics


def test_what_is_not_to_be_logged_is_not(server: Rest, experiment: str, program: Any) -> None:
    """Autolog's own word for it is heeded."""
    _install()
    evaluate = dspy.Evaluate(devset=questions(3), metric=is_even, display_progress=False)
    evaluate(program, callback_metadata={"disable_logging": True})
    assert server.all_runs(experiment) == []


def test_a_metric_that_raises(server: Rest, experiment: str, autolog: Callable[..., None], program: Any) -> None:
    """Its answers count as failed, and the run has the score that `dspy.Evaluate` gave."""

    def picky(example: Any, prediction: Any, trace: Any = None) -> bool:
        if example.question == "1":
            raise RuntimeError("no access: api_key=sk-verysecretverysecret")
        return True

    autolog(log_evals=True, log_traces_from_eval=False)
    _install()
    with cachectl.phase("eval"):
        assert _evaluate(program, 4, picky).score == 75.0
        with pytest.raises(Exception, match="cancelled"):
            _evaluate(program, 8, picky, max_errors=1)
    found = {run.metrics["dspy_cachectl/score/n"]: run for run in server.all_runs(experiment)}
    assert (_metrics(found[4.0], "score/percent", "cache/calls"), found[4.0].status) == ([75.0, 4.0], "FINISHED")
    assert (_metrics(found[8.0], "score/percent"), found[8.0].status) == ([None], "FAILED")
    assert "cancelled" in found[8.0].tags["dspy_cachectl.error"]


def test_a_program_that_raises(server: Rest, experiment: str, autolog: Callable[..., None], program: Any) -> None:
    """What the answers that came did cost is in the run; those that failed have no feedback."""

    class Fragile(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = program

        def forward(self, question: str) -> dspy.Prediction:
            if question == "2":
                raise ValueError("I cannot")
            return self.answer(question=question)

    autolog(log_evals=True)
    _install()
    with cachectl.phase("eval"):
        score = _evaluate(Fragile(), 5).score
    (found,) = server.all_runs(experiment)
    assert _metrics(found, "score/percent", "cache/calls", "cache/requests") == [score, 4.0, 4.0]
    traces = server.traces(experiment)
    assert {trace.metadata["mlflow.sourceRun"] for trace in traces} == {found.id}
    assert sorted(len(trace.feedback) for trace in traces) == [0, 1, 1, 1, 1]


def test_an_mlflow_that_raises(
    server: Rest, experiment: str, autolog: Callable[..., None], program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autolog opens no run and logs nothing: the results get a run of their own."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("not today")

    autolog(log_evals=True, log_traces=False)
    _install()
    for name in ("on_evaluate_start", "on_evaluate_end"):
        monkeypatch.setattr(type(dspy.settings.callbacks[1]), name, broken)
    with cachectl.phase("eval"):
        score = _evaluate(program, 4).score
    (found,) = server.all_runs(experiment)
    assert _metrics(found, "score/percent", "cache/requests") == [score, 4.0]
    assert found.status == "FINISHED"


def test_a_server_that_is_away(experiment: str, program: Any, outbox: Outbox, caplog: Any) -> None:
    """The evaluation ends with its score, and its results wait."""
    _install()
    with servers.refusing() as nobody, caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        mlflow.set_tracking_uri(nobody)
        assert _evaluate(program, 4).score is not None
    assert [entry.read().metrics[0].key for entry in outbox.waiting()] == ["dspy_cachectl/score/percent"]
    assert "mlflow sync" in caplog.text


def test_a_program_that_cannot_be_told_from_others_is_logged_all_the_same(
    server: Rest, experiment: str, program: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Provenance is worth a warning, and no score."""
    from dspy_cachectl.tracking import callbacks

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no hash")

    monkeypatch.setattr(callbacks, "provenance_of", broken)
    _install()
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        _evaluate(program, 2)
    (found,) = server.all_runs(experiment)
    assert _metrics(found, "score/n") == [2.0]
    assert "without its provenance: RuntimeError('no hash')" in caplog.text


def test_the_pair_can_be_pickled(experiment: str) -> None:
    """DSPy pickles its settings with their callbacks; the limit goes along, and nothing under way does."""
    head, tail = cachectl.mlflow_callbacks(timeout=3.0)
    again = pickle.loads(pickle.dumps([head, tail]))
    assert [type(one) for one in again] == [type(head), EvaluationLogger]
    assert again[1]._timeout == 3.0


def test_a_limit_that_is_none_is_refused() -> None:
    """Where it is given, not when an evaluation ends."""
    with pytest.raises(ConfigurationError, match="timeout must be"):
        cachectl.mlflow_callbacks(timeout=-1)
