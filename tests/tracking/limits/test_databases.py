"""MLflow's own database: whatever ends who asked for it, it is whole, and plain MLflow opens it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy
from mlflow.store.db.utils import _get_latest_schema_revision

from dspy_cachectl.tracking import database, installed
from dspy_cachectl.tracking.outbox import Outbox
from tests.limits import PATIENCE, SOON
from tests.tracking.conftest import Forks
from tests.tracking.rest import Rest

posix = pytest.mark.skipif(sys.platform == "win32", reason="groups of processes and their signals are of POSIX")

_CALLER = """
import sys
import dspy_cachectl as cachectl
with cachectl.phase("eval") as run:
    pass
print("begins", flush=True)
outcome = cachectl.log_to_mlflow(run, timeout=float(sys.argv[1]))
print(outcome.status, outcome.seconds < float(sys.argv[2]), outcome.reason)
"""


class Caller:
    """A process that has not imported MLflow, and logs to its default: a database in the working directory."""

    def __init__(self, folder: Path, *, limit: float) -> None:
        folder.mkdir()
        self.file = folder / "mlflow.db"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CALLER, str(limit), str(SOON)],
            cwd=folder,
            env={**os.environ, "DSPY_CACHECTL_STATE": str(folder / "state"), "DSPY_CACHECTL_STORE": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def await_beginning(self) -> None:
        """Wait until something of the database is there."""
        _await(lambda: any(self.file.parent.glob("mlflow.db*")))

    def await_call(self) -> None:
        """Wait until it is about to log."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "begins\n"

    def strike(self, *signals: int) -> None:
        """Send signals to all of its group."""
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def said(self) -> str:
        """What it said, when it has ended: nothing that it began keeps its output open."""
        return self._process.communicate(timeout=PATIENCE)[0]

    def assert_whole(self) -> None:
        """Assert that its database comes to be, and that MLflow by itself works with it."""
        _await(self.file.exists)
        _await(lambda: list(self.file.parent.glob("mlflow.db*")) == [self.file])
        assert_works(f"sqlite:///{self.file}")


def _await(is_so: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def assert_works(address: str) -> None:
    """Assert that MLflow by itself logs there and reads it again."""
    client = mlflow.MlflowClient(tracking_uri=address)
    run = client.create_run("0")
    client.log_metric(run.info.run_id, "metric", 7.0)
    assert client.get_run(run.info.run_id).data.metrics == {"metric": 7.0}


@posix
@pytest.mark.exhaustive
@pytest.mark.usefixtures("state")
def test_a_new_database_is_whole_when_the_limit_or_a_signal_ends_its_caller(tmp_path: Path) -> None:
    """The limit is shorter than MLflow's own import, or the caller's group is struck while the database is made."""
    short, struck = Caller(tmp_path / "short", limit=0.5), Caller(tmp_path / "struck", limit=PATIENCE)
    struck.await_beginning()
    struck.strike(signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGKILL)
    assert struck.said() == "begins\n"
    assert short.said().splitlines()[1].startswith("pending True ")
    for caller in (short, struck):
        caller.assert_whole()


@posix
@pytest.mark.exhaustive
@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("number", range(20))
def test_a_new_database_is_whole_each_time(number: int, tmp_path: Path) -> None:
    """With whatever limit, and whatever ends the caller at whatever moment."""
    dice = random.Random(number)
    caller = Caller(tmp_path / "it", limit=0.5 if number < 2 else dice.uniform(0.5, 10))
    ended_by = [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL][number % 4]
    caller.await_call()
    if ended_by is not None:
        time.sleep(dice.uniform(0, 4))
        is_begun = any(caller.file.parent.glob("mlflow.db*"))
        caller.strike(ended_by)
    said = caller.said()
    if ended_by is None or said:
        assert said.split()[:2] in (["pending", "True"], ["logged", "True"]), said
    elif not is_begun:
        return  # what was not begun need not be there
    caller.assert_whole()


@posix
@pytest.mark.exhaustive
@pytest.mark.parametrize("also", [False, True])
def test_callers_at_once_make_one_database_and_half_of_one_is_left_to_mlflow(
    also: bool, forks: Forks, server: Rest, outbox: Outbox, tmp_path: Path
) -> None:
    """All of them log to it, however the address is written; what was left half made is said to be."""
    new, half = tmp_path / "a folder" / "50%25.db", tmp_path / "half.db"
    _leave_half(server.folder / "mlflow.db", half)
    addresses = {"first": f"sqlite:///{new}", "second": f"sqlite:///{new}", "half": f"sqlite:///{half}"}
    runs = {addresses["first"]: 2}
    if also:
        by_driver, by_sqlite = f"sqlite+pysqlite:///{new}?timeout=60", f"sqlite:///file:{tmp_path}/other.db?uri=true"
        addresses |= {"another state": f"sqlite:///{new}", "driver": by_driver, "SQLite": by_sqlite}
        runs = {addresses["first"]: 4, f"sqlite:///{tmp_path / 'other.db'}": 1}
    cases = {name: {"env": {"MLFLOW_TRACKING_URI": url}} for name, url in addresses.items()}
    if also:
        cases["another state"]["env"]["DSPY_CACHECTL_STATE"] = str(tmp_path / "another")
    results = forks.run(cases, do="log", report="phase", limit=SOON)
    told = {name: result["told"][0] for name, result in results.items()}
    half_made = told.pop("half")
    # Whoever comes first may bring the record of another along, for which that one then is too late.
    assert {outcome["status"] for outcome in told.values()} <= {"logged", "busy"}, results
    file = Path(str(sqlalchemy.engine.make_url(addresses["first"]).database))
    assert list(file.parent.iterdir()) == [file]
    assert (database.file_of(addresses["first"]), database.is_ready(addresses["first"])) == (file, True)
    for url, count in runs.items():
        assert len(mlflow.MlflowClient(tracking_uri=url).search_runs(["0"])) == count
    assert_works(addresses["first"])
    assert {result["code"] for result in results.values()} == {0}
    assert (half_made["status"], "half.db: " in half_made["reason"]) == ("pending", True)
    assert "one that was left half made" in half_made["reason"]
    assert [one.uid for one in outbox.waiting()] == [half_made["uid"]]


def _leave_half(whole: Path, half: Path) -> None:
    """Make what a machine leaves that goes down while MLflow migrates: more than the revision tells, and not all."""
    _copy(whole, half)
    with contextlib.closing(sqlite3.connect(half)) as copy:
        copy.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")  # adds a column to metrics
        copy.execute("DROP TABLE trace_tags")
        copy.commit()


def _copy(database: Path, to: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as source, contextlib.closing(sqlite3.connect(to)) as copy:
        source.backup(copy)


def test_a_database_is_known_without_importing_anything(server: Rest, tmp_path: Path) -> None:
    """Ready is what is at the revision of the installed MLflow, and nothing else; looking at it changes nothing."""
    assert installed.head_revision() == _get_latest_schema_revision()
    whole, old, other, empty = (tmp_path / f"{name}.db" for name in ("whole", "old", "other", "empty"))
    for file in (whole, old):
        _copy(server.folder / "mlflow.db", file)
    with contextlib.closing(sqlite3.connect(old)) as table:
        table.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        table.commit()
    with contextlib.closing(sqlite3.connect(other)) as table:
        table.execute("CREATE TABLE theirs (a)")
    empty.touch()
    files = (whole, old, other, empty)
    before = [file.read_bytes() for file in files]
    missing = tmp_path / "nowhere" / "mlflow.db"
    ready = [database.is_ready(f"sqlite:///{file}") for file in (*files, missing)]
    assert ready == [True, False, False, False, False]
    assert [file.read_bytes() for file in files] == before
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize(
    ("address", "is_one", "file"),
    [
        ("sqlite:////a/b.db", True, "/a/b.db"),
        ("sqlite:////a/b.db?timeout=3", True, "/a/b.db"),
        ("sqlite:///file:/a/b.db?uri=true", True, None),
        ("sqlite+pysqlite:////a/b.db", True, "/a/b.db"),
        ("postgresql+psycopg2://me:secret@host/db", True, None),
        ("mysql://host/db", True, None),
        ("sqlite://", False, None),
        ("sqlite:///:memory:", False, None),
        ("sqlite+pysqlite://", False, None),
        ("file:///a/mlruns", False, None),
        ("http://host:5000", False, None),
        ("databricks", False, None),
    ],
)
def test_which_addresses_are_those_of_databases(address: str, is_one: bool, file: str | None) -> None:
    """One in memory ends with its process, and is nobody else's to make."""
    assert database.is_database(address) is is_one
    assert database.file_of(address) == (None if file is None else Path(file))
