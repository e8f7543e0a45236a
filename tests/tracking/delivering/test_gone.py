"""A record whose run, or whose experiment, is not there any more: it is said, in nobody's way, and goes elsewhere."""

from __future__ import annotations

import json
import uuid

import mlflow
import pytest
from typer.testing import CliRunner

from dspy_cachectl.cli.mlflow import app
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.tracking import status, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from tests.reports.made_up import report
from tests.tracking.delivered import assert_delivered_once
from tests.tracking.rest import Rest


def test_what_is_gone_is_said_and_goes_elsewhere(server: Rest, outbox: Outbox) -> None:
    """Run deleted, run that never was, experiment deleted: the others are delivered, and each is sent elsewhere."""
    client = mlflow.MlflowClient(server.url)
    deleted, named, place = server.create_run(), server.create_run(), uuid.uuid4().hex
    client.create_experiment(place)
    wheres = ({"run_id": deleted}, {"run_id": "0" * 32}, {"experiment": place})
    there = {"tracking_uri": server.url, "timeout": 0}
    gone = [str(log_to_mlflow(report([1, 0]), **there, **where).uid) for where in wheres]
    good = str(log_to_mlflow(report([1, 1]), **there).uid)
    client.delete_run(deleted)
    client.delete_experiment(client.get_experiment_by_name(place).experiment_id)

    done = CliRunner().invoke(app, ["sync", "--json"])
    assert done.exit_code == 1
    outcomes = {one["uid"]: one for one in json.loads(done.output)}
    assert {uid: one["status"] for uid, one in outcomes.items()} == {**dict.fromkeys(gone, "pending"), good: "logged"}
    for uid, said in zip(
        gone, (f"run {deleted} was deleted", "is not there", f"experiment {place} was deleted"), strict=True
    ):
        assert said in outcomes[uid]["reason"]
        assert f"mlflow discard {uid[:8]}" in outcomes[uid]["reason"]
    assert_delivered_once(server, good)

    for arguments in (
        [gone[0][:8], "--run-id", named],
        [gone[1], "--experiment", "Default"],
        [gone[2], "--run-id", named],
    ):
        done = CliRunner().invoke(app, ["sync", *arguments])
        assert done.exit_code == 0, done.output
    assert status() == []
    assert_delivered_once(server, gone[1])
    assert server.runs_of(gone[1])[0].tags["dspy_cachectl.meant_for_run"] == "0" * 32
    assert server.run(named).metrics["dspy_cachectl/score/mean"] == 0.5
    assert len(server.artifacts(named)) == 8


def test_where_to_goes_with_what(outbox: Outbox) -> None:
    """A place for everything that waits would be a place for what is for somebody else."""
    for wrong in ({"run_id": "a"}, {"experiment": "a"}):
        with pytest.raises(ConfigurationError, match="goes with the records"):
            sync(**wrong)
    for wrong in ({"run_id": ""}, {"run_id": "a", "experiment": "b"}, {"experiment": " "}):
        with pytest.raises(ConfigurationError, match="goes with the records"):
            sync(["a"], **wrong)
