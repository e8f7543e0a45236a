"""How much is in a store, how it is used, and what that saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.accounting.usage import UsageTotals
from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import USAGE_KIND, Label
from dspy_cachectl.stores.listing import Rows, read_rows, row_numbers
from dspy_cachectl.stores.reader import FolderReader

FIELDS = ("kind", "model", "phase", "role", "run_id")
"""What is told apart: the fields of a label."""

K = TypeVar("K")


@dataclass
class Line:
    """What some entries and calls have in common.

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

    def add(self, other: Line) -> None:
        """Add another line to this one."""
        self.entries += other.entries
        self.tally.add(other.tally)
        self.runs |= other.runs

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data. Costs are in US dollars, times in seconds."""
        return {"entries": self.entries, "hit_rate": self.hit_rate, **self.tally.as_dict()}


@dataclass(frozen=True)
class StoreStatistics:
    """How much is in a store, and how it is used.

    Attributes:
        folder: The store's folder.
        exists: Whether there is one.
        size: How many bytes its files take up.
        lines: What is counted, by label.
        processes: How many processes are counted.
        damaged: How many entries that say how the store was used cannot be read.
    """

    folder: Path
    exists: bool
    size: int
    lines: Mapping[Label, Line]
    processes: int
    damaged: int

    @property
    def total(self) -> Line:
        """Everything."""
        return self.by(lambda _: None).get(None, Line())

    def by(self, group: Callable[[Label], K]) -> dict[K, Line]:
        """Return the sums by anything that a label says, those with most entries and calls first."""
        sums: dict[K, Line] = {}
        for label, line in self.lines.items():
            sums.setdefault(group(label), Line()).add(line)
        return dict(sorted(sums.items(), key=lambda item: (-item[1].entries, -item[1].tally.calls, str(item[0]))))

    def by_field(self, name: str) -> dict[str, Line]:
        """Return the sums by one of `FIELDS`."""
        return self.by(lambda label: str(getattr(label, name)))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "store": str(self.folder),
            "exists": self.exists,
            "bytes": self.size,
            "processes": self.processes,
            "damaged": self.damaged,
            **self.total.as_dict(),
            "by": {name: {value: line.as_dict() for value, line in self.by_field(name).items()} for name in FIELDS},
            "labels": [
                {**{name: getattr(label, name) for name in FIELDS}, **line.as_dict()}
                for label, line in sorted(self.lines.items(), key=lambda item: item[0].encode())
            ],
        }


def statistics(reader: FolderReader) -> StoreStatistics:
    """Count what is in a store, and add up how it was used. No answer is read."""
    labels = reader.labels()
    lines: dict[Label, Line] = {}
    for label, count in labels.items():
        if label.is_answer:
            lines[label] = Line(entries=count, runs={label.run_id} - {""})
    usage = UsageTotals.of(_usage(reader)) if any(label.kind == USAGE_KIND for label in labels) else UsageTotals()
    for label, tally in usage.rows().items():
        lines.setdefault(label, Line(runs={label.run_id} - {""})).tally.add(tally)
    return StoreStatistics(
        folder=reader.path,
        exists=reader.path.is_dir(),
        size=reader.bytes_used(),
        lines=lines,
        processes=len(usage.totals),
        damaged=usage.damaged,
    )


def _usage(reader: FolderReader) -> Sequence[bytes]:
    found = []
    for _, value in read_rows(reader, row_numbers(reader, Rows(lambda label: label.kind == USAGE_KIND))):
        try:
            found.append(value())
        except StoreError:
            found.append(b"")  # counted as damaged, as what is not an entry
    return found
