"""Budgets that the settings say, and those of `dspy-cachectl run`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import BudgetExceededError, ConfigurationError
from tests.budgets.support import ask_in_threads
from tests.endpoint import Endpoint
from tests.processes import DSPY_MODULES, ROOT, Finished, python

LMs = Callable[..., Any]


def test_a_phase_of_the_settings_has_its_budget(lm: LMs, endpoint: Endpoint) -> None:
    """What the settings allow a phase holds where it is opened, unless it is given another."""
    cachectl.configure(phases={"compile": {"budget": "requests=2"}})
    with pytest.raises(BudgetExceededError), cachectl.phase("compile"):
        ask_in_threads(lm(), 3, 1)
    assert endpoint.requests == 2
    with cachectl.phase("compile", budget=cachectl.Budget(requests=20)):
        assert ask_in_threads(lm(), 5, 1) == 0


def test_a_process_has_one(lm: LMs, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget of all calls holds outside phases too, and the outermost phase says what was not made."""
    monkeypatch.setenv("DSPY_CACHECTL_BUDGET", "requests=3")
    cachectl.configure()
    assert ask_in_threads(lm(), 2, 1) == 0
    with pytest.raises(BudgetExceededError, match="this process"), cachectl.phase("compile"):
        ask_in_threads(lm(temperature=0.5), 3, 1)
    assert endpoint.requests == 3
    with pytest.raises(BudgetExceededError):
        lm(temperature=0.7)("anything")
    cachectl.configure(budget="requests=4")
    lm(temperature=0.7)("anything")


@pytest.mark.parametrize("said", ["4", "cost=x", "cost=-1", "euros=4", "cost=4, cost=5", "requests=1.5"])
def test_what_is_no_budget_is_refused(said: str) -> None:
    """A setting that says no budget is an error that says how one is written."""
    with pytest.raises(ConfigurationError, match=r"budget"):
        cachectl.configure(budget=said)


SCRIPT = """\
    import os, subprocess, sys
    import dspy
    import dspy_cachectl as cachectl

    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk")
    for number in range(3):
        try:
            lm(f"{sys.argv[1:]} {number}")
        except Exception as error:
            print("no answer", type(error).__name__)
    if "again" in sys.argv:
        subprocess.run([sys.executable, __file__, "child"], check=True)
"""


def test_a_script_spends_no_more(tmp_path: Path, endpoint: Endpoint) -> None:
    """`run --max-requests` holds for a script that swallows errors and for its children, and says so in its end."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))

    def run(*words: str) -> Finished:
        given = {**os.environ, "ENDPOINT_URL": endpoint.url, "PYTHONPATH": str(ROOT)}
        return python("-m", "dspy_cachectl", "run", *words, warm=DSPY_MODULES, cwd=tmp_path, env=given)

    ended = run("--max-requests", "4", "script.py", "again")
    assert (ended.returncode, endpoint.requests) == (1, 4), ended.output
    assert "no answer BudgetExceededError" in ended.stdout
    assert "budget: 2 calls were not made" in ended.stderr
    ended = run("--max-requests", "9", "--max-cost", "1", "script.py", "again")
    assert (ended.returncode, endpoint.requests) == (0, 6)
    assert "budget: spent $0.00 of $1.00, 2 of 9 requests" in ended.stderr
    assert "not certain for 'openai/test-model': its price is not known" in " ".join(
        ended.stderr.split("budget:")[-1].split()
    )
