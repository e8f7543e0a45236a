"""What answers cost, as metrics that need no code: dollars, seconds of the provider, tokens. Less is better.

Only answers count whose calls were all seen, and that were drawn afresh: what a cache on the way gave again took no
time. A loaded prediction, and a draw that is served again, cost what they cost when they were bought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from dspy_cachectl.accounting.spent import Spent
from dspy_cachectl.reports.measurement import MEASURE, Measurement
from dspy_cachectl.reports.results import DrawResult, OtherMetric

M = TypeVar("M", bound=Measurement)

MEASURES = {"cost": "US$", "seconds": "s", "tokens": "tokens"}
"""The measures by name, with their units."""

_OF = " of "


def is_measure(name: str) -> bool:
    """Whether a text names a measure: of a whole answer, or as `cost of rank`, of a predictor."""
    return name.partition(_OF)[0] in MEASURES


def measured(report: M, metric: OtherMetric) -> M | None:
    """Return what answers cost as a report; None where it is known of no answer.

    Args:
        report: The report.
        metric: Which measure it is, by its hash, and what it is called.
    """
    measure, _, predictor = metric.metric_hash.removeprefix(MEASURE).partition(_OF)
    questions = []
    for question in report.questions:
        draws = [
            replace(draw, score=float(value), failed=None, feedback=None, others=())
            for draw in question.draws
            if report.is_fresh(draw) and (value := _value(draw, measure, predictor)) is not None
        ]
        questions += [replace(question, draws=tuple(draws))] if draws else []
    names = {one.predictor for draw in report.draws for one in draw.spent}
    if not questions or (predictor and predictor not in names):
        return None
    left = len(report.draws) - sum(len(question.draws) for question in questions)
    made = replace(report.provenance, others=(), **vars(metric), left_out=left)
    return replace(report, name=f"{report.name}, {metric.metric}", questions=tuple(questions), provenance=made)


def prices(reports: Sequence[Measurement]) -> tuple[str, list[Measurement]] | None:
    """Return what an answer of each report cost: in dollars, or else in tokens; None where it is not known of all."""
    for measure in ("cost", "tokens"):
        found = [measured(report, OtherMetric(measure, MEASURE + measure)) for report in reports]
        known = [one for one in found if one is not None and one.score > 0]
        if len(known) == len(found):
            return MEASURES[measure], known
    return None


def _value(draw: DrawResult, measure: str, predictor: str) -> float | None:
    """Return what an answer cost, or what of it a predictor did, which may not have been called for it."""
    made: DrawResult | Spent = draw
    if predictor:
        if not draw.spent:
            return None
        made = next((one for one in draw.spent if one.predictor == predictor), Spent(predictor))
    return {"cost": made.cost, "seconds": made.seconds, "tokens": made.tokens}[measure]
