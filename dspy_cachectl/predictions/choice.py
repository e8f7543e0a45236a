"""Which run's predictions an evaluation is served, and why it is not served more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey, differences, distance, is_near
from dspy_cachectl.predictions.snapshot import SnapshotInfo

Load = Callable[[SnapshotInfo, KeptRows], bool]
"""Puts the rows of a file into an index, and tells whether it could."""

_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Wish:
    """What an evaluation wants to be served.

    Attributes:
        key: What its predictions depend on.
        run_id: The run that it names, or None.
        max_age: How old an answer may be, in seconds.
        forced: Whether everything is to be drawn anew.
        repeats: How many answers to each question it wants.
    """

    key: SnapshotKey
    run_id: str | None
    max_age: float
    forced: bool
    repeats: int


@dataclass
class Choice:
    """A run, and what was read of it.

    Attributes:
        rows: Its rows.
        run_id: The run; empty until one is chosen.
        sources: The files that the rows were read from.
        damaged: Those that could not be read, of whichever run.
    """

    rows: KeptRows
    run_id: str = ""
    sources: tuple[SnapshotInfo, ...] = ()
    damaged: list[SnapshotInfo] = field(default_factory=list)

    def read(self, run_id: str, files: Sequence[SnapshotInfo], load: Load) -> None:
        """Take a run in place of the one before, with the rows of these files."""
        self.rows.clear()
        # The oldest first: what came later is put over it.
        there = [info for info in sorted(files, key=_in_time) if info not in self.damaged]
        self.run_id, self.sources = run_id, tuple(info for info in there if load(info, self.rows))
        self.damaged += [info for info in there if info not in self.sources]


def choose(wish: Wish, found: Sequence[SnapshotInfo], rows: KeptRows, load: Load) -> Choice:
    """Choose a run, and load its rows into the index.

    A complete evaluation of the same data comes before one that was not finished, that before evaluations of
    other data sets that share questions, and among equals the newest; but where the newest has fewer repeats than are
    wanted, the newest that has them, if nothing was drawn anew by force since. One of which only errors are kept comes
    last: what was paid for and came too late is resumed.

    Args:
        wish: What is wanted.
        found: The files of the library.
        rows: Where the rows go.
        load: Puts the rows of a file into the index; tells whether it could.

    Returns:
        The choice: a new run where nothing is there and none was named.
    """
    usable = [info for info in found if _base(info) == wish.key.base]
    choice = Choice(rows)
    if wish.run_id is not None:
        named = [info for info in usable if info.run_id == wish.run_id and info.age <= wish.max_age]
        choice.read(wish.run_id, [] if wish.forced else named, load)
        return choice
    if wish.forced:
        cut = [info for info in usable if info.session is None and not info.is_complete]
        usable = [info for info in cut if info.metadata.get("forced") and _is_exact(info, wish.key)]
    for is_enough in (rows.served, rows.failed):
        for run_id, files in _candidates(wish, usable):
            choice.read(run_id, files, load)
            if is_enough(wish.repeats):
                return choice
    from dspy_cachectl.context.phases import new_run_id

    choice.read(new_run_id("eval"), [], load)
    return choice


def _candidates(wish: Wish, usable: Sequence[SnapshotInfo]) -> Iterator[tuple[str, list[SnapshotInfo]]]:
    """Yield the runs, the best first, with their files."""
    whole = [info for info in usable if info.is_complete and _is_exact(info, wish.key)]
    forced = max((info.recency for info in whole if info.metadata.get("forced")), default=-math.inf)
    enough = {info.path for info in whole if info.recency >= forced and _has(wish.repeats, info)}

    def rank(info: SnapshotInfo) -> tuple[float, ...]:
        return -2 * _is_exact(info, wish.key) - info.is_complete, info.path not in enough, -info.recency

    ranked = sorted(usable, key=rank)
    for run_id in dict.fromkeys(info.run_id for info in ranked):
        files = [info for info in usable if info.run_id == run_id]
        # One that is too old would be continued with draws that are as old as the rest.
        if all(info.age <= wish.max_age for info in files):
            yield run_id, files


def _has(repeats: int, info: SnapshotInfo) -> bool:
    kept = info.metadata.get("repeats")
    return isinstance(kept, int) and kept >= repeats


def _in_time(info: SnapshotInfo) -> tuple[bool, float]:
    return info.session is not None, info.recency


def changes(wish: Wish, found: Sequence[SnapshotInfo], choice: Choice, questions: int) -> list[str]:
    """Say in words why answers are missing; nothing where none is, or none was kept of this program or these data.

    Args:
        wish: What is wanted.
        found: The files of the library.
        choice: What was chosen of them.
        questions: How many questions there are.
    """
    rows, sources = choice.rows, choice.sources
    if rows.served(wish.repeats) >= questions * wish.repeats:
        return []
    if wish.forced:
        return ["a forced evaluation that was cut is continued" if sources else "recomputed because it was asked for"]
    if sources:
        return _what_is_new(rows, questions, wish.repeats, [info for info in sources if _is_exact(info, wish.key)])
    others = [info for info in found if info.session is None and is_near(info.key, wish.key)]
    if not others:
        return []
    nearest = min(others, key=lambda info: (distance(info.key, wish.key), -info.recency))
    lines = differences(nearest.key, wish.key)
    age = max(info.age for info in found if info.run_id == nearest.run_id and _base(info) == _base(nearest))
    if age > wish.max_age and wish.run_id in {None, nearest.run_id}:
        how_old = f"{_days(age)} old," if math.isfinite(age) else "of a time that lies ahead, and may be"
        return [*lines, f"age: the predictions are {how_old} more than {_days(wish.max_age)}"]
    return lines or [_why_none(wish, nearest, choice)]


def _why_none(wish: Wish, nearest: SnapshotInfo, choice: Choice) -> str:
    """Say why nothing of the nearest was served, though it is of the same model, program and settings."""
    if any(info.path == nearest.path for info in choice.damaged):
        return f"damaged: {nearest.path.name} could not be read"
    if _base(nearest) != wish.key.base:
        return "version: they were kept by a dspy-cachectl that told programs and models apart differently"
    if wish.run_id is not None and nearest.run_id != wish.run_id:
        return f"run: {wish.run_id!r} has no predictions; the newest are of {nearest.run_id!r}"
    if nearest.key.dataset != wish.key.dataset:
        return "data: none of the questions was asked before"
    return "answers: none was kept"


def _what_is_new(rows: KeptRows, questions: int, repeats: int, exact: list[SnapshotInfo]) -> list[str]:
    served, failed, wanted = rows.served(repeats), rows.failed(repeats), questions * repeats
    lines = [f"errors: {failed} of {wanted} answers failed before"] if failed else []
    new = questions - rows.known_questions()
    if exact and (new or not all(info.is_complete for info in exact)):
        # Of the same data nothing is new: what has no answer was not asked, because the evaluation was cut.
        return [*lines, f"answers: {served} of {wanted} were answered before"]
    if new:
        lines.append(f"data: {new} of {questions} questions are new or edited")
    elsewhere = wanted - served - failed - new * repeats
    if elsewhere > 0:
        lines.append(f"repeats: {elsewhere} more answers to questions that were asked before")
    return lines


def _base(info: SnapshotInfo) -> Any:
    return info.metadata.get("base")


def _is_exact(info: SnapshotInfo, key: SnapshotKey) -> bool:
    return bool(info.metadata.get("hash") == key.hash)


def _days(seconds: float) -> str:
    for unit, size in (("days", _DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
