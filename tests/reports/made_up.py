"""Reports made up from plain scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dspy_cachectl.accounting.asked import AskedModel, facts as facts_of
from dspy_cachectl.reports.measurement import Provenance
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import DrawResult, QuestionResult

BOUGHT = 1_760_000_000.0
"""When the first draw was bought: 2025-10-09 08:53:20 UTC."""

COUNTERS = {
    "calls": 14,
    "requests": 9,
    "fresh": 9,
    "resumed": 3,
    "reused": 1,
    "coalesced": 1,
    "truncated": 2,
    "temperatures_lent": 13,
    "unpriced": 1,
    "tokens_spent": 12_345,
    "tokens_saved": 678,
    "cost_spent": 0.0123,
    "cost_saved": 0.001,
    "seconds_spent": 40.0,
    "seconds_saved": 2.5,
}

ASKED = AskedModel("openai/gpt-4o-mini", "lab", "2025-01", temperature=1.0, lent=True, calls=13)
"""What answered, unless a report is made with one of these changed, or with `models`."""


def provenance(**changed: Any) -> Provenance:
    """What a made-up score is made of."""
    asked = {name: changed.pop(name) for name in vars(ASKED).keys() & changed.keys()}
    facts: dict[str, Any] = {
        "run_id": "run-7",
        "phase": "eval",
        "policy": "FRESH",
        **facts_of(changed.pop("models", [replace(ASKED, **asked)])),
        "program": "a1" * 32,
        "data": "b2" * 32,
        "metric": "exact_match",
        "metric_hash": "c3" * 32,
        "predictions": "extended",
        "changes": ("the instruction of `answer` changed",),
        "snapshot": "gpt-4o-mini_1234.json",
        "unsaved": 0,
        "counters": COUNTERS,
        "seconds": 12.3,
        "created": BOUGHT + 100.0,
        "versions": {"dspy": "3.4.1"},
    }
    return Provenance(**{**facts, **changed})


def report(
    scores: Sequence[float | Sequence[float | None] | None],
    *,
    name: str = "made-up",
    clusters: Sequence[str] | None = None,
    draws: Sequence[Sequence[str]] | None = None,
    outputs: Sequence[Sequence[str]] | None = None,
    questions: Sequence[str] | None = None,
    preview: str = "What is {}?",
    cost: float | None = 0.0,
    level: float = 0.95,
    **changed: Any,
) -> EvalReport:
    """A report of these scores, one or several a question; None is an answer that failed. Draws are its own."""
    rows = [list(row) if isinstance(row, (list, tuple)) else [row] for row in scores]
    return EvalReport(
        name=name,
        questions=tuple(
            QuestionResult(
                question=f"question-{i}" if questions is None else questions[i],
                preview=preview.format(i),
                draws=tuple(
                    DrawResult(
                        score=0.0 if score is None else float(score),
                        failed="the metric raised KeyError: 'answer'" if score is None else None,
                        draw=f"{name}/{i}/{k}" if draws is None else draws[i][k],
                        output=f"{name}/{i}/{k}" if outputs is None else outputs[i][k],
                        loaded=k == 0,
                        requests=1,
                        tokens=100,
                        cost=cost,
                        seconds=0.5,
                        oldest=BOUGHT + i,
                        newest=BOUGHT + 60.0 + i,
                    )
                    for k, score in enumerate(row)
                ),
                cluster=None if clusters is None else clusters[i],
            )
            for i, row in enumerate(rows)
        ),
        provenance=provenance(**changed),
        level=level,
    )
