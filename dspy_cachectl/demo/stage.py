"""What the acts of the demo share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy

from dspy_cachectl.demo import task
from dspy_cachectl.demo.act_results import ActResult
from dspy_cachectl.demo.child import Child
from dspy_cachectl.demo.connection import Connection
from dspy_cachectl.demo.jobs import Job, evaluations
from dspy_cachectl.demo.relay import Relay

if TYPE_CHECKING:
    from dspy_cachectl.reports.comparison import Comparison
    from dspy_cachectl.tracking import LogOutcome


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
        mlflow: See `DemoResult`; from its act on.
        comparison: See `DemoResult`; from the last act on.
    """

    relay: Relay
    connection: Connection
    folder: Path
    train: list[dspy.Example]
    dev: list[dspy.Example]
    zero_shot: dspy.Module = field(default_factory=task.Classifier)
    compiled: dspy.Module | None = None
    run_id: str | None = None
    mlflow: LogOutcome | str = "skipped"
    comparison: Comparison | str = "skipped"

    @property
    def compiled_file(self) -> Path:
        """Where the compiled program is saved."""
        return self.folder / "compiled.json"

    def evaluate(self, program: dspy.Module) -> ActResult:
        """Evaluate a program on the demo's reviews, in this process."""
        return task.evaluate(program, self.dev, threads=self.connection.threads)

    def worker(self, *, relay: Relay | None = None, **options: Any) -> Child:
        """Return a child process that evaluates on the demo's reviews when it is asked.

        Args:
            relay: The relay to go through, if not the one of all others.
            options: Fields of `Job`.
        """
        connection = replace(self.connection, url=(relay or self.relay).url)
        job = Job(connection, len(self.dev), self.folder, **options)
        return Child(
            evaluations,
            job,
            # DSPy's own cache and the outbox for MLflow are not the user's, and nothing leaves this machine.
            DSPY_CACHEDIR=str(self.folder / "dspy"),
            DSPY_CACHECTL_STATE=str(self.folder / "state"),
            MLFLOW_DISABLE_TELEMETRY="true",
        )

    def row(self, key: str, title: str, act: Callable[[], ActResult], *, relay: Relay | None = None) -> ActResult:
        """Play an act and return its row."""
        relay = relay or self.relay
        before, began = relay.traffic, time.monotonic()
        found = act()
        passed = relay.traffic - before
        seconds = time.monotonic() - began
        return replace(found, key=key, title=title, requests=passed.requests, tokens=passed.tokens, seconds=seconds)
