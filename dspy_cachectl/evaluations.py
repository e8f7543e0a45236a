"""Which evaluations ran in a phase, with what score, and which MLflow run was active when they began."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from dspy.utils.callback import BaseCallback


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
    """

    metric: str
    n: int
    started: float
    ended: float | None = None
    score: float | None = None
    mlflow_run_id: str | None = None
    error: str | None = None


class EvaluationObserver(BaseCallback):  # type: ignore[misc]
    """Notes the evaluations of one phase. It stands last among the callbacks, after MLflow's autolog.

    Evaluations inside an evaluation's program, and in a phase inside this one, are noted too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Evaluation] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # DSPy's settings are pickled with their callbacks; what was noted stays with the phase.
        return EvaluationObserver, ()

    def evaluations(self) -> list[Evaluation]:
        """Return what was noted, in the order in which the evaluations began."""
        with self._lock:
            return list(self._found.values())

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note that an evaluation began."""
        metric = inputs.get("metric") or instance.metric
        devset = inputs.get("devset") or instance.devset
        begun = Evaluation(
            metric=getattr(metric, "__name__", type(metric).__name__),
            n=len(devset or ()),
            started=time.time(),
            mlflow_run_id=active_mlflow_run(),
        )
        with self._lock:
            self._found[call_id] = begun

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Note how an evaluation ended."""
        with self._lock:
            begun = self._found.get(call_id)
            if begun is not None:
                self._found[call_id] = replace(
                    begun,
                    ended=time.time(),
                    score=None if outputs is None else float(outputs.score),
                    error=None if exception is None else f"{type(exception).__name__}: {exception}",
                )


def active_mlflow_run() -> str | None:
    """Return the id of the MLflow run that is active in this thread; asks neither disk nor network."""
    mlflow = sys.modules.get("mlflow")
    active = mlflow.active_run() if mlflow is not None and hasattr(mlflow, "active_run") else None
    return None if active is None else str(active.info.run_id)
