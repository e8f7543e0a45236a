"""A program as `dspy.Evaluate` is to call it: somebody else decides whether it runs, or what it answered before.

`dspy.Evaluate` calls `program(**example.inputs())` in its worker threads. A numbered example's `inputs()` carry, beside
the inputs, which example they are of, and the program takes that off again. The program stays an instance of its class,
so that callbacks and MLflow see what they expect.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import dspy

from dspy_cachectl.boundary.secrets import scrub_head
from dspy_cachectl.calls.lm import Governed, wrap
from dspy_cachectl.fingerprints.canonical import UnstableError, text
from dspy_cachectl.fingerprints.modules import sub_modules
from dspy_cachectl.reports.texts import cut

_NUMBER = "dspy_cachectl_number"
_PREVIEW = 80

_RUNNERS: weakref.WeakSet[type] = weakref.WeakSet()


class NumberedExample(dspy.Example):  # type: ignore[misc]
    """An example that knows which one of the data set it is."""

    number = 0

    @classmethod
    def of(cls, example: dspy.Example, number: int) -> NumberedExample:
        """Return the example with its number."""
        numbered = cls(base=dict(example.items()))
        numbered._input_keys = example._input_keys  # noqa: SLF001 - what `with_inputs` sets
        numbered.number = number
        return numbered

    def inputs(self) -> dict[str, Any]:
        """Return the inputs, and beside them the number. What a program adds to a list of them is not asked again."""
        return {**{name: _copied(self[name]) for name in self.keys() if name in self._input_keys}, _NUMBER: self.number}


def _copied(value: Any) -> Any:
    """Return a value whose own lists, dictionaries and sets are nobody else's."""
    kind = type(value)
    if kind is dict:
        return {name: _copied(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return kind(map(_copied, value))
    return set(value) if kind is set else value


def observed(program: Any, answer: Callable[[int, Callable[[], Any]], Any], *, awaited: bool = False) -> Any:
    """Return the program as `dspy.Evaluate` is to call it.

    Args:
        program: A `dspy.Module`, or anything callable with the inputs.
        answer: Given an example's number and what runs the program on it: the program's answer. It is held by whoever
            asks, and by nobody else: DSPy's trace holds the program for the next 10,000 calls.
        awaited: Whether a program that can be awaited is, also where it can be called.
    """
    held = weakref.ref(answer)

    def ask(run: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        number, answer = inputs.pop(_NUMBER), held()
        # Without it the evaluation has ended, and nobody waits.
        return dspy.Prediction() if answer is None else answer(number, lambda: run(**inputs))

    if not isinstance(program, dspy.Module):

        def call(**inputs: Any) -> Any:
            return ask(program, inputs)

        return call
    kind = type(program)
    is_called = hasattr(kind, "forward") and not (awaited and hasattr(kind, "aforward"))
    run = kind.__call__ if is_called else kind.acall

    def __call__(self: Any, *args: Any, **inputs: Any) -> Any:  # noqa: N807
        if _NUMBER not in inputs:
            return kind.__call__(self, *args, **inputs)
        return ask(lambda **given: run(self, **given), inputs)

    made = type(kind.__name__, (kind,), {"__call__": __call__, "__module__": kind.__module__, "__doc__": kind.__doc__})
    _RUNNERS.add(made)
    runner: Any = object.__new__(made)
    runner.__dict__.update(program.__dict__)
    return runner


def evaluate_once(
    program: Any, devset: list[NumberedExample], metric: Callable[..., Any], metadata: Any, **options: Any
) -> None:
    """Let `dspy.Evaluate` ask every question once. What it says of the score is not said: a report says more.

    Args:
        program: The program, observed.
        devset: The questions.
        metric: The metric, which keeps what it finds.
        metadata: What its callbacks are told.
        **options: Further arguments of `dspy.Evaluate`.
    """
    here, its_logger = threading.get_ident(), logging.getLogger(dspy.Evaluate.__module__)  # noqa: TID251 - DSPy's own

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or record.thread != here

    its_logger.addFilter(is_of_others)
    try:
        dspy.Evaluate(devset=devset, metric=metric, display_progress=False, **options)(
            program, callback_metadata=metadata
        )
    finally:
        its_logger.removeFilter(is_of_others)


def runs(module: Any, program: Any) -> bool:
    """Tell whether a module is a program as `dspy.Evaluate` calls it."""
    return type(module) in _RUNNERS and type(program) in type(module).__bases__


def governed(program: Any) -> tuple[Any, AbstractContextManager[Any]]:
    """Return the program with governed LMs, and the settings to run it in."""
    predictors = sub_modules(program, dspy.Predict) if isinstance(program, dspy.Module) else ()
    if any(is_plain(predictor.lm) for _, predictor in predictors):
        program = program.deepcopy()
        for _, predictor in sub_modules(program, dspy.Predict):
            if is_plain(predictor.lm):
                predictor.lm = wrap(predictor.lm)
    lm = dspy.settings.lm
    return program, dspy.context(lm=wrap(lm)) if is_plain(lm) else nullcontext()


def is_plain(lm: Any) -> bool:
    """Tell whether something is an LM that does not obey the phase."""
    return isinstance(lm, dspy.BaseLM) and not isinstance(lm, Governed)


def preview_of(example: dspy.Example) -> str:
    """Return how a question begins, for people and without what is secret in it."""
    text = " · ".join(str(value) for value in example.inputs().values())
    return cut(scrub_head(text, _PREVIEW), _PREVIEW)  # before it is cut: half a secret has no shape


def output_hash(prediction: Any) -> str:
    """Return a short hash of what a program answered; of its type alone where it has no stable form."""
    fields = dict(prediction.items()) if isinstance(prediction, dspy.Example) else prediction
    try:
        shown = text(fields)
    except UnstableError:
        shown = f"<{type(prediction).__qualname__}>"
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()[:16]
