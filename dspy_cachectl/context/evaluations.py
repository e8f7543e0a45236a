"""Which evaluation a call is within, and which evaluations ran in a phase: when, with what score, in which MLflow run.

A scope is opened by an evaluation or an optimizer's compile. Its id travels in DSPy's settings, so that what is called
within it finds the scope again in whatever thread DSPy carries them to.
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from dspy_cachectl.accounting.ledger import Ledger, Stats
from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.context import carried

REPORTED = "dspy_cachectl.reported"
"""What in the callback metadata of an evaluation says that its results are logged as a part of a report."""


@dataclass(eq=False)
class EvaluationScope:
    """What happens within one evaluation or compile.

    Attributes:
        call_id: DSPy's id of the call that opened it.
        parent: The scope that it was opened in, or None.
        mlflow_run: The MLflow run that it belongs to, seen in memory; None without one.
        ledger: Its counters, those of the scopes inside it included.
        answers: What its program answered, with the trace of it. Appended to from any thread.
        experiment_id: The MLflow experiment of these traces, once there is one.
        program: What is evaluated; None where that is no module.
        depth: Within how many modules it was opened.
        put: Its id, as it was put into DSPy's settings.
        compiles: Whether a compile opened it.
    """

    call_id: str
    parent: EvaluationScope | None = None
    mlflow_run: str | None = None
    ledger: Ledger = field(default_factory=Ledger)
    answers: list[tuple[Any, str]] = field(default_factory=list)
    experiment_id: str | None = None
    program: Any = None
    depth: int = 0
    put: Any = None
    compiles: bool = False


_SETTING = "cachectl_evaluation"
"""The key in DSPy's settings under which the id of a scope travels."""

_within: dict[str, EvaluationScope] = {}
"""The scopes of the evaluations and compiles that are under way, by their ids."""

_owners: dict[str, dict[str, None]] = {}
"""The calls that opened a scope in an MLflow run, by the run, the oldest first."""
_lock = free_after_fork(threading.Lock())
_MOST_RUNS = _MOST_OWNERS = 1000


def opened(call_id: str) -> EvaluationScope:
    """Return the scope that this call opens; the first callback to ask makes it."""
    scope = _within.get(call_id)
    if scope is None:
        scope = _within[call_id] = EvaluationScope(call_id, parent=current(), depth=_depth())
        scope.put = carried.put(_SETTING, call_id)
    return scope


def left(call_id: str) -> None:
    """Leave the scope that this call opened. Does nothing where another callback has."""
    scope = _within.pop(call_id, None)
    if scope is not None:
        carried.take_back(_SETTING, scope.put, scope.put.before)


def current() -> EvaluationScope | None:
    """Return the scope within which this code runs, or None."""
    return _within.get(carried.found(_SETTING) or "") if _within else None


def directly() -> EvaluationScope | None:
    """Return the scope of the evaluation or compile that made the present call itself, or None."""
    scope = current()
    return scope if scope is not None and scope.depth == _depth() else None


def _depth() -> int:
    return len(carried.found("caller_modules") or ())


def is_metrics(instance: Any) -> bool:
    """Tell whether a module that is called now is the metric's: an evaluation calls it, and it is not its program."""
    scope = directly()
    return scope is not None and scope.program is not None and scope.program is not instance


def set_mlflow_run(scope: EvaluationScope, mlflow_run: str | None) -> None:
    """Note the MLflow run that a scope belongs to, also for after its end: the run may be open for longer."""
    scope.mlflow_run = mlflow_run
    if mlflow_run is not None:
        with _lock:
            owners = _owners.setdefault(mlflow_run, {})
            owners[scope.call_id] = None
            if len(owners) > _MOST_OWNERS:
                # One that has ended tells as much as a thousand.
                owners.pop(next((one for one in owners if one not in _within), scope.call_id))
            while len(_owners) > _MOST_RUNS:
                del _owners[next(iter(_owners))]


def elsewhere(scope: EvaluationScope, mlflow_run: str) -> bool:
    """Tell whether an MLflow run belongs to scopes that this one is not within, under way or ended."""
    with _lock:
        owners = set(_owners.get(mlflow_run, ()))
    return bool(owners) and not any(one.call_id in owners for one in _outward(scope))


def ledgers() -> list[Ledger]:
    """Return the ledgers of the scopes that this code is within, the innermost first."""
    return [scope.ledger for scope in _outward(current())] if _within else []


def outermost_compile(scope: EvaluationScope) -> str:
    """Return the id of the compile that a scope is within, the outermost of them; "" where there is none."""
    return next((one.call_id for one in reversed([*_outward(scope)]) if one.compiles), "")


def _outward(scope: EvaluationScope | None) -> Iterator[EvaluationScope]:
    while scope is not None:
        yield scope
        scope = scope.parent


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
        begun: When it began, on the monotonic clock.
        seconds: How long it took, whatever the clock was set to meanwhile; 0 while it runs.
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
    begun: float = 0.0
    seconds: float = 0.0


class EvaluationObserver(BaseCallback):  # type: ignore[misc]
    """Notes the evaluations of one phase. It hears of them last, after MLflow's autolog.

    Evaluations inside an evaluation's program, and in a phase inside this one, are noted too.
    """

    def __init__(self) -> None:
        # One operation on each at a time, which needs no lock.
        self._found: dict[str, Evaluation] = {}
        # The first observer to hear of an end leaves its scope.
        self._scopes: dict[str, EvaluationScope] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # DSPy's settings are pickled with their callbacks; what is under way, and what was noted, is of this process.
        return type(self), ()

    def evaluations(self) -> list[Evaluation]:
        """Return what was noted, in the order in which the evaluations began."""
        return list(self._found.values())

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note that an evaluation began."""
        scope = open_scope(call_id)
        program = inputs.get("program")
        scope.program = program if isinstance(program, dspy.Module) else None
        devset = inputs.get("devset") or instance.devset
        begun = Evaluation(
            metric=metric_name(unwrapped(inputs.get("metric") or instance.metric)),
            n=len(devset or ()),
            started=time.time(),
            begun=time.monotonic(),
            mlflow_run_id=scope.mlflow_run,
            key=call_id,
        )
        self._found[call_id], self._scopes[call_id] = begun, scope

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002 - DSPy's
        """Note the MLflow run of a compile."""
        open_scope(call_id)

    def on_compile_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:  # noqa: ARG002
        """Leave the scope of a compile."""
        left(call_id)

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Note how an evaluation ended."""
        begun, scope = self._found.get(call_id), self._scopes.pop(call_id, None)
        left(call_id)
        if begun is None or scope is None:
            return
        self._found[call_id] = replace(
            begun,
            ended=time.time(),
            seconds=time.monotonic() - begun.begun,
            score=None if outputs is None else float(outputs.score),
            mlflow_run_id=_own_run(scope.mlflow_run),
            error=None if exception is None else f"{type(exception).__name__}: {exception}",
            stats=scope.ledger.snapshot(),
            judgements=tuple(_judgements(scope.answers, getattr(outputs, "results", ()))),
            experiment_id=scope.experiment_id,
        )


def open_scope(call_id: str) -> EvaluationScope:
    """Open the scope of an evaluation or a compile, in the MLflow run that is active in this thread."""
    scope = opened(call_id)
    set_mlflow_run(scope, active_mlflow_run())
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
