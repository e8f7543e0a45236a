"""The runs of a store: what each was drawn for, how far it came, and whether resuming it would buy anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from glob import escape
from typing import Any

from dspy_cachectl.accounting import runs
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.stores import RUN_KIND, Label
from dspy_cachectl.stores.listing import Rows, read_rows, row_numbers
from dspy_cachectl.stores.reader import FolderReader


@dataclass(frozen=True)
class ListedRun:
    """A run.

    Attributes:
        run_id: Its id.
        phase: The phase that made it.
        began: When it was opened first, in Unix seconds; None where it is not described.
        draws: How many draws of it are stored.
        models: The models that they are of.
        temperature: The temperature that was lent, or None.
        state: `complete`: its last passage ended, and every call in it was answered. `resumable`: it was not noted to
            have ended so, which is how a killed one looks, and one that is under way. `damaged`: its description
            cannot be read.
        ended: When it was complete, in Unix seconds, or None.
        calls: How many calls its last passage made, where it ended; likewise the next.
        failed: How many of them ended in an error.
        policy: The name of its policy, or None.
    """

    run_id: str
    phase: str
    began: float | None
    draws: int
    models: tuple[str, ...]
    temperature: float | None = None
    state: str = "resumable"
    ended: float | None = None
    calls: int = 0
    failed: int = 0
    policy: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def list_runs(reader: FolderReader) -> list[ListedRun]:
    """Return the runs of a store, the one begun last first; those that nothing describes come last."""
    draws: dict[str, int] = {}
    models: dict[str, set[str]] = {}
    phases: dict[str, str] = {}
    labels = reader.labels()
    for label, count in labels.items():
        if label.is_answer and label.run_id:
            draws[label.run_id] = draws.get(label.run_id, 0) + count
            models.setdefault(label.run_id, set()).add(label.model)
            phases.setdefault(label.run_id, label.phase)
    found: dict[str, ListedRun] = {}
    if any(label.kind == RUN_KIND for label in labels):
        numbers = row_numbers(reader, Rows(lambda label: label.kind == RUN_KIND))
        for row, value in read_rows(reader, numbers):
            run_id = row.label.run_id
            known = (draws.get(run_id, 0), tuple(sorted(models.get(run_id, ()))))
            try:
                found[run_id] = _described(run_id, value(), *known)
            except StoreError:
                found[run_id] = ListedRun(run_id, row.label.phase, None, *known, state="damaged")
    for run_id, count in draws.items():
        if run_id not in found:
            found[run_id] = ListedRun(run_id, phases[run_id], None, count, tuple(sorted(models[run_id])))
    return sorted(found.values(), key=lambda run: (-(run.began or 0.0), run.run_id))


def selection_of(listed: Iterable[ListedRun], wanted: Iterable[str]) -> Selection:
    """Return what the named runs consist of: their draws and their descriptions.

    Args:
        listed: The runs that there are.
        wanted: Ids of runs, or patterns. An id that there is means that run alone.

    Raises:
        ConfigurationError: If there is no such run.
    """
    known = [run.run_id for run in listed]
    chosen: dict[str, None] = {}
    for name in wanted:
        pattern = Selection(runs=(name,), kinds=("*",))
        fitting = [name] if name in known else [one for one in known if pattern.matches(Label(run_id=one))]
        if not fitting:
            raise ConfigurationError(f"there is no run {name!r}; `dspy-cachectl runs` lists those that there are")
        chosen.update(dict.fromkeys(fitting))
    # An id may look like a pattern.
    return Selection(runs=tuple(escape(run_id) for run_id in chosen), kinds=("*",))


def _described(run_id: str, data: bytes, draws: int, models: tuple[str, ...]) -> ListedRun:
    origin, passage = runs.decode(data)
    return ListedRun(
        run_id,
        phase=origin.phase,
        began=origin.created,
        draws=draws,
        models=models,
        temperature=origin.temperature,
        state="complete" if passage.is_complete else "resumable",
        ended=passage.ended,
        calls=passage.calls,
        failed=passage.failed,
        policy=passage.policy,
    )
