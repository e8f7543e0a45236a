"""What answers cost, as metrics that need no code: dollars, seconds of the provider, tokens. Less is better.

Only answers count whose calls were all seen, and that were drawn afresh: what a cache on the way gave again took no
time. A loaded prediction, and a draw that is served again, cost what they cost when they were bought.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from dspy_cachectl.reports.measurement import MEASURE, Measurement
from dspy_cachectl.reports.results import DrawResult, OtherMetric

M = TypeVar("M", bound=Measurement)

MEASURES = {"cost": "US$", "seconds": "s", "tokens": "tokens"}
"""The measures by name, with their units."""


def measured(report: M, metric: OtherMetric) -> M | None:
    """Return what answers cost as a report; None where it is known of no answer.

    Args:
        report: The report.
        metric: Which measure it is, by its hash, and what it is called.
    """
    measure = metric.metric_hash.removeprefix(MEASURE)
    questions = []
    for question in report.questions:
        draws = [
            replace(draw, score=value, failed=None, feedback=None, others=())
            for draw in question.draws
            if report.is_fresh(draw) and (value := _of(draw, measure)) is not None
        ]
        questions += [replace(question, draws=tuple(draws))] if draws else []
    if not questions:
        return None
    left = len(report.draws) - sum(len(question.draws) for question in questions)
    made = replace(report.provenance, others=(), **vars(metric), left_out=left)
    return replace(report, name=f"{report.name}, {metric.metric}", questions=tuple(questions), provenance=made)


def _of(draw: DrawResult, measure: str) -> float | None:
    return {"cost": draw.cost, "seconds": draw.seconds, "tokens": float(draw.tokens)}[measure]
