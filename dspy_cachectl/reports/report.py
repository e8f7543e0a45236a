"""The report of an evaluation: a score with its error bar, and what it was made of."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_cachectl import statistics as st
from dspy_cachectl.errors import ConfigurationError, FormatVersionError, MissingExtraError, StoreUnavailableError
from dspy_cachectl.predictions.rows import PredictionRow, decode
from dspy_cachectl.predictions.snapshot import open_snapshot
from dspy_cachectl.reports.results import DrawResult, Provenance, QuestionResult

if TYPE_CHECKING:
    from dspy_cachectl.reports.comparison import Comparison

REPORT_VERSION = 1


@dataclass(frozen=True)
class EvalReport:
    """A score with its error bar, and what it was made of. Scores are in the metric's own units.

    Attributes:
        name: What the report is called in comparisons and plots.
        questions: The results, question by question, in the order of the data set.
        provenance: What the score is made of.
        level: The nominal coverage of its interval.
        path: Where the predictions are kept, to read them row by row; None where they are not.
        baseline: The report to compare with, or None.
    """

    name: str
    questions: tuple[QuestionResult, ...]
    provenance: Provenance
    level: float = 0.95
    path: str | None = field(default=None, compare=False)
    baseline: EvalReport | None = field(default=None, compare=False)

    @cached_property
    def table(self) -> st.ScoreTable:
        """The scores for the statistics: repeats that are one draw count once."""
        clusters = [question.cluster for question in self.questions]
        return st.ScoreTable(
            tuple(
                st.QuestionScores(
                    question.question,
                    tuple(draw.score for draw in _distinct(question.draws)),
                    tuple(draw.failed is not None for draw in _distinct(question.draws)),
                    None if all(cluster is None for cluster in clusters) else question.cluster,
                )
                for question in self.questions
            )
        )

    @cached_property
    def estimate(self) -> st.Estimate:
        """Mean, standard error and interval (see `statistics.estimate`)."""
        return st.estimate(self.table, level=self.level)

    @cached_property
    def variance(self) -> st.VarianceSplit:
        """How much of the variance is between questions, how much between draws, and the advice that follows."""
        return st.variance_split(self.table)

    @cached_property
    def distinct(self) -> st.DistinctDraws:
        """How many of the repeats are draws of their own."""
        return st.distinct_draws(
            [_identities(question.draws) for question in self.questions],
            [[draw.output for draw in question.draws] for question in self.questions],
        )

    @property
    def score(self) -> float:
        """The mean over questions of each question's mean over its draws; failures count with the failure score."""
        return self.estimate.mean

    @property
    def standard_error(self) -> float:
        """The standard error of the score, clustered where clusters are given."""
        return self.estimate.error.value

    @property
    def interval(self) -> st.Interval:
        """The confidence interval of the score, its method and its caveats."""
        return self.estimate.interval

    @property
    def score_without_failures(self) -> float | None:
        """The score over the draws that did not fail; None where all did."""
        return self.estimate.mean_without_failures

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.questions)

    @property
    def repeats(self) -> int:
        """The number of repeats that were asked for."""
        return max(len(question.draws) for question in self.questions)

    @property
    def failures(self) -> int:
        """The number of answers that failed: the program raised, or the metric did."""
        return sum(draw.failed is not None for question in self.questions for draw in question.draws)

    @property
    def run_id(self) -> str | None:
        """The run whose draws these are."""
        return self.provenance.run_id

    @property
    def clusters(self) -> int | None:
        """The number of clusters, or None where the questions are independent."""
        return self.estimate.error.clusters

    @property
    def design_effect(self) -> float | None:
        """How much the clusters widen the variance, or None without clusters."""
        return self.estimate.error.design_effect

    def pass_at_k(self, k: int) -> float:
        """The chance that at least one of k draws passes (score 1); NaN where there are fewer than k draws."""
        return st.pass_at_k(self.table, k)

    def pass_hat_k(self, k: int) -> float:
        """The chance that all of k draws pass (score 1); NaN where there are fewer than k draws."""
        return st.pass_hat_k(self.table, k)

    @property
    def flip_rate(self) -> float:
        """How often two draws of one question score differently; NaN with one draw a question."""
        return st.flip_rate(self.table)

    @property
    def consistency(self) -> float:
        """The share of questions whose draws all score the same; NaN with one draw a question."""
        return st.consistency(self.table)

    @cached_property
    def draw_ids(self) -> frozenset[str]:
        """Every draw that the score rests on."""
        return frozenset(draw.draw for question in self.questions for draw in question.draws if draw.draw)

    @cached_property
    def comparison(self) -> Comparison | None:
        """This report against its baseline, or None where it has none."""
        return None if self.baseline is None else self.baseline.compare(self)

    def rows(self) -> Iterator[PredictionRow]:
        """Yield the kept predictions, row by row from the disk, without holding them in memory.

        Raises:
            ConfigurationError: If they were not kept.
        """
        if self.path is None:
            raise ConfigurationError("this report's predictions were not kept; evaluate with predictions=True")
        with open_snapshot(Path(self.path)) as reader:
            yield from map(decode, reader.rows())

    def compare(self, other: EvalReport, *, smallest_difference: float = 0.05) -> Comparison:
        """Compare another report with this one, its baseline, question by question.

        Args:
            other: The candidate. `a.compare(b)` asks whether b is better than a.
            smallest_difference: The smallest difference that matters, in units of the score.

        Raises:
            ConfigurationError: If no question is in both.
        """
        from dspy_cachectl.reports.comparison import compare_two

        return compare_two(self, other, smallest_difference=smallest_difference, level=self.level)

    def to_pandas(self) -> Any:
        """Return one row a draw as a `pandas.DataFrame`.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("to_pandas()", extra="pandas") from error
        return pd.DataFrame(
            [
                {
                    "question": question.question,
                    "preview": question.preview,
                    "cluster": question.cluster,
                    "repeat": repeat,
                    **asdict(draw),
                }
                for question in self.questions
                for repeat, draw in enumerate(question.draws)
            ]
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the score with its interval, and the questions by repeats. Needs the `plots` extra.

        Args:
            path: Where to save the figure, or None to only return it.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        from dspy_cachectl.reports.plots import plot_report

        return plot_report(self, path)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data, with a summary that needs no computing."""
        return {
            "format": REPORT_VERSION,
            "name": self.name,
            "level": self.level,
            "summary": self.summary(),
            "provenance": asdict(self.provenance),
            "questions": [asdict(question) for question in self.questions],
        }

    def summary(self) -> dict[str, Any]:
        """Return the numbers that people ask for, as plain data; None for what is infinite or unknown."""
        interval = self.interval
        return {
            "score": self.score,
            "standard_error": _finite(self.standard_error),
            "interval": {
                "low": _finite(interval.low),
                "high": _finite(interval.high),
                "level": interval.level,
                "method": interval.method,
            },
            "caveats": list(interval.caveats),
            "n": self.n,
            "repeats": self.repeats,
            "distinct_draws": self.distinct.distinct,
            "failures": self.failures,
            "score_without_failures": self.score_without_failures,
            "variance_within": self.variance.within,
            "variance_between": self.variance.between,
            "advice": self.variance.advice.sentence,
            "clusters": self.clusters,
            "design_effect": _finite(self.design_effect),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as JSON, whole or not at all.

        Raises:
            StoreUnavailableError: If the file cannot be written.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
                half = Path(folder) / target.name
                # Half of a surrogate pair has no UTF-8; what it is replaced with is its escape in JSON.
                with half.open("w", encoding="utf-8", errors="backslashreplace") as file:
                    json.dump(self.as_dict(), file, ensure_ascii=False, indent=1)
                half.replace(target)
        except OSError as error:
            raise StoreUnavailableError(f"the report could not be written to {target}: {error}") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EvalReport:
        """Read a report that `save` wrote.

        Raises:
            FormatVersionError: If a newer version of this package wrote it.
            StoreUnavailableError: If the file cannot be read.
            ConfigurationError: If the file is not a report.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            version = data["format"]
            if version > REPORT_VERSION:
                raise FormatVersionError(f"{path} has report format {version}; upgrade dspy-cachectl to read it")
            known = {one.name for one in fields(Provenance)}
            provenance = {name: value for name, value in data["provenance"].items() if name in known}
            provenance["changes"] = tuple(provenance.get("changes", ()))
            return cls(
                name=data["name"],
                level=data["level"],
                provenance=Provenance(**provenance),
                questions=tuple(
                    QuestionResult(**{**row, "draws": tuple(DrawResult(**draw) for draw in row["draws"])})
                    for row in data["questions"]
                ),
            )
        except OSError as error:
            raise StoreUnavailableError(f"the report could not be read from {path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path} is not a report that EvalReport.save() wrote: {error!r}") from error

    def __str__(self) -> str:
        from dspy_cachectl.reports.render import report_text

        return report_text(self)

    def __repr__(self) -> str:
        interval = self.interval
        return (
            f"<EvalReport {self.name!r}: {self.score:.4g} "
            f"[{interval.low:.4g}, {interval.high:.4g}], n={self.n}, repeats={self.repeats}>"
        )

    def __rich__(self) -> Any:
        from dspy_cachectl.reports.render import report_panel

        return report_panel(self)

    def _repr_html_(self) -> str:
        from dspy_cachectl.reports.render import report_html

        return report_html(self)


def _distinct(draws: Sequence[DrawResult]) -> list[DrawResult]:
    seen: dict[str, DrawResult] = {}
    for identity, draw in zip(_identities(draws), draws, strict=True):
        seen.setdefault(identity, draw)
    return list(seen.values())


def _identities(draws: Sequence[DrawResult]) -> list[str]:
    # An answer of which no draw is known is nobody's replay.
    return [draw.draw or f"#{number}" for number, draw in enumerate(draws)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
