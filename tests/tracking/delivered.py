"""That a report has been delivered whole, and once."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.tracking.rest import Rest, Run

SAMPLE = ("score/mean", "score/repeat", "cache/calls", "var/within")


FILES = ["plot", "record", "rows"]
"""What a report has for files."""


def kinds(paths: Iterable[str]) -> list[str]:
    """What files are, by their paths in a run."""
    return sorted(path.rpartition("/")[2].partition("_")[0] for path in paths)


def assert_delivered_once(
    server: Rest, uid: str, *, experiment: str = "0", every: bool = False, deleted: bool = True
) -> Run:
    """Assert that one run holds all that the outbox had of a record, each thing once.

    Args:
        server: The server.
        uid: The record, which is done.
        experiment: Where its run is.
        every: Whether to ask for the history of every metric, rather than of some.
        deleted: Whether not even a deleted second run may be there.
    """
    folder = Outbox().root / "done" / uid
    record = Record.from_json((folder / "record.json").read_bytes())
    (run,) = server.runs_of(uid, experiments=("0", experiment), deleted=deleted)
    assert (run.status, run["info"]["experiment_id"]) == ("FINISHED", experiment)
    assert json.loads((folder / "receipt.json").read_bytes())["run_id"] == run.id
    keys = {point.key for point in record.metrics}
    assert run.metrics.keys() == keys
    for key in keys if every else (f"dspy_cachectl/{name}" for name in SAMPLE):
        points = sorted((point.step, point.value, point.timestamp) for point in record.metrics if point.key == key)
        assert sorted(server.history(run.id, key)) == points, key
    assert run.inputs == [("devset", str(record.dataset and record.dataset.digest), {"mlflow.data.context": "eval"})]
    files = {
        path.relative_to(folder / "artifacts").as_posix(): path.read_bytes()
        for path in (folder / "artifacts").rglob("*.*")
    }
    assert sorted(files) == sorted(record.artifacts)
    assert kinds(files) == FILES
    assert {path: server.download(run, path) for path in server.artifacts(run.id)} == files
    assert json.loads(run.tags["mlflow.loggedArtifacts"]) == [{"path": name, "type": "table"} for name in record.tables]
    assert run.params.keys() >= {"dspy_cachectl.repeats"}
    return run
