"""The best program of an optimizer so far, for who has no money left for the rest: it was scored, and nothing refused.

`dspy.Evaluate` scores a program as a whole, and DSPy's optimizers score most of theirs so; SIMBA scores question by
question. Of two programs that were scored on unequally many questions the one of more is the better known.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from dspy_cachectl.budgets import opened
from dspy_cachectl.budgets.best import Best
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_around
from dspy_cachectl.errors import BudgetExceededError

_PERCENT = 100.0
_REFUSED: contextvars.ContextVar[list[BudgetExceededError] | None] = contextvars.ContextVar(
    "dspy_cachectl_refused", default=None
)
"""Where refusals are noted of the question that is asked within."""


def _told_here() -> Iterator[tuple[Best, PhaseRun]]:
    """Yield what the passages around this place know of programs that tell at their end what a budget did not allow."""
    context = phase_around()
    while context is not None and (run := state.runs.get(context.token)) is not None:
        if run.best is not None:
            yield run.best, run
        context = run.outer


class Scoring:
    """One evaluation of a candidate.

    Args:
        program: The candidate.
        count: On how many questions it is scored.
        told: What is told, each with its passage.
    """

    def __init__(self, program: Any, count: int, told: list[tuple[Best, PhaseRun]]) -> None:
        self._program, self._count, self._told = program, count, told
        self._before = self._refused()

    @classmethod
    def begun(cls, program: Any, devset: Any) -> Scoring | None:
        """Begin; return None where there is no budget, and nobody to tell."""
        told = list(_told_here())
        return cls(program, len(devset), told) if told else None

    def ended(self, outputs: Any) -> None:
        """Note the score, where nothing was refused meanwhile."""
        score = getattr(outputs, "score", None)
        if isinstance(score, (int, float)) and self._refused() == self._before:
            for best, _ in self._told:
                best.note(self._program, self._count, float(score))

    def _refused(self) -> int:
        return sum(budget.refused for _, run in self._told for budget, _ in run.answers_for)


def _note_refusal(error: BudgetExceededError) -> None:
    """Note of what is asked here that a budget did not allow it, whatever the program makes of that."""
    refused, context = _REFUSED.get(), phase_around()
    if refused is not None:
        refused.append(error)
    while context is not None and (run := state.runs.get(context.token)) is not None:
        if run.refused_units is not None:
            run.refused_units[context.unit] = error
        context = run.outer


opened.on_refusal = _note_refusal


def scoring_by_question(original: Callable[..., Any]) -> Callable[..., Any]:
    """Around what SIMBA asks a program with: it scores question by question, and what it is told of errors is a 0."""

    def wrap(program: Any, metric: Any) -> Any:
        ask, told = original(program, metric), list(_told_here())
        if not told:
            return ask

        def scored(example: Any) -> Any:
            refused: list[BudgetExceededError] = []
            token = _REFUSED.set(refused)
            try:
                said = ask(example)
            finally:
                _REFUSED.reset(token)
            for best, _ in told:
                best.add(program, None if refused else float(said["score"]) * _PERCENT)
            return said

        return scored

    return wrap
