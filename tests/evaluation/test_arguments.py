"""What `evaluate()` takes: names that are nearly its own are answered, and questions come in any form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions, run

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


_ANSWERED = [
    ("use_prediction_cache", True, "write predictions= (True, False, or a folder)"),
    ("cache_predictions_dir", "x", "write predictions= (a folder)"),
    ("cache_max_age_days", 7, "write max_age= (in seconds: 86400 for a day)"),
    ("predictions_max_age", 7, "write max_age= (in seconds: 86400 for a day)"),
    ("cache_compress", True, "write the setting predictions_compress (true or false)"),
    ("force_recomputation", True, "did you mean 'force_recompute'?"),
    ("threads", 8, "did you mean 'num_threads' or 'shards'?"),
    ("nonsense", 1, "its arguments are: program, devset, metric, "),
]


def test_an_argument_that_there_is_not_is_answered_with_one_that_there_is(
    program: dspy.Module, endpoint: Endpoint
) -> None:
    """In a sentence, before anything is asked."""
    for name, value, said in _ANSWERED:
        with pytest.raises(ConfigurationError) as caught:
            run(program, questions(2), **{name: value})
        assert f"evaluate() has no argument {name!r}: {said}" in str(caught.value)
    assert endpoint.requests == 0


_CANNOT_BE_USED = {
    "quick": [
        ("program", None),
        ("program", dspy.Predict),
        ("repeats", "3"),
        ("depends_on", [5]),
        ("level", 95),
        ("force_recompute", "no"),
    ],
    "exhaustive": [
        ("program", "openai/gpt-4o-mini"),
        ("metric", "exact"),
        ("repeats", 2.5),
        ("repeats", True),
        ("run_id", 5),
        ("num_threads", "8"),
        ("num_threads", -1),
        ("clusters", 5),
        ("baseline", "report.json"),
        ("depends_on", 5),
        ("depends_on", "rubric.md"),
        ("max_errors", "3"),
        ("failure_score", None),
        ("failure_score", float("nan")),
        ("level", "0.9"),
        ("name", b"mine"),
        ("predictions", 5),
    ],
}


@pytest.mark.parametrize("which", ["quick", pytest.param("exhaustive", marks=pytest.mark.exhaustive)])
def test_a_value_that_cannot_be_used_is_refused(program: dspy.Module, endpoint: Endpoint, which: str) -> None:
    """In a sentence that names the argument, before anything is asked."""
    for name, value in _CANNOT_BE_USED[which]:
        given = {"program": program, "devset": questions(2), "metric": exact, name: value}
        with pytest.raises(ConfigurationError, match=rf"^(the )?{name} "):
            cachectl.evaluate(**given, display_progress=False)
    assert endpoint.requests == 0


def test_numbers_of_numpy_are_numbers(program: dspy.Module, endpoint: Endpoint) -> None:
    """As they come out of a grid of settings."""
    numpy = pytest.importorskip("numpy")
    report = run(program, questions(2), repeats=numpy.int64(2), max_age=numpy.float64(60), level=numpy.float32(0.9))
    assert (4, 2) == (endpoint.requests, report.repeats)


def test_two_files_of_one_name_are_two(program: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """A change of either is seen; they may come from a generator."""
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rubric.md").write_text(folder)
    files = [tmp_path / folder / "rubric.md" for folder in "ab"]
    run(program, questions(2), depends_on=files)
    assert "loaded" == run(program, questions(2), depends_on=(file for file in reversed(files))).provenance.predictions
    for number, file in enumerate(files, start=2):
        file.write_text("changed")
        run(program, questions(2), depends_on=files)
        assert endpoint.requests == 2 * number


def test_the_arguments_are_seen() -> None:
    """By `help()` and by editors."""
    assert {"program", "devset", "metric", "predictions"} <= inspect.signature(cachectl.evaluate).parameters.keys()
