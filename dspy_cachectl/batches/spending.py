"""What the lines of a wave draw on: a budget that is open when they are sent allows all of them, or none is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from dspy_cachectl.batches.lines import Line
from dspy_cachectl.budgets.counts import Amounts, Need
from dspy_cachectl.budgets.opened import OpenBudget
from dspy_cachectl.budgets.sending import Terms, within

T = TypeVar("T")


def within_budgets(lines: Iterable[Line], answers: Mapping[str, Any], send: Callable[[], T]) -> T:
    """Send lines and wait for them, where their budgets allow it.

    Args:
        lines: The lines.
        answers: Where their answers are by then, by key.
        send: Sends them, and waits.

    Raises:
        BudgetExceededError: If there is no room for all of them. None is sent.
    """
    by_budgets: dict[tuple[OpenBudget, ...], list[Line]] = {}
    for line in lines:
        by_budgets.setdefault(line.budgets, []).append(line)
    for budgets, of_them in by_budgets.items():
        if budgets:
            send = partial(within, budgets, _OfAll(of_them, answers), send)
    return send()


def affordable(units: Iterable[Sequence[Line]]) -> int:
    """Return how many units, each of some lines, fit into their budgets together, from the first on."""
    totals, count = dict[OpenBudget, Need](), 0
    for lines in units:
        for budget in {budget for line in lines for budget in line.budgets}:
            of_them = [line for line in lines if budget in line.budgets]
            totals[budget] = _total([totals.get(budget, Need({}, {})), *_needs(of_them, budget)])
        if any(budget.why_not(need) for budget, need in totals.items()):
            break
        count += 1
    return count


def _needs(lines: Iterable[Line], budget: OpenBudget) -> list[Need]:
    return [line.terms.need(budget) for line in lines if line.terms is not None]


def _total(needs: Sequence[Need]) -> Need:
    sure, most = Counter[str](), Counter[str]()
    for need in needs:
        sure.update(need.sure)
        most.update(need.most)
    return Need(dict(sure), dict(most), estimated=any(need.estimated for need in needs))


class _OfAll(Terms):
    """What is known of what all lines come to."""

    def __init__(self, lines: list[Line], answers: Mapping[str, Any]) -> None:
        self._lines, self._answers = lines, answers

    def need(self, budget: OpenBudget) -> Need:
        """Return what all of them need, at the price of one that is not sent with a batch."""
        return _total(_needs(self._lines, budget))

    def spent(self, budget: OpenBudget, answer: Any) -> Amounts:  # noqa: ARG002 - a protocol's
        """Return what those that were answered came to, as each says of itself: at the price of batches."""
        spent = Counter[str]()
        for line in self._lines:
            result = self._answers.get(line.key)
            if result is None or line.terms is None:
                continue
            spent.update(line.terms.spent(budget, replace(result)))  # which prices what it is given
        return dict(spent)
