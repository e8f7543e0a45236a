"""What a session has finished so far: one line a question, on the disk as soon as it is known.

Each line is JSON with its own checksum, so a line that was cut by a power failure or a full disk is left out and
the others are kept. The file is held for as long as its session lives.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dspy_cachectl.entries import values
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreUnavailableError
from dspy_cachectl.predictions import locks, rows
from dspy_cachectl.predictions.rows import PredictionRow, Score

FOLDER = ".journals"
NEW = ".new-"
"""How the name of a journal begins that is being made."""

FORMAT_VERSION = 1

_LINE = b'{"crc":"%08x","entry":'
_START = len(_LINE % 0)


@dataclass(frozen=True)
class Line:
    """An entry of a journal.

    Attributes:
        row: A finished row, encoded; or None.
        score: Where a score belongs (question, occurrence, repeat, metric), and the score and reference; or None.
    """

    row: bytes | None = None
    score: tuple[tuple[str, int, int], str, Score, Mapping[str, Any] | None] | None = None


class Journal:
    """The journal that a session writes. Thread-safe.

    Args:
        folder: The library's folder.
        header: What the rows are predictions of.

    Raises:
        StoreUnavailableError: If it cannot be written.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self.path = folder / FOLDER / f"journal-{os.getpid()}-{uuid.uuid4().hex}.jsonl"
        self._lock = threading.Lock()
        self._torn = False
        self.lines = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # It gets its name when it is held and has its header: nobody finds it in between.
            new = self.path.with_name(f"{NEW}{self.path.name}") if sys.platform != "win32" else self.path
            self._file = io.FileIO(new, "ab")
            try:
                locks.hold(self._file)
                self._append({"header": {**header, "format": FORMAT_VERSION}})
                new.rename(self.path)
            except (OSError, StoreUnavailableError):
                self._file.close()
                new.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreUnavailableError(f"the journal {self.path} cannot be made: {error}") from error

    def add_row(self, encoded: bytes) -> None:
        """Write a row that `rows.encode` has encoded.

        Raises:
            StoreUnavailableError: If it could not be written.
        """
        self._write(b'{"row":' + encoded + b"}")
        self.lines += 1

    def add_score(
        self, place: tuple[str, int, int], metric: str, score: Score, reference: Mapping[str, Any] | None
    ) -> None:
        """Write a score of a row that is kept elsewhere. Raises as `add_row`."""
        entry = {"place": list(place), "metric": metric, "score": vars(score), "reference": reference}
        self._append({"score": entry})
        self.lines += 1

    def close(self, *, remove: bool) -> None:
        """Let go of the journal, and remove it where its lines are in a snapshot."""
        with self._lock:
            if remove:
                # First removed, then let go: nobody may take it for a dead session's.
                self.path.unlink(missing_ok=True)
            self._file.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._write(values.dumps(entry)[0])

    def _write(self, body: bytes) -> None:
        line = _LINE % zlib.crc32(body) + body + b"}\n"
        with self._lock:
            try:
                if self._torn:
                    line = b"\n" + line
                written = self._file.write(line)
                self._torn = written != len(line)
            except (OSError, ValueError) as error:
                self._torn = True
                raise StoreUnavailableError(f"the journal {self.path} cannot be written: {error}") from error
        if self._torn:
            raise StoreUnavailableError(f"the journal {self.path} cannot be written: the disk is full")


class JournalReader:
    """A journal being read: its header at once, then its lines.

    Attributes:
        header: What the rows are predictions of.
        damaged: How many lines were left out because they are damaged.

    Raises:
        CorruptEntryError: If not even the header is there.
        FormatVersionError: If a newer version wrote it.
        StoreUnavailableError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        for entry in self._entries():
            header = entry.get("header")
            if not isinstance(header, dict):
                break
            if header.get("format", 0) > FORMAT_VERSION:
                raise FormatVersionError(
                    f"the journal {path} has format version {header['format']}; this dspy-cachectl reads up to "
                    f"{FORMAT_VERSION}. Upgrade dspy-cachectl to read it; it is left as it is"
                )
            self.header: dict[str, Any] = header
            self.damaged = 0
            return
        raise CorruptEntryError(f"the journal {path} is damaged: it has no header")

    def lines(self) -> Iterator[Line]:
        """Yield what was finished, in the order in which it was."""
        self.damaged = 0
        for entry in self._entries():
            try:
                if "row" in entry:
                    yield Line(row=values.dumps(entry["row"])[0])
                elif "score" in entry:
                    found = entry["score"]
                    place = (str(found["place"][0]), int(found["place"][1]), int(found["place"][2]))
                    yield Line(score=(place, found["metric"], Score(**found["score"]), found["reference"]))
            except (KeyError, TypeError, IndexError):
                self.damaged += 1

    def _entries(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    entry = _checked(line)
                    if entry is None:
                        self.damaged += line != b"\n"
                    else:
                        yield entry
        except OSError as error:
            raise StoreUnavailableError(f"the journal {self.path} cannot be read: {error}") from error


def journals(folder: Path) -> list[Path]:
    """Return the journals of a library, the oldest first."""
    try:
        found = [(path.stat().st_mtime, path) for path in (folder / FOLDER).glob("journal-*.jsonl")]
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def rescored(encoded: bytes, metric: str, score: Score, reference: Mapping[str, Any] | None) -> bytes:
    """Return an encoded row with one more score, and with what is expected now where that changed."""
    row: PredictionRow = rows.decode(encoded)
    scored = replace(row, scores={**row.scores, metric: score})
    return rows.encode(scored if reference is None else replace(scored, reference=reference))


def _checked(line: bytes) -> dict[str, Any] | None:
    if len(line) < _START + 2 or not line.endswith(b"}\n"):
        return None
    body = line[_START:-2]
    if line[:_START] != _LINE % zlib.crc32(body):
        return None
    try:
        entry = values.loads(body, tagged=True)
    except CorruptEntryError:
        return None
    return entry if isinstance(entry, dict) else None
