"""`log_to_mlflow` against a server that works: each number is in its run, under its name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest

from dspy_cachectl.accounting.ledger import Row, Tally
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.tracking import LogOutcome, status, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from tests.tracking import servers
from tests.tracking.rest import Rest


class Echo(dspy.Module):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=question)


def _metric(right: str) -> Callable[..., bool]:
    def is_right(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(prediction.answer == right)

    return is_right


def _evaluate(right: str = "0", n: int = 8) -> Any:
    devset = [dspy.Example(question=str(number % 4)).with_inputs("question") for number in range(n)]
    return dspy.Evaluate(devset=devset, metric=_metric(right), num_threads=2)(Echo())


pytestmark = pytest.mark.usefixtures("mlflow_set")


def test_a_phase_is_logged_to_a_run_of_its_own(server: Rest, outbox: Outbox) -> None:
    """Score, counters, tags and times of a phase are in one finished run, and the outbox is empty."""
    with phase("eval", run_id="baseline") as run:
        _evaluate()
        bought = Tally(calls=5, requests=3, fresh=3, resumed=2, prompt_tokens_spent=70, cost_spent=0.25)
        bought.completion_tokens_saved = 9
        run.ledger.record(Row("eval", None, "openai/test"), bought)
    outcome = log_to_mlflow(run)

    assert outcome == LogOutcome("logged", outcome.uid, outcome.run_id, "", outcome.seconds)
    assert outcome.uid is not None
    (found,) = server.runs_of(outcome.uid)
    assert found.id == outcome.run_id
    assert found.status == "FINISHED"
    assert found["info"]["run_name"] == "eval"
    expected = {"score/percent": 25.0, "score/n": 8.0, "cache/calls": 5.0, "cache/requests": 3.0, "cache/fresh": 3.0}
    expected |= {"cache/resumed": 2.0, "cache/served": 2.0, "cache/hit_rate": 0.4, "cache/failed": 0.0}
    expected |= {
        "cost/prompt_tokens_spent": 70.0,
        "cost/spent": 0.25,
        "cost/tokens_saved": 9.0,
        "cost/seconds_spent": 0,
    }
    assert expected == {name: found.metrics[f"dspy_cachectl/{name}"] for name in expected}
    tags = {"phase": "eval", "policy": "FRESH", "cache_run_id": "baseline", "kind": "eval", "metric": "is_right"}
    assert tags == {name: found.tags[f"dspy_cachectl.{name}"] for name in tags}
    (evaluation,) = run.evaluations
    assert server.history(found.id, "dspy_cachectl/score/percent") == [(0, 25.0, int(evaluation.ended * 1000))]
    assert outbox.waiting() == []


def _bought(run: Any, calls: int) -> None:
    tally = Tally(calls=calls, requests=calls, fresh=calls, prompt_tokens_spent=10 * calls, cost_spent=0.25)
    run.ledger.record(Row("eval", None, "openai/test"), tally)


def test_several_evaluations_are_steps(server: Rest) -> None:
    """Two evaluations of a phase are two steps of one metric; the counters stand at the last one."""
    with phase("eval") as run:
        _evaluate("0", 8)
        _evaluate("1", 5)
    outcome = log_to_mlflow(run)
    assert [(step, value) for step, value, _ in server.history(outcome.run_id, "dspy_cachectl/score/percent")] == [
        (0, 25.0),
        (1, 20.0),
    ]
    assert [step for step, _, _ in server.history(outcome.run_id, "dspy_cachectl/cache/requests")] == [1]


def test_the_active_run_is_used_and_left_open(server: Rest) -> None:
    """Results go to the run that was active, even after it was ended; its state is its owner's business."""
    with mlflow.start_run() as active:
        with phase("eval") as run:
            _evaluate()
        inside = log_to_mlflow(run)
        assert server.run(active.info.run_id).status == "RUNNING"
    with phase("eval") as later:
        pass
    after = log_to_mlflow(run)
    elsewhere = log_to_mlflow(later)

    assert inside.run_id == active.info.run_id
    assert after.run_id == active.info.run_id
    assert elsewhere.run_id != active.info.run_id
    found = server.run(active.info.run_id)
    assert found.status == "FINISHED"
    assert [step for step, _, _ in server.history(found.id, "dspy_cachectl/score/percent")] == [0, 1]
    assert found.params == {}


def test_each_evaluation_is_in_its_own_run(server: Rest) -> None:
    """One phase, two evaluations under two MLflow runs: each score and its counters are in its run."""
    ids = []
    with phase("eval") as run:
        for right, n in (("0", 8), ("1", 5)):
            with mlflow.start_run() as active:
                _evaluate(right, n)
            ids.append(active.info.run_id)
    outcome = log_to_mlflow(run)
    first, last = (server.run(run_id) for run_id in ids)
    assert outcome.run_id == last.id
    assert [first.metrics["dspy_cachectl/score/percent"], last.metrics["dspy_cachectl/score/percent"]] == [25.0, 20.0]
    assert [first.metrics["dspy_cachectl/cache/calls"], last.metrics["dspy_cachectl/cache/calls"]] == [0.0, 0.0]


def test_a_result_of_evaluate_is_logged_with_the_stats_of_its_phase(server: Rest) -> None:
    """What `dspy.Evaluate` returned is enough: the phase that was open then gives the counters."""
    with phase("eval") as run:
        result = _evaluate()
        run.ledger.record(Row("eval", None, "openai/test"), Tally(calls=8, requests=8, fresh=8))
    named = server.create_run()
    outcome = log_to_mlflow(result, run_id=named)
    assert outcome.run_id == named
    found = server.run(named)
    assert found.status == "RUNNING"
    assert [found.metrics[f"dspy_cachectl/{name}"] for name in ("score/percent", "cache/requests")] == [25.0, 8.0]


def test_a_result_stands_in_for_the_evaluations_of_a_phase(server: Rest) -> None:
    """`result=` is the one that is logged, with the phase's counters."""
    with phase("eval") as run:
        first = _evaluate("0", 8)
        _evaluate("1", 5)
    outcome = log_to_mlflow(run, result=first)
    assert [value for _, value, _ in server.history(outcome.run_id, "dspy_cachectl/score/percent")] == [25.0]


def test_a_failed_evaluation_is_a_failed_run_without_the_secret(server: Rest) -> None:
    """An evaluation that raised leaves a FAILED run that says why, and no key that was in the message."""

    def broken(*_: Any) -> bool:
        raise RuntimeError("no access: api_key=sk-verysecretverysecret to http://me:pass@host/x")

    devset = [dspy.Example(question="0").with_inputs("question")]
    with phase("eval") as run, pytest.raises(Exception, match="errors"):
        dspy.Evaluate(devset=devset, metric=broken, num_threads=1, max_errors=1, provide_traceback=False)(Echo())
    outcome = log_to_mlflow(run)
    (found,) = server.runs_of(outcome.uid)
    assert found.status == "FAILED"
    assert "dspy_cachectl/score/percent" not in found.metrics
    assert "verysecret" not in found.tags["dspy_cachectl.error"]


def test_a_run_of_its_own_goes_to_the_experiment_named(server: Rest) -> None:
    """The experiment is created once, and used again."""
    outcomes = []
    for _ in range(2):
        with phase("eval") as run:
            _evaluate()
        outcomes.append(log_to_mlflow(run, experiment="answers"))
    experiment = server.experiment("answers")
    for outcome in outcomes:
        assert len(server.runs_of(outcome.uid, experiments=(experiment,))) == 1


def test_a_phase_that_is_logged_twice_has_one_run(server: Rest) -> None:
    """The second time finds the run that the first one made, whether that was sent or waits; nothing is there twice."""
    for timeout in (10.0, 0.0):
        with phase("eval") as run:
            _evaluate()
        before = {found.id for found in server.all_runs()}
        first = log_to_mlflow(run, timeout=timeout)
        _bought(run, 3)
        log_to_mlflow(run)
        sync()
        (found,) = [found for found in server.all_runs() if found.id not in before]
        assert found.tags["dspy_cachectl.uid"] == first.uid
        assert [(step, value) for step, value, _ in server.history(found.id, "dspy_cachectl/score/percent")] == [
            (0, 25.0)
        ]
        assert found.metrics["dspy_cachectl/cache/requests"] == 3.0


def test_the_ledger_is_a_table(server: Rest) -> None:
    """A row for each phase, role and model, with what was spent and what was saved; `mlflow.load_table` reads it."""
    with phase("eval") as run:
        _bought(run, 2)
        run.ledger.record(Row("eval", "judge", "openai/j"), Tally(calls=4, resumed=4, cost_saved=0.5, seconds_saved=8))
    outcome = log_to_mlflow(run)
    table = mlflow.load_table(f"dspy_cachectl/ledger_{str(outcome.uid)[:8]}.json", run_ids=[str(outcome.run_id)])
    columns = ["phase", "role", "model", "calls", "requests", "tokens_spent", "cost_spent", "cost_saved", "served"]
    assert table[columns].fillna("").to_numpy().tolist() == [
        ["eval", "", "openai/test", 2, 2, 20, 0.25, 0.0, 0],
        ["eval", "judge", "openai/j", 4, 0, 0, 0.0, 0.5, 4],
    ]


def test_a_request_that_reached_the_server_twice_leaves_one_run(server: Rest, outbox: Outbox) -> None:
    """The client's own retry of `create` made a second run: one is kept, with all the results."""
    with phase("eval") as run:
        _evaluate()
    with servers.Proxy.to(server.url) as proxy:
        proxy.repeats = {"runs/create", "runs/log-batch"}
        outcome = log_to_mlflow(run, tracking_uri=proxy.url)
    (found,) = server.runs_of(outcome.uid)
    assert found.id == outcome.run_id
    assert found.metrics["dspy_cachectl/score/percent"] == 25.0
    assert len(server.history(found.id, "dspy_cachectl/score/percent")) == 1


def test_nothing_is_printed(server: Rest, capfd: pytest.CaptureFixture[str]) -> None:
    """Logging says nothing on standard output, where a program's own results go."""
    with phase("eval") as run:
        pass
    assert log_to_mlflow(run, tracking_uri=server.url.replace("//", "//me:secret@")).status == "logged"
    assert capfd.readouterr().out == ""


def test_an_evaluation_is_one_batch(server: Rest) -> None:
    """A run of its own costs six requests whatever is in it, a given run three, and the table of a ledger four more."""
    with phase("eval") as run:
        for _ in range(20):
            _evaluate("0", 4)
    with phase("eval") as other:
        _bought(other, 3)
    with servers.Proxy.to(server.url) as proxy:
        log_to_mlflow(run, tracking_uri=proxy.url)
        own, proxy.seen = proxy.seen, []
        log_to_mlflow(run, tracking_uri=proxy.url, run_id=server.create_run())
        given, proxy.seen = proxy.seen, []
        log_to_mlflow(other, tracking_uri=proxy.url, run_id=server.create_run())
    assert own == ["runs/search", "runs/create", "runs/search", "runs/log-batch", "runs/update", "runs/get"]
    assert given == ["runs/get", "runs/log-batch", "runs/get"]
    file = ["upload", "listing", "runs/get", "runs/set-tag"]
    assert proxy.seen == ["runs/get", "runs/log-batch", *file, "runs/get"]


def test_a_late_answer_still_counts(server: Rest, outbox: Outbox) -> None:
    """The limit passed, the server answered after all: the record is done, and a sync has nothing to do."""
    with phase("eval") as run:
        _evaluate()
    with servers.Proxy.to(server.url) as proxy:
        proxy.holds = "runs/log-batch"
        with servers.ends_the_limit(proxy) as late:
            outcome = log_to_mlflow(run, tracking_uri=proxy.url)
        assert outcome.status == "pending"
        proxy.holds = None
        proxy.let_go()
        futures.wait(late, 60)
    assert sync(uri=server.url) == []
    (found,) = server.runs_of(outcome.uid)
    assert len(server.history(found.id, "dspy_cachectl/score/percent")) == 1


def test_without_a_limit_to_spend_the_results_only_wait(server: Rest, outbox: Outbox) -> None:
    """`timeout=0` writes to the outbox, sends nothing, and closes no door for the next call."""
    with phase("eval") as run:
        _evaluate()
    waiting = log_to_mlflow(run, timeout=0)
    assert waiting.status == "pending"
    assert [item.uid for item in status()] == [waiting.uid]
    assert log_to_mlflow(run).status == "logged"
    # What waited went along with it.
    assert sync() == []
    assert len(server.runs_of(str(waiting.uid))) == 1


def test_a_run_that_the_server_does_not_know(server: Rest, caplog: pytest.LogCaptureFixture) -> None:
    """The server's refusal is the outcome's reason and one warning, not an exception."""
    with phase("eval") as run:
        _evaluate()
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        outcome = log_to_mlflow(run, run_id="0" * 32)
    assert outcome.status == "pending"
    assert "0" * 32 in outcome.reason
    assert len([record for record in caplog.records if record.name.startswith("dspy_cachectl")]) == 1


def test_a_disk_that_takes_nothing_does_not_stop_the_results(
    server: Rest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No outbox: the results go to the server all the same; with no server either, the outcome says so."""
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DSPY_CACHECTL_STATE", str(tmp_path / "file"))
    with phase("eval") as run:
        _evaluate()
        _bought(run, 3)
    outcome = log_to_mlflow(run)
    assert outcome.status == "logged"
    (found,) = server.runs_of(outcome.uid)
    assert server.artifacts(found.id) == [f"dspy_cachectl/ledger_{str(outcome.uid)[:8]}.json"]
    with servers.refusing() as nobody:
        assert log_to_mlflow(run, tracking_uri=nobody).status == "failed"


def test_it_can_be_turned_off(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DSPY_CACHECTL_MLFLOW=off` writes nothing anywhere."""
    monkeypatch.setenv("DSPY_CACHECTL_MLFLOW", "off")
    with phase("eval") as run:
        _evaluate()
    assert log_to_mlflow(run).status == "disabled"
    assert outbox.waiting() == []


@pytest.mark.parametrize("arguments", [{"timeout": -1}, {"timeout": float("nan")}, {"timeout": "soon"}])
def test_a_limit_that_is_none_is_refused(arguments: dict[str, Any]) -> None:
    """A wrong argument is the caller's fault, and raised."""
    with phase("eval") as run:
        pass
    with pytest.raises(ConfigurationError, match="timeout must be"):
        log_to_mlflow(run, **arguments)


def test_something_that_is_no_result_is_refused() -> None:
    """The message says what to pass."""
    with pytest.raises(ConfigurationError, match=r"dspy\.Evaluate returned, not str"):
        log_to_mlflow("42")  # type: ignore[arg-type]
