"""Units: what of a run belongs together, so that a resumed run puts the same draws together again.

The outermost call of a module is a unit, named by its inputs and by how often these were given before. Without it, the
calls of equal examples in several threads would share one sequence of draws, and each resumption would deal it out
differently.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from dspy_cachectl.context.evaluations import is_metrics
from dspy_cachectl.context.process import SETTING, state
from dspy_cachectl.entries import draws


class UnitMarker(BaseCallback):  # type: ignore[misc]
    """Makes each outermost call of a module in a phase a unit."""

    def __init__(self) -> None:
        self._entered: dict[str, AbstractContextManager[None]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # DSPy's settings are pickled with their callbacks; what is entered is of this process.
        return UnitMarker, ()

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Enter a unit, unless this is inside one."""
        context = dspy.settings.get(SETTING)
        run = None if context is None or context.unit is not None else state.runs.get(context.token)
        if run is None:
            return
        try:
            name = hashlib.sha256(draws.canonical(inputs)).hexdigest()[:32]
        except draws.UncacheableError:
            return  # inputs that cannot be told apart make no unit: the draws are then numbered within the run
        occurrence = run.ordinals.next(name, unit="units")
        entered = dspy.context(**{SETTING: replace(context, unit=f"{name}:{occurrence}", judging=is_metrics(instance))})
        entered.__enter__()
        self._entered[call_id] = entered

    def on_module_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:  # noqa: ARG002
        """Leave the unit that this call entered."""
        entered = self._entered.pop(call_id, None)
        if entered is not None:
            entered.__exit__(None, None, None)


MARKER = UnitMarker()
"""One for all phases: the counting is the run's."""
