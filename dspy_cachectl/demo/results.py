"""What a demo found, as values: to be shown, saved, and asserted in tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One act, or one evaluation of an act.

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

    key: str
    title: str
    requests: int
    tokens: int
    seconds: float
    served: int | None = None
    counted: int | None = None
    lent: int = 0
    score: float | None = None
    labels: tuple[str | None, ...] = ()

    @property
    def unreadable(self) -> int:
        """Answers that were no label at all."""
        return sum(label is None for label in self.labels)

    def differing(self, other: Row) -> int:
        """Return how many labels differ from another evaluation's."""
        return sum(mine != theirs for mine, theirs in zip(self.labels, other.labels, strict=True))


@dataclass(frozen=True, slots=True)
class MlflowOutcome:
    """What became of the results that were to be logged to MLflow.

    Attributes:
        status: `"logged"`, or why not in one word; `"not installed"` and `"skipped"` are possible.
        run_id: The MLflow run that holds them, or None.
        tracking_uri: Where it is, or None.
        reason: Why they are not logged; empty if they are.
    """

    status: str
    run_id: str | None = None
    tracking_uri: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the compiled program compares with the zero-shot one.

    Attributes:
        text: BETTER, WORSE, NO DIFFERENCE OF SIZE d or INCONCLUSIVE; or why there is no verdict.
        baseline: The zero-shot program's mean score, in [0, 1]; None without a verdict. Likewise the rest.
        candidate: The compiled program's.
        low: The lower end of the 95 % interval of the difference.
        high: The upper end.
        repeats: How many answers were drawn for each review, of each program.
        plot: The picture of both, or None where it was not drawn.
    """

    text: str
    baseline: float | None = None
    candidate: float | None = None
    low: float | None = None
    high: float | None = None
    repeats: int = 0
    plot: Path | None = None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo found.

    Attributes:
        model: The model's name.
        examples: How many reviews were evaluated each time.
        rows: The acts, in order.
        mlflow: What became of the results that were to be logged.
        verdict: Whether the compiled program is better.
        seconds: How long the whole took.
        output: The folder with what the demo left behind; None if it was a temporary one.
    """

    model: str
    examples: int
    rows: tuple[Row, ...]
    mlflow: MlflowOutcome
    verdict: Verdict
    seconds: float
    output: Path | None = None

    def row(self, key: str) -> Row:
        """Return the row with this key.

        Raises:
            KeyError: There is none.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)

    @property
    def requests(self) -> int:
        """All requests that reached the model's server."""
        return sum(row.requests for row in self.rows)

    @property
    def disagreements(self) -> tuple[Row, ...]:
        """The rows in which the package's own stats and the count outside it differ: none, if all is well."""
        return tuple(row for row in self.rows if row.counted is not None and row.counted != row.requests)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = asdict(self)
        plain["output"] = None if self.output is None else str(self.output)
        plain["verdict"]["plot"] = None if self.verdict.plot is None else self.verdict.plot.name
        return plain
