"""What of a report or a phase has been delivered: whole, and once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from dspy_cachectl.tracking import sync
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.limits import PATIENCE
from tests.tracking.rest import Rest, Run

SAMPLE = {f"dspy_cachectl/{name}" for name in ("score/mean", "score/repeat", "score/percent", "var/within")}

FILES = ["page", "plot", "record", "rows"]
"""What a report has for files."""


def kinds(paths: Iterable[str]) -> list[str]:
    """What files are, by their paths in a run."""
    return sorted(path.rpartition("/")[2].partition("_")[0] for path in paths)


def assert_delivered_once(
    server: Rest,
    uid: str,
    *,
    record: Record | None = None,
    experiment: str = "0",
    every: bool = False,
    deleted: bool = True,
) -> Run:
    """Assert that one run holds all that the outbox had of a record, each thing once.

    Args:
        server: The server.
        uid: The record.
        record: What it was; by default, it is that of a report, of which the server has it too.
        experiment: Where its run is.
        every: Whether to ask for the history of every metric, rather than of some.
        deleted: Whether not even a deleted second run may be there.
    """
    assert uid not in {one.uid for one in Outbox().waiting()}
    owner = uid if record is None else record.owner or uid  # a phase that is logged twice is one run
    (run,) = server.runs_of(owner, experiments=("0", experiment), deleted=deleted)
    assert (run.status, run["info"]["experiment_id"]) == ("FINISHED", experiment)
    files = {path: server.download(run, path) for path in server.artifacts(run.id)}
    if record is None:
        record = Record.from_json(files[f"dspy_cachectl/record_{uid[:8]}.json"])
        assert kinds(files) == FILES
        assert run.params.keys() >= {"dspy_cachectl.repeats"}
        digest = str(record.dataset and record.dataset.digest)
        assert run.inputs == [("devset", digest, {"mlflow.data.context": "eval"})]
    assert sorted(files) == sorted(record.artifacts)
    for path, data in files.items():
        ending = {"png": b"IEND\xaeB`\x82", "html": b"</html>\n"}.get(path.rpartition(".")[2])
        assert json.loads(data) if ending is None else data.endswith(ending), path
    tables = json.loads(run.tags.get("mlflow.loggedArtifacts", "[]"))
    assert tables == [{"path": name, "type": "table"} for name in record.tables]
    keys = {point.key for point in record.metrics}
    assert run.metrics.keys() == keys
    for key in keys if every else SAMPLE & keys:
        points = sorted((point.step, point.value, point.timestamp) for point in record.metrics if point.key == key)
        assert sorted(server.history(run.id, key)) == points, key
    return run


def deliver_twice(outbox: Outbox, *, uri: str | None = None) -> Iterator[None]:
    """Deliver what waits, as often as two processes may at worst; yields after each time."""
    waiting = [(record, outbox.files(record)) for record in (one.read() for one in outbox.waiting())]
    assert {item.status for item in sync(uri=uri)} == {"logged"}
    yield
    for record, files in waiting:
        outbox.put(record, files)
    assert {item.status for item in sync(uri=uri)} == {"logged"}
    yield


def sync_from_a_shell(*arguments: str) -> list[dict[str, Any]]:
    """What the command line says of what it delivered."""
    command = [sys.executable, "-m", "dspy_cachectl", "mlflow", "sync", "--json", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(done.stdout))
