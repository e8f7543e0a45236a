"""Which evaluation a call is within, wherever it runs: what DSPy carries into its threads is the id of a call.

A scope is opened by an evaluation or an optimizer's compile. Every call of DSPy that is made within it (a module, an
LM, a tool, ...) is entered under its own id, so that what is made within that call finds the scope again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from dspy.utils.callback import BaseCallback
from dspy.utils.callback_context import ACTIVE_CALL_ID

from dspy_cachectl.accounting.ledger import Ledger


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
    """

    call_id: str
    parent: EvaluationScope | None = None
    mlflow_run: str | None = None
    ledger: Ledger = field(default_factory=Ledger)
    answers: list[tuple[Any, str]] = field(default_factory=list)
    experiment_id: str | None = None


_within: dict[str, EvaluationScope] = {}
"""The scopes of the calls that are under way, by their ids."""

_owners: dict[str, set[str]] = {}
"""The calls that opened a scope in an MLflow run, by the run, the oldest first."""
_lock = threading.Lock()
_MOST_RUNS = 1000


def opened(call_id: str) -> EvaluationScope:
    """Return the scope that this call opens; the first callback to ask makes it."""
    scope = _within.get(call_id)
    if scope is None or scope.call_id != call_id:
        scope = _within[call_id] = EvaluationScope(call_id, parent=current())
    return scope


def current() -> EvaluationScope | None:
    """Return the scope within which this code runs, or None."""
    return _within.get(ACTIVE_CALL_ID.get() or "") if _within else None


def directly() -> EvaluationScope | None:
    """Return the scope of the evaluation or compile that made the present call itself, or None."""
    scope = current()
    return scope if scope is not None and scope.call_id == ACTIVE_CALL_ID.get() else None


def set_mlflow_run(scope: EvaluationScope, mlflow_run: str | None) -> None:
    """Note the MLflow run that a scope belongs to, also for after its end: the run may be open for longer."""
    scope.mlflow_run = mlflow_run
    if mlflow_run is not None:
        with _lock:
            _owners.setdefault(mlflow_run, set()).add(scope.call_id)
            while len(_owners) > _MOST_RUNS:
                del _owners[next(iter(_owners))]


def elsewhere(scope: EvaluationScope, mlflow_run: str) -> bool:
    """Tell whether an MLflow run belongs to scopes that this one is not within, under way or ended."""
    with _lock:
        owners = set(_owners.get(mlflow_run, ()))
    outer: EvaluationScope | None = scope
    while outer is not None:
        if outer.call_id in owners:
            return False
        outer = outer.parent
    return bool(owners)


def ledgers() -> list[Ledger]:
    """Return the ledgers of the scopes that this code is within, the innermost first."""
    found, scope = [], current()
    while scope is not None:
        found.append(scope.ledger)
        scope = scope.parent
    return found


class ScopeKeeper(BaseCallback):  # type: ignore[misc]
    """Keeps track of what is within what. Several of them in one list do no harm."""

    def _enter(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002 - DSPy's signature
        scope = current()
        if scope is not None:
            _within[call_id] = scope

    def _leave(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:  # noqa: ARG002
        _within.pop(call_id, None)

    def _open(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002
        opened(call_id)

    on_module_start = on_lm_start = on_tool_start = on_adapter_format_start = on_adapter_parse_start = _enter
    on_interpreter_execute_start = on_interpreter_tool_call_start = _enter
    on_module_end = on_lm_end = on_tool_end = on_adapter_format_end = on_adapter_parse_end = _leave
    on_interpreter_execute_end = on_interpreter_tool_call_end = _leave
    on_evaluate_start = on_compile_start = _open
    on_evaluate_end = on_compile_end = _leave
