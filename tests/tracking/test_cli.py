"""`dspy-cachectl mlflow`: the outbox from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from dspy_cachectl.cli.mlflow import app
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Point, Record
from tests.tracking import servers
from tests.tracking.rest import Rest

_ROOT = Path(__file__).resolve().parents[2]


def _put(outbox: Outbox, uid: str, tracking_uri: str | None) -> None:
    points = (Point("dspy_cachectl/score", 25.0, 1_700_000_000_000),)
    outbox.put(Record(uid, 1, 2, tracking_uri, metrics=points, tags={"dspy_cachectl.phase": "eval"}))


def test_status_and_sync(server: Rest, outbox: Outbox) -> None:
    """What waits is shown, rehearsed, delivered; what cannot be delivered waits on, and the exit code says so."""
    run = CliRunner().invoke
    assert run(app, ["status"]).output == "Nothing waits.\n"
    assert run(app, ["sync"]).output == "Nothing waits.\n"
    good, bad, nowhere = ("a" * 32, "b" * 32, "c" * 32)
    with servers.refusing() as nobody:
        _put(outbox, good, server.url)
        _put(outbox, bad, nobody)
        _put(outbox, nowhere, None)
        assert [item["uid"] for item in json.loads(run(app, ["status", "--json"]).output)] == [good, bad, nowhere]
        assert "not tried yet" in run(app, ["status"]).output

        rehearsed = run(app, ["sync", "--dry-run"])
        assert rehearsed.exit_code == 0
        assert f"would go to {server.url}" in rehearsed.output
        assert server.runs_of(good) == []

        synced = run(app, ["sync", "--json"])
        assert synced.exit_code == 1
        assert {item["uid"]: item["status"] for item in json.loads(synced.output)} == {
            good: "delivered",
            bad: "pending",
            nowhere: "pending",
        }
        assert "does not accept connections" in run(app, ["status"]).output
        elsewhere = run(app, ["sync", "--uri", server.url])
        assert elsewhere.exit_code == 0, elsewhere.output
    assert run(app, ["status"]).output == "Nothing waits.\n"
    assert [len(server.runs_of(uid)) for uid in (good, bad, nowhere)] == [1, 1, 1]


def test_a_run_that_is_not_known_elsewhere_becomes_a_new_one(server: Rest, outbox: Outbox) -> None:
    """Delivered to another server than the one it was for, the results name the run they were meant for."""
    outbox.put(Record("d" * 32, 1, 2, "http://gone:5000", run_id="e" * 32, experiment_id="77"))
    done = CliRunner().invoke(app, ["sync", "--uri", server.url])
    assert done.exit_code == 0, done.output
    (found,) = server.runs_of("d" * 32)
    assert found.tags["dspy_cachectl.meant_for_run"] == "e" * 32


def test_status_needs_neither_mlflow_nor_dspy(state: Path) -> None:
    """The command line starts fast."""
    script = (
        "import sys; from dspy_cachectl.tracking import status; import dspy_cachectl.cli.mlflow; status();"
        "print([name for name in ('dspy', 'litellm', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
