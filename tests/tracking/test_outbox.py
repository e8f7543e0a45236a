"""The outbox: whole records only, private, and each with one deliverer."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.tracking import claims, status
from dspy_cachectl.tracking.outbox import KEEP_DONE, Outbox, state_dir
from dspy_cachectl.tracking.record import Point, Record


def _record(uid: str = "a" * 32) -> Record:
    return Record(uid, 1, 2, "http://host", metrics=(Point("m", 1.0, 1),), tags={"dspy_cachectl.phase": "eval"})


def test_a_record_waits_and_is_done(outbox: Outbox) -> None:
    """Put, read, claim, finish: it leaves what waits and is kept with its receipt."""
    entry = outbox.put(_record())
    assert [found.read() for found in outbox.pending()] == [_record()]
    claim = entry.claim()
    assert claim is not None
    entry.finish(run_id="r", tracking_uri="http://host")
    claim.release()
    assert outbox.pending() == []
    assert [found.uid for found in outbox.done()] == ["a" * 32]
    receipt = entry.receipt()
    assert receipt is not None
    assert (receipt["run_id"], receipt["tracking_uri"]) == ("r", "http://host")
    assert entry.claim() is None


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
def test_everything_is_private(outbox: Outbox) -> None:
    """Folders are 0700, files 0600."""
    outbox.put(_record()).fail("because")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [state_dir(), *state_dir().rglob("*")]}
    assert {path.name: oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


def test_a_write_that_fails_leaves_nothing(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is an error of the store's family, and no half record is ever seen."""

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailableError, match="No space left on device"):
        outbox.put(_record())
    monkeypatch.undo()
    assert [path for path in outbox.root.rglob("*") if path.is_file()] == []


def test_one_of_many_gets_a_record(outbox: Outbox) -> None:
    """Sixteen threads want it, one has it; when it is free again, one has it again."""
    entry = outbox.put(_record())
    together = threading.Barrier(16)

    def take(_: int) -> claims.Claim | None:
        together.wait()
        return entry.claim()

    for _ in range(20):
        with ThreadPoolExecutor(16) as pool:
            (got,) = [claim for claim in pool.map(take, range(16)) if claim is not None]
        assert got.holds()
        got.release()


def _left_behind(folder: Path, name: str) -> None:
    (folder / claims.FREE).rename(folder / name)


def _ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_of_a_dead_process_is_taken_over_once(outbox: Outbox) -> None:
    """Its process is gone, so the record is free; of sixteen that see it one gets it."""
    entry = outbox.put(_record())
    host, now = claims._host(), int(time.time())
    for pid in (_ended_pid(), os.getpid()):  # our own pid under a token that is not ours is somebody's before us
        _left_behind(entry.folder, claims.Holder(host, pid, now, "token").file_name)
        assert entry.holder() is None
        with ThreadPoolExecutor(16) as pool:
            (got,) = [claim for claim in pool.map(lambda _: entry.claim(), range(16)) if claim is not None]
        got.release()


@pytest.mark.parametrize(("host", "age", "taken"), [(None, 60, False), ("other", 60, False), ("other", 4000, True)])
def test_a_live_lock_is_respected_until_it_is_too_old(outbox: Outbox, host: str | None, age: int, taken: bool) -> None:
    """A process that lives keeps its record; on another host only the age can tell."""
    entry = outbox.put(_record())
    parent = claims.Holder(host or claims._host(), os.getppid(), int(time.time()) - age, "token")
    _left_behind(entry.folder, parent.file_name)
    assert (entry.claim() is not None) is taken


def test_a_claim_that_was_given_up_is_good_until_somebody_else_has_one(outbox: Outbox) -> None:
    """Who is late may go on while the record is free, is in nobody's way, and stops when somebody takes it."""
    entry = outbox.put(_record())
    late = entry.claim()
    assert late is not None
    late.release()
    assert late.holds()
    other = entry.claim()
    assert other is not None
    assert not late.holds()
    late.release()
    assert other.holds()
    entry.finish(run_id="r", tracking_uri="http://host")
    assert not other.holds()
    entry.finish(run_id="late", tracking_uri="http://host")
    receipt = entry.receipt()
    assert receipt is not None
    assert receipt["run_id"] == "r"


def test_failures_are_counted_and_hold_no_secret(outbox: Outbox) -> None:
    """The last reason is kept, with how often it was tried."""
    entry = outbox.put(_record())
    entry.fail("first")
    entry.fail("no access for token=hunter2hunter2")
    failure = entry.failure()
    assert failure is not None
    assert failure.tries == 2
    assert "hunter2" not in failure.reason


def test_status_shows_what_waits_and_why(outbox: Outbox) -> None:
    """Readable or not, each record is listed."""
    outbox.put(_record()).fail("nobody there")
    held = outbox.put(_record("b" * 32))
    assert held.claim() is not None
    broken = outbox.put(_record("c" * 32))
    (broken.folder / "record.json").write_bytes(b"{")
    found = {item.uid[0]: item for item in status()}
    assert (found["a"].reason, found["a"].tries, found["a"].phase) == ("nobody there", 1, "eval")
    assert found["b"].held_by == os.getpid()
    assert "not a record" in found["c"].reason


def test_a_record_in_another_records_place_is_refused(outbox: Outbox) -> None:
    """A folder that was copied by hand does not deliver the same results twice."""
    entry = outbox.put(_record())
    other = outbox.put(_record("b" * 32))
    (other.folder / "record.json").write_bytes((entry.folder / "record.json").read_bytes())
    with pytest.raises(CorruptEntryError, match="another record"):
        other.read()


def test_sweeping_removes_what_is_done_with(outbox: Outbox) -> None:
    """Half-written folders go after a day, delivered ones after a month; what waits stays."""
    waiting = outbox.put(_record())
    done = outbox.put(_record("b" * 32))
    done.finish(run_id="r", tracking_uri="http://host")
    half = outbox.root / "new" / ("c" * 32)
    half.mkdir()
    outbox.sweep()
    assert half.exists()
    outbox.sweep(now=time.time() + KEEP_DONE + 60)
    assert not half.exists()
    assert outbox.done() == []
    assert [entry.uid for entry in outbox.pending()] == [waiting.uid]


def test_the_state_folder_is_the_platforms_or_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`DSPY_CACHECTL_STATE` names it."""
    monkeypatch.setenv("DSPY_CACHECTL_STATE", str(tmp_path))
    assert state_dir() == tmp_path
    monkeypatch.delenv("DSPY_CACHECTL_STATE")
    if platform.system() == "Linux":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
        assert state_dir() == tmp_path / "xdg" / "dspy_cachectl"
