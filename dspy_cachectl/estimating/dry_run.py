"""A script that runs dry: nobody is asked, and its evaluations and compiles are estimated in the place of being made.

Evaluations give a stand-in, which answers to everything and says nothing, so that the script goes on to the next one;
an optimizer whose calls are not all stored gives its program back as it was.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import dspy
from dspy.teleprompt.teleprompt import Teleprompter

from dspy_cachectl.context.process import state
from dspy_cachectl.estimating.asking import estimate, estimated
from dspy_cachectl.estimating.estimate import Estimate
from dspy_cachectl.evaluation.observed_program import NumberedExample
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.showing.stand_in import StandIn


class DryRun:
    """A block in which nobody is asked, in any thread, and what would be asked is estimated.

    Attributes:
        estimates: Of the evaluations and compiles in it, in order.
        others: How many other calls in it are not stored.
    """

    def __init__(self) -> None:
        self.estimates: list[Estimate] = []
        self.others = 0
        self._depth = self._missed = 0
        self._open = contextlib.ExitStack()

    def told(self, code: int) -> Iterator[str]:
        """Yield what was found, part by part, for people.

        Args:
            code: What the script ended with.
        """
        yield from map(str, self.estimates)
        if len(self.estimates) > 1:
            yield str(Estimate.total("all of it", self.estimates))
        if self.others:
            yield f"Beside that it would ask for at least {plural(self.others, 'call')} of its own."
        if code:
            yield (
                f"The script ended with {code}: it goes no further than what is stored, and what would come after "
                "that is not estimated."
            )
        if not (self.estimates or self.others or code):
            yield "It would ask nobody: all of it is stored, or nothing is asked."

    def __enter__(self) -> DryRun:
        self._before = state.ledger.snapshot().missed
        self._open.enter_context(_dry_phase())
        self._open.enter_context(_replaced(dspy.Evaluate, "__call__", self._evaluating))
        for kind in _optimizers(Teleprompter):
            self._open.enter_context(_replaced(kind, "compile", self._compiling))
        self._open.callback(setattr, state, "instead_of_evaluating", state.instead_of_evaluating)
        state.instead_of_evaluating = self._evaluate
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.others = max(0, state.ledger.snapshot().missed - self._before - self._missed)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Take what is called in the block for an estimate's own, or for that of an optimizer that is tried."""
        before = state.ledger.snapshot().missed
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._missed += state.ledger.snapshot().missed - before

    def _evaluate(self, task: Any, kept: Any, baseline: Any) -> Any:
        with self._inside():
            known = baseline if isinstance(baseline, EvalReport) else None
            self.estimates.append(estimated(task, kept, known))
        state.last_report = found = StandIn()
        return found

    def _evaluating(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """In the place of what DSPy's own evaluations do."""

        @functools.wraps(original)
        def __call__(evaluation: Any, program: Any, *args: Any, **options: Any) -> Any:  # noqa: N807
            devset = options.get("devset") or evaluation.devset
            if self._depth:
                return original(evaluation, program, *args, **options)
            if devset and isinstance(devset[0], NumberedExample):  # of an `estimate()` in the script
                with self._inside():
                    return original(evaluation, program, *args, **options)
            metric = options.get("metric") or evaluation.metric
            how = {"num_threads": options.get("num_threads") or evaluation.num_threads, "predictions": False}
            with self._inside():
                self.estimates.append(estimate(program, devset, metric, name="dspy.Evaluate", **how))
            return StandIn()

        return __call__

    def _compiling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Around the compiling of a program."""

        @functools.wraps(original)
        def compile(optimizer: Any, student: Any, *args: Any, **options: Any) -> Any:  # noqa: A001
            if self._depth:
                return original(optimizer, student, *args, **options)
            before, made = state.ledger.snapshot().missed, None
            with self._inside(), contextlib.suppress(Exception):
                made = original(optimizer, student, *args, **options)
            if made is not None and before == state.ledger.snapshot().missed:
                return made
            with self._inside():
                self.estimates.append(
                    estimate(student, _sets(args, options), _metric(optimizer), optimizer=optimizer, predictions=False)
                )
            return student

        return compile


def _dry_phase() -> phase:
    opened = phase("dry run", Policy.REUSE, everywhere=True, guard=False)
    opened.context = opened.context.dried()
    return opened


def _sets(args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
    """Return what an optimizer is given to train and to validate on."""
    given = [*args, options.get("trainset"), options.get("valset")]
    return [one for some in given if isinstance(some, (list, tuple)) for one in some]


def _metric(optimizer: Any) -> Any:
    return getattr(optimizer, "metric", None) or getattr(optimizer, "metric_fn", None)


def _optimizers(kind: type) -> Iterator[type]:
    """Yield the classes of optimizers that have a `compile` of their own."""
    if "compile" in vars(kind):
        yield kind
    derived: type
    for derived in kind.__subclasses__():
        yield from _optimizers(derived)


@contextlib.contextmanager
def _replaced(home: type, name: str, replacing: Callable[[Any], Any]) -> Iterator[None]:
    original = vars(home)[name]
    setattr(home, name, replacing(original))
    try:
        yield
    finally:
        setattr(home, name, original)
