"""The runs of a store: what each was drawn for, how far it came, and whether resuming it would buy anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from glob import escape

from dspy_cachectl.accounting import runs
from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.shown import stands_for
from dspy_cachectl.errors import ConfigurationError, FormatVersionError, StoreError
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.stores import RUN_KIND, Label
from dspy_cachectl.stores.listing import Reader, read_entries, row_numbers
from dspy_cachectl.stores.rows import Rows

_UNREAD = frozenset({"damaged", "newer"})


@dataclass(frozen=True)
class ListedRun:
    """A run.

    Attributes:
        run: Its id.
        phase: The phase that made it.
        began: When it was opened first, in Unix seconds; None where it is not described.
        draws: How many draws of it are stored.
        gone: How many of its entries were removed to make room for others.
        models: The models that they are of.
        temperature: The temperature that was lent, or None.
        state: `complete`: its last passage ended, and every call in it was answered. `resumable`: it was not noted to
            have ended so, which is how a killed one looks, and one that is under way. `damaged`: its description
            cannot be read; `newer`: a newer version of this package wrote it.
        ended: When it was complete, in Unix seconds, or None.
        calls: How many calls its last passage made, where it ended; likewise the next.
        failed: How many of them ended in an error.
        policy: The name of its policy, or None.
    """

    run: str
    phase: str
    began: float | None = None
    draws: int = 0
    gone: int = 0
    models: tuple[str, ...] = ()
    temperature: float | None = None
    state: str = "resumable"
    ended: float | None = None
    calls: int = 0
    failed: int = 0
    policy: str | None = None


def list_runs(reader: Reader) -> list[ListedRun]:
    """Return the runs of a store, the one begun last first; those that nothing describes come last."""
    draws = {label: count for label, count in reader.labels().items() if label.is_answer and label.run}
    found = {label.run: ListedRun(label.run, label.phase) for label in draws}
    found.update(_described(reader))
    for label, count in draws.items():
        run = found[label.run]
        found[label.run] = replace(run, draws=run.draws + count, models=tuple(sorted({*run.models, label.model})))
    for label, counters in reader.usage().items():
        if label.is_answer and label.run in found and (gone := int(counters.get("evicted", 0))):
            run = found[label.run]
            # What is gone is bought again by who resumes it.
            state = "resumable" if run.state == "complete" else run.state
            found[label.run] = replace(run, gone=run.gone + gone, state=state)
    return sorted(found.values(), key=lambda run: (-(run.began or 0.0), run.run))


def _described(reader: Reader) -> dict[str, ListedRun]:
    """Return what is said of runs, each of all its parts together."""
    found: dict[str, ListedRun] = {}
    passages: dict[str, list[runs.Passage]] = {}
    numbers = row_numbers(reader, Rows(lambda label: label.kind == RUN_KIND))
    for entry, value in read_entries(reader, numbers):
        run_id = entry.label.run
        unread = found.get(run_id, ListedRun(run_id, entry.label.phase)).state in _UNREAD
        try:
            origin, passage = runs.decode(value())
        except StoreError as error:
            state = "newer" if isinstance(error, FormatVersionError) else "damaged"
            found[run_id] = ListedRun(run_id, entry.label.phase, state=state)
            continue
        if unread:
            continue
        passages.setdefault(run_id, []).append(passage)
        whole = runs.together(passages[run_id])
        found[run_id] = ListedRun(
            run_id,
            phase=origin.phase,
            began=origin.created,
            temperature=origin.temperature,
            state="complete" if whole.is_complete else "resumable",
            ended=whole.ended,
            calls=whole.calls,
            failed=whole.failed,
            policy=whole.policy,
        )
    return found


def selection_of(listed: Iterable[ListedRun], wanted: Iterable[str]) -> Selection:
    """Return what the named runs consist of: their draws and their descriptions.

    Args:
        listed: The runs that there are.
        wanted: Ids of runs, or patterns. An id that there is means that run alone.

    Raises:
        ConfigurationError: If there is no such run.
    """
    known = [run.run for run in listed]
    chosen: dict[str, None] = {}
    for name in wanted:
        pattern = Selection(runs=(name,), kinds=("*",))
        fitting = [name] if name in known else [one for one in known if pattern.matches(Label(run=one))]
        if not fitting:
            near = question(name, known) or "`dspy-cachectl runs` lists those that there are"
            raise ConfigurationError(f"there is no run {name!r}; {near}")
        if len(fitting) > 1 and any(stands_for(name, one) for one in fitting):
            raise ConfigurationError(f"the run {name!r} may be any of {', '.join(map(repr, fitting))}")
        chosen.update(dict.fromkeys(fitting))
    # An id may look like a pattern.
    return Selection(runs=tuple(escape(run) for run in chosen), kinds=("*",))
