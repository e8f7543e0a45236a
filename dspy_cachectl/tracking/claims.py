"""Who is delivering a record: a lock that survives nobody, and needs no lock to be taken over.

A record's folder always holds exactly one of two files: `free`, or `held-<host>-<pid>-<time>-<token>`. Taking
the record is renaming the one that was seen to a name of one's own. A rename succeeds once: of several who saw
the same file, whether free or left behind by a dead process, one gets it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

FREE = "free"

LONGEST = 3600.0
"""Seconds after which a lock counts as left behind, whatever its process does. No push takes that long."""

_mine_lock = threading.Lock()
_mine: set[str] = set()


@dataclass(frozen=True)
class Holder:
    """Who is delivering a record.

    Attributes:
        host: A short hash of the host's name.
        pid: The process.
        since: When it took the record, in seconds since 1970.
        token: Distinct for each time the record is taken.
    """

    host: str
    pid: int
    since: int
    token: str

    @property
    def file_name(self) -> str:
        """The name of the lock file."""
        return f"held-{self.host}-{self.pid}-{self.since}-{self.token}"

    @classmethod
    def parse(cls, name: str) -> Holder | None:
        """Read the name of a lock file; None if it is not one."""
        parts = name.split("-")
        if len(parts) != 5 or parts[0] != "held" or not (parts[2].isdigit() and parts[3].isdigit()):
            return None
        return cls(parts[1], int(parts[2]), int(parts[3]), parts[4])

    @property
    def is_alive(self) -> bool:
        """Whether it can still be at work."""
        if not -LONGEST < time.time() - self.since < LONGEST:
            return False
        if self.host != _host():
            return True  # it cannot be asked; its age decides
        if self.pid == os.getpid():
            with _mine_lock:
                return self.token in _mine
        return _process_exists(self.pid)


class Claim:
    """The right to deliver a record.

    It can be given back while somebody still works on the record, because that takes too long. Whoever works on
    it asks `holds()` before each change, and may go on as long as nobody else has taken the record.
    """

    def __init__(self, folder: Path, me: Holder) -> None:
        self._folder = folder
        self._me = me

    def holds(self) -> bool:
        """Return whether the record is still to be delivered, and nobody else is at it."""
        return (self._folder / self._me.file_name).exists() or (self._folder / FREE).exists()

    def release(self) -> None:
        """Give the record back. Nothing happens if it is not this claim's, or has been delivered."""
        with _mine_lock:
            _rename(self._folder / self._me.file_name, self._folder / FREE)
            _mine.discard(self._me.token)


def take(folder: Path) -> Claim | None:
    """Take a record for delivery; None if somebody else is at it, or it is not there any more."""
    seen = _lock_file(folder)
    if seen is None:
        return None
    holder_ = Holder.parse(seen)
    if holder_ is not None and holder_.is_alive:
        return None
    me = Holder(_host(), os.getpid(), int(time.time()), uuid.uuid4().hex[:12])
    with _mine_lock:
        # Known as ours before the file has its name, or another thread could take it for a dead process's.
        _mine.add(me.token)
        if _rename(folder / seen, folder / me.file_name):
            return Claim(folder, me)
        _mine.discard(me.token)
    return None


def holder(folder: Path) -> Holder | None:
    """Return who is delivering a record; None if nobody is."""
    seen = _lock_file(folder)
    found = Holder.parse(seen) if seen is not None else None
    return found if found is not None and found.is_alive else None


def _lock_file(folder: Path) -> str | None:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - the names are all that is wanted
    except OSError:
        return None
    return next((name for name in names if name == FREE or Holder.parse(name) is not None), None)


def _rename(old: Path, new: Path) -> bool:
    try:
        old.rename(new)
    except OSError:
        return False
    return True


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _process_exists(pid: int) -> bool:
    if sys.platform == "win32":
        # os.kill would end the process there.
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    # A process that was killed takes signals until its parent asks for its status, which some parents never do.
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])
