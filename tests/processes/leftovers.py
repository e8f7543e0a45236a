"""Ends what a process of the tests has started, however that process ends.

`end_with_me` starts a watcher, this file as a script, which waits for its parent's end and then kills whoever carries
the parent's mark: every process that the parent started, and those that they started, in whatever session they are.
The mark is in the environment. A fork of the parent's own that runs no other program does not carry it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import uuid
from pathlib import Path

_VARIABLE = "TESTS_STARTED_BY"
_watchers: list[subprocess.Popen[bytes]] = []
"""They are kept since Python warns of processes that it forgets while they run."""


def end_with_me() -> None:
    """Have all that this process starts from here on killed when it has ended, be it that it is killed itself."""
    if not hasattr(os, "pidfd_open"):  # only Linux tells of the end of a process, and who is marked
        return
    mark = uuid.uuid4().hex
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # what is sent to the parent's group does not reach it
    )
    _watchers.append(watcher)
    # Not before: a watcher that carries the mark would kill itself. A worker's children carry its starter's as well.
    os.environ[_VARIABLE] = f"{os.environ.get(_VARIABLE, '')} {mark}".strip()


def _watch(parent: int, mark: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(parent)
        if os.getppid() == parent:
            select.select([ended], [], [])
    while marked := _marked(mark):  # again: one may have been starting another
        for process_id in marked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        # It has ended, or is somebody else's. One that has ended and was not waited for has no environment either.
        with contextlib.suppress(OSError):
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2])
