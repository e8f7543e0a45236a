"""What `evaluate()` takes: names that are nearly its own are answered, and questions come in any form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, questions, run

__all__ = ["program"]


@pytest.mark.parametrize(
    "given",
    [
        lambda devset: (example for example in devset),
        iter,
        tuple,
        lambda devset: dict(enumerate(devset)).values(),
        lambda devset: map(lambda example: example, devset),  # noqa: C417 - it is about a map
    ],
    ids=["generator", "iterator", "tuple", "view", "map"],
)
def test_questions_that_can_be_read_once_are_enough(
    program: dspy.Module, endpoint: Endpoint, given: Callable[[list[dspy.Example]], Iterable[dspy.Example]]
) -> None:
    """Each is asked in each repeat, and they are the questions of a list."""
    report = cachectl.evaluate(
        program, given(questions(3)), lambda *_: 1.0, repeats=2, clusters=iter("abc"), display_progress=False
    )
    assert (6, 3) == (endpoint.requests, report.n)
    assert "loaded" == run(program, questions(3), repeats=2).provenance.predictions
    assert endpoint.requests == 6


@pytest.mark.parametrize(
    ("devset", "said"),
    [
        (None, "devset is a list of dspy.Example, not None"),
        (7, "devset is a list of dspy.Example, not 7"),
        (iter(()), "the data set is empty"),
        ("text", "example 0 is a str"),
        ([{"question": "q"}], "example 0 is a dict"),
    ],
)
def test_what_holds_no_questions_is_refused(program: dspy.Module, devset: Any, said: str) -> None:
    """It says so before anything is asked."""
    with pytest.raises(ConfigurationError, match=said):
        run(program, devset)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("use_prediction_cache", True, "write predictions= (True, False, or a folder)"),
        ("cache_predictions_dir", "x", "write predictions= (a folder)"),
        ("cache_max_age_days", 7, "write max_age= (in seconds: 86400 for a day)"),
        ("predictions_max_age", 7, "write max_age= (in seconds: 86400 for a day)"),
        ("cache_compress", True, "write the setting predictions_compress (true or false)"),
        ("force_recomputation", True, "did you mean 'force_recompute'?"),
        ("threads", 8, "did you mean 'num_threads'?"),
        ("nonsense", 1, "its arguments are: program, devset, metric, "),
    ],
)
def test_an_argument_that_there_is_not_is_answered_with_one_that_there_is(
    program: dspy.Module, endpoint: Endpoint, name: str, value: Any, said: str
) -> None:
    """In a sentence, before anything is asked."""
    with pytest.raises(ConfigurationError) as caught:
        run(program, questions(2), **{name: value})
    assert f"evaluate() has no argument {name!r}: {said}" in str(caught.value)
    assert endpoint.requests == 0


def test_the_arguments_are_seen() -> None:
    """By `help()` and by editors."""
    assert {"program", "devset", "metric", "predictions"} <= inspect.signature(cachectl.evaluate).parameters.keys()
