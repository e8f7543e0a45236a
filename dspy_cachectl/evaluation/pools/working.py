"""What a worker does with a part of an evaluation that it is sent."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import dspy

from dspy_cachectl.calls.installation import open_like_parent, place_to_hand_over
from dspy_cachectl.config import settings
from dspy_cachectl.context.process import Place
from dspy_cachectl.context.shared import machine
from dspy_cachectl.errors import CachectlError, ConfigurationError
from dspy_cachectl.evaluation.asking import asked
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions
from dspy_cachectl.evaluation.pools.sending import unpacked
from dspy_cachectl.evaluation.task import Task
from dspy_cachectl.predictions.kept_rows import KeptRows, RowKey
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.session import Session
from dspy_cachectl.reports.report import EvalReport


class Home(NamedTuple):
    """Where something comes from.

    Attributes:
        machine: The machine.
        process: The process, by its number there.
        place: How the store is opened there, without a password; None for one of the user's own.
        encrypted_by: The name of the key that encrypts what is kept there; None where none does.
    """

    machine: str
    process: int
    place: Place | None
    encrypted_by: str | None

    @classmethod
    def here(cls, *, sends: bool) -> Home:
        """Return this place.

        Args:
            sends: Whether anything goes to another process.

        Raises:
            ConfigurationError: If the store has a password that only code knows.
        """
        return cls(machine(), os.getpid(), place_to_hand_over() if sends else None, _encrypts())

    def follow(self) -> None:
        """Put the store in place, in a worker, that is used there.

        Raises:
            ConfigurationError: If it cannot be, or would be written with another key.
        """
        if (self.machine, self.process) == (machine(), os.getpid()):
            return
        refused = open_like_parent(self.place)
        if not refused and self.encrypted_by != _encrypts():
            refused = (
                "what is kept is encrypted with another key where this was sent from, or with none: set "
                "DSPY_CACHECTL_ENCRYPTION_KEY to the same"
            )
        if refused:
            raise ConfigurationError(f"nothing is evaluated in this worker: {refused}")


def _encrypts() -> str | None:
    keys = settings().encryption_key
    return None if keys is None else keys.name


@dataclass(frozen=True)
class Common:
    """What all parts of an evaluation have in common.

    Attributes:
        task: All of the task but its questions.
        settings: What DSPy is set to.
        home: Where it comes from.
        key: What the predictions depend on; None where none are kept.
        run_id: The run to draw under, or None.
    """

    task: Task
    settings: Mapping[str, Any]
    home: Home
    key: SnapshotKey | None
    run_id: str | None


@dataclass(frozen=True)
class Part:
    """One part of it.

    Attributes:
        shard: Which of how many it is.
        questions: Its questions, examples and clusters, as fields of the task.
        rows: What is kept of it, encoded.
    """

    shard: tuple[int, int]
    questions: Mapping[str, Any]
    rows: Sequence[bytes]


@dataclass(frozen=True)
class Outcome:
    """What came of a part.

    Attributes:
        report: Its report; None where nothing was answered.
        rows: What is to be kept of it, encoded.
        error: What ended it, pickled; None where it came to its end.
    """

    report: EvalReport | None
    rows: tuple[bytes, ...]
    error: bytes | None = None


@dataclass
class _Collected:
    """Stands where a session has its journal: whoever sent the part keeps what is added."""

    rows: dict[RowKey, bytes] = field(default_factory=dict)

    def keep(self, _session: str, _header: Any, row_key: RowKey, encoded: bytes) -> None:
        self.rows[row_key] = encoded

    def close(self) -> None:
        """There is nothing to close."""


def work(common: bytes | Common, part: bytes | Part) -> Outcome:
    """Evaluate a part. What goes wrong in it is returned: what is raised here is of the pool and its engine.

    Args:
        common: What all parts have in common; as bytes where it comes from another process.
        part: The part, likewise.
    """
    collected = _Collected()
    try:
        shared: Common = unpacked(common) if isinstance(common, bytes) else common
        mine: Part = unpacked(part) if isinstance(part, bytes) else part
        report = _evaluated(shared, mine, collected)
    except Exception as error:  # noqa: BLE001 - it is raised where the evaluation was asked for
        found = getattr(error, "report", None)
        return Outcome(found, tuple(collected.rows.values()), as_bytes(error))
    return Outcome(report, tuple(collected.rows.values()))


def _evaluated(shared: Common, part: Part, collected: _Collected) -> EvalReport:
    shared.home.follow()
    task = shared.task.with_questions(part.shard, **part.questions)
    callbacks = [one for one in dspy.settings.callbacks if not type(one).__module__.startswith("mlflow.")]
    with dspy.context(**shared.settings, callbacks=callbacks):
        session = None if shared.key is None else _session(shared, part, task, collected)
        kept = KeptPredictions(None, session, task.program, task.metrics, declared=task.declared)
        report, _ = asked(task, kept, is_part=True)
    return report


def _session(shared: Common, part: Part, task: Task, collected: _Collected) -> Session:
    rows = KeptRows(task.questions)
    for row in part.rows:
        rows.put(row)
    assert shared.key is not None  # noqa: S101 - for the type checker
    return Session(
        key=shared.key,
        questions=task.questions,
        run_id=shared.run_id or "",
        repeats=task.repeats,
        path=Path(),
        using=(),
        changes=[],
        forced=False,
        is_finished=False,
        metrics={},
        kept=rows,
        journal=collected,  # type: ignore[arg-type] # what of a journal it uses
        write=lambda *_: None,
        kept_at=lambda: None,
        kept_before=rows.served(task.repeats),
    )


def as_bytes(error: Exception) -> bytes:
    """Return an error as bytes that another process can read."""
    error.__dict__.pop("report", None)
    try:
        made: bytes = cloudpickle.dumps(error)
        if isinstance(pickle.loads(made), type(error)):  # noqa: S301 - it was made a line above
            return made
    except Exception:  # noqa: BLE001, S110 - then it is told in words
        pass
    kind = ConfigurationError if isinstance(error, ConfigurationError) else CachectlError
    text = str(error) if isinstance(error, CachectlError) else f"{type(error).__name__}: {error}"
    return pickle.dumps(kind(text))
