"""Files that are written whole or not at all, for this user alone where they are private; and the locks beside them.

Links are followed, so that what a link leads to is replaced and not the link. Only regular files are replaced: never a
folder, a named pipe or a device, whoever asks.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dspy_cachectl.boundary.ownership import UNFINISHED, check_output, is_lock, is_there, what_is
from dspy_cachectl.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    import filelock

STANDARD_OUTPUT = "-"
"""The name of a file that is standard output, where a command writes one."""

_MOST_LINKS = 40
_ADDRESS = re.compile(r"(?:s3|gs|az):/")
_PROBE = bytes(4096)


def make_private(folder: Path) -> None:
    """Make a folder, and what is missing above it, for this user alone: `mkdir` gives its mode to the last one only.

    Raises:
        NotADirectoryError: If a file is in its place, or in that of one above it.
    """
    _make_folder(folder, mode=0o700)


def target_of(path: Path) -> Path:
    """Return the file that is written where a path is named: what its links lead to, which need not be there.

    Raises:
        OSError: If something is there that is no file, or the links lead nowhere.
    """
    if _ADDRESS.match(str(path)):
        raise OSError("that is the address of an object store, and a file is written here")
    place = path
    for _ in range(_MOST_LINKS):
        folder = Path(os.path.realpath(place.parent))
        place = folder / place.name
        if f"{folder}/".startswith("/proc/"):
            raise OSError(
                "it is an open file of a process, and only files are written; commands take - as their output"
            )
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            return place
        if not stat.S_ISLNK(mode):
            if other := what_is(mode):
                hint = "; commands take - as their output" if other == "a device" else ""
                raise OSError(f"it is {other}, and only files are written{hint}")
            return place
        place = folder / place.readlink()
    raise OSError("its links lead in a circle")


@contextlib.contextmanager
def writing_whole(
    path: Path, *, what: str, private: bool = False, unfinished: Path | None = None
) -> Iterator[IO[bytes]]:
    """Write a file in place of what is there, whole or not at all; its folder is made.

    One that was there keeps its mode, and where this user may give it away its owner.

    Args:
        path: The file. Where a link is there, what it leads to is replaced.
        what: What it is, for the error.
        private: Whether a new file, and a new folder, is for this user alone; else for whom the umask says.
        unfinished: What it is called until it is whole, if no link leads elsewhere; None for a name beside it.

    Yields:
        The file to write to.

    Raises:
        StoreUnavailableError: If it cannot be written. What was there is as it was.
    """
    try:
        target = target_of(path)
        new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
        if unfinished is not None and target.parent == Path(os.path.realpath(path.parent)):
            new = unfinished
        for folder in {target.parent: None, new.parent: None}:
            _make_folder(folder, mode=0o700 if private else 0o777)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        handle = os.open(new, flags, 0o600 if private else 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                _keep_mode(new, target)
                yield file
                file.flush()
                os.fsync(file.fileno())
            new.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to be told
                new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreUnavailableError(f"{what} {path} cannot be written: {error}") from error


def write_whole(path: Path, data: bytes, *, what: str, private: bool = False) -> None:
    """Write a file in place of what is there, whole or not at all. See `writing_whole`."""
    with writing_whole(path, what=what, private=private) as file:
        file.write(data)


def check_new(path: Path, *, what: str, force: bool, inputs: Iterable[str] = ()) -> None:
    """Look at where a command is to write a file, before it does the work. See `write_output_of_command`.

    Args:
        path: The file.
        what: What is to be written, for the error.
        force: Whether it may be written over another one.
        inputs: What it is made of: files, and names of other things.

    Raises:
        ConfigurationError: If it is a file that this package works with, or one that it is made of; or one that is
            there, without force.
        StoreUnavailableError: If it is no file.
    """
    if str(path) == STANDARD_OUTPUT:
        return
    check_output(path, what=what)
    try:
        is_taken = target_of(path).exists()
    except OSError as error:
        raise StoreUnavailableError(f"{what} {path} cannot be written: {error}") from error
    if is_taken and any(Path(one).exists() and path.samefile(one) for one in inputs):
        raise ConfigurationError(f"{what} cannot be written to {path}: it is made of that; name another file")
    if is_taken and not force:
        raise ConfigurationError(f"{path} is there already; name another file, or add --force to replace it")


def write_output(path: Path, data: bytes, *, what: str) -> None:
    """Write what people asked for to a file that they named, as `write_whole` does.

    Raises:
        ConfigurationError: If it is a file that this package works with.
        StoreUnavailableError: If it cannot be written. What was there is as it was.
    """
    check_output(path, what=what)
    write_whole(path, data, what=what)


def write_output_of_command(path: Path, data: bytes, *, what: str) -> None:
    """Write what a command was asked for: to standard output where that is `-`, else as `write_output` does."""
    if str(path) == STANDARD_OUTPUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    else:
        write_output(path, data, what=what)


def check_writable(path: Path, *, what: str) -> None:
    """See to it that a file can be written, before anything is paid for it. Nothing is left behind.

    Raises:
        StoreUnavailableError: If it cannot be written.
    """
    try:
        target = target_of(path)
        probe = _nearest_folder(target.parent) / f".{uuid.uuid4().hex}{UNFINISHED}"
        try:
            with probe.open("xb", buffering=0) as file:
                file.write(_PROBE)
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
        # One that only its folder's owner may replace, or nobody. That it says it is only read is no reason.
        if target.exists() and target.stat().st_mode & 0o222 and not os.access(target, os.W_OK):
            raise PermissionError(f"{target} may not be changed")
    except OSError as error:
        raise StoreUnavailableError(f"{what} {path} cannot be written: {error}") from error


def lock_at(path: Path, *, timeout: float) -> filelock.BaseFileLock:
    """Return a lock, which is not taken yet; it is of the process, and for this user alone.

    Args:
        path: Its file.
        timeout: How long to wait for it, in seconds.

    Raises:
        StoreUnavailableError: If something is in its place that is no lock of ours.
    """
    import filelock

    if is_there(path) and not is_lock(path):
        # With some releases of filelock, to take a lock empties its file.
        raise StoreUnavailableError(f"{path} is not a lock of this package; move it away")
    return filelock.FileLock(path, timeout=timeout, mode=0o600, thread_local=False)


def _make_folder(folder: Path, *, mode: int) -> None:
    folder = Path(os.path.realpath(folder))
    _nearest_folder(folder)  # SQLite would only say that it is unable to open its own file
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=mode, exist_ok=True)


def _nearest_folder(folder: Path) -> Path:
    """Return the nearest of a folder and those above it that is there."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, not a folder")
    return there


def _keep_mode(new: Path, target: Path) -> None:
    try:
        was = target.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):  # only root gives files away
            os.chown(new, was.st_uid, was.st_gid)
    new.chmod(stat.S_IMODE(was.st_mode))
