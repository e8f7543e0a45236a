"""Evaluation: a score with its error bar, from fresh draws, and nothing computed twice."""

from __future__ import annotations

from dspy_cachectl.evaluation.comparison import Comparison, Comparisons, compare
from dspy_cachectl.evaluation.report import EvalReport
from dspy_cachectl.evaluation.results import DrawResult, Provenance, QuestionResult
from dspy_cachectl.evaluation.running import evaluate

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
