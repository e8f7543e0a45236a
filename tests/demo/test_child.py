"""Child processes of the demo: they answer, fail in words, and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from dspy_cachectl.demo.child import Child, DemoError
from tests.limits import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import sys, time
from dspy_cachectl.demo.child import Child
from tests.demo.test_child import locking

if __name__ == "__main__":
    with Child(locking, sys.argv[1]) as child:
        print("ready", flush=True)
        time.sleep(600)
"""


def counting(step: int) -> Iterator[tuple[int, str | None]]:
    for number in range(0, 10, step):
        print("not an answer")
        yield number, os.environ.get("DEMO_TEST")


def failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError("out of order")


def dying() -> Iterator[int]:
    os._exit(7)
    yield 0


def locking(path: str) -> Iterator[None]:
    semaphore = multiprocessing.get_context("spawn").Lock()
    with FileLock(path), semaphore:
        yield None


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_it_answers_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With variables of its own, without MLflow's, and whatever it prints is no answer."""
    monkeypatch.setenv("DEMO_TEST", "the parent's")
    with Child(counting, 2, DEMO_TEST="its own") as child:
        assert (0, "its own") == child.first
        assert (2, "its own") == child.ask()
    assert "the parent's" == os.environ["DEMO_TEST"]


def test_nothing_is_said_of_what_a_killed_process_held(tmp_path: Path) -> None:
    """What it shares with its parent is cleared away without a word on the demo's terminal."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.replace("time.sleep(600)", "child.kill()"))
    done = subprocess.run(
        [sys.executable, script, tmp_path / "lock"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert ("ready\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_a_failure_is_said_in_words() -> None:
    """Whether it fails at once or on the way."""
    with pytest.raises(DemoError, match="failed: ValueError: out of order"), Child(failing, 0):
        pass
    with Child(failing, 1) as child, pytest.raises(DemoError, match="failed: ValueError: out of order"):
        child.ask()


def test_a_process_that_dies_is_said() -> None:
    """With its exit code; nobody waits for it."""
    with pytest.raises(DemoError, match="exit code 7"), Child(dying):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """A parent that is killed gets no chance to end it, and it ends all the same."""
    script, lock = tmp_path / "parent.py", FileLock(tmp_path / "lock")
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script, lock.lock_file],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert "ready" == parent.stdout.readline().strip()
        assert not lock.is_locked
        with pytest.raises(TimeoutError):
            lock.acquire(timeout=0)
        parent.send_signal(signal.SIGKILL)
    with lock.acquire(timeout=PATIENCE):
        pass
