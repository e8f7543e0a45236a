"""A run is ended with its numbers even if its files cannot go, and these go on where they stopped."""

from __future__ import annotations

import uuid
from concurrent import futures
from types import SimpleNamespace

import mlflow
import pytest

from dspy_cachectl.tracking import deadline, status, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from tests.limits import PATIENCE
from tests.reports.made_up import report
from tests.tracking import servers
from tests.tracking.delivered import assert_delivered_once
from tests.tracking.rest import Rest


def _assert_ended_without_files(server: Rest, run_id: str | None) -> None:
    found = server.run(str(run_id))
    assert found.status == "FINISHED"
    assert found.metrics["dspy_cachectl/score/mean"] == 0.5
    assert "mlflow.loggedArtifacts" not in found.tags  # or `load_table` would stumble over it


@pytest.mark.parametrize("code", [403, pytest.param(413, marks=pytest.mark.exhaustive)])
def test_files_that_are_refused_wait_for_themselves(server: Rest, outbox: Outbox, code: int) -> None:
    """The run has its numbers and is finished, its id is told, and a later sync sends the files and nothing else."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.answers = {"upload": (code, b"<html>no</html>")}
        outcome = log_to_mlflow(report([1, 0]), tracking_uri=proxy.url, timeout=60)
        assert outcome.status == "pending"
        assert f"is without 4 of 4 files; dspy_cachectl/page_{str(outcome.uid)[:8]}.html: " in outcome.reason
        assert str(code) in outcome.reason
        _assert_ended_without_files(server, outcome.run_id)
        assert [one.reason for one in status()] == [outcome.reason]
        proxy.answers, proxy.seen = {}, []
        assert [(one.status, one.run_id) for one in sync()] == [("logged", outcome.run_id)]
        files = ["upload", "upload", "upload", "upload", "listing", "runs/set-tag"]
        assert proxy.seen == ["runs/search", *files, "runs/get"]
    assert_delivered_once(server, str(outcome.uid))


@pytest.mark.parametrize("place", ["s3://nowhere/at-all", pytest.param("file", marks=pytest.mark.exhaustive)])
def test_a_store_that_this_machine_cannot_write_to(
    server: Rest, outbox: Outbox, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials or the store's package, or with a file where its folder should be."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if place == "file":
        taken = outbox.path.parents[2] / "taken"
        taken.write_text("a file")
        place = taken.as_uri()
    name = uuid.uuid4().hex
    mlflow.MlflowClient(server.url).create_experiment(name, artifact_location=place)
    outcome = log_to_mlflow(report([1, 0]), tracking_uri=server.url, experiment=name, timeout=60)
    assert outcome.status == "pending"
    assert "is without 4 of 4 files" in outcome.reason
    _assert_ended_without_files(server, outcome.run_id)
    assert [one.status for one in sync()] == ["pending"]


def test_files_that_were_taken_are_not_sent_again(server: Rest, outbox: Outbox) -> None:
    """The limit ends in the fourth of four, again and again: each try begins with what the server was not sent."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.holds = "upload:4"
        with servers.ends_the_limit(proxy):
            outcome = log_to_mlflow(report([1, 0]), tracking_uri=proxy.url)
        assert (outcome.status, proxy.seen.count("upload")) == ("pending", 4)
        _assert_ended_without_files(server, outcome.run_id)
        proxy.holds = None
        assert [one.status for one in sync()] == ["logged"]
        assert proxy.seen.count("upload") == 5
        assert proxy.seen.count("runs/log-batch") == 1
    assert_delivered_once(server, str(outcome.uid))


def test_a_server_that_is_silent_about_files_gets_numbers(
    server: Rest, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files have a circuit of their own: the next results have their numbers at once, and the files wait unasked."""
    with servers.Proxy.to(server.url) as proxy:
        proxy.holds = "upload:1"
        with monkeypatch.context() as patch:
            patch.setattr(deadline, "SHARE_OF_BLAME", 0.0)
            ends = SimpleNamespace(wait=lambda *_, **__: proxy.stopped.wait(PATIENCE), Future=futures.Future)
            patch.setattr(deadline, "futures", ends)
            first = log_to_mlflow(report([1, 0]), tracking_uri=proxy.url, timeout=PATIENCE)
        assert f"{proxy.url} (files) did not answer within" in first.reason
        _assert_ended_without_files(server, first.run_id)
        second = log_to_mlflow(report([0, 1]), tracking_uri=proxy.url, timeout=60)
        assert (second.status, proxy.seen.count("upload")) == ("pending", 1)
        assert f"{proxy.url} (files) did not answer in time before" in second.reason
        _assert_ended_without_files(server, second.run_id)
        assert [one.tries for one in status()] == [1, 0]
        proxy.let_go()
        assert [one.status for one in sync()] == ["logged", "logged"]
