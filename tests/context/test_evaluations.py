"""Whose an MLflow run is, among evaluations that overlap."""

from __future__ import annotations

from dspy_cachectl.context import evaluations
from dspy_cachectl.context.evaluations import EvaluationScope


def test_a_run_stays_with_those_who_were_in_it() -> None:
    """A run outlives the evaluation in it; until it ends MLflow gives it other evaluations' traces as well."""
    first = evaluations.opened("first")
    evaluations.set_mlflow_run(first, "its run")
    assert evaluations.elsewhere(EvaluationScope("other"), "its run")
    evaluations.left("first")
    assert evaluations.opened("first") is not first
    assert evaluations.elsewhere(EvaluationScope("other"), "its run")
    assert not evaluations.elsewhere(EvaluationScope("within", parent=first), "its run")
    assert not evaluations.elsewhere(first, "its run")
    assert not evaluations.elsewhere(EvaluationScope("other"), "a run that no evaluation was in")
    evaluations.left("first")


def test_the_oldest_runs_are_forgotten() -> None:
    """A process that evaluates for weeks keeps no list of all its runs."""
    for number in range(1200):
        evaluations.set_mlflow_run(EvaluationScope(f"call {number}"), f"run {number}")
    assert not evaluations.elsewhere(EvaluationScope("other"), "run 0")
    assert evaluations.elsewhere(EvaluationScope("other"), "run 1199")
