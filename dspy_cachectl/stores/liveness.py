"""Which processes live: each that says so locks a file, and the system lets go of the lock when the process ends."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from dspy_cachectl.boundary.ownership import is_lock
from dspy_cachectl.boundary.writing import lock_at, make_private
from dspy_cachectl.errors import StoreUnavailableError

if TYPE_CHECKING:
    import filelock

_mine: dict[Path, tuple[int, str, filelock.BaseFileLock]] = {}
_lock = threading.Lock()
_TOKEN = re.compile(r"[0-9a-f]{32}")


def me(folder: Path) -> str:
    """Return the token of this process in a folder. A forked child has another, and the parent's ends with the parent.

    Raises:
        StoreUnavailableError: If the folder cannot be written.
    """
    folder = folder.absolute()
    with _lock:
        if folder in _mine:
            process, token, _ = _mine[folder]
            if process == os.getpid() and _file(folder, token).exists():
                return token
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
        _mine[folder] = os.getpid(), token, held
        return token


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
