"""Whether the process that took something still lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.liveness import is_alive, me
from tests.faults.disks import read_only

_ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
    import os, sys, time, warnings
    from pathlib import Path

    warnings.simplefilter("ignore", DeprecationWarning)
    from dspy_cachectl.stores.liveness import me

    parent = me(Path(sys.argv[1]))
    if len(sys.argv) > 2 and os.fork() == 0:
        print(parent, me(Path(sys.argv[1])), os.getpid(), flush=True)
    elif len(sys.argv) == 2:
        print(parent, flush=True)
    time.sleep(600)
"""


def holder(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_a_token_for_each_folder(tmp_path: Path) -> None:
    """A process is alive in each folder in which it asked for a token, by that token alone."""
    one, two = me(tmp_path / "one"), me(tmp_path / "two")

    assert one == me(tmp_path / "one") != two
    assert is_alive(tmp_path / "one", one)
    assert is_alive(tmp_path / "two", two)
    assert not is_alive(tmp_path / "two", one)
    assert not is_alive(tmp_path / "one", "0" * 32)


def test_a_killed_process_is_dead(tmp_path: Path) -> None:
    """A process lives until it is killed, from that moment on it does not, and it leaves nothing behind."""
    process = holder(tmp_path)
    try:
        (token,) = said(process)
        assert is_alive(tmp_path, token)
    finally:
        process.kill()
        process.wait()

    assert not is_alive(tmp_path, token)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_parent_ends_though_its_child_lives(tmp_path: Path) -> None:
    """A forked child has a token of its own, and does not keep its parent's alive."""
    process = holder(tmp_path, "fork")
    parent, child, pid = said(process)
    try:
        assert parent != child
        assert is_alive(tmp_path, parent)
        process.kill()
        process.wait()
        assert (False, True) == (is_alive(tmp_path, parent), is_alive(tmp_path, child))
    finally:
        os.kill(int(pid), signal.SIGKILL)


def test_what_dead_processes_left_goes(tmp_path: Path) -> None:
    """A new process sweeps the files of dead ones, and leaves those of living ones and of other programs alone."""
    killed, living = holder(tmp_path), holder(tmp_path)
    try:
        (dead,), (alive,) = said(killed), said(living)
        killed.kill()
        killed.wait()
        (tmp_path / ".mine.alive").write_text("theirs", encoding="utf-8")
        mine = me(tmp_path)
        names = sorted(path.name for path in tmp_path.iterdir())
    finally:
        living.kill()
        living.wait()

    assert sorted([f".{alive}.alive", f".{mine}.alive", ".mine.alive"]) == names
    assert "theirs" == (tmp_path / ".mine.alive").read_text(encoding="utf-8")
    assert not is_alive(tmp_path, dead)


def test_a_thread_that_asked_first_may_end(tmp_path: Path) -> None:
    """A token is the process's, not the thread's that asked for it."""
    thread = threading.Thread(target=me, args=(tmp_path,))
    thread.start()
    thread.join()
    (file,) = tmp_path.iterdir()

    assert is_alive(tmp_path, file.stem[1:])


def test_a_deleted_folder(tmp_path: Path) -> None:
    """Who goes on after the folder was deleted gets a token that counts."""
    token = me(tmp_path / "folder")
    (tmp_path / "folder" / f".{token}.alive").unlink()

    assert is_alive(tmp_path / "folder", me(tmp_path / "folder"))
    assert token != me(tmp_path / "folder")


def test_a_read_only_folder(tmp_path: Path) -> None:
    """Nobody gets a token where nothing can be written, and nobody there counts as dead by mistake."""
    process = holder(tmp_path / "folder")
    try:
        (token,) = said(process)
        with read_only(tmp_path / "folder", tmp_path / "view") as view:
            assert is_alive(view, token)
            with pytest.raises(StoreUnavailableError):
                me(view)
    finally:
        process.kill()
        process.wait()


class User:
    """Something that lives for as long as a process has to be known for it."""


def test_a_process_lives_where_it_is_needed(tmp_path: Path) -> None:
    """For as long as what needs it is there; of other folders a few, since each is an open file."""
    user, forever = User(), me(tmp_path / "forever")
    needed = me(tmp_path / "needed", user=user)
    for number in range(30):
        me(tmp_path / str(number), user=User())

    assert len(list(tmp_path.glob("[0-9]*/.*.alive"))) < 10
    assert is_alive(tmp_path / "needed", needed)
    assert is_alive(tmp_path / "forever", forever)
    assert me(tmp_path / "0", user=user) in {path.stem[1:] for path in (tmp_path / "0").iterdir()}
