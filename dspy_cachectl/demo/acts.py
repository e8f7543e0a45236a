"""The acts of the demo, in order; each is a few lines of what a user would write."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dspy

from dspy_cachectl.demo import task
from dspy_cachectl.demo.failure import DemoError
from dspy_cachectl.demo.results import MlflowOutcome, Row, Verdict
from dspy_cachectl.demo.stage import Outcome, Stage
from dspy_cachectl.demo.worker import Worker
from dspy_cachectl.evaluation.running import evaluate
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy
from dspy_cachectl.reports.comparisons import Comparisons, compare
from dspy_cachectl.reports.report import EvalReport

HOLD_SECONDS = 300.0
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Act:
    """One act.

    Attributes:
        title: What it does, for whoever waits.
        play: Plays it and yields its rows.
    """

    title: str
    play: Callable[[Stage], Iterator[Row]]


def evaluate_zero_shot(stage: Stage) -> Iterator[Row]:
    """Evaluate the program without demonstrations; every answer is drawn afresh."""
    yield stage.row("zero-shot", "evaluate, zero-shot", lambda: _fresh(stage, stage.zero_shot))


def compile_once(stage: Stage) -> Iterator[Row]:
    """Compile; answers are served from the cache, and stored in it."""
    yield stage.row("compile", "compile", lambda: _compile(stage))


def compile_again(stage: Stage) -> Iterator[Row]:
    """Compile once more; everything that it asks was asked before."""
    yield stage.row("compile-again", "compile again", lambda: _compile(stage))


def evaluate_twice(stage: Stage) -> Iterator[Row]:
    """Evaluate the same program twice more: two sets of fresh answers."""
    yield stage.row("eval-1", "evaluate, zero-shot: 1st repeat", lambda: _fresh(stage, stage.zero_shot))
    yield stage.row("eval-2", "evaluate, zero-shot: 2nd repeat", lambda: _fresh(stage, stage.zero_shot))


def evaluate_plainly(stage: Stage) -> Iterator[Row]:
    """Evaluate twice without this package, with DSPy's own cache in a folder of its own."""
    with Worker(stage.job()) as worker:

        def once() -> Outcome:
            before = stage.relay.traffic.requests
            answer = worker.evaluate()
            return Outcome.of_worker(answer, served=answer["calls"] - (stage.relay.traffic.requests - before))

        yield stage.row("plain-1", "plain DSPy, zero-shot: 1st", once)
        yield stage.row("plain-2", "plain DSPy, zero-shot: 2nd", once)


def evaluate_compiled(stage: Stage) -> Iterator[Row]:
    """Evaluate the compiled program afresh."""
    run_id = stage.run_id = f"compiled-{uuid.uuid4().hex[:8]}"
    yield stage.row("compiled", "evaluate, compiled", lambda: _fresh(stage, _compiled(stage), run_id))


def kill_and_resume(stage: Stage) -> Iterator[Row]:
    """Kill an evaluation half way, with calls in the air, and run it again under the same run id."""
    run_id = f"killed-{uuid.uuid4().hex[:8]}"
    job = stage.job(program=str(stage.compiled_file), run_id=run_id)
    with Worker(job) as worker:

        def killed() -> Outcome:
            stage.relay.hold_after(len(stage.dev) // 2)
            try:
                worker.begin()
                if not stage.relay.wait_held(stage.connection.threads, alive=worker.alive, seconds=HOLD_SECONDS):
                    raise DemoError("the evaluation that was to be killed ended by itself, or never got half way")
                worker.kill()
            finally:
                stage.relay.release()
            return Outcome()

        yield stage.row("killed", "evaluate, compiled: killed half way", killed)
    with Worker(job) as worker:
        yield stage.row("resumed", "the same run, resumed", lambda: Outcome.of_worker(worker.evaluate()))


def log_to_mlflow(stage: Stage) -> Iterator[Row]:
    """Evaluate the compiled program under its run id, all from the store, and log that to MLflow."""
    if importlib.util.find_spec("mlflow") is None:
        stage.mlflow = MlflowOutcome("not installed", reason="pip install 'dspy-cachectl[mlflow]'")
        return
    address = f"sqlite:///{(stage.folder / 'mlflow.db').as_posix()}"
    job = stage.job(program=str(stage.compiled_file), run_id=stage.run_id, tracking_uri=address)
    with Worker(job) as worker:

        def logged() -> Outcome:
            answer = worker.evaluate()
            stage.mlflow = MlflowOutcome(tracking_uri=address, **answer["mlflow"])
            return Outcome.of_worker(answer)

        yield stage.row("mlflow", "the compiled run again, to MLflow", logged)


def compare_programs(stage: Stage) -> Iterator[Row]:
    """Evaluate both programs with three answers to each review, and ask whether one is better."""
    if importlib.util.find_spec("scipy") is None:
        stage.verdict = Verdict("none: pip install 'dspy-cachectl[stats]'")
        return
    reports: dict[str, EvalReport] = {}

    def measured(name: str, program: dspy.Module) -> Outcome:
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
        found = task.Scored(100.0 * report.score, ())
        return Outcome(
            served=counters["served"], counted=counters["requests"], lent=counters["temperatures_lent"], found=found
        )

    for name, program in (("zero-shot", stage.zero_shot), ("compiled", _compiled(stage))):
        yield stage.row(f"{name}-repeated", f"evaluate(), {name}: {REPEATS} repeats", partial(measured, name, program))
    compared = compare(reports)
    pair = compared["zero-shot", "compiled"]
    stage.verdict = Verdict(
        text=pair.verdict_text,
        baseline=pair.result.baseline_mean,
        candidate=pair.result.candidate_mean,
        low=pair.interval.low,
        high=pair.interval.high,
        repeats=REPEATS,
        plot=_plot(stage, compared),
    )


def _plot(stage: Stage, compared: Comparisons) -> Path | None:
    if importlib.util.find_spec("matplotlib") is None:
        return None
    path = stage.folder / "comparison.png"
    compared.plot(path)
    return path


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


def _fresh(stage: Stage, program: dspy.Module, run_id: str | None = None) -> Outcome:
    # The presets are named, so that a project's configuration does not change what the demo shows.
    with phase("eval", Policy.FRESH, run_id=run_id) as run:
        found = stage.evaluate(program)
    return Outcome.of(run.stats, found)


def _compile(stage: Stage) -> Outcome:
    # The optimizer prints a progress bar and a summary of its own.
    quiet = io.StringIO()
    with (
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
        phase("compile", Policy.REUSE) as run,
    ):
        stage.compiled = task.compile_program(task.Classifier(), stage.train)
    stage.compiled.save(stage.compiled_file)
    return Outcome.of(run.stats)


def _compiled(stage: Stage) -> dspy.Module:
    if stage.compiled is None:
        raise DemoError("the compiled program is evaluated before it was compiled; play the acts in order")
    return stage.compiled
