"""The files of a library: finding, reading, setting aside and removing them. No decision about predictions.

A library may lie in a folder of the user's, among other files: ours are those that have our name and begin as ours do,
and what is in our own hidden folder. No other file is ever counted, renamed, written over or removed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary import ownership
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.context.process import state
from dspy_cachectl.errors import CorruptEntryError, StoreError
from dspy_cachectl.predictions import snapshot
from dspy_cachectl.predictions.growing import Growth
from dspy_cachectl.predictions.journal import Journal
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.snapshot import SnapshotInfo, size_of


class SnapshotFiles:
    """The files of a library's folder.

    Args:
        root: The folder.
        sets_aside: Whether damaged files are given another name; otherwise they are only left out.

    Attributes:
        root: The folder.
        shown: Where the library is, for people.
        journal: Its journal.
    """

    def __init__(self, root: Path, *, sets_aside: bool = True) -> None:
        self.root, self.shown = root, str(root)
        self.journal = Journal(root)
        self._sets_aside = sets_aside

    def is_there(self) -> bool:
        """Tell whether there may be anything."""
        return self.root.exists()

    def is_here(self, info: SnapshotInfo) -> bool:  # noqa: ARG002 - all are
        """Tell whether a snapshot can be read where it says that it is; see to it that it can."""
        return True

    def earlier(self, path: Path) -> Iterator[tuple[Path, list[str]]]:
        """Yield what has to be merged into what is written to a path, each with the parts of which it has all rows."""
        if path.exists():
            yield path, []

    def written(self) -> None:
        """Note that a snapshot was written."""

    def growth_of(self, header: Callable[[], dict[str, Any]], rows: KeptRows) -> Growth | None:  # noqa: ARG002
        """Return what sends the rows of a session while it lasts; None where nothing is sent."""
        return None

    def wait(self, limit: float) -> int:  # noqa: ARG002 - a folder has nothing to wait for
        """Wait until what was written is where others find it. Return how many snapshots are not."""
        return 0

    def snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots that can be read, the newest first."""
        found = (self._readable(path) for path in self._named(damaged=False))
        return sorted((info for info in found if info is not None), key=lambda info: -info.recency)

    def sessions(self) -> list[SnapshotInfo]:
        """Return what the journal says; nothing where it cannot be read, which is said once."""
        for path in self.journal.of_newer_versions():
            say(path, f"the journal {path} is of a newer dspy-cachectl; it is left as it is, and not served")
        try:
            return self.journal.sessions()
        except StoreError as error:
            say(self.journal.path, f"{error}. What is in it is not served")
            return []

    def load(self, info: SnapshotInfo, index: KeptRows) -> bool:
        """Put the rows of a file into an index: all of them, or none where the file is damaged. Tell which."""
        try:
            if not self.is_here(info):
                return False
            if info.session is None:
                return self.load_snapshot(info.path, index) is not None
            self.load_session(info.session, index)
        except StoreError as error:
            say(info.path, f"{error}; it is left out")
            return False
        return True

    def load_snapshot(self, path: Path, index: KeptRows, *, over: bool = True) -> dict[str, Any] | None:
        """Put the rows of a snapshot into an index, and return what was found of them; None where it was set aside.

        Args:
            path: The snapshot.
            index: Where its rows go.
            over: Whether they take the place of those that are there.

        Raises:
            StoreUnavailableError: If it cannot be read.
        """
        try:
            with index.all_or_nothing(), snapshot.open_snapshot(path) as reader:
                for row in reader.rows():
                    index.put(row, over=over)
        except CorruptEntryError as error:
            self.set_aside(path, error)
            return None
        return reader.metrics

    def load_session(self, session: str, index: KeptRows) -> None:
        """Put what a session has finished into an index; damaged rows are left out. Raises the `StoreError` family."""
        for row in self.journal.rows(session):
            try:
                index.put(row)
            except CorruptEntryError as error:
                say(self.journal.path, f"in the journal {self.journal.path} {error}; such rows are left out")

    def set_aside(self, path: Path, error: CorruptEntryError) -> None:
        """Take a damaged snapshot out of use, and say so once. It is kept beside for people to look at."""
        aside = path.with_name(path.name + ownership.DAMAGED)
        is_free = not ownership.is_there(aside) or ownership.is_snapshot(aside)
        try:
            if not (self._sets_aside and is_free and ownership.is_snapshot(path)):
                raise PermissionError
            path.replace(aside)
        except OSError:  # or a folder that cannot be written
            say(path, f"{error}; it is left out")
        else:
            say(path, f"{error}. It is set aside as {aside.name}, and its predictions are computed again")

    def waiting(self) -> list[str]:
        """Return the names of the snapshots that are to be elsewhere and are not yet."""
        return []

    def ask(self) -> None:
        """Ask the server, where there is one. Raises `StoreUnavailableError`."""

    def to_check(self) -> Iterator[tuple[Path, str | None]]:
        """Yield where each snapshot is, or is when it was fetched, and the part that it is; see `fetch`."""
        return ((path, None) for path in self.files())

    def fetch(self, part: str) -> None:
        """Fetch a part, and check it against its hash. Raises `CorruptEntryError` and `StoreUnavailableError`."""

    def to_rewrite(self) -> Iterator[tuple[Path, Path, list[str]]]:
        """Yield each snapshot here, where it is to be written anew, and the parts that this replaces."""
        return ((path, path, []) for path in list(self.files()))

    def parts_to_rewrite(self) -> Iterator[tuple[Path, Path, list[str]]]:
        """Yield the same of each part in an object store; nobody on this machine waits for it."""
        return iter(())

    def usage(self) -> int:
        """Return how many bytes the snapshots take up, the damaged ones too."""
        return sum(map(size_of, filter(ownership.is_plain_file, (*self.files(), *self.files(damaged=True)))))

    def remove(self, paths: Iterable[Path]) -> list[Path]:
        """Remove files, as far as they are ours. Return those that went."""
        gone = []
        for path in paths:
            with contextlib.suppress(OSError):
                if ownership.is_snapshot(path) or ownership.is_unfinished_snapshot(path):
                    path.unlink()
                    gone.append(path)
        return gone

    def over_limits(self, used: set[str], *, max_age: float, max_bytes: int) -> list[Path]:
        """Return what is too old, and the oldest of what is more than the library may hold.

        Args:
            used: The names of files that stay.
            max_age: In seconds.
            max_bytes: How much it may hold.
        """
        ages = {info.path: info.age for info in self.snapshots() if ownership.is_plain_file(info.path)}
        ages |= {path: age_of(path.stat().st_mtime) for path in self.files(damaged=True)}
        # What a newer version keeps here is not removed, and makes no room scarce either.
        total, over = sum(map(size_of, ages)), []
        for path, age in sorted(ages.items(), key=lambda item: -item[1]):
            # One of a wrong clock is not served, and may be of today all the same.
            is_old = max_age < age < math.inf
            if path.name not in used and (is_old or total > max_bytes):
                over.append(path)
                total -= size_of(path)
        return over

    def in_use(self) -> set[str]:
        """Return the names of the files that living sessions read or will write."""
        living = [one.metadata for one in self.sessions() if one.is_alive]
        return {str(name) for header in living for name in (*header.get("using", ()), header.get("file", ""))}

    def files(self, *, damaged: bool = False) -> Iterator[Path]:
        """Yield the snapshots, and links to some, or the damaged ones that were set aside."""
        for path in self._named(damaged=damaged):
            if ownership.is_snapshot(path, through_links=not damaged):
                yield path

    def removable(self) -> Iterator[Path]:
        """Yield every file of snapshots that may be removed: damaged ones too, and none of a newer version."""
        for path in filter(ownership.is_plain_file, (*self.files(), *self.files(damaged=True))):
            try:
                snapshot.read_info(path)
            except CorruptEntryError:
                pass
            except StoreError:
                continue
            yield path

    def _named(self, *, damaged: bool) -> Iterator[Path]:
        """Yield what has the name of a snapshot, whosever it is."""
        with contextlib.suppress(OSError):  # what is no folder has none
            for path in sorted(self.root.iterdir()):
                name = ownership.SNAPSHOT_NAME.fullmatch(path.name)
                if name is not None and bool(name["damaged"]) == damaged:
                    yield path

    def _readable(self, path: Path) -> SnapshotInfo | None:
        try:
            return snapshot.read_info(path)
        except StoreError as error:
            if not ownership.is_snapshot(path, through_links=True):
                return None  # it is somebody else's, or went meanwhile
            if isinstance(error, CorruptEntryError):
                self.set_aside(path, error)
            else:
                say(path, f"{error}; it is left out")
        return None


def say(path: Path, message: str) -> None:
    """Say something of a file, once."""
    state.say_once(f"predictions:{path}", message)
