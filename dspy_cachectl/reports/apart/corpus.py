"""Metrics of a whole set of answers, such as F1 or BLEU, which are no means of what single answers score.

The number is what the set comes to, and its interval a bootstrap by question. So that two reports can be compared by
question, each question is given what the number owes to it (the jackknife's influence: Efron & Stein, Annals of
Statistics 9 (1981)): these average to the number, and their spread is its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.results import DrawResult, QuestionResult
from dspy_cachectl.statistics.bootstrap import FEWEST_RESAMPLES, bootstrap_interval

logger = logger_for(__name__)

CORPUS = "corpus:"
"""Begins the hash of a metric of a whole set."""

M = TypeVar("M", bound=Measurement)


@dataclass(frozen=True)
class CorpusMetric:
    """A metric of all answers together, such as F1 or BLEU, beside one that judges each.

    Args:
        each: Called with (example, prediction); returns what `total` needs of an answer, and None where that is
            nothing. Where the program failed the prediction is None.
        total: Called with a list of these; returns the number. It is called with many choices of questions, of which
            some come up several times and others not at all, and has one for each: `2 * right / max(1, said + wanted)`.
        resamples: How many of them the interval is made of, 2,000 at least.
        seed: What they are told by.
    """

    each: Callable[[Any, Any], Any]
    total: Callable[[list[Any]], float]
    resamples: int = FEWEST_RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        given: tuple[Any, Any] = (self.each, self.total)
        if not all(map(callable, given)):
            raise ConfigurationError("CorpusMetric takes two functions: each(example, prediction), and total(list)")
        if self.resamples < FEWEST_RESAMPLES:
            raise ConfigurationError(f"resamples is {FEWEST_RESAMPLES:,} or more, not {self.resamples!r}")

    def __call__(self, example: Any, prediction: Any) -> Any:
        """Return what `total` needs of an answer."""
        return self.each(example, prediction)


def with_corpus(report: M, metrics: Mapping[str, Any]) -> M:
    """Return a report with what its metrics of the whole set come to; one that cannot be told is warned of.

    Args:
        report: The report, whose answers have what `each` returned.
        metrics: The metrics of its evaluation, by name.
    """
    for at, other in enumerate(report.provenance.others):
        metric = metrics.get(other.metric)
        if isinstance(metric, CorpusMetric):
            try:
                report = _with(report, at, metric)
            except Exception as error:  # noqa: BLE001 - a user's code, when all is paid for
                logger.warning("the metric %r is not known: %s: %s", other.metric, type(error).__name__, error)
                report = replace(report, questions=without_values(report.questions))
    return report


def without_values(questions: tuple[QuestionResult, ...]) -> tuple[QuestionResult, ...]:
    """Return questions without what metrics of the whole set need of their answers: it has no place in a report."""
    if all(one.value is None for question in questions for draw in question.draws for one in draw.others):
        return questions
    return tuple(
        replace(
            question,
            draws=tuple(
                replace(draw, others=tuple(replace(one, value=None) for one in draw.others)) for draw in question.draws
            ),
        )
        for question in questions
    )


def _with(report: M, at: int, metric: CorpusMetric) -> M:
    other = report.provenance.others[at]
    values = {one.question: [_value(draw, other.metric) for draw in one.draws] for one in report.questions}

    def total(names: Iterable[str]) -> float:
        rows = [values[name] for name in names]
        each = [[row[repeat] for row in rows if repeat < len(row)] for repeat in range(report.repeats)]
        said = [float(metric.total([one for one in repeat if one is not None])) for repeat in each if repeat]
        return math.fsum(said) / len(said)

    score, table = total(values), report.table
    if not math.isfinite(score):
        raise ConfigurationError(f"its total is {score!r}, and no number")
    options: dict[str, Any] = {"level": report.level, "resamples": metric.resamples, "seed": metric.seed}
    interval = bootstrap_interval(table, lambda rows: total(row.question for row in rows), **options)
    units = list(map(str, table.names if table.clusters is None else table.clusters))
    owed = _owed(dict(zip(values, units, strict=True)), score, total)
    questions = tuple(_scored(question, other.metric, score + owed[question.question]) for question in report.questions)
    others = list(report.provenance.others)
    others[at] = replace(other, interval=interval)
    return replace(report, questions=questions, provenance=replace(report.provenance, others=tuple(others)))


def _owed(units: Mapping[str, str], score: float, total: Callable[[Iterable[str]], float]) -> dict[str, float]:
    """Return what a number owes to each question: by how much it is lower without its unit, shared by the unit's."""
    members: dict[str, list[str]] = {}
    for name, unit in units.items():
        members.setdefault(unit, []).append(name)
    count = len(members)
    lower = {unit: (count - 1) * (score - total(name for name in units if units[name] != unit)) for unit in members}
    mean = math.fsum(lower.values()) / count
    share = len(units) / count
    return {name: (lower[unit] - mean) * share / len(members[unit]) for name, unit in units.items()}


def _value(draw: DrawResult, metric: str) -> Any:
    return next((one.value for one in draw.others if one.metric == metric), None)


def _scored(question: QuestionResult, metric: str, score: float) -> QuestionResult:
    draws: Sequence[DrawResult] = [
        replace(
            draw,
            others=tuple(replace(one, score=score, value=None) if one.metric == metric else one for one in draw.others),
        )
        for draw in question.draws
    ]
    return replace(question, draws=tuple(draws))
