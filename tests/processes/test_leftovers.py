"""A run of tests that is ended from outside leaves no process behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.limits import SOON
from tests.processes import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of the end of any process")

SUITE = """
import os, subprocess, sys, time

from tests.processes import python

WORKER = "import time; print('begun', flush=True); time.sleep(600)"
SERVER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
FORK = "import sys, time; print(sys.argv[2], file=open(sys.argv[1], 'w'), flush=True); time.sleep(600)"


def test_starts_whatever_tests_start(endpoint):
    command = [sys.executable, "-c", SERVER, WORKER]
    server = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    server.stdout.readline()
    python("-c", FORK, os.environ["TOLD"], str(os.getpid()), warm=("json",))


def test_hangs():
    time.sleep(600)
"""
PROCESSES = [
    b"tests.endpoint.server",
    b"processes/server.py",  # that forks,
    b"processes/server.py",  # the fork that watches,
    b"processes/server.py",  # and the program
    b"subprocess.run",
    b"import time",
]
"""What each process under the test has in its command line."""


@contextmanager
def hanging(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run of that suite in its first test, with all that it starts: the run, and the process in which the test is."""
    (folder / "test_hangs.py").write_text(SUITE, encoding="utf-8")
    told = folder / "told"
    os.mkfifo(told)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOLD": str(told)}
    hung_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and children would inherit that
    with (folder / "output").open("wb") as output:
        run = subprocess.Popen(
            [*command, *options, str(folder)], cwd=folder, env=environment, stdout=output, stderr=output
        )
    signal.signal(signal.SIGHUP, hung_up)
    try:
        yield run, int(told.read_text(encoding="utf-8"))
    finally:
        run.kill()
        run.wait()


def under(process_id: int) -> dict[int, bytes]:
    """The processes that a process and those under it have started: their command lines."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile, and is none of those
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = {}
    waiting = children.get(process_id, [])
    while waiting:
        at = waiting.pop()
        found[at] = Path(f"/proc/{at}/cmdline").read_bytes()
        waiting += children.get(at, [])
    return found


@contextmanager
def ending(processes: dict[int, bytes]) -> Iterator[None]:
    """What is done within it ends them all."""
    with ExitStack() as stack:
        descriptors = {os.pidfd_open(process_id): command for process_id, command in processes.items()}
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        yield
        assert [] == [command for one, command in descriptors.items() if not select.select([one], [], [], SOON)[0]]


def assert_all_there(processes: dict[int, bytes]) -> None:
    left = list(processes.values())
    for kind in PROCESSES:
        left.remove(next(command for command in left if kind in command))


SIGNALS = [
    signal.SIGTERM,
    pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive),
    pytest.param(signal.SIGHUP, marks=pytest.mark.exhaustive),
    pytest.param(signal.SIGKILL, marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("options", [(), pytest.param(("-n1",), marks=pytest.mark.exhaustive)])
def test_all_ends_with_the_run(tmp_path: Path, number: int, options: tuple[str, ...]) -> None:
    """A signal to a run ends its workers, its servers, what they forked, and what has a session of its own."""
    with hanging(tmp_path, *options) as (run, _):
        processes = under(run.pid)
        assert_all_there(processes)
        with ending(processes):
            run.send_signal(number)


def test_all_ends_with_a_worker(tmp_path: Path) -> None:
    """What a worker of pytest-xdist has started ends with it, though the run goes on with another."""
    with hanging(tmp_path, "-n1") as (run, worker):
        assert worker != run.pid
        processes = under(worker)
        assert_all_there(processes)
        with ending(processes):
            os.kill(worker, signal.SIGKILL)
        assert run.poll() is None
        with ending(under(run.pid)):
            run.terminate()
