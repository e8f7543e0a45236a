"""What the acts of the demo share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dspy

from dspy_cachectl.accounting.ledger import Stats
from dspy_cachectl.demo import task
from dspy_cachectl.demo.connection import Connection
from dspy_cachectl.demo.jobs import Job
from dspy_cachectl.demo.relay import Relay
from dspy_cachectl.demo.results import MlflowOutcome, Row, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an act did, beside what the relay counts.

    Attributes:
        served: See `Row`.
        counted: See `Row`.
        lent: See `Row`.
        found: Score and labels, where something was scored.
    """

    served: int | None = None
    counted: int | None = None
    lent: int = 0
    found: task.Scored | None = None

    @classmethod
    def of(cls, stats: Stats, found: task.Scored | None = None) -> Outcome:
        """Return what a phase's stats say."""
        return cls(served=stats.served, counted=stats.requests, lent=stats.temperatures_lent, found=found)

    @classmethod
    def of_worker(cls, answer: dict[str, Any], **known: int) -> Outcome:
        """Return what a child process answered."""
        found = task.Scored(answer["score"], tuple(answer["labels"]))
        said = {"served": answer.get("served"), "counted": answer.get("requests"), "lent": answer.get("lent", 0)}
        return cls(**{**said, **known}, found=found)


@dataclass
class Stage:
    """What the acts share; DSPy is set to the LM and the adapter of `connection` while they play.

    Attributes:
        relay: Counts what passes.
        connection: How to reach the model.
        folder: Everything that is written goes there.
        train: The reviews to compile with.
        dev: The reviews to evaluate.
        zero_shot: The program without demonstrations.
        compiled: The compiled program, from its act on.
        run_id: The run of the compiled program's evaluation, from its act on.
        mlflow: What became of the results that were to be logged.
        verdict: Whether the compiled program is better, from the last act on.
    """

    relay: Relay
    connection: Connection
    folder: Path
    train: list[dspy.Example]
    dev: list[dspy.Example]
    zero_shot: dspy.Module = field(default_factory=task.Classifier)
    compiled: dspy.Module | None = None
    run_id: str | None = None
    mlflow: MlflowOutcome = field(default_factory=lambda: MlflowOutcome("skipped"))
    verdict: Verdict = field(default_factory=lambda: Verdict("skipped"))

    @property
    def compiled_file(self) -> Path:
        """Where the compiled program is saved."""
        return self.folder / "compiled.json"

    def evaluate(self, program: dspy.Module) -> task.Scored:
        """Evaluate a program on the demo's reviews, in this process."""
        return task.evaluate(program, self.dev, threads=self.connection.threads)

    def job(self, **options: Any) -> Job:
        """Return a job for a child process; the options are fields of `Job`."""
        return Job(connection=asdict(self.connection), examples=len(self.dev), folder=str(self.folder), **options)

    def row(self, key: str, title: str, act: Callable[[], Outcome]) -> Row:
        """Play an act and return its row."""
        before, began = self.relay.traffic, time.monotonic()
        outcome = act()
        passed = self.relay.traffic - before
        return Row(
            key=key,
            title=title,
            requests=passed.requests,
            tokens=passed.tokens,
            seconds=time.monotonic() - began,
            served=outcome.served,
            counted=outcome.counted,
            lent=outcome.lent,
            score=None if outcome.found is None else outcome.found.score,
            labels=() if outcome.found is None else outcome.found.labels,
        )
