"""The files of a library: finding, reading, setting aside and removing them. No decision about predictions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_cachectl.context.process import state
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.predictions import journal, locks, snapshot
from dspy_cachectl.predictions.journal import JournalReader
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey

LOCK = ".lock"
DAMAGED = ".damaged"


@dataclass(frozen=True)
class SnapshotInfo:
    """A file of the library.

    Attributes:
        path: Where it is.
        metadata: What its rows are predictions of.
        bytes: Its size.
        rows: How many rows it has; 0 for a journal, whose rows are not counted.
        age: Seconds since its oldest answer was drawn.
        saved: When it was written, in Unix seconds.
        is_journal: Whether it is the journal of a session that has not finished.
    """

    path: Path
    metadata: dict[str, Any]
    bytes: int
    rows: int
    age: float
    saved: float
    is_journal: bool = False

    @property
    def key(self) -> SnapshotKey:
        """What its predictions depend on."""
        return SnapshotKey.from_dict(self.metadata["key"])

    @property
    def run_id(self) -> str:
        """The run that its predictions are draws of."""
        return str(self.metadata["run_id"])

    @property
    def is_complete(self) -> bool:
        """Whether the evaluation that wrote it came to its end."""
        return bool(self.metadata.get("complete"))


class SnapshotFiles:
    """The files of a library's folder.

    Args:
        root: The folder.
        sets_aside: Whether damaged files are given another name; otherwise they are only left out.
    """

    def __init__(self, root: Path, *, sets_aside: bool = True) -> None:
        self.root = root
        self._sets_aside = sets_aside
        self._distrusted: set[Path] = set()

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots that can be read, the newest first."""
        found = (self._info(path) for path in self.files())
        return sorted((info for info in found if info is not None), key=lambda info: -info.saved)

    def journals(self) -> list[SnapshotInfo]:
        """Return the journals that can be read, of living and of dead sessions, the newest first."""
        found = (self._journal_info(path) for path in journal.journals(self.root))
        return sorted((info for info in found if info is not None), key=lambda info: -info.saved)

    def load(self, info: SnapshotInfo, index: KeptRows) -> bool:
        """Put the rows of a file into an index: all of them, or none where the file is damaged. Tell which."""
        try:
            if info.is_journal:
                load_journal(JournalReader(info.path), index)
                return True
            with index.all_or_nothing(), snapshot.open_snapshot(info.path) as reader:
                for row in reader.rows():
                    index.put(row)
        except CorruptEntryError as error:
            self.set_aside(info.path, error)
            return False
        except StoreError as error:
            _say(info.path, f"{error}; it is left out")
            return False
        return True

    def set_aside(self, path: Path, error: CorruptEntryError) -> None:
        """Take a damaged file out of use, and say so once. It is kept beside for people to look at."""
        if not self._sets_aside:
            self._distrusted.add(path)
            _say(path, f"{error}; it is left out")
            return
        aside = path.with_name(path.name + DAMAGED)
        try:
            path.replace(aside)
        except OSError:
            self._distrusted.add(path)  # a folder that cannot be written: it is left out in this process
        _say(path, f"{error}. It is set aside as {aside.name}, and its predictions are computed again")

    def usage(self) -> int:
        """Return how many bytes the folder takes up."""
        return sum(size for _, size, _ in self.all_files())

    def all_files(self) -> Iterator[tuple[Path, int, float]]:
        """Yield every file in the folder with its size in bytes and when it was written."""
        for path in [*self.root.glob("*"), *(self.root / journal.FOLDER).glob("*")]:
            with contextlib.suppress(OSError):  # it went meanwhile
                if path.is_file():
                    facts = path.stat()
                    yield path, facts.st_size, facts.st_mtime

    def remove(self, paths: list[Path]) -> list[Path]:
        """Remove files. Return those that went."""
        gone = []
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink()
                gone.append(path)
        return gone

    def in_use(self) -> set[str]:
        """Return the names of the files that living sessions read or will write."""
        return {
            str(name)
            for info in self.journals()
            if locks.is_in_use(info.path)
            for name in (*info.metadata.get("using", ()), info.metadata.get("file", ""))
        }

    def files(self) -> Iterator[Path]:
        """Yield the files that have the name of a snapshot."""
        for pattern in (f"*{snapshot.PLAIN}", f"*{snapshot.PACKED}"):
            for path in self.root.glob(pattern):
                if not path.name.startswith(".") and path not in self._distrusted:
                    yield path

    def _info(self, path: Path) -> SnapshotInfo | None:
        def read() -> SnapshotInfo:
            metadata = snapshot.read_metadata(path)
            _key_of(path, metadata)
            return SnapshotInfo(
                path=path,
                metadata=metadata,
                bytes=path.stat().st_size,
                rows=int(metadata["rows"]),
                age=max(0.0, time.time() - float(metadata["oldest"])),
                saved=float(metadata["saved"]),
            )

        return self._readable(path, read)

    def _journal_info(self, path: Path) -> SnapshotInfo | None:
        def read() -> SnapshotInfo:
            header = JournalReader(path).header
            _key_of(path, header)
            facts = path.stat()
            return SnapshotInfo(
                path=path,
                metadata=header,
                bytes=facts.st_size,
                rows=0,
                age=max(0.0, time.time() - float(header["started"])),
                saved=facts.st_mtime,
                is_journal=True,
            )

        return self._readable(path, read)

    def _readable(self, path: Path, read: Callable[[], SnapshotInfo]) -> SnapshotInfo | None:
        try:
            return read()
        except FormatVersionError as error:
            _say(path, str(error))
        except CorruptEntryError as error:
            if path.exists() and not (path.suffix == ".jsonl" and locks.is_in_use(path)):
                self.set_aside(path, error)
        except (KeyError, TypeError, ValueError) as error:
            self.set_aside(path, CorruptEntryError(f"the metadata of {path} are not those of a snapshot: {error!r}"))
        except FileNotFoundError:
            return None  # it went meanwhile
        except StoreError as error:
            if path.exists():
                _say(path, f"{error}; it is left out")
        return None


def load_journal(reader: JournalReader, index: KeptRows) -> None:
    """Put what a journal holds into an index; damaged lines are left out and said once."""
    for line in reader.lines():
        if line.row is not None:
            index.put(line.row)
        elif line.score is not None:
            place, metric, score, reference = line.score
            encoded = index.get(place)
            if encoded is not None:
                index.replace(place, journal.rescored(encoded, metric, score, reference))
    if reader.damaged > 1:  # the last line of a killed process is expected to be cut
        _say(reader.path, f"{reader.damaged} lines of the journal {reader.path} are damaged and were left out")


def _key_of(path: Path, metadata: dict[str, Any]) -> SnapshotKey:
    try:
        return SnapshotKey.from_dict(metadata["key"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptEntryError(f"the metadata of {path} are not those of a snapshot: {error!r}") from error


def _say(path: Path, message: str) -> None:
    state.say_once(f"predictions:{path}", message)
