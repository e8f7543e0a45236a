"""Runs an example as a user does."""

from __future__ import annotations

import os
from pathlib import Path

from tests.endpoint import Endpoint
from tests.processes import DSPY_MODULES, ROOT, Finished, python

EXAMPLES = ROOT / "examples"


def surroundings(endpoint: Endpoint | None) -> dict[str, str]:
    """The environment of an example: no settings but its own, and a provider that is the test endpoint."""
    names = ("DSPY_CACHECTL_", "MLFLOW_")
    found = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    found |= {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    if endpoint is not None:
        found |= {"OPENAI_API_BASE": endpoint.url, "OPENAI_API_KEY": "sk-test-secret"}
    return found


def example(script: Path, folder: Path, *options: str, endpoint: Endpoint | None = None, **variables: str) -> Finished:
    """Run a script in a folder, and see it end well."""
    # The local model's server is started by multiprocessing, which needs an interpreter that began with the script.
    warm = () if endpoint is None else DSPY_MODULES
    finished = python(script, *options, warm=warm, cwd=folder, env=surroundings(endpoint) | variables)
    assert 0 == finished.returncode, finished.output
    return finished
