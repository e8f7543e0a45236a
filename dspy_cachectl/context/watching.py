"""Hearing of evaluations and compiles without a callback in DSPy's settings.

A callback there makes DSPy call every module, tool and LM from another line, and the program may read its own stack.
DSPy asks the object that is called for callbacks as well, and for these objects, and DSPy alone, there is one of ours:
in every phase and in none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from dspy.utils.callback import BaseCallback

from dspy_cachectl.context.best import Scoring
from dspy_cachectl.context.evaluations import EvaluationObserver, left, open_scope, outermost_compile
from dspy_cachectl.context.phases import PhaseContext
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_around

_ASKS = "_get_active_callbacks"
_NAME = "callbacks"


class _Watch(BaseCallback):  # type: ignore[misc]
    """Opens the scope of each evaluation and each compile, and tells the phases around them."""

    def __init__(self) -> None:
        self._told: dict[str, list[EvaluationObserver]] = {}
        self._scoring: dict[str, Scoring] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        told = self._told[call_id] = list(_observers())
        scope = open_scope(call_id)
        for observer in told:
            observer.on_evaluate_start(call_id, instance, inputs)
        compile_id = outermost_compile(scope)
        if compile_id or _compiles_by_hand():
            scoring = Scoring.begun(inputs.get("program"), inputs.get("devset") or instance.devset)
            if scoring is not None:
                self._scoring[call_id] = scoring
            state.candidates.score(compile_id, inputs.get("program"), inputs.get("devset") or instance.devset)

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        for observer in self._told.pop(call_id, ()):
            observer.on_evaluate_end(call_id, outputs, exception)
        if (scoring := self._scoring.pop(call_id, None)) is not None:
            scoring.ended(outputs)
        left(call_id)

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002 - DSPy's
        open_scope(call_id).compiles = True
        state.candidates.begin(call_id, inputs)

    def on_compile_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:  # noqa: ARG002
        left(call_id)
        state.candidates.end(call_id, outputs)


class Watched:
    """The `callbacks` of a class of DSPy's whose calls are watched. Whoever is not DSPy sees the object's own."""

    def __init__(self) -> None:
        self._watch = _Watch()

    def __get__(self, instance: Any, owner: type) -> Any:
        own = {} if instance is None else vars(instance)
        asking = sys._getframe(1)  # noqa: SLF001 - what others read there, and add to, is the object's own list
        if asking.f_code.co_name == _ASKS and instance is not None:
            return [*own.get(_NAME, ()), self._watch]
        if _NAME not in own:
            raise AttributeError(f"{owner.__name__!r} object has no attribute {_NAME!r}", name=_NAME, obj=instance)
        return own[_NAME]

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[_NAME] = value

    def __delete__(self, instance: Any) -> None:
        if vars(instance).pop(_NAME, self) is self:
            raise AttributeError(_NAME)


def _compiles_by_hand() -> bool:
    """Tell whether this is within a phase that compiles."""
    context = phase_around()
    return context is not None and context.name == "compile"


def _observers() -> Iterator[EvaluationObserver]:
    """Return those of the phases around this place, the outermost last."""
    context: PhaseContext | None = phase_around()
    while context is not None:
        run = state.runs.get(context.token)
        if run is not None and run.observer is not None:
            yield run.observer
        context = None if run is None else run.outer
