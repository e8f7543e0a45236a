"""A score as people would give it: a random sample of the answers is labelled, and corrects what the metric said."""

from __future__ import annotations

import csv
import io
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.writing import write_output
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.apart.label_files import COLUMNS, as_text, read_labels
from dspy_cachectl.reports.kept_texts import Kept
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.texts import ends_text, level_text, number, places, plural, score_text
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Intervals, Sheet, Span, facts, notes, sheet
from dspy_cachectl.statistics.agreement import Agreement, cohen_kappa, krippendorff_alpha
from dspy_cachectl.statistics.corrected import CorrectedMean, corrected_mean
from dspy_cachectl.statistics.intervals import Interval
from dspy_cachectl.statistics.scores import is_missing

Labels = Mapping[str, float | None] | Sequence[float | None] | str | os.PathLike[str]
"""What people say of some questions: by what identifies these, in their order, or a file of `to_label`."""

MOST_KINDS = 10


@dataclass(frozen=True)
class Corrected(Shown):
    """A score, corrected by the labels of people.

    Attributes:
        name: What the report is called.
        result: The numbers (see `CorrectedMean`).
        kappa: How far the metric agrees with the labels, beyond chance; None where these are of no few kinds.
        alpha: The same by Krippendorff's alpha.
        right: The share of the labelled questions of which both say the same.
    """

    name: str
    result: CorrectedMean
    kappa: Agreement | None
    alpha: Agreement
    right: float

    @property
    def score(self) -> float:
        """The score that people would give."""
        return self.result.mean

    @property
    def interval(self) -> Interval:
        """Its confidence interval."""
        return self.result.interval

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __repr__(self) -> str:
        ends = f"[{self.interval.low:.4g}, {self.interval.high:.4g}]"
        return f"<Corrected {self.name!r}: {self.score:.4g} {ends}, {self.result.labelled} labels of {self.result.n}>"

    def _rows(self) -> Iterator[tuple[str, str]]:
        result = self.result
        decimals = places(result.error)
        level = level_text(result.interval)
        yield "corrected", f"{score_text(result.mean, result.error)}, {level} interval {_ends(result.interval)}"
        yield "the labels alone", f"{number(result.labels, decimals)}, {level} interval {_ends(result.labels_interval)}"
        yield "the metric alone", f"{number(result.judge, decimals)}, whatever it is right in"
        yield "labels", f"{result.labelled:,} of {plural(result.n, 'question')}; the metric counts {result.weight:.0%}"
        if result.clusters is not None:
            yield "clusters", f"{result.clusters:,}; design effect {number(result.design_effect)}"
        yield from agreement_rows("of metric and labels", self.kappa, self.alpha, self.right)

    def _sheet(self) -> Sheet:
        result, decimals = self.result, places(self.result.error)
        spans = (
            ("corrected", result.mean, result.interval),
            ("labels alone", result.labels, result.labels_interval),
        )
        return sheet(
            f"{self.name}, corrected by labels",
            Cell(
                f"score {score_text(result.mean, result.error)}, {level_text(result.interval)} interval "
                f"{_ends(result.interval)} ({result.interval.method})"
            ),
            notes("Caveats", result.interval.caveats),
            facts("", self._rows()),
            picture=Intervals(
                tuple(
                    Span(name, f"{number(mean, decimals)} ({_ends(one)})", mean, one.low, one.high)
                    for name, mean, one in spans
                ),
                axis=f"score, {level_text(result.interval)} interval",
            ),
        )

    def _brief(self) -> Sheet:
        return self._sheet()


def _ends(interval: Interval) -> str:
    return ends_text(interval, interval.width / 4)


def agreement_rows(whose: str, kappa: Agreement | None, alpha: Agreement, same: float) -> Iterator[tuple[str, str]]:
    """Yield how far two agree, or one with itself."""
    yield f"agreement {whose}", f"the same in {same:.1%} of {plural(alpha.units, 'answer')}"
    for name, one in (("Cohen's kappa", kappa), ("Krippendorff's alpha", alpha)):
        if one is not None and not math.isnan(one.value):
            ends = f"{100 * one.level:.4g}% interval {one.low:.2f} to {one.high:.2f}"
            yield name, f"{one.value:.2f}, {'no interval: one cluster' if math.isnan(one.low) else ends}"
        elif one is not None:
            yield name, "cannot be told: all values are one"


def kind_of(values: Sequence[float]) -> str:
    """Return how values differ: as few names that are the same or not, or by their distance."""
    return "nominal" if len(set(values)) <= 2 else "interval"


def corrected(report: Measurement, labels: Labels) -> Corrected:
    """Return a report's score as people would give it; see `EvalReport.corrected`."""
    if report.repeats > 1:
        raise ConfigurationError(
            f"{report.name!r} has {report.repeats} answers to a question, and a label is of one: leave repeats out"
        )
    if report.is_measure or report.provenance.interval is not None:
        raise ConfigurationError(
            f"{report.name!r} has no score that a label of an answer could correct: it is what answers cost, or of all "
            "of them together"
        )
    given = _in_order(report, labels)
    scores, groups = [question.draws[0].score for question in report.questions], report.table.clusters
    pairs = [(score, label) for score, label in zip(scores, given, strict=True) if label is not None]
    result = corrected_mean(scores, given, clusters=groups, level=report.level)
    labelled = [place for place, label in enumerate(given) if label is not None]
    options: dict[str, Any] = {
        "level": report.level,
        "clusters": None if groups is None else [groups[place] for place in labelled],
    }
    values = [value for pair in pairs for value in pair]
    return Corrected(
        report.name,
        result,
        cohen_kappa(pairs, **options) if len(set(values)) <= MOST_KINDS else None,
        krippendorff_alpha(pairs, kind=kind_of(values), **options),
        sum(score == label for score, label in pairs) / len(pairs),
    )


def _in_order(report: Measurement, labels: Labels) -> list[float | None]:
    """Return the label of each question. Raises ConfigurationError where one is none, or of no question."""
    if isinstance(labels, (str, os.PathLike)):
        labels = read_labels(Path(labels))
    names = [question.question for question in report.questions]
    given = _by_name(labels, names)
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in set(names)]
        if unknown:
            raise ConfigurationError(f"{report.name!r} has no question {unknown[0]!r}, which has a label")
        found = [given.get(name) for name in names]
    else:
        found = list(given)
    if len(found) != len(names):
        raise ConfigurationError(
            f"{len(found):,} labels for {plural(len(names), 'question')}: give one each, and None where there is none"
        )
    return _on_the_scale(as_numbers(found), report)


def _by_name(labels: Any, names: Sequence[str]) -> Any:
    """Return labels as they are, and a column of pandas that is indexed by questions by these.

    Raises:
        ConfigurationError: If these are no labels.
    """
    if not is_listed(labels) and not isinstance(labels, Mapping):
        raise ConfigurationError(
            "labels are numbers by question, or one for each question in order (None where there is none), or the file "
            f"of to_label; and not {labels!r:.80}"
        )
    index = getattr(labels, "index", None)
    is_named = not callable(index) and index is not None and not set(names).isdisjoint(index)
    return dict(labels.items()) if is_named else labels


def is_listed(labels: Any) -> bool:
    """Tell whether something may be labels, one for each answer in order."""
    return isinstance(labels, Iterable) and not isinstance(labels, (str, bytes, Mapping, Set))


def _on_the_scale(labels: list[float | None], report: Measurement) -> list[float | None]:
    """Return labels as they are. Raises ConfigurationError where one is on another scale than scores of 0 to 1."""
    lowest, highest = report.table.score_range
    wrong = [label for label in labels if label is not None and not lowest <= label <= highest]
    # Scores of another scale do not tell its ends: the highest that people give may be one that the metric never gave.
    if wrong and (lowest, highest) == (0.0, 1.0):
        raise ConfigurationError(
            f"a label is a number on the scale of the score, and those of {report.name!r} lie from 0 to 1: not "
            f"{wrong[0]:g}"
        )
    return labels


def as_numbers(labels: Sequence[Any]) -> list[float | None]:
    """Return labels as numbers; None where there is none, which pandas writes as NaN.

    Raises:
        ConfigurationError: If one is no number.
    """
    given = [None if is_missing(label) else label for label in labels]
    wrong = [label for label in given if label is not None and not _is_score(label)]
    if wrong:
        raise ConfigurationError(f"a label is a number on the scale of the score, not {wrong[0]!r}")
    return [None if label is None else float(label) for label in given]


def _is_score(label: Any) -> bool:
    is_truth = str(getattr(label, "dtype", "")) == "bool" and not getattr(label, "shape", ())  # no number of Python's
    try:
        return is_truth or (isinstance(label, Real) and math.isfinite(label))
    except OverflowError:  # a whole number that no float holds
        return False


def to_label(report: Measurement, count: int, path: Path, *, seed: int, kept: Kept) -> Path:
    """Write a random sample of the answers to a file, for people to write labels into; see `EvalReport.to_label`."""
    if not 1 <= count <= report.n:
        raise ConfigurationError(f"{count:,} of {plural(report.n, 'question')} cannot be drawn: give 1 to {report.n:,}")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for question in random.Random(seed).sample(report.questions, count):  # noqa: S311 - a sample, and no secret
        row = kept.get((question.question, 0))
        answered = {} if row is None or row.output is None else row.output.fields
        asks = question.preview if row is None else _lines(row.inputs)
        writer.writerow((as_text(question.question), _plain(asks), _plain(_lines(answered)), ""))
    write_output(path, text.getvalue().encode("utf-8", "backslashreplace"), what="the answers to label")
    return path


def _lines(fields: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in fields.items())


def _plain(text: str) -> str:
    """Return a text as one that a spreadsheet takes for no formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
