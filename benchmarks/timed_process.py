"""What a process takes, from its start to its end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence

from benchmarks.rounds import Round


def timed_process(command: Sequence[str]) -> Round:
    """Run a command to its end, and return what it took, its start included.

    Raises:
        CalledProcessError: If it fails.
    """
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Round(used.ru_utime + used.ru_stime, wall)
