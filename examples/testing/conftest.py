"""The LM of the tests: a provider's, or a small local model, which runs only while something is recorded."""

from __future__ import annotations

from collections.abc import Iterator

import dspy
import pytest

import dspy_cachectl as cachectl


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line name a model."""
    parser.addoption("--model", default="local", help="a provider's model, with which tests are recorded and replayed")


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> Iterator[tuple[dspy.LM, dspy.Adapter]]:
    """The LM, and the adapter that suits it."""
    name = request.config.getoption("--model")
    if name != "local":
        yield cachectl.LM(name, temperature=0.0), dspy.ChatAdapter()
        return
    with cachectl.local_model() as local:
        yield local.lm(temperature=0.0), local.adapter


@pytest.fixture(autouse=True)
def configured(model: tuple[dspy.LM, dspy.Adapter]) -> Iterator[None]:
    """Each test asks that LM."""
    lm, adapter = model
    with dspy.context(lm=lm, adapter=adapter):
        yield
