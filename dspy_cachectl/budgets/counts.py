"""What is counted of a budget, and what a request needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Amounts = Mapping[str, float]


@dataclass(frozen=True)
class Need:
    """What a request comes to.

    Attributes:
        sure: What is spent as soon as it is sent: itself.
        most: What it may come to beside that: what its answer costs at most, and requests that it hides.
        estimated: Whether that is no upper bound, but what such answers come to mostly.
    """

    sure: Amounts
    most: Amounts
    estimated: bool = False

    def times(self, number: int) -> Need:
        """Return what so many of them come to."""
        sure, most = ({kind: number * one for kind, one in each.items()} for each in (self.sure, self.most))
        return Need(sure, most, self.estimated)


class DoesNotFitError(Exception):
    """A request does not fit, whatever becomes of what is in the air."""


@dataclass
class Counts:
    """What is counted, by kind; and by model what is not counted for certain, and why."""

    spent: dict[str, float] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    refused: int = 0
    unsure: dict[str, str] = field(default_factory=dict)

    def add(self, spent: Amounts, held: Amounts, sign: float = 1.0) -> None:
        """Add to both."""
        for name, amount in spent.items():
            self.spent[name] = self.spent.get(name, 0.0) + amount
        for name, amount in held.items():
            self.held[name] = max(0.0, self.held.get(name, 0.0) + sign * amount)
