"""Whose an MLflow run is, among evaluations that overlap."""

from __future__ import annotations

from dspy_cachectl.context import scopes
from dspy_cachectl.context.scopes import EvaluationScope


def test_a_run_stays_with_those_who_were_in_it() -> None:
    """A run outlives the evaluation in it; until it ends MLflow gives it other evaluations' traces as well."""
    first = scopes.opened("first")
    scopes.set_mlflow_run(first, "its run")
    assert scopes.elsewhere(EvaluationScope("other"), "its run")
    scopes.ScopeKeeper().on_evaluate_end("first", None)
    assert scopes.opened("first") is not first
    assert scopes.elsewhere(EvaluationScope("other"), "its run")
    assert not scopes.elsewhere(EvaluationScope("within", parent=first), "its run")
    assert not scopes.elsewhere(first, "its run")
    assert not scopes.elsewhere(EvaluationScope("other"), "a run that no evaluation was in")
    scopes.ScopeKeeper().on_evaluate_end("first", None)


def test_the_oldest_runs_are_forgotten() -> None:
    """A process that evaluates for weeks keeps no list of all its runs."""
    for number in range(1200):
        scopes.set_mlflow_run(EvaluationScope(f"call {number}"), f"run {number}")
    assert not scopes.elsewhere(EvaluationScope("other"), "run 0")
    assert scopes.elsewhere(EvaluationScope("other"), "run 1199")
