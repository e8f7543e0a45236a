"""What the README says first is so: who installs as it says, and runs what it shows, gets to the end."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.docs.documented import ROOT, blocks, installed_by, not_in, sections
from tests.endpoint import Endpoint
from tests.processes import Finished

README = (ROOT / "README.md").read_text(encoding="utf-8")
START = sections(README)["Quick start"]

SCRIPT = """
    import json, sys

    import importlib.abc

    class Missing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in MISSING:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    MISSING = set(json.loads(sys.argv[1]))
    sys.meta_path.insert(0, Missing())
    import dspy

    examples = [dspy.Example(question=f"question {at}?", answer="yes").with_inputs("question") for at in range(6)]
    train, dev = examples[:4], examples[4:]
    program = dspy.Predict("question -> answer")

    def metric(example, prediction, trace=None):
        return example.answer == prediction.answer

    for block in json.loads(sys.argv[2]):
        exec(compile(block, "README.md", "exec"))
    print(json.dumps({"before": before.n, "score": float(result.score)}))
"""


def _install() -> str:
    return blocks(START, "bash")[0]


@pytest.mark.parametrize("name", ["optuna", "mlflow", "scipy", "numpy", "dspy-cachectl", "litellm"])
def test_the_install_brings_what_the_quick_start_asks_for(name: str) -> None:
    """MIPROv2 asks for optuna after it has paid for its proposals; whoever is shown it has it by then."""
    assert "MIPROv2" in START
    assert name in installed_by(_install())
    assert "optuna" not in installed_by("pip install dspy-cachectl")


@pytest.mark.exhaustive
def test_the_quick_start_runs_with_what_its_install_brings(child: Callable[..., Finished], endpoint: Endpoint) -> None:
    """To its end, with nothing else installed."""
    code = blocks(START)
    assert len(code) == 2
    missing = not_in(installed_by(_install()))
    assert {"pytest", "statsmodels", "xllamacpp"} <= set(missing)
    endpoint.configure(answers={"question": ["yes"]})
    environment = {
        "OPENAI_API_BASE": endpoint.url,
        "OPENAI_API_KEY": "sk-test",
        "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    }
    done = child(SCRIPT, json.dumps(missing), json.dumps(code), env=environment, fresh=True)
    assert done.data["before"] == 2
    assert endpoint.requests > 0
