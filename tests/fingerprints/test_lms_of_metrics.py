"""A metric is another one where the LM that it asks is another, wherever it holds that."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.reached import metric_fingerprint

alone: Any = None
table: dict[str, Any] = {}
listed: list[Any] = []


class Slotted:
    """Holds its LM in a slot that is nobody else's business."""

    __slots__ = ("_lm",)

    def __init__(self, lm: Any) -> None:
        self._lm = lm

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """Ask it."""
        return float(bool(self._lm("verdict?")))


class Judge(dspy.Module):  # type: ignore[misc]
    """A metric that is a module, with its LM in an attribute."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.held = {"lm": lm}

    def forward(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """Ask it."""
        return float(bool(self.held["lm"]("verdict?")))


def _with_default(example: Any, prediction: Any, trace: Any = None, *, lm: Any = None) -> float:
    return float(bool(lm("verdict?")))


def metrics(temperature: float) -> dict[str, Callable[..., float]]:
    """Metrics that ask an LM with this temperature, which they come by in many ways."""
    lm = cachectl.LM("openai/judge", api_base="http://localhost:1/v1", api_key="sk-test", temperature=temperature)
    globals()["alone"], table["judge"], listed[:] = lm, lm, [lm]
    held, deep = [lm], {"x": {"y": [lm]}}
    judge = dspy.Predict("answer -> verdict")
    judge.set_lm(lm)

    class OfClass:
        judge = lm

        def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
            return float(bool(self.judge("verdict?")))

    class Deep:
        def __init__(self) -> None:
            self.inner = {"judges": [Slotted(lm)]}

        def score(self, example: Any, prediction: Any, trace: Any = None) -> float:
            return self.inner["judges"][0](example, prediction)

    return {
        "class attribute": OfClass(),
        "slot": Slotted(lm),
        "module": Judge(lm),
        "method": Deep().score,
        "closure": lambda example, prediction, trace=None: float(bool(lm("verdict?"))),
        "predictor": lambda example, prediction, trace=None: float(bool(judge(answer="x").verdict)),
        "list": lambda example, prediction, trace=None: float(bool(held[0]("verdict?"))),
        "nested": lambda example, prediction, trace=None: float(bool(deep["x"]["y"][0]("verdict?"))),
        "global": lambda example, prediction, trace=None: float(bool(alone("verdict?"))),
        "global dictionary": lambda example, prediction, trace=None: float(bool(table["judge"]("verdict?"))),
        "global list": lambda example, prediction, trace=None: float(bool(listed[0]("verdict?"))),
        "partial": functools.partial(_with_default, lm=lm),
    }


@pytest.mark.parametrize("way", list(metrics(0.0)))
def test_another_lm_is_another_metric(way: str) -> None:
    """The same temperature gives the same metric, in a second look too, and another one another."""
    first, again, other = (metric_fingerprint(metrics(temperature)[way]) for temperature in (0.1, 0.1, 0.9))
    assert first == again
    assert first != other
