"""One process at a time. A lock that its process takes with it when it dies."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dspy_cachectl.errors import StoreUnavailableError

if sys.platform != "win32":
    import fcntl

_STALE = 120.0
"""Seconds after which a lock file, where the system has no locks, counts as left behind."""

_QUIET = 3600.0
"""Seconds without a write after which a file, where the system has no locks, counts as nobody's."""


@contextlib.contextmanager
def locked(path: Path, *, patience: float = 60.0) -> Iterator[None]:
    """Hold a folder's lock: of all processes and threads that ask for it, one at a time has it.

    Args:
        path: The lock file. It is made where it is missing.
        patience: How long to wait for the lock, in seconds.

    Raises:
        StoreUnavailableError: If it could not be had in that time, or the folder cannot be written.
    """
    give_up = time.monotonic() + patience
    with contextlib.ExitStack() as held:
        while not _try(path, held):
            if time.monotonic() > give_up:
                raise StoreUnavailableError(f"{path} was held by another process for {patience:g} s; try again")
            time.sleep(0.01)
        yield


def hold(file: io.FileIO) -> None:
    """Mark an open file as in use for as long as it is open, where the system can."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # a file system without locks: its age has to do
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_in_use(path: Path) -> bool:
    """Tell whether a process that lives has called `hold` for this file. A file that is gone is not in use."""
    try:
        if sys.platform == "win32":
            # An open file cannot be renamed there.
            probe = path.with_name(f"{path.name}.probe")
            path.rename(probe)
            probe.rename(path)
            return False
        with io.FileIO(path, "rb") as file:
            # Shared, so that two who look do not take each other for the owner.
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return time.time() - path.stat().st_mtime < _QUIET
    return False


def _try(path: Path, held: contextlib.ExitStack) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sys.platform != "win32":
            file = io.FileIO(path, "ab")
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            except OSError:
                file.close()
                return _try_by_name(path.with_name(f"{path.name}ed"), held)
            held.callback(file.close)
        else:
            return _try_by_name(path, held)
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be locked: {error}") from error
    return True


def _try_by_name(path: Path, held: contextlib.ExitStack) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()
        return False
    held.callback(path.unlink, missing_ok=True)
    return True
