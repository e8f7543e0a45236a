"""Metrics and slices of a report on a real server: figures under names that it takes, and a table of all."""

from __future__ import annotations

import mlflow
import pytest

from dspy_cachectl.tracking.log import log_to_mlflow
from tests.apart.test_metrics import judged
from tests.apart.test_slices import sliced
from tests.tracking.rest import Rest

pytestmark = pytest.mark.usefixtures("mlflow_set")


def test_what_is_looked_at_apart_is_logged(server: Rest) -> None:
    """Each metric and slice with its score and interval, whatever it is called; of a comparison with its verdict."""
    before = judged([0.0, 1.0] * 6, {"kind": [1.0] * 12}, "before")
    after = judged([1.0, 1.0] * 6, {"kind": [0.0, 1.0] * 6}, "after")
    for one in (before, after):
        for question, its in zip(
            one.questions, sliced([0.0] * 12, ["über/50% $"] * 6 + ["b"] * 6).questions, strict=True
        ):
            object.__setattr__(question, "slices", its.slices)
    outcome = log_to_mlflow(after)
    (run,) = server.runs_of(str(outcome.uid))
    figures = {name.removeprefix("dspy_cachectl/"): value for name, value in run.metrics.items()}
    assert {"metric/kind/mean": 0.5, "slice/_ber_50_ _/mean": 1.0, "slice/b/n": 6.0} == {
        name: figures.get(name) for name in ("metric/kind/mean", "slice/_ber_50_ _/mean", "slice/b/n")
    }
    assert after.metrics["kind"].interval.low == figures["metric/kind/ci_low"]
    table = mlflow.load_table(f"dspy_cachectl/apart_{str(outcome.uid)[:8]}.json", run_ids=[run.id])
    assert ["exact_match", "kind", "über/50% $", "b"] == list(table["name"])
    assert [one.score for one in (*after.metrics.values(), *after.slices.values())] == list(table["score"])

    compared = before.compare(after)
    outcome = log_to_mlflow(compared)
    (run,) = server.runs_of(str(outcome.uid))
    table = mlflow.load_table(f"dspy_cachectl/apart_{str(outcome.uid)[:8]}.json", run_ids=[run.id])
    parts = [*compared.metrics.values(), *compared.slices.values()]
    assert [one.verdict_text for one in parts] == list(table["verdict"])
    assert [one.adjusted_p_value for one in parts] == pytest.approx(list(table["adjusted_p_value"]))
