"""A pair of DSPy callbacks that log every evaluation by itself, with its ledger, into the MLflow run that it is in."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy_cachectl.calls.spans import SpanHead, hide_secrets
from dspy_cachectl.context import evaluations
from dspy_cachectl.context.evaluations import REPORTED, Evaluation, EvaluationObserver
from dspy_cachectl.context.ruling import current_phase
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.fingerprints.provenance import provenance_of
from dspy_cachectl.tracking.deadline import check_limit
from dspy_cachectl.tracking.log import log_results
from dspy_cachectl.tracking.outgoing import program_model
from dspy_cachectl.tracking.phase_records import PhaseResults
from dspy_cachectl.tracking.record import Dataset

if TYPE_CHECKING:
    from dspy_cachectl.context.evaluations import EvaluationScope
    from dspy_cachectl.context.phases import PhaseRun

logger = logging.getLogger(__name__)


def mlflow_callbacks(*, timeout: float = 10.0) -> tuple[SpanHead, EvaluationLogger]:
    """Return two callbacks that log evaluations by themselves: `head` before autolog's callback, `tail` after it.

    ```python
    mlflow.dspy.autolog(log_evals=True)
    head, tail = cachectl.mlflow_callbacks()
    dspy.configure(callbacks=[head, *dspy.settings.callbacks, tail])
    ```

    Each evaluation's score, counters and provenance go into the run that autolog opened for it, the one that is
    active, or one of its own. An evaluation inside a compile, or inside another evaluation, is logged where it has a
    run of its own; a compile's counters go into the run that is active. What `evaluate(..., mlflow=True)` logs is left
    to it.

    Args:
        timeout: Seconds that each evaluation waits for the server at its end. What it has not taken then waits in the
            outbox.

    Raises:
        ConfigurationError: The timeout is not a number of seconds.
    """
    hide_secrets()
    return SpanHead(), EvaluationLogger(timeout=timeout)


@dataclass(frozen=True)
class _Begun:
    """What is known of an evaluation when it begins. Strictly private."""

    provenance: dict[str, Any]
    name: str
    inner: bool


class EvaluationLogger(EvaluationObserver):
    """The tail: it logs each evaluation when it has ended.

    Args:
        timeout: Seconds that an evaluation waits for the server.
    """

    def __init__(self, *, timeout: float = 10.0) -> None:
        super().__init__()
        self._timeout = check_limit(timeout)
        self._begun: dict[str, _Begun] = {}
        self._compiles: dict[str, EvaluationScope] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(EvaluationLogger, timeout=self._timeout), ()

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note what is evaluated, before it runs."""
        super().on_evaluate_start(call_id, instance, inputs)
        metadata = inputs.get("callback_metadata") or {}
        if not (metadata.get("disable_logging") or metadata.get(REPORTED)):
            program = inputs.get("program")
            self._begun[call_id] = _Begun(
                _provenance(program, inputs.get("devset") or instance.devset, inputs.get("metric") or instance.metric),
                type(program).__name__,
                evaluations.opened(call_id).parent is not None,
            )

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Log how it went."""
        parent = evaluations.current()
        super().on_evaluate_end(call_id, outputs, exception)
        ended = self._found.pop(call_id, None)
        begun = self._begun.pop(call_id, None)
        if ended is None or begun is None:
            return
        if begun.inner and (ended.mlflow_run_id is None or (parent and ended.mlflow_run_id == parent.mlflow_run)):
            return  # it is a part of what it is in
        self._log(_results(ended, begun))

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note that a compile began."""
        super().on_compile_start(call_id, instance, inputs)
        scope = evaluations.opened(call_id)
        if scope.parent is None:
            self._compiles[call_id] = scope

    def on_compile_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Log what a compile has cost, where it has a run."""
        run = evaluations.active_mlflow_run()
        self._leave(call_id, outputs, exception)
        scope = self._compiles.pop(call_id, None)
        if scope is None or run is None:
            return
        phase, stats = current_phase(), scope.ledger.snapshot()
        self._log(_in_phase(phase, stats=stats, kind="compile"))

    def _log(self, results: PhaseResults) -> None:
        try:
            log_results(results, timeout=self._timeout)
        except Exception as error:  # noqa: BLE001 - an evaluation is paid for, and goes on whatever MLflow does
            logger.warning("an evaluation could not be logged to MLflow: %r", error)


def _results(ended: Evaluation, begun: _Begun) -> PhaseResults:
    made = begun.provenance
    digest = made.get("data")
    return _in_phase(
        current_phase(),
        stats=ended.stats,
        evaluations=[ended],
        provenance=made,
        model=program_model(begun.name, made) if made.get("program") else None,
        dataset=Dataset("devset", digest[:36], ended.n) if digest else None,
    )


def _in_phase(phase: PhaseRun | None, **content: Any) -> PhaseResults:
    if phase is not None:
        content |= {"phase": phase.name, "policy": phase.policy.name, "run_id": phase.run_id}
    return PhaseResults(time.time(), **content)


def _provenance(program: Any, devset: Any, metric: Any) -> dict[str, Any]:
    try:
        return provenance_of(program, questions_of(devset), evaluations.unwrapped(metric))
    except Exception as error:  # noqa: BLE001 - without them the score stands all the same
        logger.warning("an evaluation is logged without its provenance: %r", error)
        return {}
