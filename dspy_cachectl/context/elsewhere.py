"""Phases that are open in the processes that this one comes from, where they did not come along.

A worker that was started before the block, or is no fork, knows nothing of it. So whoever opens a phase says so in a
file of its own, at which its workers, and theirs, look when they call outside of it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import process
from pathlib import Path
from typing import NamedTuple

import orjson

from dspy_cachectl.boundary.forks import lives

_FORMAT = 2
"""Raise it when what is written changes: another version's processes leave other files alone."""

_LONGEST = 100_000
_MOST = 50
_LINEAGE = "dspy_cachectl"
_announced: set[int] = set()


class OpenElsewhere(NamedTuple):
    """What a process says of a phase that is open in it.

    Attributes:
        process: The process.
        token: The passage's token.
        name: The phase's name.
        replays: Whether no call in it reaches a provider.
        guards: Whether calls that it did not reach are refused where it replays.
        around: The tokens of the passages around it.
    """

    process: int
    token: str
    name: str
    replays: bool
    guards: bool
    around: Sequence[str]

    def missed(self, _: object) -> None:
        """Note a call that it had no answer for."""
        note_refusal(self.process, self.token)


def announce(phases: Sequence[OpenElsewhere]) -> None:
    """Say to the processes that this one starts which phases are open here.

    Args:
        phases: The phases that are open, innermost last.
    """
    path = _folder() / str(os.getpid())
    with contextlib.suppress(OSError):  # without it those processes know as much as before
        if not phases:
            path.unlink(missing_ok=True)
            return
        if not (os.getpid() in _announced and path.parent.exists()) and not _is_made():
            return
        if os.getpid() not in _announced:
            _ancestors()
            _forget_the_dead()
        _announced.add(os.getpid())
        told = [*(one for one in phases[:-_MOST] if one.replays and one.guards), *phases[-_MOST:]]
        beside = path.with_suffix(".new")
        _write(beside, os.O_TRUNC, orjson.dumps([list(one) for one in told]))
        beside.replace(path)  # nobody reads the half of it


def open_elsewhere(within: str) -> list[OpenElsewhere]:
    """Return the phases that are open in the processes that this one comes from; the nearest and innermost first.

    Args:
        within: The token of the passage that rules here, of which only what is within it is returned; or "".
    """
    found: list[OpenElsewhere] = []
    for number in reversed(_ancestors()):
        path = _folder() / str(number)
        with contextlib.suppress(OSError, ValueError, TypeError):  # it is not there, or is left alone
            if _is_ours(_folder()) and path.stat().st_size <= _LONGEST:
                found += [OpenElsewhere(*one) for one in reversed(orjson.loads(path.read_bytes()))]
    return [one for one in found if within in one.around] if within else found


def _ancestors() -> tuple[int, ...]:
    """Return the processes that this one comes from as a worker, the nearest last, and let its own workers know.

    What stands in the configuration of a process of multiprocessing goes to those that it starts, however it does so.
    """
    here = process.current_process()
    config: dict[str, tuple[int, ...]] = vars(here).setdefault("_config", {})
    known = config.get(_LINEAGE, ())
    if known[-1:] == (os.getpid(),):
        return known[:-1]
    parent = process.parent_process()
    if parent is not None and parent.pid is not None:
        known = (*known, parent.pid)
    if known or here.name != "MainProcess":  # who is no worker was started by a shell, or by who does not matter
        known = (*known, os.getppid())
    known = tuple(dict.fromkeys(known))
    config[_LINEAGE] = (*known, os.getpid())
    return known


def note_refusal(process: int, token: str) -> None:
    """Note that a call in a replay, or beside it, was refused in this process, which its end cannot know otherwise.

    Args:
        process: The process that opened the phase.
        token: The passage's token.
    """
    with contextlib.suppress(OSError):  # it was refused with an error, and is not told once more
        if _is_made():
            _write(_refusals(process, token), os.O_APPEND, b".")


def refusals_of(token: str) -> int:
    """Return how many calls were refused in other processes for a replay that was opened in this one; forget them."""
    path = _refusals(os.getpid(), token)
    with contextlib.suppress(OSError):  # as a rule it is not there
        count = path.lstat().st_size
        if _is_ours(_folder()):
            path.unlink()
            return count
    return 0


def _refusals(process: int, token: str) -> Path:
    return _folder() / f"{process}.{token}"


def _write(path: Path, how: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _is_made() -> bool:
    _folder().mkdir(mode=0o700, exist_ok=True)
    return _is_ours(_folder())


def _forget_the_dead() -> None:
    """Remove what processes have left that were killed: another one may get their number."""
    if sys.platform == "win32":
        return
    for left in _folder().iterdir():
        if not (left.stem.isdecimal() and lives(int(left.stem))):
            left.unlink(missing_ok=True)


@functools.cache
def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"dspy-cachectl-open-{_FORMAT}-{user}"


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _at_end() -> None:
    if os.getpid() in _announced:
        announce(())


atexit.register(_at_end)
_ancestors()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_ancestors)
