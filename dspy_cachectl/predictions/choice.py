"""Which run's predictions an evaluation is served, and why it is not served more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dspy_cachectl.predictions.files import SnapshotInfo
from dspy_cachectl.predictions.kept_rows import KeptRows
from dspy_cachectl.predictions.keys import SnapshotKey, differences, distance

_DAY = 24 * 3600.0

Load = Callable[[SnapshotInfo, KeptRows], bool]


def choose(
    key: SnapshotKey,
    found: Sequence[SnapshotInfo],
    rows: KeptRows,
    load: Load,
    *,
    run_id: str | None,
    max_age: float,
    forced: bool,
    repeats: int,
) -> tuple[str, tuple[SnapshotInfo, ...]]:
    """Choose a run, and load its rows into the index.

    A complete evaluation of the same data comes before one that was not finished, that before evaluations of
    other data sets that share questions, and among equals the newest.

    Args:
        key: What the predictions depend on.
        found: The files of the library.
        rows: Where the rows go.
        load: Puts the rows of a file into the index; tells whether it could.
        run_id: The run that the evaluation names, or None.
        max_age: How old an answer may be, in seconds.
        forced: Whether everything is to be drawn anew.
        repeats: How many answers to each question are wanted.

    Returns:
        The run, a new one where nothing is served and none was named; and the files that its rows were read from.
    """

    def loaded(sources: Sequence[SnapshotInfo]) -> tuple[SnapshotInfo, ...]:
        # The oldest first: what came later is put over it.
        in_time = sorted(sources, key=lambda info: (info.session is not None, info.saved))
        return tuple(info for info in in_time if info.age <= max_age and load(info, rows))

    usable = [info for info in found if info.metadata.get("base") == key.base]
    if run_id is not None:
        return run_id, loaded([] if forced else [info for info in usable if info.run_id == run_id])
    if forced:
        usable = [info for info in usable if _is_cut_short(info, key)]
    ranked = sorted(usable, key=lambda info: (-2 * _is_exact(info, key) - info.is_complete, -info.saved))
    for candidate in dict.fromkeys(info.run_id for info in ranked):
        sources = [info for info in usable if info.run_id == candidate]
        if any(info.age > max_age for info in sources):
            continue  # it would be continued with draws that are as old as the rest
        kept = loaded(sources)
        if rows.served(repeats):
            return candidate, kept
        rows.clear()
    from dspy_cachectl.context.phases import new_run_id

    return new_run_id("eval"), ()


def changes(
    key: SnapshotKey,
    found: Sequence[SnapshotInfo],
    sources: Sequence[SnapshotInfo],
    rows: KeptRows,
    questions: int,
    *,
    run_id: str | None,
    max_age: float,
    forced: bool,
    repeats: int,
) -> list[str]:
    """Say in words why answers are missing; nothing where none is. The arguments are those of `choose`.

    Args:
        key: As above; likewise `found` and `rows`.
        found: The files of the library.
        sources: The files that the rows were read from.
        rows: The rows that are served.
        questions: How many questions there are.
        run_id: As above, and so on.
        max_age: How old an answer may be, in seconds.
        forced: Whether everything is to be drawn anew.
        repeats: How many answers to each question are wanted.
    """
    served = rows.served(repeats)
    if served >= questions * repeats:
        return []
    if forced:
        return [
            "recomputed because it was asked for" if not served else "a forced evaluation that was cut is continued"
        ]
    if sources:
        is_known = any(_is_exact(info, key) for info in sources)
        return _what_is_new(rows, questions, repeats, is_known=is_known)
    others = [info for info in found if info.session is None]
    if not others:
        return []
    nearest = min(others, key=lambda info: (distance(info.key, key), -info.saved))
    lines = differences(nearest.key, key)
    if not lines and nearest.key.dataset != key.dataset and nearest.age <= max_age:
        lines.append("data: none of the questions was asked before")
    if not lines and run_id is not None and nearest.run_id != run_id:
        lines.append(f"run: {run_id!r} has no predictions; the newest are of {nearest.run_id!r}")
    if nearest.age > max_age:
        lines.append(f"age: the predictions are {_days(nearest.age)} old, more than {_days(max_age)}")
    return lines or ["the kept predictions could not be used: all of them are errors, or damaged"]


def _what_is_new(rows: KeptRows, questions: int, repeats: int, *, is_known: bool) -> list[str]:
    served, failed, wanted = rows.served(repeats), rows.failed(repeats), questions * repeats
    lines = [f"errors: {failed} of {wanted} answers failed before"] if failed else []
    new = questions - rows.known_questions()
    if new and is_known:
        # The same data: what has no answer was not asked, because the evaluation was cut.
        return [*lines, f"unfinished: {served} of {wanted} were answered before"]
    if new:
        lines.append(f"data: {new} of {questions} questions are new or edited")
    elsewhere = wanted - served - failed - new * repeats
    if elsewhere > 0:
        lines.append(f"repeats: {elsewhere} more answers to questions that were asked before")
    return lines


def _is_exact(info: SnapshotInfo, key: SnapshotKey) -> bool:
    return bool(info.metadata.get("hash") == key.hash)


def _is_cut_short(info: SnapshotInfo, key: SnapshotKey) -> bool:
    is_forced = bool(info.metadata.get("forced"))
    return _is_exact(info, key) and is_forced and not info.is_complete and info.session is None


def _days(seconds: float) -> str:
    for unit, size in (("days", _DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
