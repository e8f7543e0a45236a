"""Evaluation: a score with its error bar, from fresh draws, and nothing computed twice."""

from __future__ import annotations

from dspy_cachectl.evaluation.running import evaluate
from dspy_cachectl.reports.comparison import Comparison, Comparisons, compare
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import DrawResult, Provenance, QuestionResult

__all__ = [
    "Comparison",
    "Comparisons",
    "DrawResult",
    "EvalReport",
    "Provenance",
    "QuestionResult",
    "compare",
    "evaluate",
]
