"""Phases that are open in the process that started this one, where they did not come along.

A worker that was started before the block, or is no fork, knows nothing of it. So whoever opens a phase says so in a
file of its own, at which its workers look when they call outside of any.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import process
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from dspy_cachectl.context.phases import PhaseRun

_LONGEST = 10_000
_announced: set[int] = set()


class OpenElsewhere(NamedTuple):
    """What a process says of the phase that is open in it.

    Attributes:
        name: The phase's name.
        replays: Whether no call in it reaches a provider.
    """

    name: str
    replays: bool


def announce(runs: Sequence[PhaseRun]) -> None:
    """Say to the processes that this one starts which phase is open here.

    Args:
        runs: The passages that are open, innermost last.
    """
    path = _folder() / str(os.getpid())
    with contextlib.suppress(OSError):  # without it those processes know as much as before
        if not runs:
            _announced.discard(os.getpid())
            path.unlink(missing_ok=True)
            return
        _folder().mkdir(mode=0o700, exist_ok=True)
        if not _is_ours(_folder()):
            return
        if os.getpid() not in _announced and sys.platform != "win32":
            _forget_the_dead()
        replays = any(policy.replays for run in runs for policy in run.context.policies)
        _announced.add(os.getpid())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps([runs[-1].name, replays]))


def open_in_parent() -> OpenElsewhere | None:
    """Return the phase that is open in the process that started this one as its worker; None where none is."""
    parent = process.parent_process()
    if parent is None and process.current_process().name == "MainProcess":
        return None
    for number in {os.getppid(), *(() if parent is None or parent.pid is None else (parent.pid,))}:
        path = _folder() / str(number)
        with contextlib.suppress(OSError, ValueError, TypeError):  # it is not there, or is left alone
            if _is_ours(_folder()) and path.stat().st_size <= _LONGEST:
                name, replays = orjson.loads(path.read_bytes())
                return OpenElsewhere(str(name), bool(replays))
    return None


def _forget_the_dead() -> None:
    """Remove what processes have left that were killed: another one may get their number."""
    for left in _folder().iterdir():
        try:
            os.kill(int(left.name), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            left.unlink(missing_ok=True)
        except OSError:
            continue  # it lives, and is another's


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"dspy-cachectl-open-{os.getuid() if hasattr(os, 'getuid') else ''}"


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _at_end() -> None:
    if os.getpid() in _announced:
        announce(())


atexit.register(_at_end)
