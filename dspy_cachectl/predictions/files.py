"""The files of a library: finding, reading, setting aside and removing them. No decision about predictions.

A library may lie in a folder of the user's, among other files: ours are those that have our name and begin as ours do,
and what is in our own hidden folder. No other file is ever counted, renamed, written over or removed.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_cachectl.context.process import state
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.predictions import snapshot
from dspy_cachectl.predictions.journal import Journal, Unfinished
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.snapshot import FOLDER

DAMAGED = ".damaged"

_NAME = re.compile(r"[a-z0-9-]{1,60}_[0-9a-f]{16}(-\d+)?\.json(\.zst)?(?P<damaged>\.damaged)?")


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot of the library, or a session that has not finished.

    Attributes:
        path: Where it is.
        metadata: What its rows are predictions of.
        bytes: Its size.
        rows: How many rows it has; 0 for a session, whose rows are not counted.
        age: Seconds since its oldest answer was drawn.
        saved: When it was written, in Unix seconds.
        session: The session's name in the journal; None for a snapshot.
    """

    path: Path
    metadata: dict[str, Any]
    bytes: int
    rows: int
    age: float
    saved: float
    session: str | None = None

    @property
    def key(self) -> SnapshotKey:
        """What its predictions depend on."""
        return SnapshotKey.from_dict(self.metadata["key"])

    @property
    def program(self) -> str:
        """The class of the program, or the beginning of its hash where that is DSPy's own."""
        sources = (name.partition(":")[2] for name in self.key.program.parts if name.startswith("source:"))
        return next(sources, self.key.program.hash[:12])

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
        self.journal = Journal(root)
        self._sets_aside = sets_aside
        self._distrusted: set[Path] = set()

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots that can be read, the newest first."""
        found = (self._readable(path) for path in self.files())
        return sorted((info for info in found if info is not None), key=lambda info: -info.saved)

    def unfinished(self) -> list[SnapshotInfo]:
        """Return the sessions that have not finished, of living and of dead processes, the newest first."""
        path, now = self.journal.path, time.time()
        return [
            SnapshotInfo(path, one.header, 0, 0, max(0.0, now - one.started), one.started, session=one.id)
            for one in sorted(self.sessions(), key=lambda one: -one.started)
            if "key" in one.header
        ]

    def sessions(self) -> list[Unfinished]:
        """Return what the journal says; nothing where it cannot be read, which is said once."""
        for path in self.journal.of_newer_versions():
            _say(path, f"the journal {path} is of a newer dspy-cachectl; it is left as it is, and not served")
        try:
            return self.journal.sessions()
        except StoreError as error:
            _say(self.journal.path, f"{error}. What is in it is not served")
            return []

    def load(self, info: SnapshotInfo, index: KeptRows) -> bool:
        """Put the rows of a file into an index: all of them, or none where the file is damaged. Tell which."""
        try:
            if info.session is not None:
                self.load_session(info.session, index)
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

    def load_session(self, session: str, index: KeptRows) -> None:
        """Put what a session has finished into an index; damaged rows are left out. Raises the `StoreError` family."""
        for row in self.journal.rows(session):
            try:
                index.put(row)
            except CorruptEntryError as error:
                _say(self.journal.path, f"in the journal {self.journal.path} {error}; such rows are left out")

    def set_aside(self, path: Path, error: CorruptEntryError) -> None:
        """Take a damaged snapshot out of use, and say so once. It is kept beside for people to look at."""
        aside = path.with_name(path.name + DAMAGED)
        try:
            if not self._sets_aside or (aside.exists() and not is_ours(aside)):
                raise PermissionError
            path.replace(aside)
        except OSError:
            self._distrusted.add(path)  # or a folder that cannot be written: it is left out in this process
            _say(path, f"{error}; it is left out")
        else:
            _say(path, f"{error}. It is set aside as {aside.name}, and its predictions are computed again")

    def usage(self) -> int:
        """Return how many bytes the snapshots take up, the damaged ones too."""
        return sum(size_of(path) for path in (*self.files(), *self.files(damaged=True)))

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
        living = [one.header for one in self.sessions() if one.is_alive]
        return {str(name) for header in living for name in (*header.get("using", ()), header.get("file", ""))}

    def files(self, *, damaged: bool = False) -> Iterator[Path]:
        """Yield the snapshots, or the damaged ones that were set aside: by their names, and by how they begin."""
        for path in [*self.root.glob("*")]:
            name = _NAME.fullmatch(path.name)
            is_wanted = name is not None and damaged == bool(name["damaged"]) and path not in self._distrusted
            if is_wanted and is_ours(path):
                yield path

    def unfinished_writes(self) -> list[Path]:
        """Return what was left half written. Snapshots are only written by who has the library's lock."""
        return [*(self.root / FOLDER).glob(f"*{snapshot.UNFINISHED}")]

    def _readable(self, path: Path) -> SnapshotInfo | None:
        try:
            info = _snapshot_info(path)
            _ = info.key
        except FormatVersionError as error:
            _say(path, f"{error}, and its predictions are computed again")
        except CorruptEntryError as error:
            self.set_aside(path, error)
        except (KeyError, TypeError, ValueError) as error:
            self.set_aside(path, CorruptEntryError(f"the metadata of {path} are not those of a snapshot: {error!r}"))
        except (StoreError, OSError) as error:
            if path.exists():  # or it went meanwhile
                _say(path, f"{error}; it is left out")
        else:
            return info
        return None


def is_ours(path: Path) -> bool:
    """Tell whether a file is a snapshot, damaged or not."""
    return path.is_file() and snapshot.has_our_head(path)


def size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 for one that went meanwhile."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _snapshot_info(path: Path) -> SnapshotInfo:
    metadata = snapshot.read_metadata(path)
    return SnapshotInfo(
        path=path,
        metadata=metadata,
        bytes=path.stat().st_size,
        rows=int(metadata["rows"]),
        age=max(0.0, time.time() - float(metadata["oldest"])),
        saved=float(metadata["saved"]),
    )


def _say(path: Path, message: str) -> None:
    state.say_once(f"predictions:{path}", message)
