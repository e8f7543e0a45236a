"""An evaluation within a budget: where that is spent no other question is begun, and what there is is reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from dspy_cachectl.budget import checked_budget
from dspy_cachectl.budgets.opened import EVERYWHERE, OpenBudget
from dspy_cachectl.calls.installation import ensure_installed, open_budget
from dspy_cachectl.config import settings
from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.context.process import logger
from dspy_cachectl.errors import BudgetExceededError
from dspy_cachectl.reports.report import EvalReport

T = TypeVar("T")


def limited(context: PhaseContext, budget: Any) -> tuple[PhaseContext, bool]:
    """Return the phase of an evaluation with its budget, and whether the evaluation ends where one is spent.

    Args:
        context: The phase to ask in.
        budget: What `evaluate` is given, or an open one; None: what the settings allow the phase, where it is not open
            yet.

    Raises:
        ConfigurationError: If it is no budget.
    """
    opened = _opened(context, budget)
    if opened is None:
        return context, bool(EVERYWHERE)
    return replace(context, budgets=(*context.budgets, opened)), True


def one_for_all(context: PhaseContext, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of several evaluations with one open budget for all of them; see `limited`."""
    return {**options, "budget": _opened(context, options["budget"])}


def _opened(context: PhaseContext, budget: Any) -> OpenBudget | None:
    if isinstance(budget, OpenBudget):
        return budget
    own = checked_budget(budget)
    if own is None and not context.token:
        own = settings().phase_budget(context.name)
    if own is None:
        return None
    ensure_installed()  # a budget with a name is counted in its store
    return open_budget(own, f"the evaluation in phase {context.name!r}")


class NotBegun:
    """Those of several evaluations with one budget of which nothing was answered before it was spent.

    Args:
        options: The arguments of all of them; see `one_for_all`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._is_limited = options["budget"] is not None or bool(EVERYWHERE)
        self._errors: list[BudgetExceededError] = []

    def found(self, what: str, evaluate: Callable[[], T]) -> T | None:
        """Return what an evaluation comes to; None, and say so, where it is one of them."""
        try:
            return evaluate()
        except BudgetExceededError as error:
            if error.report is not None or not self._is_limited:
                raise
            self._errors.append(error)
            logger.warning("nothing of %s was answered before the budget was spent: it is left out", what)
            return None

    def check(self, there: Collection[object]) -> None:
        """Raise what ended the first one where there is nothing else.

        Raises:
            BudgetExceededError: If so.
        """
        if self._errors and not there:
            raise self._errors[0]


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
