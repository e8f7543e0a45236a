"""A program under evaluation: it runs each question in a unit of its own, or gives the answer it gave before.

`dspy.Evaluate` calls `program(**example.inputs())` in its worker threads. An item's `inputs()` carry, beside the
inputs, which unit they are, and the program takes that off again. The program stays an instance of its class, so
that callbacks and MLflow see what they expect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dspy

from dspy_cachectl.context.ruling import draw_unit

_UNIT = "dspy_cachectl_unit"

Answer = Callable[[int, Mapping[str, Any], Callable[[], Any]], Any]
"""Given an item's number, its inputs and what runs the program: the program's answer."""


class Item(dspy.Example):  # type: ignore[misc]
    """An example that knows its number among the items of an evaluation."""

    _number = 0

    @classmethod
    def of(cls, example: dspy.Example, number: int) -> Item:
        """Return the example with its number."""
        item = cls(base=dict(example.items()))
        item._input_keys = example._input_keys  # noqa: SLF001 - what `with_inputs` sets
        item._number = number
        return item

    @property
    def number(self) -> int:
        """Its number among the items of the evaluation."""
        return self._number

    def inputs(self) -> dict[str, Any]:
        """Return the inputs, and beside them which item they are."""
        return {**{name: self[name] for name in self.keys() if name in self._input_keys}, _UNIT: self._number}


def under_evaluation(program: Any, answer: Answer) -> Any:
    """Return the program as `dspy.Evaluate` is to call it.

    Args:
        program: A `dspy.Module`, or anything callable with the inputs.
        answer: Decides whether the program runs, and notes what it answers.
    """

    def ask(run: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        number = inputs.pop(_UNIT)
        return answer(number, inputs, lambda: run(**inputs))

    if not isinstance(program, dspy.Module):

        def call(**inputs: Any) -> Any:
            return ask(program, inputs)

        return call
    kind = type(program)

    def __call__(self: Any, *args: Any, **inputs: Any) -> Any:  # noqa: N807
        if _UNIT not in inputs:
            return kind.__call__(self, *args, **inputs)
        return ask(lambda **given: kind.__call__(self, **given), inputs)

    made = type(kind.__name__, (kind,), {"__call__": __call__, "__module__": kind.__module__, "__doc__": kind.__doc__})
    runner: Any = object.__new__(made)
    runner.__dict__.update(program.__dict__)
    return runner


def run_in_unit(name: str, run: Callable[[], Any]) -> Any:
    """Run a program in a unit of its own: the draws of its LM calls are numbered from 0."""
    with draw_unit(name):
        return run()
