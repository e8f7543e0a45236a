"""What a trace of MLflow shows of a call: its phase, its draw, and whether it was served or bought.

Autolog's callback opens and closes the spans. Who adds to them is told before it is, so that it sees a span that is
about to close: a head that stands before it in DSPy's list of callbacks, or in a phase one that stands in no list.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from dspy_cachectl.accounting.ledger import SERVED
from dspy_cachectl.boundary.secrets import is_secret_name, scrub, without
from dspy_cachectl.calls.account import WATCHED
from dspy_cachectl.calls.call import Call, current_call
from dspy_cachectl.calls.lm import Governed
from dspy_cachectl.context import evaluations
from dspy_cachectl.context.evaluations import EvaluationScope
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_around

PREFIX = "dspy_cachectl"

EVALUATION_TAG = f"{PREFIX}.evaluation"
"""The tag of the traces of one evaluation."""

SOURCE_RUN = "mlflow.sourceRun"
"""The metadata that makes a trace belong to a run."""

_USAGE = "mlflow.chat.tokenUsage"
_AUTOLOG = "mlflow.dspy.callback"


class SpanHead(BaseCallback):  # type: ignore[misc]
    """Says in the span of each LM call what became of it, and in each trace of an evaluation whose it is.

    It stands before autolog's callback.
    """

    def __init__(self) -> None:
        self._outside: dict[str, str | None] = {}
        self._given_secrets: set[str] = set()

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Watch a call, and note the span around it."""
        self._look_at(call_id, inputs.get("kwargs"))
        WATCHED[call_id] = current_call() if isinstance(instance, Governed) else None
        self._outside[call_id] = _span_id(_active_span())

    def on_lm_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:  # noqa: ARG002
        """Say in the call's span what became of it."""
        call, outside = WATCHED.pop(call_id, None), self._outside.pop(call_id, None)
        span = _active_span()
        # Where no span was opened for the call, the active one is somebody else's.
        given_secrets = self._was_given_secrets(call_id)
        if span is None or _span_id(span) == outside or span.parent_id != outside:
            return
        if call is not None:
            span.set_attributes(attributes(call, failed=exception is not None))
        if given_secrets:
            span.set_inputs(_shown(span.inputs))

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002
        """Look at the options that a module is called with."""
        self._look_at(call_id, (inputs.get("kwargs") or {}).get("config"))

    def on_module_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:  # noqa: ARG002
        """Say whose the trace of an evaluation's answer is."""
        if self._was_given_secrets(call_id) and (span := _active_span()) is not None and "config" in span.inputs:
            # Its other inputs are the program's own, whatever their names.
            span.set_inputs({**span.inputs, "config": _shown(span.inputs["config"])})
        scope = evaluations.directly()
        if scope is not None and (span := _active_span()) is not None:
            _claim(span, scope, outputs)

    def _look_at(self, call_id: str, options: Any) -> None:
        if options and _shown(options) != options:
            self._given_secrets.add(call_id)

    def _was_given_secrets(self, call_id: str) -> bool:
        was = call_id in self._given_secrets
        self._given_secrets.discard(call_id)
        return was


_HEAD = SpanHead()


def watch_autolog() -> None:
    """Have autolog's callback tell a head before it opens and closes the span of a call in a phase, where it is there.

    The head stands in no list of callbacks: those are the program's.
    """
    kind = getattr(sys.modules.get(_AUTOLOG), "MlflowCallback", None)
    if kind is None:
        return
    hide_secrets()
    for name in ("on_lm_start", "on_lm_end", "on_module_start", "on_module_end"):
        if (kind, name) not in state.replaced:
            state.replaced[kind, name] = getattr(kind, name)
            setattr(kind, name, _after_head(name, getattr(kind, name)))


def _after_head(name: str, theirs: Callable[..., Any]) -> Callable[..., Any]:
    tell = getattr(_HEAD, name)

    @functools.wraps(theirs)
    def told(callback: Any, call_id: str, *args: Any, **kwargs: Any) -> Any:
        if phase_around() is not None and not _has_head():
            tell(call_id, *args, **kwargs)
        return theirs(callback, call_id, *args, **kwargs)

    return told


def _has_head() -> bool:
    """Tell whether somebody put a head before autolog's callback: two of them would watch one call."""
    for one in dspy.settings.get("callbacks") or ():
        if type(one).__module__ == _AUTOLOG:
            return False
        if isinstance(one, SpanHead):
            return True
    return False


def hide_secrets() -> None:
    """Have autolog leave headers and other secrets of an LM out of params and spans; by itself it knows keys only."""
    util: Any = sys.modules.get("mlflow.dspy.util")
    known = getattr(util, "EXCLUDE_LM_PARAMS", None)
    if isinstance(known, set) and not isinstance(known, _SecretOptions):
        util.EXCLUDE_LM_PARAMS = _SecretOptions(known)
    # It has the function by its name in two modules.
    modules: tuple[Any, ...] = (util, sys.modules.get(_AUTOLOG))
    for module in modules:
        theirs = getattr(module, "sanitize_params", None)
        if theirs is not None and not isinstance(theirs, _Sanitized):
            module.sanitize_params = _Sanitized(theirs)


class _SecretOptions(set[str]):
    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).endswith("headers") or is_secret_name(str(name))


class _Sanitized:
    """Leaves secrets out at any depth, after what leaves them out by the names of options."""

    def __init__(self, theirs: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self._theirs = theirs

    def __call__(self, params: Mapping[str, Any]) -> Any:
        return _shown(self._theirs(params))


def _shown(options: Any) -> Any:
    return without(options, text=scrub)


def forget_last_trace() -> None:
    """Make this thread's last trace nobody's: an answer that was loaded has none.

    Autolog takes the last trace of the thread for that of the answer which the metric is about to score.
    """
    tracing = sys.modules.get("mlflow.tracing.fluent")
    last = getattr(tracing, "_LAST_ACTIVE_TRACE_ID_THREAD_LOCAL", None)
    if last is not None:
        last.set(None)


def attributes(call: Call, *, failed: bool) -> dict[str, Any]:
    """Return what a span says of a call. Tokens are said of bought answers only: what is served costs nothing."""
    # Not from its tally: the span closes before the call is counted.
    asked, origin = call.asked, call.answered.paid or call.answered.origin
    outcome = call.answered.outcome or ("failed" if failed else None)
    found = {
        "phase": asked.ruling.context.name or None,
        "role": asked.role,
        "run_id": asked.run_id,
        "rollout_id": asked.key.rollout_id,
        "cache_key": call.key,
        "outcome": outcome,
        "cache_hit": outcome in SERVED,
    }
    said = {f"{PREFIX}.{name}": value for name, value in found.items() if value is not None}
    if origin is not None and outcome not in SERVED:
        read, written = origin.prompt_tokens or 0, origin.completion_tokens or 0
        if read or written:
            said[_USAGE] = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
            of_read = ("cache_read", origin.cached_tokens), ("cache_creation", origin.cache_creation_tokens)
            said[_USAGE] |= {f"{name}_input_tokens": count for name, count in of_read if count}
    return said


def _claim(span: Any, scope: EvaluationScope, outputs: Any) -> None:
    manager = sys.modules["mlflow.tracing.trace_manager"].InMemoryTraceManager.get_instance()
    with manager.get_trace(span.trace_id) as trace:
        if trace is None:
            return  # another SDK's
        scope.experiment_id = trace.info.experiment_id
        trace.info.tags[EVALUATION_TAG] = scope.call_id
        said = trace.info.trace_metadata
        # MLflow takes the newest run of all threads for the trace's, which may be another evaluation's.
        if scope.mlflow_run is not None:
            said[SOURCE_RUN] = scope.mlflow_run
        elif SOURCE_RUN in said and evaluations.elsewhere(scope, said[SOURCE_RUN]):
            del said[SOURCE_RUN]
    scope.answers.append((outputs, span.trace_id))


def _active_span() -> Any | None:
    mlflow = sys.modules.get("mlflow")
    return None if mlflow is None else mlflow.get_current_active_span()


def _span_id(span: Any | None) -> str | None:
    return None if span is None else str(span.span_id)
