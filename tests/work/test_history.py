"""A program that has been called for long: what it was asked and answered is not looked at when it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.modules import sub_modules
from tests.calls.support import MakeLM, examples, gold
from tests.endpoint import Endpoint


class Past(list[Any]):
    """A history that counts how often somebody goes through it."""

    seen = 0

    def __iter__(self) -> Iterator[Any]:
        type(self).seen += 1
        return super().__iter__()


class Nested(dspy.Module):  # type: ignore[misc]
    """Modules in an attribute, a list, a dictionary and twice; one of them compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.ChainOfThought("question -> answer")
        self.more = [dspy.Predict("question -> answer"), (dspy.Predict("question -> hint"), self.first)]
        self.named = {"one": dspy.Predict("question -> answer"), "two": {"inner": self.more[0]}}
        self.first._compiled = True

    def forward(self, question: str) -> Any:
        """Answer."""
        return self.first(question=question)


def test_the_history_is_in_no_walk(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a program was called, an evaluation of it goes through none of that, or once for the names."""
    endpoint.configure(gold=gold(3), accuracy=1.0)
    dspy.configure(lm=lm(temperature=1.0))
    program = Nested()
    for _, module in program.named_sub_modules(dspy.Module):
        module.history = Past([{"messages": [{"role": "user", "content": str(n)}]} for n in range(50)])
    modules = len(list(program.named_sub_modules(dspy.Module)))
    for _ in range(2):  # bought, and from what is kept
        monkeypatch.setattr(Past, "seen", 0)
        report = cachectl.evaluate(program, examples(3), lambda *_: 1.0, predictions=tmp_path, display_progress=False)
        assert report.score == 1.0
        assert Past.seen <= modules


def test_modules_go_by_the_names_that_dspy_gives_them() -> None:
    """What is found without the past is what DSPy's own walk finds, in its order and under its names."""
    program = Nested()
    program.first.predict.history.append({"messages": [{"role": "user", "content": "How?"}]})
    for kind in (dspy.Module, dspy.Predict):
        expected = [(name, id(module)) for name, module in program.named_sub_modules(kind)]
        assert expected == [(name, id(module)) for name, module in sub_modules(program, kind)]
