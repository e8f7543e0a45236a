"""The acts of the demo, in order; each is a few lines of what a user would write."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy

from dspy_cachectl.demo import task
from dspy_cachectl.demo.act_results import PLOT, REPEATS, ActResult
from dspy_cachectl.demo.child import Child, DemoError
from dspy_cachectl.demo.jobs import Connection, Job, evaluations
from dspy_cachectl.demo.relay import Relay
from dspy_cachectl.evaluation.running import evaluate
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import compare
from dspy_cachectl.settling.two import settle

if TYPE_CHECKING:
    from dspy_cachectl.reports.comparison import Comparison
    from dspy_cachectl.settling.result import Settled
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
        settled: Likewise.
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
    settled: Settled | None = None

    @property
    def compiled_file(self) -> Path:
        """Where the compiled program is saved."""
        return self.folder / "compiled.json"

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
        requests, tokens, began = relay.requests, relay.tokens, time.monotonic()
        found = act()
        return replace(
            found,
            key=key,
            title=title,
            requests=relay.requests - requests,
            tokens=relay.tokens - tokens,
            seconds=time.monotonic() - began,
        )


def evaluate_zero_shot(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the program without demonstrations; every answer is drawn afresh."""
    yield stage.row("zero-shot", "evaluate, zero-shot", lambda: _fresh(stage, stage.zero_shot))


def compile_twice(stage: Stage) -> Iterator[ActResult]:
    """Compile; answers are served from the cache, and stored in it: the second time everything was asked before."""
    yield stage.row("compile", "compile", lambda: _compile(stage))
    yield stage.row("compile-again", "compile again", lambda: _compile(stage))


def evaluate_twice(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the same program twice more: two sets of fresh answers."""
    yield stage.row("eval-1", "evaluate, zero-shot: 1st repeat", lambda: _fresh(stage, stage.zero_shot))
    yield stage.row("eval-2", "evaluate, zero-shot: 2nd repeat", lambda: _fresh(stage, stage.zero_shot))


def evaluate_plainly(stage: Stage) -> Iterator[ActResult]:
    """Evaluate twice without this package, with DSPy's own cache in a folder of its own."""
    with stage.worker() as worker:
        for key, place in (("plain-1", "1st"), ("plain-2", "2nd")):
            row = stage.row(key, f"plain DSPy, zero-shot: {place}", worker.ask)
            # Of all its calls, those that the relay did not see.
            yield replace(row, served=(row.served or 0) - row.requests)


def evaluate_compiled(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the compiled program afresh."""
    run_id = stage.run_id = f"compiled-{uuid.uuid4().hex[:8]}"
    yield stage.row("compiled", "evaluate, compiled", lambda: _fresh(stage, stage.compiled, run_id))


def kill_and_resume(stage: Stage) -> Iterator[ActResult]:
    """Kill an evaluation half way, with calls in the air, and run it again under the same run id."""
    run: dict[str, Any] = {"program": stage.compiled_file, "run_id": f"killed-{uuid.uuid4().hex[:8]}"}
    # Through a relay of its own, whose end waits: what was in the air is then counted, and in this row.
    relay = Relay(stage.relay.upstream, waits=True)

    half = len(stage.dev) // 2

    def killed() -> ActResult:
        with relay, stage.worker(relay=relay, **run) as worker:
            relay.on_request = lambda requests: worker.kill() if requests == half else None
            try:
                worker.ask()
            except DemoError:
                if relay.requests < half:
                    raise
        return ActResult()

    yield stage.row("killed", "evaluate, compiled: killed half way", killed, relay=relay)
    with stage.worker(**run) as worker:
        yield stage.row("resumed", "the same run, resumed", worker.ask)


def log_to_mlflow(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the compiled program under its run id, all from the store, and log that to MLflow."""
    if importlib.util.find_spec("mlflow") is None:
        stage.mlflow = "not installed (pip install 'dspy-cachectl[mlflow]')"
        return
    address = f"sqlite:///{(stage.folder / 'mlflow.db').as_posix()}"
    with stage.worker(program=stage.compiled_file, run_id=stage.run_id, tracking_uri=address) as worker:

        def logged() -> ActResult:
            found: ActResult = worker.ask()
            stage.mlflow = worker.ask()
            return found

        yield stage.row("mlflow", "the compiled run again, to MLflow", logged)


def compare_programs(stage: Stage) -> Iterator[ActResult]:
    """Evaluate both programs with three answers to each review, and ask whether one is better."""
    if importlib.util.find_spec("scipy") is None:
        stage.comparison = "none: pip install 'dspy-cachectl[stats]'"
        return
    reports: dict[str, EvalReport] = {}

    def measured(name: str, program: dspy.Module) -> ActResult:
        report = reports[name] = evaluate(
            program,
            stage.dev,
            task.right_label,
            repeats=REPEATS,
            num_threads=task.THREADS,
            predictions=stage.folder / "predictions",
            display_progress=False,
        )
        counters = report.provenance.counters
        return ActResult(
            served=counters["served"],
            counted=counters["requests"],
            lent=counters["temperatures_lent"],
            score=100.0 * report.score,
        )

    for name, program in (("zero-shot", stage.zero_shot), ("compiled", stage.compiled)):
        yield stage.row(f"{name}-repeated", f"evaluate(), {name}: {REPEATS} repeats", partial(measured, name, program))
    compared = compare(reports)
    stage.comparison = compared["zero-shot", "compiled"]
    stage.settled = settle(
        stage.zero_shot,
        stage.compiled,
        stage.dev,
        task.right_label,
        bound="pocock",
        batch=len(stage.dev) // 2,
        repeats=REPEATS,
        names=("zero-shot", "compiled"),
        num_threads=task.THREADS,
        predictions=stage.folder / "predictions",
        display_progress=False,
    )
    if importlib.util.find_spec("matplotlib") is not None:
        compared.plot(stage.folder / PLOT)


ACTS: dict[str, Callable[[Stage], Iterator[ActResult]]] = {
    "evaluating the zero-shot program": evaluate_zero_shot,
    "compiling, twice": compile_twice,
    "evaluating the same program twice": evaluate_twice,
    "doing the same with plain DSPy": evaluate_plainly,
    "evaluating the compiled program": evaluate_compiled,
    "killing an evaluation, and resuming it": kill_and_resume,
    "logging to MLflow": log_to_mlflow,
    "comparing the two programs, with error bars": compare_programs,
}
"""The acts in their order, by what they do, for whoever waits. Each plays and yields its rows."""


def _fresh(stage: Stage, program: dspy.Module, run_id: str | None = None) -> ActResult:
    # The presets are named, so that a project's configuration does not change what the demo shows.
    with phase("eval", Policy.FRESH, run_id=run_id) as run:
        found = task.evaluate(program, stage.dev)
    return found.with_stats(run.stats)


def _compile(stage: Stage) -> ActResult:
    # The optimizer prints a progress bar and a summary of its own.
    quiet = io.StringIO()
    with (
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
        phase("compile", Policy.REUSE) as run,
    ):
        stage.compiled = task.compile_program(task.Classifier(), stage.train)
    stage.compiled.save(stage.compiled_file)
    return ActResult().with_stats(run.stats)
