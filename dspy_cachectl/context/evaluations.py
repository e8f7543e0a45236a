"""Which evaluations ran in a phase, with what score, and which MLflow run was active when they began."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspy_cachectl.accounting.ledger import Stats
from dspy_cachectl.context import scopes
from dspy_cachectl.context.scopes import EvaluationScope, ScopeKeeper

REPORTED = "dspy_cachectl.reported"
"""What in the callback metadata of an evaluation says that its results are logged as a part of a report."""


@dataclass(frozen=True)
class Judgement:
    """What the metric said about one answer of which MLflow has a trace.

    Attributes:
        trace_id: The trace of the answer.
        value: The score.
        rationale: What the metric said beside it, or None.
    """

    trace_id: str
    value: float | bool | str
    rationale: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """One call of `dspy.Evaluate`.

    Attributes:
        metric: The metric's name.
        n: How many examples it was given.
        started: When it began, in Unix seconds.
        ended: When it ended, or None while it runs.
        score: DSPy's score, in percent; None where it failed or runs still.
        mlflow_run_id: The MLflow run that was active when it began, seen in memory; None without one.
        error: The exception that ended it, as text, or None.
        stats: What happened to the calls of its program and its metric; None while it runs.
        key: DSPy's id of the call.
        judgements: The scores of the answers of which MLflow has a trace.
        experiment_id: The MLflow experiment of these traces, or None.
    """

    metric: str
    n: int
    started: float
    ended: float | None = None
    score: float | None = None
    mlflow_run_id: str | None = None
    error: str | None = None
    stats: Stats | None = None
    key: str = ""
    judgements: tuple[Judgement, ...] = ()
    experiment_id: str | None = None


class EvaluationObserver(ScopeKeeper):
    """Notes the evaluations of one phase. It stands last among the callbacks, after MLflow's autolog.

    Evaluations inside an evaluation's program, and in a phase inside this one, are noted too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Evaluation] = {}
        self._scopes: dict[str, EvaluationScope] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # DSPy's settings are pickled with their callbacks; what was noted stays with the phase.
        return type(self), ()

    def evaluations(self) -> list[Evaluation]:
        """Return what was noted, in the order in which the evaluations began."""
        with self._lock:
            return list(self._found.values())

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note that an evaluation began."""
        scope = open_scope(call_id)
        devset = inputs.get("devset") or instance.devset
        begun = Evaluation(
            metric=metric_name(unwrapped(inputs.get("metric") or instance.metric)),
            n=len(devset or ()),
            started=time.time(),
            mlflow_run_id=scope.mlflow_run,
            key=call_id,
        )
        with self._lock:
            self._found[call_id] = begun
            self._scopes[call_id] = scope

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002 - DSPy's
        """Note the MLflow run of a compile."""
        open_scope(call_id)

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Note how an evaluation ended."""
        with self._lock:
            begun, scope = self._found.get(call_id), self._scopes.pop(call_id, None)
        self._leave(call_id, outputs, exception)
        if begun is None or scope is None:
            return
        ended = replace(
            begun,
            ended=time.time(),
            score=None if outputs is None else float(outputs.score),
            mlflow_run_id=_own_run(scope.mlflow_run),
            error=None if exception is None else f"{type(exception).__name__}: {exception}",
            stats=scope.ledger.snapshot(),
            judgements=tuple(_judgements(scope.answers, getattr(outputs, "results", ()))),
            experiment_id=scope.experiment_id,
        )
        with self._lock:
            self._found[call_id] = ended


def open_scope(call_id: str) -> EvaluationScope:
    """Open the scope of an evaluation or a compile, in the MLflow run that is active in this thread."""
    scope = scopes.opened(call_id)
    scopes.set_mlflow_run(scope, active_mlflow_run())
    return scope


def active_mlflow_run() -> str | None:
    """Return the id of the MLflow run that is active in this thread; asks neither disk nor network."""
    active = _active_run()
    return None if active is None else str(active.info.run_id)


def _active_run() -> Any | None:
    mlflow = sys.modules.get("mlflow")
    return mlflow.active_run() if mlflow is not None and hasattr(mlflow, "active_run") else None


def _own_run(at_start: str | None) -> str | None:
    """Return the evaluation's run, given the one at its start.

    An observer that stands before autolog in the list sees the run that autolog opens only at the end.
    """
    active = _active_run()
    if active is None:
        return at_start
    now = str(active.info.run_id)
    return now if at_start is None or active.data.tags.get("mlflow.parentRunId") == at_start else at_start


def _judgements(answers: Sequence[tuple[Any, str]], results: Sequence[tuple[Any, Any, Any]]) -> Any:
    traces: dict[int, list[str]] = defaultdict(list)
    for answer, trace_id in answers:
        traces[id(answer)].append(trace_id)
    for _, prediction, score in results:
        if not (found := traces.get(id(prediction))):
            continue  # loaded, failed, or not traced
        value = getattr(score, "score", score)
        feedback = getattr(score, "feedback", None)
        plain = value if isinstance(value, (bool, float, str)) else _as_number(value)
        if plain is not None:
            yield Judgement(found.pop(0), plain, None if feedback is None else str(feedback))


def _as_number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def unwrapped(metric: Any) -> Any:
    """Return a metric as the user gave it, without what autolog put around it."""
    if not (getattr(metric, "__module__", None) or "").startswith("mlflow."):
        return metric
    function = inspect.unwrap(metric)
    closure, code = getattr(function, "__closure__", None), getattr(function, "__code__", None)
    cells = dict(zip(code.co_freevars, closure, strict=True)) if closure and code else {}
    return cells["metric"].cell_contents if "metric" in cells else metric


def metric_name(metric: Any) -> str:
    """Return what DSPy calls a metric."""
    return str(getattr(metric, "__name__", type(metric).__name__))
