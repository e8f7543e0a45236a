"""Logging where packages are missing: with the small MLflow, without matplotlib, and with no MLflow at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.tracking.log import log_to_mlflow
from tests.limits import PATIENCE
from tests.reports.made_up import report
from tests.tracking.delivered import assert_delivered_once, sync_from_a_shell
from tests.tracking.rest import Rest

pytestmark = pytest.mark.usefixtures("state")

_ROOT = Path(__file__).resolve().parents[2]

_HIDE = """
import json, sys
from importlib.machinery import PathFinder

class Hiding:
    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        hidden = name.partition(".")[0] in sys.argv[1].split(",")
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
import dspy, dspy_cachectl as cachectl
"""

_PHASE = """
with cachectl.phase("eval") as run:
    pass
print(json.dumps(cachectl.log_to_mlflow(run).run_id))
"""

_REPORTS = """
from tests.reports.made_up import report

old, new = report([0, 0, 1], name="old"), report([1, 1, 1], name="new")
print(json.dumps([cachectl.log_to_mlflow(made).run_id for made in (old, new, old.compare(new))]))
"""

_EVALUATE = """
class Echo(dspy.Module):
    def forward(self, question):
        return dspy.Prediction(answer=question)

dspy.configure(lm=cachectl.LM("openai/test-model", api_key="sk-test-secret"))
devset = [dspy.Example(question=str(number % 4)).with_inputs("question") for number in range(8)]
found = cachectl.evaluate(
    Echo(), devset, lambda example, prediction, trace=None: prediction.answer == "0",
    display_progress=False, predictions=False, mlflow=True,
)
print(json.dumps([found.score, cachectl.log_to_mlflow(found).reason]))
"""


def _without(modules: str, script: str) -> tuple[Any, str]:
    done = subprocess.run(
        [sys.executable, "-c", _HIDE + script, modules],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.exhaustive
def test_the_small_mlflow_is_enough(server: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mlflow-skinny lacks is needed neither for a phase nor for tables, data set, model and comparison."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    small = "sqlalchemy,alembic,flask,pyarrow,sklearn,matplotlib"
    run_id, _ = _without(f"numpy,pandas,{small}", _PHASE)
    assert server.run(run_id).status == "FINISHED"
    first, second, parent = (server.run(run_id) for run_id in _without(small, _REPORTS)[0])
    assert {run.tags["mlflow.parentRunId"] for run in (first, second)} == {parent.id}
    assert len({run["inputs"]["model_inputs"][0]["model_id"] for run in (first, second)}) == 1
    assert "mlflow.loggedArtifacts" in parent.tags


def test_without_matplotlib_the_rest_is_logged(server: Rest, mlflow_set: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure is an extra, and no reason to warn."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    outcome = log_to_mlflow(report([1, 0, 1]))
    assert outcome.status == "logged"
    assert not any(path.endswith(".png") for path in server.artifacts(str(outcome.run_id)))


@pytest.mark.exhaustive
def test_without_mlflow_what_is_logged_waits(server: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says what to install, and the command line delivers later, to where it was meant to go."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    (score, reason), warned = _without("mlflow", _EVALUATE)
    assert score == 0.25
    for said in (reason, warned):
        assert "pip install 'dspy-cachectl[mlflow]'" in said
    assert warned.count("dspy-cachectl mlflow sync") == 2
    done = sync_from_a_shell()
    assert [item["status"] for item in done] == ["logged"] * 2
    for item in done:
        assert_delivered_once(server, item["uid"])
