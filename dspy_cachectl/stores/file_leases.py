"""Leases for the processes of one machine: locks on the bytes of one file beside a store.

The system lets go of them when the process ends, however it ends; a child that is forked has none. What is under a lock
is no part of the file. In the file there is a head, and for each of some slots who took a lease, and how often that was
renewed; two leases that share a slot only make who waits more patient.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import threading
from pathlib import Path

from dspy_cachectl.boundary.forks import free_after_fork, tell_after_fork
from dspy_cachectl.boundary.writing import make_private
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.leases import Holder

if sys.platform != "win32":
    import fcntl

NAME = "leases.lock"
_HEAD = b"dspy_cachectl leases 1\n".ljust(32, b"\0")
_SLOTS = 2**14
_SIZE = len(_HEAD) + 2 * _SLOTS
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class _File:
    """A file that is open in this process. There is one of a path: closing any gives up all locks on what it is of.

    Attributes:
        handle: Its descriptor; None where it is closed.
        users: How many leases need it.
        held: Which bytes this process has locked.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.handle: int | None = None
        self.users = 0
        self.held: set[int] = set()

    def open(self) -> int:
        """Open it, and count one user more.

        Raises:
            OSError: If it cannot be opened.
            StoreUnavailableError: If something else is in its place.
        """
        if self.handle is None:
            try:
                handle = os.open(self.path, _FLAGS, 0o600)
            except FileNotFoundError:
                make_private(Path(self.path).parent)
                handle = os.open(self.path, _FLAGS, 0o600)
            try:
                _check(handle, self.path)
            except BaseException:
                os.close(handle)
                raise
            self.handle = handle
        self.users += 1
        return self.handle

    def leave(self) -> None:
        """Count one user less, and close it for the last one."""
        self.users -= 1
        if not self.users:
            self.close()

    def close(self) -> None:
        """Close it."""
        handle, self.handle = self.handle, None
        if handle is not None:
            os.close(handle)


class _Files:
    """The files that are open in this process."""

    def __init__(self) -> None:
        self.lock = free_after_fork(threading.Lock())
        self.files: dict[str, _File] = {}
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Have none in the child, which holds nothing."""
        for file in self.files.values():
            file.close()
        self.files = {}

    def of(self, path: str) -> _File:
        """Return the file of a path, and forget those that nobody needs."""
        if path not in self.files:
            self.files = {known: file for known, file in self.files.items() if file.users}
            self.files[path] = _File(path)
        return self.files[path]


_FILES = _Files()


class FileLease:
    """A lease of a name among the processes that use a folder. See `Lease`.

    Args:
        folder: The folder.
        name: The name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        hashed = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        self._path = f"{folder}{os.sep}{NAME}"  # a Path takes longer than the lock
        self._byte = _SIZE + int.from_bytes(hashed[:7], "big")
        self._slot = len(_HEAD) + 2 * (int.from_bytes(hashed[7:9], "big") % _SLOTS)
        self._file: _File | None = None
        self._is_held = False

    def take(self) -> Holder | None:
        """Take it, if no other process has it."""
        with _FILES.lock:
            if self._file is None:
                file = _FILES.of(self._path)
                file.open()
                self._file = file
            file, handle = self._file, self._file.handle
            if handle is None or self._byte in file.held:
                raise StoreUnavailableError(f"another call of this process has the lease in {self._path}")
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte)
            except (BlockingIOError, PermissionError):
                said = os.pread(handle, 2, self._slot)
                return Holder(said[:1], said[1:])
            file.held.add(self._byte)
            self._is_held = True
            self._note(handle, 0)
            return None

    def renew(self) -> None:
        """Say that this process lives."""
        with _FILES.lock:
            if self._is_held and self._file is not None and self._file.handle is not None:
                self._note(self._file.handle, 1)

    def _note(self, handle: int, what: int) -> None:
        """Count who took a lease of the slot, or how often one was renewed."""
        said = os.pread(handle, 1, self._slot + what) or b"\0"
        os.pwrite(handle, bytes([(said[0] + 1) % 256]), self._slot + what)

    def give_back(self) -> None:
        """Let other processes have it."""
        with _FILES.lock:
            file, self._file = self._file, None
            if file is None or file.handle is None:
                return
            try:
                if self._is_held:
                    file.held.discard(self._byte)
                    fcntl.lockf(file.handle, fcntl.LOCK_UN, 1, self._byte)
            finally:
                self._is_held = False
                file.leave()


def file_lease(folder: Path, name: str) -> FileLease | None:
    """Return the lease of a name among the processes that use a folder; None where the system has no such locks."""
    return FileLease(folder, name) if sys.platform != "win32" else None


def _check(handle: int, path: str) -> None:
    """See to it that a file is ours, or a new one.

    Raises:
        StoreUnavailableError: If it is another's.
    """
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and not found.st_size:
        os.pwrite(handle, _HEAD, 0)
    elif not stat.S_ISREG(found.st_mode) or os.pread(handle, len(_HEAD), 0) != _HEAD:
        raise StoreUnavailableError(f"{path} is not of this package; move it away")
