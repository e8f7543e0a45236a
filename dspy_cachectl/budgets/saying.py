"""What is said of a budget: amounts with their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import BudgetExceededError

_WARNED_AT = (0.5, 0.8)

logger = logger_for("dspy_cachectl")


def amount(kind: str, value: float) -> str:
    """Return an amount with its unit."""
    if kind == "cost":
        return f"${value:,.2f}" if value == round(value, 2) else f"${value:,.4g}"
    return f"{value:,.1f} seconds" if kind == "seconds" else f"{value:,.0f} {kind}"


def spent_of(
    spent: Mapping[str, float], limits: Mapping[str, float], *, wanted: float = 0.0, estimated: bool = False
) -> str:
    """Say how much of each limit is spent, and what a request that does not fit would take."""
    parts = []
    for kind, limit in limits.items():
        used = amount(kind, min(spent.get(kind, 0.0), limit)).partition(" ")[0]
        part = f"{used} of {amount(kind, limit)}"
        if (wanted > 1 and kind == "requests") or (wanted and kind != "requests" and spent.get(kind, 0.0) < limit):
            part += f", and it may take {'about ' if estimated else ''}{amount(kind, wanted)}"
        parts.append(part)
    return f"spent {', '.join(parts)}"


class Warned:
    """What was said of a budget before it is spent: that half of it is, and four fifths, once each.

    Args:
        whose: Whose it is.
    """

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._at: dict[str, float] = {}

    def look(self, spent: Mapping[str, float], limits: Mapping[str, float]) -> None:
        """Say what is to be said."""
        for kind, limit in limits.items():
            reached = max((share for share in _WARNED_AT if spent[kind] >= share * limit > 0), default=0.0)
            if reached > self._at.get(kind, 0.0):
                self._at[kind] = reached
                said = spent_of({kind: spent[kind]}, {kind: limit})
                logger.warning("%.0f %% of the budget of %s: %s", 100 * reached, self._whose, said)


def told(short: Sequence[tuple[BudgetExceededError, str]], refused: int, asides: Sequence[str]) -> str:
    """Say at the end of a budget what became of it.

    Args:
        short: An error of each part of it that did not allow a call, and why the last one did not.
        refused: How many calls were not made.
        asides: What is said beside that.
    """
    calls = "1 call was" if refused == 1 else f"{refused:,} calls were"
    (first, why), *others = short
    lines = [f"{calls} not made, for the budget of {first.budget}: {_state_of(first, why)}."]
    lines += [f"And for that of {one.budget}: {_state_of(one, why)}." for one, why in others]
    for one, _ in short:
        over = ", ".join(amount(kind, by) for kind, by in one.over.items() if kind != "seconds")
        lines += [f"Calls that were in the air went over by {over}."] if over else []
    lines += [f"{aside[:1].upper()}{aside[1:]}." for aside in asides]
    lines.append("What is stored serves on: with a larger budget only the rest is bought.")
    return "\n  ".join(lines)


def _state_of(error: BudgetExceededError, why: str) -> str:
    """Say what is spent, or where nothing is spent wholly why that was not enough."""
    is_spent = any(error.spent.get(kind, 0.0) >= limit for kind, limit in error.limits.items())
    return spent_of(error.spent, error.limits) if is_spent or not why else why
