"""What a recording has bought so far, beside its cassette: a killed process loses nothing that was paid for."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import uuid
from pathlib import Path

from dspy_cachectl.context.open_cassette import Recording
from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.predictions import locks
from dspy_cachectl.replay import files


class Journal:
    """The recordings of one open cassette, a line each, on the disk as soon as they are made. Thread-safe.

    Args:
        path: The cassette's file. The journal is made beside it with the first recording.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        self._closed = False

    def append(self, recording: Recording) -> None:
        """Write a recording. One that comes when it is closed is left behind, for the next recording to take over.

        Raises:
            StoreUnavailableError: If it cannot be written.
        """
        line = files.to_line(recording) + b"\n"
        try:
            with self._lock:
                if self._file is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = io.FileIO(self._path, "ab")
                    locks.hold(self._file)
                _write(self._file, line)
                if self._closed:
                    self._let_go()
        except OSError as error:
            raise StoreUnavailableError(f"the recording {self._path} cannot be written: {error}") from error

    def close(self, *, keep: bool) -> None:
        """Let go of it, and remove it unless it has to be kept."""
        with self._lock:
            self._closed = True
            if self._file is not None and not keep:
                # First removed, then let go: nobody may take it for a dead process's.
                self._path.unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _write(file: io.FileIO, line: bytes) -> None:
    # On a full disk a part of it may be written: the next line must not be joined to that.
    begin = file.seek(0, io.SEEK_END)
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(begin)
        raise


def left_behind(path: Path) -> dict[Path, list[Recording]]:
    """Return the journals of a cassette whose processes are dead, and what is in them.

    Raises:
        StoreUnavailableError: If one cannot be read.
    """
    found: dict[Path, list[Recording]] = {}
    if not path.parent.is_dir():
        return found
    for journal in sorted(path.parent.glob(f".{_literal(path.name)}.*.partial")):
        if locks.is_in_use(journal):
            continue
        recordings = []
        try:
            lines = journal.read_bytes().split(b"\n")
        except FileNotFoundError:
            continue  # another process has just taken it over
        except OSError as error:
            raise StoreUnavailableError(f"the recording {journal} cannot be read: {error}") from error
        for line in lines:
            with contextlib.suppress(CorruptEntryError):  # its last line may be cut short
                recordings.append(files.from_line(line))
        found[journal] = recordings
    return found


def _literal(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
