"""Which run's predictions an evaluation is served, and why it is not served more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions.files import SnapshotInfo
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey, differences, distance

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


@dataclass(frozen=True)
class Choice:
    """The run whose predictions are served.

    Attributes:
        run_id: The run; a new one where nothing is served and none was named.
        sources: The files that its rows were read from.
    """

    run_id: str
    sources: tuple[SnapshotInfo, ...] = ()


def choose(
    wish: Wish, found: Sequence[SnapshotInfo], index: KeptRows, load: Callable[[SnapshotInfo, KeptRows], bool]
) -> Choice:
    """Choose a run, and load its rows into the index.

    A complete evaluation of the same data comes before one that was not finished, that before evaluations of
    other data sets that share questions, and among equals the newest.

    Args:
        wish: What is wanted.
        found: The files of the library.
        index: Where the rows go.
        load: Puts the rows of a file into the index; tells whether it could.
    """
    base = wish.key.base
    usable = [info for info in found if info.metadata.get("base") == base]
    if wish.run_id is not None:
        mine = [] if wish.forced else [info for info in usable if info.run_id == wish.run_id]
        return Choice(wish.run_id, _load(mine, wish, index, load))
    if wish.forced:
        usable = [info for info in usable if _is_cut_short(info, wish)]
    ranked = sorted(usable, key=lambda info: (-_rank(info, wish), -info.saved))
    for run_id in dict.fromkeys(info.run_id for info in ranked):
        sources = [info for info in usable if info.run_id == run_id]
        if any(info.age > wish.max_age for info in sources):
            continue  # it would be continued with draws that are as old as the rest
        loaded = _load(sources, wish, index, load)
        if index.served(wish.repeats):
            return Choice(run_id, loaded)
        index.clear()
    from dspy_cachectl.context.phases import new_run_id

    return Choice(new_run_id("eval"))


def changes(
    wish: Wish, found: Sequence[SnapshotInfo], chosen: Choice, index: KeptRows, questions: Sequence[Question]
) -> list[str]:
    """Say in words why answers are missing; nothing where none is."""
    wanted, served = len(questions) * wish.repeats, index.served(wish.repeats)
    if served >= wanted:
        return []
    if wish.forced:
        return [
            "recomputed because it was asked for" if not served else "a forced evaluation that was cut is continued"
        ]
    if chosen.sources:
        return _what_is_new(wish, index, questions, served, wanted)
    others = [info for info in found if not info.is_journal]
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


def _what_is_new(wish: Wish, index: KeptRows, questions: Sequence[Question], served: int, wanted: int) -> list[str]:
    lines = []
    new = len(questions) - index.known_questions()
    if new:
        lines.append(f"data: {new} of {len(questions)} questions are new or edited")
    elsewhere = wanted - served - new * wish.repeats
    if elsewhere > 0:
        lines.append(f"repeats: {elsewhere} more answers to questions that were asked before")
    return lines


def _rank(info: SnapshotInfo, wish: Wish) -> int:
    is_exact = info.metadata.get("hash") == wish.key.hash
    return 2 * is_exact + info.is_complete


def _is_cut_short(info: SnapshotInfo, wish: Wish) -> bool:
    facts = info.metadata
    return (
        facts.get("hash") == wish.key.hash
        and bool(facts.get("forced"))
        and not info.is_complete
        and not info.is_journal
    )


def _load(
    sources: Sequence[SnapshotInfo], wish: Wish, index: KeptRows, load: Callable[[SnapshotInfo, KeptRows], bool]
) -> tuple[SnapshotInfo, ...]:
    # The oldest first: what came later is put over it.
    in_time = sorted(sources, key=lambda info: (info.is_journal, info.saved))
    return tuple(info for info in in_time if info.age <= wish.max_age and load(info, index))


def _days(seconds: float) -> str:
    for unit, size in (("days", _DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
