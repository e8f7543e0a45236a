"""Units: what of a run belongs together, so that a resumed run puts the same draws together again.

The outermost call of a module is a unit, named by its inputs and by how often these were given before. Without it, the
calls of equal examples in several threads would share one sequence of draws, and each resumption would deal it out
differently.

A module tells DSPy's settings that it is called, and there the unit is put beside it. A callback would do as well, but
where DSPy has one it calls modules from another line, which an agent reads in its tool's traceback, and asks with.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import dspy

from dspy_cachectl.context.evaluations import directly, is_metrics
from dspy_cachectl.context.phases import PhaseContext
from dspy_cachectl.context.process import SETTING, state
from dspy_cachectl.context.ruling import phase_around
from dspy_cachectl.entries import draws


def _code(method: Any) -> CodeType | None:
    return getattr(getattr(method, "__wrapped__", method), "__code__", None)


_ANY = "any"
"""A unit in which nothing is numbered, and whose inputs are not looked at."""

_CALLS = frozenset({_code(dspy.Module.__call__), _code(dspy.Module.acall)})


def naming_units(original: Callable[..., Any]) -> Callable[..., Any]:
    """Around what overrides DSPy's settings: the outermost call of a module in a phase is a unit.

    What it returns is DSPy's own, so that nothing of this is on the stack while the module runs.
    """

    @functools.wraps(original)
    def context(settings: Any, **overrides: Any) -> Any:
        if "caller_modules" in overrides:
            around = phase_around()
            if around is not None and around.draws_of is None:
                unit = _unit(around, sys._getframe(1))  # noqa: SLF001 - a module's own call tells only what it is in
                overrides |= {} if unit is None else {SETTING: unit}
        return original(settings, **overrides)

    return context


def _unit(context: PhaseContext, caller: FrameType) -> PhaseContext | None:
    run = state.runs.get(context.token)
    if run is None or caller.f_code not in _CALLS:
        return None
    judging = context.judging or (directly() is not None and is_metrics(caller.f_locals["self"]))
    if not context.numbers_draws:
        return run.once_within(_ANY, context, judging)  # that it is within one says that a call is not from outside
    args, kwargs = caller.f_locals["args"], caller.f_locals["kwargs"]
    inputs = {"args": list(map(_plain, args)), "kwargs": {name: _plain(value) for name, value in kwargs.items()}}
    try:
        name = hashlib.sha256(draws.canonical(inputs)).hexdigest()[:32]
    except draws.UncacheableError:
        # Inputs that cannot be told apart make no unit: the draws are then numbered within the run.
        return context.within(None, judging=True) if judging else None
    occurrence = run.ordinals.next(name, unit="units")
    return context.within(f"{name}:{occurrence}", judging=judging)


def _plain(value: Any) -> Any:
    """Return an example or a prediction, which a metric is called with, as its fields."""
    return value.toDict() if isinstance(value, dspy.Example) else value
