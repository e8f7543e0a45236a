"""What a demo found, as values: to be shown, saved, and asserted in tests."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_cachectl.accounting.ledger import Stats
    from dspy_cachectl.reports.comparison import Comparison
    from dspy_cachectl.settling.result import Settled
    from dspy_cachectl.tracking import LogOutcome

REPEATS = 3
"""How many answers to each review the two programs are compared by."""

PLOT = "comparison.png"


@dataclass(frozen=True, slots=True)
class ActResult:
    """One act, or one evaluation of an act: a line of the demo's table.

    Attributes:
        key: A short name to find it by.
        title: What was done.
        requests: Requests that reached the model's server, counted outside this package.
        tokens: Tokens that the server says it read and wrote for them.
        seconds: How long it took, without the start of child processes.
        served: Calls that were answered from a store.
        counted: The requests in the package's own stats; None where they died with their process, or where the
            package was not involved.
        lent: Calls that were sent with a temperature lent by the phase.
        score: DSPy's score, in percent; None where nothing was scored.
        labels: The predicted labels, in the order of the data; None where an answer could not be read.
    """

    key: str = ""
    title: str = ""
    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0
    served: int | None = None
    counted: int | None = None
    lent: int = 0
    score: float | None = None
    labels: tuple[str | None, ...] = ()

    def with_stats(self, stats: Stats) -> ActResult:
        """Return it with what a phase's stats say."""
        return replace(self, served=stats.served, counted=stats.requests, lent=stats.temperatures_lent)

    @property
    def unreadable(self) -> int:
        """Answers that were no label at all."""
        return sum(label is None for label in self.labels)

    def differing(self, other: ActResult) -> int:
        """Return how many labels differ from another evaluation's."""
        return sum(mine != theirs for mine, theirs in zip(self.labels, other.labels, strict=True))


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo found.

    Attributes:
        model: The model's name.
        examples: How many reviews were evaluated each time.
        rows: The acts, in order.
        mlflow: What became of the results that were to be logged, or why there were none.
        comparison: How the compiled program compares with the zero-shot one, or why that is not known.
        seconds: How long the whole took.
        output: The folder with what the demo left behind; None if it was a temporary one.
        settled: What `settle()` needed of the same answers; None where it was not asked.
    """

    model: str
    examples: int
    rows: tuple[ActResult, ...]
    mlflow: LogOutcome | str
    comparison: Comparison | str
    seconds: float
    output: Path | None = None
    settled: Settled | None = None

    def row(self, key: str) -> ActResult:
        """Return the row with this key, which is there."""
        return next(row for row in self.rows if row.key == key)

    @property
    def requests(self) -> int:
        """All requests that reached the model's server."""
        return sum(row.requests for row in self.rows)

    @property
    def disagreements(self) -> tuple[ActResult, ...]:
        """The rows in which the package's own stats and the count outside it differ: none, if all is well."""
        return tuple(row for row in self.rows if row.counted is not None and row.counted != row.requests)

    def as_json(self) -> str:
        """Return it as JSON, with the comparison in words."""
        plain = asdict(replace(self, comparison=str(self.comparison), settled=None))
        return json.dumps(plain | {"settled": self.settled and repr(self.settled)}, indent=2, default=str)
