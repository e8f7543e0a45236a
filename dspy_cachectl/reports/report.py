"""The report of an evaluation: what `evaluate()` returns, and what people do with it."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pydantic

from dspy_cachectl.boundary.reading import read_json
from dspy_cachectl.boundary.writing import write_output
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, FormatVersionError
from dspy_cachectl.page.content import Page
from dspy_cachectl.predictions.rows import PredictionRow, decode
from dspy_cachectl.predictions.snapshot import open_snapshot
from dspy_cachectl.reports.apart.labels import Corrected, Labels, corrected, to_label
from dspy_cachectl.reports.apart.metrics import by_metric
from dspy_cachectl.reports.apart.slices import slices_of
from dspy_cachectl.reports.comparison import Comparison, compare_two
from dspy_cachectl.reports.describe import report_brief, report_sheet
from dspy_cachectl.reports.kept_texts import Readable, kept_rows
from dspy_cachectl.reports.measurement import Measurement, Provenance
from dspy_cachectl.reports.merging import merged
from dspy_cachectl.reports.paged import MOST_TEXT, Paged, page_of
from dspy_cachectl.reports.plots import plot_report
from dspy_cachectl.reports.results import DrawResult, QuestionResult
from dspy_cachectl.reports.texts import ends_text, frame, level_text, number, places, plural, score_text
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Sheet

_MOST_ON_AN_AXIS = 30
"""So many slices are in the picture of a page."""
REPORT_VERSION = 8


@dataclass(frozen=True)
class EvalReport(Measurement, Shown, Paged):
    """A score with its error bar, and what it was made of. Scores are in the metric's own units.

    Attributes:
        name: What the report is called in comparisons and plots.
        questions: The results, question by question, in the order of the data set.
        provenance: What the score is made of.
        level: The nominal coverage of its interval.
        path: Where the predictions are kept, to read them row by row; None where they are not.
        baseline: The report to compare with, or None.
        holdout: The report of the questions that were held out, or None (see `evaluate`).
    """

    baseline: EvalReport | None = field(default=None, compare=False)
    holdout: EvalReport | None = field(default=None, compare=False)

    @cached_property
    def comparison(self) -> Comparison | None:
        """This report against its baseline, or None where it has none."""
        return None if self.baseline is None else self.baseline.compare(self)

    @cached_property
    def metrics(self) -> Mapping[str, EvalReport]:
        """What each metric says of the same answers, by its name (see `evaluate`); of one metric, that one."""
        return by_metric(replace(self, baseline=None))

    @cached_property
    def slices(self) -> Mapping[str, EvalReport]:
        """The report of each slice of the questions, by name (see `evaluate`); of the same answers."""
        return slices_of(replace(self, baseline=None))

    @staticmethod
    def merge(reports: Iterable[EvalReport]) -> EvalReport:
        """Return the report of an evaluation that was made in shards (see `evaluate`), as if it were made at once.

        Args:
            reports: The reports of all its shards, in any order.

        Raises:
            ConfigurationError: If they do not belong together, one is missing, or was cut short.
        """
        return merged(list(reports))

    def rows(self) -> Iterator[PredictionRow]:
        """Yield the kept predictions, row by row from the disk, without holding them in memory.

        Raises:
            ConfigurationError: If they were not kept.
        """
        if self.path is None:
            raise ConfigurationError("this report's predictions were not kept; evaluate with predictions=True")
        with open_snapshot(Path(self.path)) as reader:
            yield from map(decode, reader.rows())

    def compare(self, other: EvalReport, *, smallest_difference: float | None = None) -> Comparison:
        """Compare another report with this one, its baseline, question by question.

        Args:
            other: The candidate. `a.compare(b)` asks whether b is better than a.
            smallest_difference: The smallest difference that matters, in units of the score; None for a twentieth
                of the scale. It is that of the first metric: each other has a twentieth of its own scale.

        Raises:
            ConfigurationError: If no question is in both.
        """
        return compare_two(self, other, smallest_difference=smallest_difference, level=self.level)

    def to_label(self, count: int, path: str | os.PathLike[str], *, seed: int = 0) -> Path:
        """Write a random sample of the questions and their answers as CSV, with a column for people to write labels in.

        A label is a number on the scale of the score. What was asked and answered stands there as it is kept.

        Args:
            count: How many to draw: 50 of 1,000 tell much.
            path: The file, for `corrected`.
            seed: What the sample is told by.

        Raises:
            ConfigurationError: If there are not so many, or it is a file that this package works with.
            StoreError: If the file cannot be written, or what is kept not be read.
        """
        kept = {} if self.path is None else kept_rows(self.path)
        return to_label(self, count, Path(path), seed=seed, kept=kept)

    def corrected(self, labels: Labels) -> Corrected:
        """Return the score that people would give, by their labels of a random sample (prediction-powered inference).

        Args:
            labels: By the question, as `questions[0].question` and the file of `to_label` name it; or one for each
                question in order, None where there is none; or that file, filled in.

        Raises:
            ConfigurationError: If a label is none, or of no question, or there are fewer than 10; or if there are
                several answers to a question.
        """
        return corrected(self, labels)

    def to_pandas(self) -> Any:
        """Return one row a draw as a `pandas.DataFrame`.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        return frame(
            [
                {
                    "question": question.question,
                    "preview": question.preview,
                    "cluster": question.cluster,
                    "slices": list(question.slices),
                    "repeat": repeat,
                    **_columns(draw),
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
        return plot_report(self, path)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data, with a summary that needs no computing."""
        return {
            "format": REPORT_VERSION,
            "name": self.name,
            "level": self.level,
            "summary": self.summary(),
            "holdout": None if self.holdout is None else self.holdout.summary(),
            "held_out": None if self.holdout is None else self.holdout.as_dict(),
            "metrics": {name: one.summary() for name, one in self.metrics.items()},
            "slices": {name: one.summary() for name, one in self.slices.items()},
            "troubles": [trouble.as_dict() for trouble in self.troubles],
            "provenance": asdict(self.provenance),
            "questions": [asdict(question) for question in self.questions],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as JSON, whole or not at all.

        Raises:
            ConfigurationError: If it is a file that this package works with.
            StoreUnavailableError: If the file cannot be written.
        """
        target = Path(path)
        write_output(target, self.as_json(), what="the report")
        return target

    def as_json(self) -> bytes:
        """Return what `save` writes."""
        # Half of a surrogate pair has no UTF-8; what it is replaced with is its escape in JSON.
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EvalReport:
        """Read a report that `save` wrote.

        Raises:
            FormatVersionError: If a newer version of this package wrote it.
            StoreUnavailableError: If the file cannot be read.
            ConfigurationError: If the file is not a report.
        """
        try:
            data = read_json(Path(path), what="the report")
            version = data["format"]
            if version > REPORT_VERSION:
                raise FormatVersionError(f"{path} has report format {version}; upgrade dspy-cachectl to read it")
            saved = _adapter().validate_python(data)
        except CorruptEntryError as error:
            raise ConfigurationError(
                f"{path} is not a report that EvalReport.save() wrote: it cannot be read as JSON"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            wrong = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, pydantic.ValidationError) else ""
            raise ConfigurationError(
                f"{path} is not a report that EvalReport.save() wrote: {wrong or 'a part of it'} is missing, or of a "
                "wrong kind"
            ) from error
        return _report_of(saved)

    def __repr__(self) -> str:
        interval = self.interval
        return (
            f"<EvalReport {self.name!r}: {self.score:.4g} "
            f"[{interval.low:.4g}, {interval.high:.4g}], n={self.n}, repeats={self.repeats}>"
        )

    def _sheet(self) -> Sheet:
        return report_sheet(self, *self._against_baseline())

    def _brief(self) -> Sheet:
        return report_brief(self, *self._against_baseline())

    def page(self, stores: Sequence[Readable] | None = None, *, most: int = MOST_TEXT) -> Page:
        """Return what is on its page (see `to_html`)."""
        beside = () if self.baseline is None else (self.baseline,)
        # On one axis stands what is on one scale; the tables have the rest.
        metrics = [one for one in self.metrics.values() if one.table.score_range == self.table.score_range]
        apart = [*metrics[1:], *list(self.slices.values())[:_MOST_ON_AN_AXIS]]
        return page_of(self._sheet(), [self], stores, most=most, scores=(*beside, self, *apart))

    def _against_baseline(self) -> Iterator[tuple[str, str]]:
        if self.holdout is not None:
            yield "held out", self._against_holdout(self.holdout)
        if self.baseline is None:
            return
        try:
            found = self.baseline.compare(self)
        except ConfigurationError as error:
            yield f"against {self.baseline.name}", f"cannot be compared: {error}"
            return
        error_of_it = found.result.error.value
        difference = number(found.difference, places(error_of_it), sign=True)
        ends = f"{level_text(found.interval)} interval {ends_text(found.interval, error_of_it, sign=True)}"
        yield f"against {self.baseline.name}", f"{found.verdict_text}: {difference}, {ends}"

    def _against_holdout(self, others: EvalReport) -> str:
        error = math.hypot(self.standard_error, others.standard_error)
        ends = f"{level_text(others.interval)} interval {ends_text(others.interval, others.standard_error)}"
        lower = number(others.score - self.score, places(error), sign=True)
        return (
            f"{score_text(others.score, others.standard_error)}, {ends}, on {plural(others.n, 'other question')}: "
            f"{lower} ± {number(error, places(error))} against these"
        )


def _columns(draw: DrawResult) -> dict[str, Any]:
    """Return an answer as columns of a table; those of a further metric have its name behind a dot."""
    found = asdict(draw)
    for one in found.pop("others"):
        metric = one.pop("metric")
        found |= {f"{name}.{metric}": value for name, value in one.items()}
    return found


@dataclass(frozen=True)
class _Saved:
    """What of a saved report a report is made of."""

    name: str
    level: float
    provenance: Provenance
    questions: Annotated[tuple[QuestionResult, ...], pydantic.FailFast(), pydantic.Field(min_length=1)]
    held_out: _Saved | None = None  # there were files without


def _report_of(saved: _Saved) -> EvalReport:
    others = None if saved.held_out is None else _report_of(saved.held_out)
    return EvalReport(saved.name, saved.questions, saved.provenance, saved.level, holdout=others)


@functools.cache
def _adapter() -> pydantic.TypeAdapter[_Saved]:
    return pydantic.TypeAdapter(_Saved)
