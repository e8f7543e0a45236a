"""Which run's predictions an evaluation is served, and why it is not served more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey, differences, distance
from dspy_cachectl.predictions.snapshot import SnapshotInfo

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


def choose(
    wish: Wish, found: Sequence[SnapshotInfo], rows: KeptRows, load: Callable[[SnapshotInfo, KeptRows], bool]
) -> tuple[str, tuple[SnapshotInfo, ...]]:
    """Choose a run, and load its rows into the index.

    A complete evaluation of the same data comes before one that was not finished, that before evaluations of
    other data sets that share questions, and among equals the newest.

    Args:
        wish: What is wanted.
        found: The files of the library.
        rows: Where the rows go.
        load: Puts the rows of a file into the index; tells whether it could.

    Returns:
        The run, a new one where nothing is served and none was named; and the files that its rows were read from.
    """

    def loaded(sources: Sequence[SnapshotInfo]) -> tuple[SnapshotInfo, ...]:
        # The oldest first: what came later is put over it.
        in_time = sorted(sources, key=lambda info: (info.session is not None, info.saved))
        return tuple(info for info in in_time if info.age <= wish.max_age and load(info, rows))

    usable = [info for info in found if info.metadata.get("base") == wish.key.base]
    if wish.run_id is not None:
        return wish.run_id, loaded([] if wish.forced else [info for info in usable if info.run_id == wish.run_id])
    if wish.forced:
        cut = [info for info in usable if info.session is None and not info.is_complete]
        usable = [info for info in cut if info.metadata.get("forced") and _is_exact(info, wish.key)]
    ranked = sorted(usable, key=lambda info: (-2 * _is_exact(info, wish.key) - info.is_complete, -info.saved))
    for candidate in dict.fromkeys(info.run_id for info in ranked):
        sources = [info for info in usable if info.run_id == candidate]
        if any(info.age > wish.max_age for info in sources):
            continue  # it would be continued with draws that are as old as the rest
        kept = loaded(sources)
        if rows.served(wish.repeats):
            return candidate, kept
        rows.clear()
    from dspy_cachectl.context.phases import new_run_id

    return new_run_id("eval"), ()


def changes(
    wish: Wish, found: Sequence[SnapshotInfo], sources: Sequence[SnapshotInfo], rows: KeptRows, questions: int
) -> list[str]:
    """Say in words why answers are missing; nothing where none is.

    Args:
        wish: What is wanted.
        found: The files of the library.
        sources: The files that the rows were read from.
        rows: The rows that are served.
        questions: How many questions there are.
    """
    served = rows.served(wish.repeats)
    if served >= questions * wish.repeats:
        return []
    if wish.forced:
        return ["a forced evaluation that was cut is continued" if served else "recomputed because it was asked for"]
    if sources:
        return _what_is_new(rows, questions, wish.repeats, [info for info in sources if _is_exact(info, wish.key)])
    others = [info for info in found if info.session is None]
    if not others:
        return []
    nearest = min(others, key=lambda info: (distance(info.key, wish.key), -info.saved))
    lines = differences(nearest.key, wish.key)
    if not lines and nearest.key.dataset != wish.key.dataset and nearest.age <= wish.max_age:
        lines.append("data: none of the questions was asked before")
    if not lines and wish.run_id is not None and nearest.run_id != wish.run_id:
        lines.append(f"run: {wish.run_id!r} has no predictions; the newest are of {nearest.run_id!r}")
    if nearest.age > wish.max_age:
        lines.append(f"age: the predictions are {_days(nearest.age)} old, more than {_days(wish.max_age)}")
    return lines or ["the kept predictions could not be used: all of them are errors, or damaged"]


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


def _is_exact(info: SnapshotInfo, key: SnapshotKey) -> bool:
    return bool(info.metadata.get("hash") == key.hash)


def _days(seconds: float) -> str:
    for unit, size in (("days", _DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
