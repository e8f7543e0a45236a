"""Questions of any data: each is asked as it stands there, and its answer is kept, and served for it alone."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint

pytest.importorskip("scipy")

MakeLM = Callable[..., Any]


class Asks(dspy.Signature):  # type: ignore[misc]
    """Answer."""

    about: Any = dspy.InputField()
    answer: str = dspy.OutputField()


@dataclasses.dataclass
class Bytes:
    """Something that is no text."""

    content: Any = b"\xff"


class Refuses(pydantic.BaseModel):
    """An object that cannot be written as JSON."""

    content: int = 1

    @pydantic.field_serializer("content")
    def _written(self, _content: int) -> int:
        raise RuntimeError("not this one")


class Adds(dspy.Module):  # type: ignore[misc]
    """Adds to what it is given before it asks."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(Asks)

    def forward(self, about: Any) -> Any:
        about["said"].append("more")
        about["said"][0].append("deeper")
        about["new"] = True
        return self.ask(about=about)


def _asked(program: Any, abouts: list[Any], endpoint: Endpoint, folder: Path, **options: Any) -> int:
    """Evaluate, and return how many requests that took."""
    before = endpoint.requests
    report = cachectl.evaluate(
        program,
        [dspy.Example(about=about, label=about).with_inputs("about") for about in abouts],
        lambda example, prediction, trace=None: prediction.answer != "",
        predictions=folder,
        display_progress=False,
        **options,
    )
    assert 1.0 == report.score
    return endpoint.requests - before


NO_DATE = "a date that is none, of pandas"


@pytest.mark.filterwarnings("ignore:.*serializer")
@pytest.mark.parametrize("about", [Bytes(), Refuses(), NO_DATE], ids=["bytes", "refuses", "no date"])
def test_what_has_no_form_as_json(lm: MakeLM, endpoint: Endpoint, tmp_path: Path, about: Any) -> None:
    """An answer that was paid for is scored and kept, whatever its question holds."""
    if about is NO_DATE:
        about = pytest.importorskip("pandas").NaT
    dspy.configure(lm=lm())
    assert [1, 0] == [_asked(dspy.Predict(Asks), [about], endpoint, tmp_path / "kept") for _ in range(2)]


def test_the_order_of_a_dictionary_is_asked(lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """A dictionary in another order makes another prompt: no answer to the one is served for the other."""
    dspy.configure(lm=lm())
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"d": 3, "c": 2}}
    program, folder = dspy.Predict(Asks), tmp_path / "kept"
    assert [1, 1, 0] == [_asked(program, abouts, endpoint, folder) for abouts in ([one], [other, one], [other])]
    assert 2 == len(endpoint.counts())


def test_fields_and_sets_have_no_order(lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """The order of an object's fields, of a set, of what is expected and of the fields of an example asks nothing."""
    dspy.configure(lm=lm())
    program = dspy.Predict("first, second -> answer")
    fields = {"first": {1, 2}, "second": dt.date(2026, 1, 1), "label": {"a": 1, "b": 2}}
    turned = {"label": {"b": 2, "a": 1}, "second": dt.date(2026, 1, 1), "first": {2, 1}}
    for given in (fields, turned):
        devset = [dspy.Example(**given).with_inputs("first", "second")]
        cachectl.evaluate(program, devset, lambda *_: 1.0, predictions=tmp_path / "kept", display_progress=False)
    assert 1 == endpoint.requests


def test_what_a_program_adds_to_its_question(lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """Each repeat asks the question as it stands in the data set, and so does the next evaluation."""
    dspy.configure(lm=lm())
    about = {"said": [["one"]]}
    assert [3, 0] == [_asked(Adds(), [about], endpoint, tmp_path / "kept", repeats=3) for _ in range(2)]
    assert [3] == list(endpoint.counts().values())
    assert {"said": [["one"]]} == about
