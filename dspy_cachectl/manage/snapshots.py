"""The kept predictions in a folder: which there are, what is in one, what two differ in, what goes. Without dspy.

Looking changes nothing: a damaged file is named and left where it is. Of what is removed it is named first what goes.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.reading import open_file
from dspy_cachectl.boundary.shown import stands_for
from dspy_cachectl.config import is_objects
from dspy_cachectl.entries import values
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.predictions import snapshot
from dspy_cachectl.predictions.keys import differences
from dspy_cachectl.predictions.library import Chosen, Library
from dspy_cachectl.predictions.places import files_at
from dspy_cachectl.predictions.rows import PredictionRow, decode, loads
from dspy_cachectl.predictions.snapshot import SnapshotInfo
from dspy_cachectl.reports.texts import plural

_NEXT = "the next evaluation that keeps its predictions there does that"
_TAIL = 256 * 1024
_METRICS = b'\n"metrics": '


@dataclass(frozen=True)
class Changed:
    """A question of which two snapshots say different things.

    Attributes:
        question: Its inputs.
        repeat: Which of the repeats.
        before: The fields of the first snapshot's prediction; None where it has none.
        after: The second's.
        scores: The scores of both, by metric's fingerprint, where they differ.
    """

    question: dict[str, Any]
    repeat: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    scores: dict[str, tuple[float | None, float | None]]


@dataclass
class SnapshotDifference:
    """What two snapshots differ in.

    Attributes:
        identity: What the predictions depend on and differs, in words: model, data, program, generation.
        same: How many predictions are alike.
        changed: Those that are not.
        only_before: How many questions only the first answers.
        only_after: How many only the second.
    """

    identity: list[str]
    same: int = 0
    changed: list[Changed] = field(default_factory=list)
    only_before: int = 0
    only_after: int = 0


def snapshots_in(root: str | Path) -> list[SnapshotInfo]:
    """Return the snapshots of a library, the newest first; none where there is no folder. All can be read then.

    Args:
        root: The folder, or the address of an object store.
    """
    files = files_at(root, sets_aside=False)
    return [info for info in files.snapshots() if files.is_here(info)]


def short_name(info: SnapshotInfo) -> str:
    """Return what is enough to name a snapshot: the hash in the name of its file."""
    return info.path.name.rpartition("_")[2].partition(".")[0]


def nothing_in(root: str | Path) -> str:
    """Say that no predictions are kept in a library, and which that is."""
    if is_objects(str(root)) or Path(root).is_dir():
        return f"No predictions are kept in {root}."
    return f"There is no folder {root}, so no predictions are kept there; --predictions names another."


def find(root: str | Path, name: str, *, among: Sequence[SnapshotInfo] | None = None) -> SnapshotInfo:
    """Return the snapshot of a name: its file's, its run's, or the beginning of either or of the file's hash.

    A name may be written as a table shows it in a narrow terminal, with its middle left out.

    Args:
        root: The folder, or the address of an object store.
        name: The name.
        among: Which snapshots of the folder to look at; None for all.

    Raises:
        ConfigurationError: If there is none, or several.
    """
    there = snapshots_in(root) if among is None else among
    exact = [info for info in there if name in {info.path.name, info.run_id, short_name(info)}]
    begins = [
        info
        for info in there
        if any(
            text.startswith(name) or stands_for(name, text)
            for text in (info.path.name, info.run_id, info.path.name.rpartition("_")[2])
        )
    ]
    found = exact or (begins if name else [])
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(info.path.name) for info in (found or there)[:10])
    if found:
        raise ConfigurationError(f"{name!r} may be any of {names}; write more of the name")
    if not there:
        raise ConfigurationError(f"there is no snapshot {name!r}. {nothing_in(root)}")
    texts = [text for info in there for text in (info.path.name, info.run_id)]
    near = question(name, texts) or f"there are {names}"
    raise ConfigurationError(f"no snapshot in {str(root)!r} is called {name!r}; {near}")


def read_rows(path: Path) -> Iterator[PredictionRow]:
    """Yield the rows of a snapshot. Believe none of them before the last has come.

    Raises:
        CorruptEntryError: If it is damaged.
        StoreUnavailableError: If it cannot be read.
    """
    with snapshot.open_snapshot(path) as reader:
        yield from map(decode, reader.rows())


def metrics_of(path: Path) -> dict[str, Any]:
    """Return the metrics of a snapshot, without reading all of it if it is not compressed; {} if it is damaged."""
    with contextlib.suppress(StoreError, OSError, ValueError):
        if snapshot.is_packed(path):
            with snapshot.open_snapshot(path) as reader:
                for line in reader.rows():
                    decode(line)  # of what is no row there could be very many
                return reader.metrics
        with open_file(path, what="the snapshot") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read()
        found = loads(tail[tail.rindex(_METRICS) + len(_METRICS) : -len(b"\n}\n")])
        return {name: value for name, value in found.items() if name != "file"}
    return {}


def diff(one: SnapshotInfo, other: SnapshotInfo) -> SnapshotDifference:
    """Say what two snapshots differ in.

    Raises:
        StoreError: If one of them cannot be read.
    """
    identity = differences(one.key, other.key)
    if one.key.dataset != other.key.dataset:
        identity.append(f"data: {one.key.dataset[:12]} is now {other.key.dataset[:12]}")
    if one.run_id != other.run_id:
        identity.append(f"run: {one.run_id!r} is now {other.run_id!r}")
    before, after = ({row.row_key: row for row in read_rows(info.path)} for info in (one, other))
    found = SnapshotDifference(
        identity,
        only_before=len(before.keys() - after.keys()),
        only_after=len(after.keys() - before.keys()),
    )
    for old, new in ((old, after[key]) for key, old in before.items() if key in after):
        fields = [None if row.output is None else dict(row.output.fields) for row in (old, new)]
        scores = _changed_scores(old, new)
        if scores or _text(fields[0]) != _text(fields[1]):
            found.changed.append(Changed(dict(old.inputs), old.repeat, fields[0], fields[1], scores))
        else:
            found.same += 1
    return found


def scores_of(info: SnapshotInfo) -> dict[str, float]:
    """Return the score of a snapshot by metric, where it is known."""
    found = {}
    for name, value in metrics_of(info.path).items():
        score = value.get("score") if isinstance(value, dict) else value
        if isinstance(score, (int, float)) and not isinstance(score, bool):
            with contextlib.suppress(OverflowError):  # a number that no float holds is no score
                found[name] = float(score)
    return found


def _changed_scores(old: PredictionRow, new: PredictionRow) -> dict[str, tuple[float | None, float | None]]:
    before, after = ({metric: score.score for metric, score in row.scores.items()} for row in (old, new))
    # What only one of them was judged by is no change of the answer.
    both = {metric: (before[metric], after[metric]) for metric in sorted(before.keys() & after.keys())}
    return {metric: scores for metric, scores in both.items() if scores[0] != scores[1]}


def _text(value: Any) -> bytes:
    # As bytes: NaN is not equal to itself, and arrays do not compare.
    return values.dumps(value)[0]


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


def findings(place: str) -> Iterator[tuple[Literal["ok", "warning"], str, str]]:
    """Yield what is found of a library: how it is, in words, and what to do.

    Args:
        place: A folder, or the address of an object store.
    """
    files = files_at(place, sets_aside=False)
    waiting, cut = len(files.waiting()), sum(not one.is_alive for one in files.sessions())
    is_there = True
    try:
        files.ask()
    except StoreError as error:
        is_there = False
        yield "warning", str(error), "until it can be, evaluations go on with what is on this machine"
    if waiting:
        yield "warning", f"{plural(waiting, 'snapshot waits', 'snapshots wait')} to be sent", _NEXT
    if cut:
        yield "warning", f"{plural(cut, 'evaluation was', 'evaluations were')} killed: what they found is kept", _NEXT
    if is_there and not waiting and not cut:
        yield "ok", files.shown, ""


def older_than(age: float) -> Chosen:
    """Choose what has an answer that was drawn longer ago, in seconds, or in a time that lies ahead."""
    moment = time.time()
    return lambda info: info.age - (time.time() - moment) > age


def named(names: Collection[str]) -> Chosen:
    """Choose files by their names."""
    return lambda info: _name(info) in names


def _name(info: SnapshotInfo) -> str | None:
    return info.path.name if info.session is None else None
