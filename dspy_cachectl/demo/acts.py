"""The acts of the demo, in order; each is a few lines of what a user would write."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dspy

from dspy_cachectl.demo import task
from dspy_cachectl.demo.act_results import PLOT, REPEATS, ActResult
from dspy_cachectl.demo.child import Child, DemoError
from dspy_cachectl.demo.relay import Relay
from dspy_cachectl.demo.stage import Stage
from dspy_cachectl.evaluation.running import evaluate
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy
from dspy_cachectl.reports.comparisons import compare
from dspy_cachectl.reports.report import EvalReport


@dataclass(frozen=True, slots=True)
class Act:
    """One act.

    Attributes:
        title: What it does, for whoever waits.
        play: Plays it and yields its rows.
    """

    title: str
    play: Callable[[Stage], Iterator[ActResult]]


def evaluate_zero_shot(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the program without demonstrations; every answer is drawn afresh."""
    yield stage.row("zero-shot", "evaluate, zero-shot", lambda: _fresh(stage, stage.zero_shot))


def compile_once(stage: Stage) -> Iterator[ActResult]:
    """Compile; answers are served from the cache, and stored in it."""
    yield stage.row("compile", "compile", lambda: _compile(stage))


def compile_again(stage: Stage) -> Iterator[ActResult]:
    """Compile once more; everything that it asks was asked before."""
    yield stage.row("compile-again", "compile again", lambda: _compile(stage))


def evaluate_twice(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the same program twice more: two sets of fresh answers."""
    yield stage.row("eval-1", "evaluate, zero-shot: 1st repeat", lambda: _fresh(stage, stage.zero_shot))
    yield stage.row("eval-2", "evaluate, zero-shot: 2nd repeat", lambda: _fresh(stage, stage.zero_shot))


def evaluate_plainly(stage: Stage) -> Iterator[ActResult]:
    """Evaluate twice without this package, with DSPy's own cache in a folder of its own."""
    with stage.worker() as worker:

        def once() -> ActResult:
            before = stage.relay.traffic.requests
            found = _evaluated(worker)
            return replace(found, served=(found.served or 0) - (stage.relay.traffic.requests - before))

        yield stage.row("plain-1", "plain DSPy, zero-shot: 1st", once)
        yield stage.row("plain-2", "plain DSPy, zero-shot: 2nd", once)


def evaluate_compiled(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the compiled program afresh."""
    run_id = stage.run_id = f"compiled-{uuid.uuid4().hex[:8]}"
    yield stage.row("compiled", "evaluate, compiled", lambda: _fresh(stage, _compiled(stage), run_id))


def kill_and_resume(stage: Stage) -> Iterator[ActResult]:
    """Kill an evaluation half way, with calls in the air, and run it again under the same run id."""
    run: dict[str, Any] = {"program": stage.compiled_file, "run_id": f"killed-{uuid.uuid4().hex[:8]}"}
    # Through a relay of its own, whose end waits: what was in the air is then counted, and in this row.
    relay = Relay(stage.relay.upstream, waits=True)

    def killed() -> ActResult:
        with relay, stage.worker(relay=relay, **run) as worker:
            worker.ask()
            if not relay.wait_for(len(stage.dev) // 2, alive=worker.is_alive):
                raise DemoError("the evaluation that was to be killed ended by itself")
            worker.kill()
        return ActResult()

    yield stage.row("killed", "evaluate, compiled: killed half way", killed, relay=relay)
    with stage.worker(**run) as worker:
        yield stage.row("resumed", "the same run, resumed", lambda: _evaluated(worker))


def log_to_mlflow(stage: Stage) -> Iterator[ActResult]:
    """Evaluate the compiled program under its run id, all from the store, and log that to MLflow."""
    if importlib.util.find_spec("mlflow") is None:
        stage.mlflow = "not installed (pip install 'dspy-cachectl[mlflow]')"
        return
    address = f"sqlite:///{(stage.folder / 'mlflow.db').as_posix()}"
    with stage.worker(program=stage.compiled_file, run_id=stage.run_id, tracking_uri=address) as worker:

        def logged() -> ActResult:
            worker.ask()
            found: ActResult
            found, stage.mlflow = worker.answer()
            return found

        yield stage.row("mlflow", "the compiled run again, to MLflow", logged)


def compare_programs(stage: Stage) -> Iterator[ActResult]:
    """Evaluate both programs with three answers to each review, and ask whether one is better."""
    if any(importlib.util.find_spec(name) is None for name in ("scipy", "statsmodels")):
        stage.comparison = "none: pip install 'dspy-cachectl[stats]'"
        return
    reports: dict[str, EvalReport] = {}

    def measured(name: str, program: dspy.Module) -> ActResult:
        report = reports[name] = evaluate(
            program,
            stage.dev,
            task.right_label,
            repeats=REPEATS,
            num_threads=stage.connection.threads,
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

    for name, program in (("zero-shot", stage.zero_shot), ("compiled", _compiled(stage))):
        yield stage.row(f"{name}-repeated", f"evaluate(), {name}: {REPEATS} repeats", partial(measured, name, program))
    compared = compare(reports)
    stage.comparison = compared["zero-shot", "compiled"]
    if importlib.util.find_spec("matplotlib") is not None:
        compared.plot(stage.folder / PLOT)


ACTS = (
    Act("evaluating the zero-shot program", evaluate_zero_shot),
    Act("compiling", compile_once),
    Act("compiling again", compile_again),
    Act("evaluating the same program twice", evaluate_twice),
    Act("doing the same with plain DSPy", evaluate_plainly),
    Act("evaluating the compiled program", evaluate_compiled),
    Act("killing an evaluation, and resuming it", kill_and_resume),
    Act("logging to MLflow", log_to_mlflow),
    Act("comparing the two programs, with error bars", compare_programs),
)


def _fresh(stage: Stage, program: dspy.Module, run_id: str | None = None) -> ActResult:
    # The presets are named, so that a project's configuration does not change what the demo shows.
    with phase("eval", Policy.FRESH, run_id=run_id) as run:
        found = stage.evaluate(program)
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


def _compiled(stage: Stage) -> dspy.Module:
    if stage.compiled is None:
        raise DemoError("the compiled program is evaluated before it was compiled; play the acts in order")
    return stage.compiled


def _evaluated(worker: Child) -> ActResult:
    worker.ask()
    found: ActResult = worker.answer()[0]
    return found
