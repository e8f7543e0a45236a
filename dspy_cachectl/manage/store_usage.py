"""How much is in a store, how it is used, and what that saves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeVar

from dspy_cachectl.accounting.ledger import Tally, tally_of
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.listing import Reader
from dspy_cachectl.stores.rows import Listed

FIELDS = ("kind", "model", "phase", "role", "run")
"""What is told apart: the fields of a label."""

K = TypeVar("K")


@dataclass
class Usage:
    """How much there is of some entries, and what happened to some calls.

    Attributes:
        entries: How many answers are stored. Their phase is the one that bought them.
        tally: What happened to calls. Their phase is the one that they were made in.
        runs: The runs among them.
    """

    entries: int = 0
    tally: Tally = field(default_factory=Tally)
    runs: set[str] = field(default_factory=set)

    @property
    def hit_rate(self) -> float | None:
        """The share of calls that cost nothing, from 0 to 1; None without calls."""
        return self.tally.served / self.tally.calls if self.tally.calls else None

    def add(self, other: Usage) -> None:
        """Add what is known of others."""
        self.entries += other.entries
        self.tally.add(other.tally)
        self.runs |= other.runs


@dataclass(frozen=True)
class LabelUsage:
    """What is filed under one label.

    Attributes:
        label: The label.
        usage: How much there is, and how it is used.
    """

    label: Label
    usage: Usage


@dataclass(frozen=True)
class StoreUsage:
    """How much is in a store, and how it is used.

    Attributes:
        store: Where the store is.
        exists: Whether there is one.
        bytes: How many bytes it takes up; of a shared store about.
        total: Everything.
        by: The sums by each of `FIELDS`.
        labels: What is counted, by label.
        gone: How large a part of the entries counted is gone, by some of them, from 0 to 1: a shared store may have
            removed entries to make room, and tells of them until it is listed or verified.
    """

    store: str
    exists: bool
    bytes: int
    total: Usage
    by: dict[str, dict[str, Usage]]
    labels: list[LabelUsage]
    gone: float = 0.0


def sums(labels: Iterable[LabelUsage], group: Callable[[Label], K]) -> dict[K, Usage]:
    """Return the sums by anything that a label says, those with most entries and calls first."""
    found: dict[K, Usage] = {}
    for item in labels:
        found.setdefault(group(item.label), Usage()).add(item.usage)
    return dict(sorted(found.items(), key=lambda item: (-item[1].entries, -item[1].tally.calls, str(item[0]))))


def store_usage(reader: Reader) -> StoreUsage:
    """Count what is in a store, and add up how it was used. No answer is read."""
    labels = reader.labels()
    found = {label: Usage(count, runs={label.run} - {""}) for label, count in labels.items() if label.is_answer}
    for label, counters in reader.usage().items():
        found.setdefault(label, Usage(runs={label.run} - {""})).tally.add(tally_of(counters))
    counted = [LabelUsage(label, found[label]) for label in sorted(found, key=Label.encode)]
    return StoreUsage(
        store=reader.location,
        exists=reader.exists(),
        bytes=reader.bytes_used(),
        total=sums(counted, lambda _: None).get(None, Usage()),
        by={name: sums(counted, attrgetter(name)) for name in FIELDS},
        labels=counted,
        gone=reader.share_gone() if isinstance(reader, Listed) else 0.0,
    )
