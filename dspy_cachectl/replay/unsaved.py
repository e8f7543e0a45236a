"""What a recording has bought and its cassette has not yet: a killed process loses nothing that was paid for.

Each open cassette that records has a small database of its own beside its file, which goes when all is saved. A
process that is dead, or a cassette that was closed and could not be saved, leaves it behind for the next recording.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from dspy_cachectl.boundary.encryption import open_line, seal_line
from dspy_cachectl.boundary.ownership import UNSAVED
from dspy_cachectl.boundary.writing import lock_at, make_private
from dspy_cachectl.config import settings
from dspy_cachectl.context.open_cassette import Recording
from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.replay import files
from dspy_cachectl.stores.database import Database
from dspy_cachectl.stores.liveness import is_alive, me

VERSION = 1
_PATIENCE = 60.0
"""How long to wait for another process that writes a cassette, in seconds."""

_SCHEMA = ("CREATE TABLE recordings (key TEXT PRIMARY KEY, process TEXT, line BLOB) WITHOUT ROWID",)

_open: set[Path] = set()
"""Those of this process that are in use: what else there is of it was closed and could not be saved."""


class Unsaved:
    """The recordings of one open cassette, on the disk as soon as they are made. Thread-safe.

    Args:
        path: The cassette's file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.unsaved").absolute()
        self._database = _database(self._file)
        _open.add(self._file)

    def append(self, recording: Recording) -> None:
        """Write a recording. One that comes when it is closed is left behind, for the next recording to take over.

        Raises:
            StoreError: If it cannot be written.
        """
        keys, line, process = settings().encryption_key, files.to_line(recording), me(locks_folder())
        line = line if keys is None else seal_line(keys, line)
        # Not left to the database, which would keep the folder to this user: cassettes are made to be committed.
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"the folder {self._file.parent} cannot be written: {error}") from error
        with self._database.change() as sql:
            sql("INSERT OR REPLACE INTO recordings VALUES (?, ?, ?)", recording.key, process, line)

    def close(self, *, keep: bool) -> None:
        """Let go of it, and remove it unless it has to be kept."""
        if not keep:
            remove(self._file)
        _open.discard(self._file)


def left_behind(path: Path) -> Iterator[tuple[Path, list[Recording]]]:
    """Yield the databases of a cassette that nobody uses any more, and what is in them.

    Raises:
        CorruptEntryError: If one is damaged.
        FormatVersionError: If a newer version of this package wrote one, or its key is not given; it is left as it is.
        StoreUnavailableError: If one cannot be read, or is not ours.
    """
    for file in sorted(path.parent.absolute().glob(f".{glob.escape(path.name)}.????????.unsaved")):
        rows = [] if file in _open or file.is_symlink() else _rows(file)
        # One without rows may be somebody's who has just begun.
        if rows and not any(_is_in_use(process) for process in {process for process, _ in rows}):
            try:
                yield file, [files.from_line(open_line(settings().encryption_key, line)) for _, line in rows]
            except CorruptEntryError as error:
                raise CorruptEntryError(f"{file}: {error}. Move it away to record anew what is in it") from error


def remove(file: Path) -> None:
    """Remove a database, and what a killed process may have left beside it."""
    for one in (file, file.with_name(f"{file.name}-journal")):
        if one.exists():  # on a read-only disk nothing was made, and nothing can be removed
            one.unlink(missing_ok=True)


def locks_folder() -> Path:
    """Return where the locks of cassettes are: not beside them, which are in version control.

    Raises:
        StoreUnavailableError: If it cannot be made, or is another's.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"dspy-cachectl-{user}"
    try:
        make_private(folder)
        found = folder.lstat()
    except OSError as error:
        raise StoreUnavailableError(f"the folder of locks {folder} cannot be made: {error}") from error
    # Anybody may make something of that name where all may write.
    if not stat.S_ISDIR(found.st_mode) or user not in {"user", found.st_uid}:
        raise StoreUnavailableError(f"{folder} is another's; name a folder of your own in TMPDIR")
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process and thread at a time write a cassette.

    Raises:
        StoreUnavailableError: If its turn does not come, or there can be no lock.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    lock = locks_folder() / f"{name}.lock"
    try:
        held = lock_at(lock, timeout=_PATIENCE).acquire()
    except OSError as error:  # which a timeout is as well
        raise StoreUnavailableError(f"the cassette {path} cannot be locked: {error}") from error
    with held:
        yield


def _database(file: Path) -> Database:
    return Database(file, kind=UNSAVED, version=VERSION, schema=_SCHEMA)


def _rows(file: Path) -> list[tuple[str, bytes]]:
    try:
        if file.stat().st_size > files.LARGEST_FILE:
            raise CorruptEntryError(f"{file} is longer than {files.LARGEST_FILE} bytes, and no recording's")
        return _database(file).read("SELECT process, line FROM recordings")
    except (FileNotFoundError, StoreUnavailableError):
        if file.exists():
            raise
        return []  # its process has saved all of it meanwhile, and removed it


def _is_in_use(process: str) -> bool:
    folder = locks_folder()
    return process != me(folder) and is_alive(folder, process)
