"""A pair of DSPy callbacks that log every evaluation by itself, with its ledger, into the MLflow run that it is in."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.calls.spans import SpanHead, hide_secrets
from dspy_cachectl.context import evaluations
from dspy_cachectl.context.evaluations import REPORTED, EvaluationObserver
from dspy_cachectl.context.ruling import current_phase
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.fingerprints.provenance import provenance_of
from dspy_cachectl.tracking.deadline import check_limit
from dspy_cachectl.tracking.log import check_destination, log_results
from dspy_cachectl.tracking.outgoing import program_model
from dspy_cachectl.tracking.phase_records import PhaseResults, of_run
from dspy_cachectl.tracking.record import Dataset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspy_cachectl.context.evaluations import EvaluationScope

logger = logger_for(__name__)


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
        ConfigurationError: The timeout is not a number of seconds, or MLflow is set to something that is no address.
    """
    check_destination()
    hide_secrets()
    return SpanHead(), EvaluationLogger(timeout=timeout)


class EvaluationLogger(EvaluationObserver):
    """The tail: it logs each evaluation when it has ended.

    Args:
        timeout: Seconds that an evaluation waits for the server.
    """

    def __init__(self, *, timeout: float = 10.0) -> None:
        super().__init__()
        self._timeout = check_limit(timeout)
        self._begun: dict[str, dict[str, Any]] = {}
        self._compiles: dict[str, EvaluationScope] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(EvaluationLogger, timeout=self._timeout), ()

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note what is evaluated, before it runs."""
        super().on_evaluate_start(call_id, instance, inputs)
        metadata = inputs.get("callback_metadata") or {}
        if not (metadata.get("disable_logging") or metadata.get(REPORTED)):
            devset, metric = inputs.get("devset") or instance.devset, inputs.get("metric") or instance.metric
            self._begun[call_id] = _made_of(inputs.get("program"), devset, metric)

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Log how it went."""
        scope = self._scopes.get(call_id)
        super().on_evaluate_end(call_id, outputs, exception)
        ended = self._found.pop(call_id, None)
        begun = self._begun.pop(call_id, None)
        if ended is None or begun is None:
            return
        outer = None if scope is None else scope.parent
        if outer is not None and ended.mlflow_run_id in (None, outer.mlflow_run):
            return  # it is a part of what it is in
        self._log(evaluations=[ended], stats=ended.stats, **begun)

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note that a compile began."""
        super().on_compile_start(call_id, instance, inputs)
        scope = evaluations.opened(call_id)
        if scope.parent is None:
            self._compiles[call_id] = scope

    def on_compile_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """Log what a compile has cost, where it has a run."""
        run = evaluations.active_mlflow_run()
        super().on_compile_end(call_id, outputs, exception)
        scope = self._compiles.pop(call_id, None)
        if scope is not None and run is not None:
            self._log(provenance={}, stats=scope.ledger.snapshot(), kind="compile")

    def _log(self, *, provenance: Mapping[str, Any], **content: Any) -> None:
        known = {**provenance, **of_run(current_phase())}
        try:
            log_results(PhaseResults(provenance=known, **content), timeout=self._timeout)
        except Exception as error:  # noqa: BLE001 - an evaluation is paid for, and goes on whatever MLflow does
            logger.warning("an evaluation could not be logged to MLflow: %r", error)


def _made_of(program: Any, devset: Any, metric: Any) -> dict[str, Any]:
    """Return what of an evaluation is known before it runs: provenance, model and data set."""
    try:
        known = provenance_of(program, questions_of(devset), evaluations.unwrapped(metric))
    except Exception as error:  # noqa: BLE001 - without them the score stands all the same
        logger.warning("an evaluation is logged without its provenance: %r", error)
        return {"provenance": {}}
    return {
        "provenance": known,
        "model": program_model(type(program).__name__, known),
        "dataset": Dataset(known["data"][:36], len(devset)),
    }
