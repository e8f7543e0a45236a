"""An evaluation within a budget: where that is spent no other question is begun, and what there is is reported."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from dspy_cachectl.budget import checked_budget
from dspy_cachectl.budgets.opened import EVERYWHERE
from dspy_cachectl.calls.installation import ensure_installed, open_budget
from dspy_cachectl.config import settings
from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.errors import BudgetExceededError
from dspy_cachectl.reports.report import EvalReport

T = TypeVar("T")


def limited(context: PhaseContext, budget: Any) -> tuple[PhaseContext, bool]:
    """Return the phase of an evaluation with its budget, and whether the evaluation ends where one is spent.

    Args:
        context: The phase to ask in.
        budget: What `evaluate` is given; None: what the settings allow the phase, where it is not open yet.

    Raises:
        ConfigurationError: If it is no budget.
    """
    own = checked_budget(budget)
    if own is None and not context.token:
        own = settings().phase_budget(context.name)
    if own is None:
        return context, bool(EVERYWHERE)
    ensure_installed()  # a budget with a name is counted in its store
    opened = open_budget(own, f"the evaluation in phase {context.name!r}")
    return replace(context, budgets=(*context.budgets, opened)), True


def one_for_all(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of several evaluations with one budget for all of them, which they know by its name."""
    budget = checked_budget(options["budget"])
    if budget is not None and budget.name is None:
        budget = replace(budget, name=f"evaluations-{uuid.uuid4().hex[:8]}")
    return {**options, "budget": budget}


class Spending:
    """What the budgets of an evaluation did not allow.

    Args:
        run: The phase that it runs in.

    Attributes:
        refusal: What was raised first; None where all was allowed.
    """

    def __init__(self, run: PhaseRun) -> None:
        self._refused = run.refused_units = {}
        self.refusal: BudgetExceededError | None = None

    def ends(self, error: BaseException) -> bool:
        """Tell whether an error says that no more is allowed; then no other question is begun."""
        if isinstance(error, BudgetExceededError):
            self.refusal = self.refusal or error
        return isinstance(error, BudgetExceededError)

    def of(self, unit: str, ask: Callable[[], T]) -> T:
        """Return what comes of a unit; where one of its calls was refused that is raised, whatever was made of it.

        Raises:
            BudgetExceededError: If one was.
            Exception: Whatever is raised otherwise.
        """
        try:
            return ask()
        finally:
            if (refusal := self._refused.pop(unit, None)) is not None:
                raise refusal


class Ending:
    """A block that ends with a report of what there is where the budget is spent.

    Args:
        run: The phase that the evaluation runs in.
        takes: Whether it does; otherwise what is raised goes on, with the report.

    Attributes:
        report: That report; None where all was asked.
    """

    def __init__(self, run: PhaseRun, *, takes: bool) -> None:
        self._run, self._takes = run, takes
        self.report: EvalReport | None = None

    def __enter__(self) -> Ending:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End."""
        if not (self._takes and isinstance(error, BudgetExceededError) and error.report is not None):
            return False
        self.report, self._run.answers_for = error.report, ()  # the report says it
        return True
