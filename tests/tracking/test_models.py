"""The program as a model of MLflow: one in an experiment, linked to its runs, with no file and no secret."""

from __future__ import annotations

import logging

import mlflow
import pytest

from dspy_cachectl.tracking import attachments, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.record import Model
from tests.reports.made_up import report
from tests.tracking import servers
from tests.tracking.rest import Rest


def _ids(server: Rest, experiment: str) -> list[str]:
    return [model["info"]["model_id"] for model in server.models(experiment)]


def test_a_report_is_linked_to_its_program(server: Rest, experiment: str) -> None:
    """The model is ready, an input of the run, and has the run's metrics; the second report of it makes no other."""
    outcomes = [log_to_mlflow(report(scores, name="my: answers/v1.2")) for scores in ([1, 0, 1], [1, 1, 1])]
    (model,) = server.models(experiment)
    info, data = model["info"], model["data"]
    assert (info["name"], info["status"]) == ("my-answers-v1-2", "LOGGED_MODEL_READY")
    assert info["source_run_id"] == outcomes[0].run_id
    params = {item["key"]: item["value"] for item in data["params"]}
    assert params["dspy_cachectl.program_sha"] == "a1" * 32
    assert params["dspy_cachectl.model"] == "openai/gpt-4o-mini"
    scores = {m["run_id"]: m["value"] for m in data["metrics"] if m["key"] == "dspy_cachectl/score/mean"}
    assert scores == {outcomes[0].run_id: pytest.approx(2 / 3), outcomes[1].run_id: 1.0}
    for outcome in outcomes:
        inputs = server.run(str(outcome.run_id))["inputs"]["model_inputs"]
        assert [item["model_id"] for item in inputs] == [info["model_id"]]


@pytest.mark.parametrize("call", ["logged-models", pytest.param("runs/log-batch", marks=pytest.mark.exhaustive)])
def test_a_push_that_ends_half_way_leaves_one_model(server: Rest, experiment: str, call: str) -> None:
    """It is found again by the next one, and made ready."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.holds = call
        with servers.ends_the_limit(proxy):
            assert log_to_mlflow(report([1, 0, 1]), tracking_uri=proxy.url).status == "pending"
        # The same server, under the address that it is known by in the end.
        assert log_to_mlflow(report([1, 0, 1])).status == "logged"
    (model,) = server.models(experiment)
    assert model["info"]["status"] == "LOGGED_MODEL_READY"


def test_a_model_that_was_created_twice_is_one(server: Rest, experiment: str) -> None:
    """The client's own retry of a request that had arrived: all runs are linked to the older one."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.repeats = {"logged-models"}
        first = log_to_mlflow(report([1, 0, 1]), tracking_uri=proxy.url)
    second = log_to_mlflow(report([1, 1, 1]))
    linked = [server.run(str(one.run_id))["inputs"]["model_inputs"][0]["model_id"] for one in (first, second)]
    assert linked[0] == linked[1]
    assert _ids(server, experiment) == [linked[0]]


def test_another_program_is_another_model(server: Rest, experiment: str) -> None:
    """As is the same program with another LM."""
    from dataclasses import replace

    made = report([1, 0, 1])
    for change in ({}, {"program": "c3" * 32}, {"model": "openai/gpt-4o"}):
        log_to_mlflow(replace(made, provenance=replace(made.provenance, **change)))
    assert len(_ids(server, experiment)) == 3


def test_a_server_that_knows_no_models(server: Rest, experiment: str, caplog: pytest.LogCaptureFixture) -> None:
    """The rest is logged, and what is missing is said once."""
    attachments._say_once.cache_clear()
    with servers.Proxy.to(server.url) as proxy, caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        proxy.unknown = "logged-models"
        outcomes = [log_to_mlflow(report([1, 0, 1]), tracking_uri=proxy.url) for _ in range(2)]
    assert [outcome.status for outcome in outcomes] == ["logged"] * 2
    assert _ids(server, experiment) == []
    for outcome in outcomes:
        found = server.run(str(outcome.run_id))
        assert found.metrics["dspy_cachectl/score/mean"] == pytest.approx(2 / 3)
        assert [name for name, *_ in found.inputs] == ["devset"]
    assert len([record for record in caplog.records if "knows no models" in record.getMessage()]) == 1


def test_a_models_values_are_cleaned() -> None:
    """Whatever is put into one."""
    model = Model(
        "a/b: api_key=sk-1234567890abcdef",
        "x",
        params={"api_key": "sk-1234567890abcdef", "url": "http://me:pass@host/x", "n": "1"},
    )
    assert model.name.startswith("a-b-api_key=")
    assert "1234567890" not in model.name
    assert set(model.params) == {"url", "n"}
    assert "pass" not in model.params["url"]


def test_mlflow_never_saves_the_program(server: Rest, experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow.dspy.log_model` writes the LM's key into its pickle."""
    for name in ("log_model", "save_model"):
        monkeypatch.delattr(mlflow.dspy, name)
    assert log_to_mlflow(report([1, 0, 1])).status == "logged"
    (run,) = server.all_runs(experiment)
    assert not any("model" in path for path in server.artifacts(run.id, ""))


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("logged-models", (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')),
        pytest.param("logged-models", (200, b"{}"), marks=pytest.mark.exhaustive),
        pytest.param("logged-models", (400, b'{"error_code": "BAD_REQUEST"}'), marks=pytest.mark.exhaustive),
        ("runs/log-inputs", (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')),
    ],
)
def test_a_run_has_its_numbers_whatever_else_is_refused(
    server: Rest, experiment: str, call: str, answer: tuple[int, bytes]
) -> None:
    """A server that takes no models, or no data set: the run is finished, its files are there, and the rest waits."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.answers = {call: answer}
        outcome = log_to_mlflow(report([1, 0, 1]), tracking_uri=proxy.url, timeout=60)
        assert outcome.status == "pending"
        run = server.run(str(outcome.run_id))
        assert (run.status, server.artifacts(str(outcome.run_id)) != []) == ("FINISHED", True)
        assert run.metrics["dspy_cachectl/score/mean"] == pytest.approx(2 / 3)
        proxy.answers = {}
        assert [one.status for one in sync()] == ["logged"]
    assert len(server.run(str(outcome.run_id))["inputs"]["model_inputs"]) == 1
    assert len(server.runs_of(str(outcome.uid), experiments=(experiment,))) == 1


def test_a_data_set_that_two_add_at_once_is_sent_again(server: Rest, experiment: str) -> None:
    """The server looks for the data set and then adds it; who comes second is told so, and is in time all the same."""
    said = b'{"error_code": "BAD_REQUEST", "message": "(IntegrityError) UNIQUE constraint failed: datasets.name"}'
    with servers.Proxy.to(server.url) as proxy:
        proxy.answers = {"runs/log-inputs:1": (400, said)}
        outcome = log_to_mlflow(report([1, 0, 1]), tracking_uri=proxy.url, timeout=60)
        assert (outcome.status, proxy.seen.count("runs/log-inputs")) == ("logged", 2)
    assert len(server.run(str(outcome.run_id)).inputs) == 1
