"""Several metrics of the same answers: what each says is a report of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from dspy_cachectl.reports.apart.corpus import CORPUS
from dspy_cachectl.reports.apart.measures import measured
from dspy_cachectl.reports.measurement import MEASURE, Measurement
from dspy_cachectl.reports.results import DrawResult, OtherMetric, OtherScore

M = TypeVar("M", bound=Measurement)


def by_metric(report: M) -> dict[str, M]:
    """Return what each metric says, by name, the report's own first; a measure that is not known is left out."""
    made = report.provenance
    first = replace(report, name=f"{report.name}, {made.metric}", provenance=replace(made, others=()))
    further = {one.metric: _of(report, one) for one in made.others}
    return {made.metric: first, **{name: one for name, one in further.items() if one is not None}}


def each_by_metric(reports: Sequence[M]) -> dict[str, list[M | None]]:
    """Return what each metric says of each of several reports, under its name; None where it is not known.

    Empty where there is but one.
    """
    found = [by_metric(report) if report.provenance.others else {} for report in reports]
    names = dict.fromkeys(name for report in reports for name in _names(report))
    return {
        name: [
            replace(its[name], name=report.name) if name in its else None
            for report, its in zip(reports, found, strict=True)
        ]
        for name in names
    }


def _names(report: Measurement) -> list[str]:
    made = report.provenance
    return [made.metric, *(one.metric for one in made.others)] if made.others else []


def _of(report: M, metric: OtherMetric) -> M | None:
    if metric.metric_hash.startswith(MEASURE):
        return measured(report, metric)
    is_corpus = metric.metric_hash.startswith(CORPUS)
    if is_corpus and metric.interval is None:
        return None
    made = replace(report.provenance, others=(), **vars(metric))
    return replace(
        report,
        name=f"{report.name}, {metric.metric}",
        questions=tuple(
            replace(
                question,
                draws=tuple(_scored(report, draw, metric.metric) for draw in question.draws),
                slices=() if is_corpus else question.slices,  # of a part it is another number
            )
            for question in report.questions
        ),
        provenance=made,
    )


def _scored(report: Measurement, draw: DrawResult, metric: str) -> DrawResult:
    unsaid = OtherScore(metric, report.provenance.failure_score, draw.failed or "the metric was not asked")
    found = next((one for one in draw.others if one.metric == metric), unsaid)
    return replace(draw, score=found.score, failed=found.failed, feedback=found.feedback, others=())


def paired_metrics(baseline: Measurement, candidate: Measurement) -> Iterator[tuple[str, Measurement, Measurement]]:
    """Yield what each metric of both reports says of each: its name, and the two; nothing where there is but one."""
    before, after = by_metric(baseline), by_metric(candidate)
    common = [name for name in before if name in after]
    if len(common) > 1:
        yield from ((name, before[name], after[name]) for name in common)
