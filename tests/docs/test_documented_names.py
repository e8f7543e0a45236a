"""`docs/reference/api.md` has every public name and every argument of `evaluate()`, each with an example that runs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.config.checks import TOP
from tests.docs.documented import ROOT, blocks, sections
from tests.endpoint import Endpoint
from tests.processes import Finished

PAGE = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
LONG = {"Evaluating", "MLflow", "A model on this machine", "Errors"}
"""The sections whose examples take long, and those that go on from them."""


def _examples_of(name: str) -> str:
    found = [text for heading, text in sections(PAGE, 3).items() if f"`{name}`" in heading]
    assert len(found) == 1, f"docs/reference/api.md has {len(found)} sections of {name}: write one, headed ### `{name}`"
    return "\n".join(blocks(re.split(r"^## ", found[0], flags=re.MULTILINE)[0]))


@pytest.mark.parametrize("name", cachectl.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    """In a section of its own, or of those that belong together."""
    assert re.search(rf"\bcachectl\.{name}\b", _examples_of(name)), f"no example of {name} in docs/reference/api.md"


def test_every_argument_of_evaluate_has_an_example() -> None:
    """And a line that says what it is for, in the order of the function."""
    names = list(inspect.signature(cachectl.evaluate).parameters)
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", sections(PAGE, 3)["`evaluate`"], flags=re.MULTILINE)
    assert names == rows
    examples = _examples_of("evaluate")
    assert [] == [name for name in names if not re.search(rf"\b{name}=", examples)]


def test_every_setting_has_a_line() -> None:
    """In the table of docs/reference/settings.md."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)[^`]*` \| .+ \| .+ \|$", page, flags=re.MULTILINE)
    assert [] == [name for name in (*TOP, "phases") if name not in rows]


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_the_examples_run(child: Callable[..., Finished], endpoint: Endpoint, whole: bool) -> None:
    """From the first to the last, as one script; against a provider that is the counting endpoint."""
    left_out = set() if whole else LONG
    code = blocks(PAGE.partition("\n## ")[0])
    for heading, text in sections(PAGE).items():
        code += [] if heading in left_out else blocks(text)
    endpoint.configure(answers={"What is": ["0", "2", "4"]})
    script = "if __name__ == '__main__':\n" + textwrap.indent("\n".join(code), "    ")
    environment = {
        "OPENAI_API_BASE": endpoint.url,
        "OPENAI_API_KEY": "sk-test",
        "MLFLOW_TRACKING_URI": "sqlite:///m.db",
    }
    done = child(script, env=environment)
    assert done.stdout.rstrip().endswith(cachectl.__version__)
    assert whole == ("it is damaged: record it anew" in done.stdout)
