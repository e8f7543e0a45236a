"""`docs/reference/api.md` has every public name and every argument, each with an example that runs."""

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


CALLED = [
    *("LM", "wrap", "Embedder", "phase", "Policy", "carry", "configure", "install", "evaluate", "aevaluate", "compare"),
    *("settle", "race", "Ranking", "workers", "CorpusMetric", "check_judge"),
    *("cassette", "log_to_mlflow", "find_mlflow_run", "mlflow_callbacks", "protect_mlflow"),
]
"""What users give arguments to."""


def _examples_of(name: str) -> str:
    """The blocks below a name, before the next one that has any."""
    _, *rest = re.split(r"^### (?:::: dspy_cachectl\.|`)(\w+)`?$", PAGE, flags=re.MULTILINE)
    for text in rest[rest.index(name) + 1 :: 2]:
        found = blocks(re.split(r"^## ", text, flags=re.MULTILINE)[0])
        if found:
            return "\n".join(found)
    raise AssertionError(f"nothing follows {name} in docs/reference/api.md")


@pytest.mark.parametrize("name", cachectl.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    """Below what its docstring says, or below the last of those that belong together."""
    assert re.search(rf"\bcachectl\.{name}\b", _examples_of(name)), f"no example of {name} in docs/reference/api.md"


@pytest.mark.parametrize("name", CALLED)
def test_every_argument_is_told_and_has_an_example(name: str) -> None:
    """By its name, in the docstring and in a block."""
    function = getattr(cachectl, name)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    arguments = [each.name for each in inspect.signature(function).parameters.values() if each.kind in kinds]
    told = inspect.getdoc(function) or ""
    assert [] == [each for each in arguments if not re.search(rf"^ *{each}: ", told, flags=re.MULTILINE)]
    examples = _examples_of(name)
    assert [] == [each for each in arguments if not re.search(rf"\b{each}=", examples)]


def test_every_setting_has_a_line() -> None:
    """In the table of docs/reference/settings.md."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)[^`]*` \| .+ \| .+ \|$", page, flags=re.MULTILINE)
    assert [] == [name for name in (*TOP, "phases") if name not in rows]


def test_every_error_has_a_line() -> None:
    """In the table of docs/reference/errors.md."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))
    assert {name for name in cachectl.__all__ if name.endswith("Error")} == rows | {"CachectlError"}


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
