"""What a server has answered is not what it has: only what it shows is delivered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dspy
import mlflow
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.tracking import status, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from tests.reports.made_up import report
from tests.tracking import servers
from tests.tracking.delivered import assert_delivered_once
from tests.tracking.overlap import is_even, questions
from tests.tracking.rest import Rest

PAGE = b"<!doctype html><title>Sign in</title>"
EVERYTHING = ""
CALLS = {
    EVERYTHING: "no id|JSON",
    "runs/search": "JSON",
    "runs/create": "no id|JSON",
    "runs/log-batch": "without metrics|JSON",
    "runs/log-inputs": "without data set|JSON",
    "runs/update": "without end|JSON|run_info",
    "upload": "does not list",
    "listing": "does not list|Expecting value",
    "runs/set-tag": "without tables|JSON",
    "runs/get": "without|JSON",
}
HARMLESS = {("runs/search", b"{}")}
"""A server that finds nothing answers so, too; what was sent is still seen to be there."""


def _check(server: Rest, outbox: Outbox, call: str, answer: bytes) -> None:
    with servers.Proxy.to(server.url) as proxy:
        proxy.answers = {call: (200, answer)}
        outcome = log_to_mlflow(report([1, 0]), tracking_uri=proxy.url, timeout=60)
        if (call, answer) in HARMLESS:
            assert outcome.status == "logged"
            return
        assert outcome.status == "pending", outcome
        (waiting,) = outbox.waiting()
        assert waiting.reason == outcome.reason
        assert any(said in outcome.reason for said in CALLS[call].split("|")), outcome.reason
        proxy.answers = {}
        assert [(one.status, one.uid) for one in sync()] == [("logged", outcome.uid)]
    assert_delivered_once(server, str(outcome.uid))


@pytest.mark.parametrize(
    ("call", "answer"), [(EVERYTHING, PAGE), (EVERYTHING, b"{}"), ("upload", PAGE), ("runs/log-batch", b"{}")]
)
def test_what_a_login_proxy_answers_is_not_taken_for_a_delivery(
    server: Rest, outbox: Outbox, call: str, answer: bytes
) -> None:
    """It answers 200 with a page, or with nothing: the results wait with the reason, and are delivered once."""
    _check(server, outbox, call, answer)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("call", "answer"),
    # MLflow's client takes no answer to a search for an empty object.
    [(call, answer) for call in CALLS for answer in (PAGE, b"{}", b"") if (call, answer) != ("runs/search", b"")],
)
def test_no_answer_stands_for_what_is_there(server: Rest, outbox: Outbox, call: str, answer: bytes) -> None:
    """Whichever of the calls it is that does not reach the server."""
    _check(server, outbox, call, answer)


def test_a_run_that_was_logged_to_before_hides_nothing(server: Rest, outbox: Outbox) -> None:
    """Its older points, of the same names and steps, are not taken for those that did not arrive."""
    named = server.create_run()
    log_to_mlflow(report([1, 0]), tracking_uri=server.url, run_id=named)
    with servers.Proxy.to(server.url) as proxy:
        proxy.answers = {"runs/log-batch": (200, b"{}")}
        made = report([1, 1])
        made = replace(made, provenance=replace(made.provenance, created=made.provenance.created + 1))
        outcome = log_to_mlflow(made, tracking_uri=proxy.url, run_id=named, timeout=60)
        assert (outcome.status, outcome.run_id) == ("pending", named)
        assert "without metrics" in outcome.reason
        proxy.answers = {}
        assert [(one.status, one.reason) for one in sync()] == [("logged", "")]
    assert server.run(named).metrics["dspy_cachectl/score/mean"] == 1.0


@pytest.mark.parametrize("answer", [PAGE, b"{}"])
def test_feedback_is_logged_when_the_trace_shows_it(
    server: Rest,
    experiment: str,
    autolog: Callable[..., None],
    program: Any,
    answer: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was said of an answer waits where a proxy swallows it."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.answers = {"assessments": (200, answer)}
        monkeypatch.setattr(mlflow, "log_feedback", lambda *_, **__: None)  # as where autolog's own comes too early
        autolog(log_traces=True)
        with cachectl.phase("eval") as run:
            dspy.Evaluate(devset=questions(3), metric=is_even, num_threads=2, display_progress=False)(program)
        mlflow.flush_trace_async_logging()
        assert log_to_mlflow(run, tracking_uri=proxy.url, timeout=60).status == "logged"
        assert len(status()) == 1
        assert [len(trace.feedback) for trace in server.traces(experiment)] == [0] * 3
        proxy.answers = {}
        assert [one.status for one in sync()] == ["logged"]
    assert [len(trace.feedback) for trace in server.traces(experiment)] == [1] * 3
