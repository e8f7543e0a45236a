"""The outbox: whole records only, private, each with one deliverer, and nothing delivered that is not as it was."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dspy_cachectl.cli.mlflow import app
from dspy_cachectl.errors import ConfigurationError, FormatVersionError, StoreUnavailableError
from dspy_cachectl.tracking import discard, status, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox, state_dir
from dspy_cachectl.tracking.record import Point, Record
from tests.reports.made_up import report
from tests.tracking import servers
from tests.tracking.delivered import assert_delivered_once
from tests.tracking.rest import Rest

UID = "a" * 32


def _record(uid: str = UID, **content: Any) -> Record:
    points = (Point("m", 1.0, 1),)
    return Record(uid, 1, 2, "http://host", metrics=points, tags={"dspy_cachectl.phase": "eval"}, **content)


def _run_sql(outbox: Outbox, *statements: str) -> None:
    with sqlite3.connect(outbox.path, isolation_level=None) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_record_waits_until_it_is_delivered(outbox: Outbox) -> None:
    """Put, read, lease, finish: it leaves, with its files, and cannot be leased again."""
    record = _record(artifacts=("a/b.json",))
    outbox.put(record, {"a/b.json": b"{}"})
    assert [one.read() for one in outbox.waiting()] == [record]
    assert outbox.files(record) == {"a/b.json": b"{}"}
    lease = outbox.lease(UID)
    assert lease is not None
    lease.finish()
    lease.release()
    assert outbox.waiting() == []
    assert outbox.lease(UID) is None
    assert outbox.files(_record()) == {}


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
def test_everything_is_private(outbox: Outbox) -> None:
    """Folders are 0700, files 0600, whatever the umask; also those that SQLite makes beside."""
    before = os.umask(0o022)
    try:
        outbox.put(_record())
        assert outbox.lease(UID) is not None
        with sqlite3.connect(outbox.path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [state_dir(), *state_dir().rglob("*")]}
        connection.close()
    finally:
        os.umask(before)
    assert len(modes) >= 4
    assert {path.name: oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


def test_a_write_that_fails_leaves_nothing(outbox: Outbox) -> None:
    """A full disk is an error of the store's family, and no half record is ever seen."""
    outbox.put(_record())
    _run_sql(
        outbox,
        "CREATE TRIGGER full BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    )
    with pytest.raises(StoreUnavailableError, match="disk is full"):
        outbox.put(_record("b" * 32), {"a/b.json": b"{}"})
    assert [one.uid for one in outbox.waiting()] == [UID]


def test_one_of_many_gets_a_record(outbox: Outbox) -> None:
    """Sixteen threads want it, one has it; when it is free again, one has it again."""
    outbox.put(_record())
    together = threading.Barrier(16)

    def take(_: int) -> Any:
        together.wait()
        return outbox.lease(UID)

    for _ in range(5):
        with ThreadPoolExecutor(16) as pool:
            (got,) = [lease for lease in pool.map(take, range(16)) if lease is not None]
        assert got.holds()
        got.release()


_TAKE = """
import sys
from dspy_cachectl.tracking.outbox import Outbox

assert Outbox().lease(sys.argv[1]) is not None
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_dead_process_loses_what_it_had_and_a_living_one_does_not(outbox: Outbox) -> None:
    """Whoever is killed holds nothing; of sixteen that see it one gets it."""
    outbox.put(_record())
    with subprocess.Popen(
        [sys.executable, "-c", _TAKE, UID], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"taken\n"
        assert outbox.lease(UID) is None
        assert [one.being_delivered for one in status()] == [True]
        os.kill(holder.pid, signal.SIGKILL)
    assert [one.being_delivered for one in status()] == [False]
    with ThreadPoolExecutor(16) as pool:
        assert len([one for one in pool.map(lambda _: outbox.lease(UID), range(16)) if one is not None]) == 1


_ROOT = Path(__file__).resolve().parents[2]


def test_records_of_one_run_are_leased_together(outbox: Outbox) -> None:
    """Whoever delivers either of them may have to create the run that both are for."""
    outbox.put(_record())
    outbox.put(_record("b" * 32, owner=UID))
    lease = outbox.lease(UID)
    assert lease is not None
    assert outbox.lease("b" * 32) is None
    outbox.put(_record("c" * 32, owner=UID))
    assert outbox.lease("c" * 32) is None
    lease.release()
    other = outbox.lease("b" * 32)
    assert other is not None
    assert not lease.holds()
    other.finish()
    other.release()
    assert lease.holds()


def test_a_lease_that_was_given_up_is_good_until_somebody_else_has_one(outbox: Outbox) -> None:
    """Who is late may go on while the record is free, is in nobody's way, and stops when somebody takes it."""
    outbox.put(_record())
    late = outbox.lease(UID)
    assert late is not None
    late.release()
    assert late.holds()
    other = outbox.lease(UID)
    assert other is not None
    assert not late.holds()
    late.release()
    late.finish()
    assert other.holds()
    other.finish()
    assert not other.holds()
    assert outbox.waiting() == []


def test_status_shows_what_waits_and_why(outbox: Outbox) -> None:
    """Readable or not, each record is listed, with the last reason, how often it was tried, and no secret."""
    for letter in "abc":
        outbox.put(_record(letter * 32))
    outbox.fail(UID, "first")
    outbox.fail(UID, "no access for token=hunter2hunter2")
    assert outbox.lease("b" * 32) is not None
    _run_sql(outbox, f"UPDATE records SET record = '{{' WHERE uid = '{'c' * 32}'")
    found = {item.uid[0]: item for item in status()}
    assert (found["a"].tries, found["a"].phase, found["a"].tracking_uri) == (2, "eval", "http://host")
    assert "no access" in found["a"].reason
    assert "hunter2" not in found["a"].reason
    assert [found[letter].being_delivered for letter in "abc"] == [False, True, False]
    assert "damaged" in found["c"].reason


@pytest.mark.parametrize("column", ["uid", "owner", "written", "tracking_uri", "run_id", "phase", "record", "sha256"])
@pytest.mark.parametrize("value", ["'x' || substr(CAST({0} AS TEXT), 2)", "X'00ff'", "NULL", "7"])
def test_a_record_is_whole_in_each_of_its_columns(outbox: Outbox, column: str, value: str) -> None:
    """Where it goes and whose it is has a checksum, too: what was altered is said, goes nowhere, can be discarded."""
    outbox.put(_record("b" * 32, run_id="c" * 32))
    try:
        _run_sql(outbox, f"UPDATE records SET {column} = {value.format(column)}")
    except sqlite3.IntegrityError:
        return  # it can be nothing
    outbox.put(_record())
    damaged, whole = sorted(status(), key=lambda one: not one.is_damaged)
    assert (damaged.is_damaged, damaged.tracking_uri, whole.uid) == (True, None, UID)
    assert [one.status for one in sync(uri="http://127.0.0.1:9", dry_run=True) if one.uid != UID] == ["damaged"]
    discard([damaged.uid])
    assert [one.uid for one in status()] == [UID]


@pytest.mark.parametrize("column", ["taken_by", "lease", "tries", "reason"])
def test_what_is_noted_of_a_record_may_be_anything(outbox: Outbox, column: str) -> None:
    """It is no reason for not delivering it."""
    outbox.put(_record())
    _run_sql(outbox, f"UPDATE records SET {column} = X'00ff'")
    (waiting,) = status()
    assert (waiting.read(), waiting.tries) == (_record(), 0)
    assert outbox.lease(UID) is not None


DAMAGES = (
    "UPDATE files SET data = CAST(REPLACE(data, 'score', 'Score') AS BLOB) WHERE path LIKE '%/rows_%'",
    "DELETE FROM files WHERE path LIKE '%/rows_%'",
    "UPDATE records SET record = CAST(REPLACE(record, '0.5', '0.9') AS BLOB)",
)


def test_what_was_damaged_is_said_and_never_delivered(server: Rest, outbox: Outbox, mlflow_set: None) -> None:
    """By no sync, and not along with others; the others are delivered, and it can be thrown away."""
    bad = []
    for damage in DAMAGES:
        bad.append(str(log_to_mlflow(report([1, 0]), timeout=0).uid))
        _run_sql(outbox, f"{damage}{' AND' if 'WHERE' in damage else ' WHERE'} uid = '{bad[-1]}'")
    good = str(log_to_mlflow(report([1, 1]), timeout=0).uid)
    for _ in range(2):
        outcomes = {outcome.uid: outcome for outcome in sync()}
        for uid in bad:
            assert (outcomes[uid].status, uid in outcomes[uid].reason) == ("damaged", True)
            assert "damaged" in outcomes[uid].reason
    assert log_to_mlflow(report([0, 0])).status == "logged"
    assert [one.uid for one in outbox.waiting()] == bad
    assert [server.runs_of(uid, deleted=True) for uid in bad] == [[]] * 3
    assert_delivered_once(server, good)
    assert discard(bad) == bad
    assert sync() == []


def test_what_is_to_be_discarded_is_named(outbox: Outbox) -> None:
    """By the beginning of its name, if no other has it; else nothing is."""
    for letter in "ab":
        outbox.put(_record("1" + letter * 31))
    for unclear in ("1", "2", "1a", "1b1"):
        with pytest.raises(ConfigurationError, match="mlflow status"):
            discard([unclear, "1"])
    assert len(outbox.waiting()) == 2
    assert discard(["1a"]) == ["1" + "a" * 31]
    assert [one.uid for one in outbox.waiting()] == ["1" + "b" * 31]


def test_a_full_disk_after_the_push_is_no_reason_to_say_that_it_waits(
    server: Rest, outbox: Outbox, mlflow_set: None, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow has it: so it is said; taking the record out is tried again, and leaves one run with everything once."""
    uid = log_to_mlflow(report([1, 0]), timeout=0).uid
    _run_sql(
        outbox,
        "CREATE TRIGGER full BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
        "CREATE TRIGGER fuller BEFORE UPDATE ON records WHEN NEW.lease IS NULL"
        " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    )
    with servers.Proxy.to(server.url) as proxy, caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        assert [outcome.status for outcome in sync(uri=proxy.url)] == ["logged"]
        assert "disk is full" in caplog.text
        assert len(outbox.waiting()) == 1
        fullest = "CREATE TRIGGER fullest BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        _run_sql(outbox, fullest)
        proxy.seen = []
        assert [outcome.status for outcome in sync(uri=proxy.url)] == ["logged"]
        assert proxy.seen == ["runs/search", "listing"]  # nothing is sent again
        _run_sql(outbox, *(f"DROP TRIGGER {name}" for name in ("full", "fuller", "fullest")))
        assert [outcome.status for outcome in sync(uri=proxy.url)] == ["logged"]
        assert proxy.seen == ["runs/search", "listing"] * 2
    assert sync() == []
    assert_delivered_once(server, str(uid))


def _newer(path: Path) -> None:
    Outbox().put(_record())
    _run_sql(Outbox(), "PRAGMA user_version = 99")


def _text(path: Path) -> None:
    path.write_text("dear diary, today I deployed on a Friday\n" * 40)


def _others_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "said"), [(_newer, "newer version"), (_text, "no database"), (_others_database, "another program")]
)
def test_what_is_not_an_outbox_of_ours_is_left_alone(
    server: Rest,
    outbox: Outbox,
    mlflow_set: None,
    make: Callable[[Path], None],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said and not written; the results go to the server all the same, and are lost only where that is away."""
    outbox.path.parent.mkdir(parents=True, mode=0o700)
    make(outbox.path)
    before = outbox.path.read_bytes()
    with pytest.raises((StoreUnavailableError, FormatVersionError), match=said):
        status()
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        outcome = log_to_mlflow(report([1, 0]))
        assert outcome.status == "logged"
        assert log_to_mlflow(report([1, 0]), timeout=0).status == "failed"
    assert caplog.text.count(said) >= 2
    assert len(server.runs_of(str(outcome.uid))) == 1
    assert outbox.path.read_bytes() == before


def _wait_for(outbox: Outbox, uid: str, tracking_uri: str | None) -> None:
    points = (Point("dspy_cachectl/score/percent", 25.0, 1_700_000_000_000),)
    outbox.put(Record(uid, 1, 2, tracking_uri, metrics=points, tags={"dspy_cachectl.phase": "eval"}))


def test_status_and_sync(server: Rest, outbox: Outbox) -> None:
    """What waits is shown, rehearsed, delivered; what cannot be delivered waits on, and the exit code says so."""
    run = CliRunner().invoke
    assert run(app, ["status"]).output == "Nothing waits.\n"
    assert run(app, ["sync"]).output == "Nothing waits.\n"
    good, bad, nowhere = ("a" * 32, "b" * 32, "c" * 32)
    with servers.refusing() as nobody:
        _wait_for(outbox, good, server.url)
        _wait_for(outbox, bad, nobody)
        _wait_for(outbox, nowhere, None)
        assert [item["uid"] for item in json.loads(run(app, ["status", "--json"]).output)] == [good, bad, nowhere]
        assert "not tried yet" in run(app, ["status"]).output

        rehearsed = run(app, ["sync", "--dry-run"])
        assert rehearsed.exit_code == 0
        assert f"would go to {server.url}" in rehearsed.output
        assert server.runs_of(good) == []

        synced = run(app, ["sync", "--json"])
        assert synced.exit_code == 1
        assert {item["uid"]: item["status"] for item in json.loads(synced.output)} == {
            good: "logged",
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


def test_the_state_folder_is_the_platforms_or_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`DSPY_CACHECTL_STATE` names it."""
    monkeypatch.setenv("DSPY_CACHECTL_STATE", str(tmp_path))
    assert state_dir() == tmp_path
    monkeypatch.delenv("DSPY_CACHECTL_STATE")
    if platform.system() == "Linux":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
        assert state_dir() == tmp_path / "xdg" / "dspy_cachectl"
