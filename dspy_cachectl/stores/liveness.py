"""Which processes live: each that says so locks a file, and the system lets go of the lock when the process ends."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import uuid
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.ownership import is_lock
from dspy_cachectl.boundary.writing import lock_at, make_private
from dspy_cachectl.errors import StoreUnavailableError

if TYPE_CHECKING:
    import filelock

_lock = threading.Lock()
_TOKEN = re.compile(r"[0-9a-f]{32}")
_MOST_UNUSED = 4
"""In how many folders this process says that it lives without need: each is an open file."""


@dataclass
class _Presence:
    process: int
    token: str
    held: filelock.BaseFileLock
    users: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)


_mine: dict[Path, _Presence] = {}


def me(folder: Path, *, user: object = _lock) -> str:
    """Return the token of this process in a folder. A forked child has another, and the parent's ends with the parent.

    Args:
        folder: The folder.
        user: What needs it: while that is there, the process is said to live. By default, until it ends.

    Raises:
        StoreUnavailableError: If the folder cannot be written.
    """
    folder = folder.absolute()
    with _lock:
        mine = _mine.get(folder)
        if mine is None or mine.process != os.getpid() or not _file(folder, mine.token).exists():
            mine = _mine[folder] = _announced(folder)
        mine.users.add(user)
        unused = [path for path, one in _mine.items() if one.process == os.getpid() and not one.users]
        for path in unused[:-_MOST_UNUSED]:
            gone = _mine.pop(path)
            with contextlib.suppress(OSError):  # Windows removes no open file
                _file(path, gone.token).unlink(missing_ok=True)
            gone.held.release()
        return mine.token


def leave(folder: Path, user: object) -> None:
    """Say that something needs the process no longer in a folder, as if it were gone."""
    with _lock:
        mine = _mine.get(folder.absolute())
        if mine is not None:
            mine.users.discard(user)


def _announced(folder: Path) -> _Presence:
    token = uuid.uuid4().hex
    # Of the process, and not of the thread that asks first: its lock would end with the thread.
    held = lock_at(_file(folder, token), timeout=0)
    try:
        make_private(folder)
        for left in folder.glob(_file(folder, "[0-9a-f]" * 32).name):
            is_alive(folder, left.stem[1:])
        held.acquire()
    except OSError as error:
        raise StoreUnavailableError(f"could not write to {folder}: {error}") from error
    return _Presence(os.getpid(), token, held)


def is_alive(folder: Path, token: str) -> bool:
    """Tell whether the process that `me` gave a token in this folder lives. What is left of a dead one is removed."""
    if _TOKEN.fullmatch(token) is None:  # somebody else wrote it down: it may lead anywhere
        return False
    file = _file(folder.absolute(), token)
    if not is_lock(file):
        return False
    try:
        with (
            lock_at(file, timeout=0),
            contextlib.suppress(PermissionError),  # Windows removes no open file
        ):
            file.unlink(missing_ok=True)
    except OSError:  # held, which is a filelock.Timeout; or not ours to look at, and then not ours to take over
        return True
    return False


def _file(folder: Path, token: str) -> Path:
    return folder / f".{token}.alive"


if sys.platform != "win32":
    # What another thread holds at the moment of a fork stays held in the child for ever.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
