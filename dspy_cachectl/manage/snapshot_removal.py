"""Removing kept predictions: what goes is named first. Without dspy."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dspy_cachectl.predictions.library import Chosen, Library
from dspy_cachectl.predictions.snapshot import SnapshotInfo
from dspy_cachectl.reports.texts import plural


@dataclass(frozen=True)
class SnapshotRemoval:
    """What a removal takes with it.

    Attributes:
        folder: Where it is.
        files: The files.
        remove: Removes it and returns the files that went: one that a living evaluation uses stays. Raises
            `StoreUnavailableError` where the folder cannot be written.
        unfinished: Of how many killed evaluations what they had finished goes.
    """

    folder: Path
    files: list[Path]
    remove: Callable[[], list[Path]]
    unfinished: int = 0

    def __bool__(self) -> bool:
        """Whether anything goes."""
        return bool(self.files or self.unfinished)

    def lines(self) -> Iterator[str]:
        """Yield what goes, for people."""
        yield from (path.name for path in self.files)
        if self.unfinished:
            yield f"what {plural(self.unfinished, 'killed evaluation')} had finished"

    def __str__(self) -> str:
        also = f" and what {plural(self.unfinished, 'killed evaluation')} had finished" if self.unfinished else ""
        return f"{plural(len(self.files), 'file')} of predictions{also}"


def plan(library: Library, chosen: Chosen | None = None) -> SnapshotRemoval:
    """Return what would go of a library: everything, or what is chosen."""
    remove = functools.partial(library.clear, chosen)
    return SnapshotRemoval(library.root, library.clearable(chosen), remove, library.unfinished(chosen))


def plan_pruning(library: Library) -> SnapshotRemoval:
    """Return what would go by a library's own limits: what is too old, and the oldest of what is too much."""
    return SnapshotRemoval(library.root, library.expired(), library.prune)


def older_than(age: float) -> Chosen:
    """Choose what has an answer that was drawn longer ago, in seconds, or in a time that lies ahead."""
    moment = time.time()
    return lambda info: info.age - (time.time() - moment) > age


def named(names: Collection[str]) -> Chosen:
    """Choose files by their names."""
    return lambda info: _name(info) in names


def _name(info: SnapshotInfo) -> str | None:
    return info.path.name if info.session is None else None
