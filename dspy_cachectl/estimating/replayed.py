"""An evaluation on what is stored: which answers are there, and of the others what is there of them and what is not.

Every policy raises where it would ask, and stores nothing; its draws are those that the evaluation would have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy

from dspy_cachectl.calls.call import Call
from dspy_cachectl.context.phases import PhaseContext
from dspy_cachectl.context.ruling import draw_unit
from dspy_cachectl.estimating.history import Past, hashed, length_of, predictor_of
from dspy_cachectl.evaluation.awaiting import Loops
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions
from dspy_cachectl.evaluation.observed_program import NumberedExample, evaluate_once, observed
from dspy_cachectl.evaluation.task import Task
from dspy_cachectl.fingerprints.code import Walk
from dspy_cachectl.fingerprints.modules import sub_modules
from dspy_cachectl.phases.phase import phase


@dataclass(frozen=True)
class MissedCall:
    """A call whose answer is not stored.

    Attributes:
        model: Whom it would ask.
        predictor: By what the calls of its predictor are known (see `history.predictor_of`); "" where by nothing.
        characters: How long what it asks is.
    """

    model: str
    predictor: str
    characters: int


@dataclass
class Answer:
    """One answer of an evaluation, as far as it is stored.

    Attributes:
        is_kept: Whether its prediction is kept, or was made of stored calls alone.
        served: What its stored calls have cost, each with its predictor.
        missed: The calls whose answers are not stored, as far as it came to them.
    """

    is_kept: bool = False
    served: list[tuple[str, Past]] = field(default_factory=list)
    missed: list[MissedCall] = field(default_factory=list)


def replayed(task: Task, kept: KeptPredictions) -> list[Answer]:
    """Return the answers of an evaluation as far as they are stored. No provider is asked, and nothing is stored.

    Args:
        task: What would be evaluated.
        kept: What is kept of it.
    """
    answers = {question.unit(repeat): Answer() for repeat in range(task.repeats) for question in task.questions}
    lock = threading.Lock()

    def note(call: Call, within: PhaseContext | None = None) -> None:
        answer = answers.get((within or call.asked.ruling.context).unit or "")
        if answer is not None:
            with lock:
                _note(answer, call)

    with Loops() as loops, _dry(task) as run:
        run.on_call = note
        for repeat in range(task.repeats):
            _replay(task, kept, answers, loops, repeat)
    return list(answers.values())


def predictors_of(program: Any) -> list[tuple[str, str]]:
    """Return the predictors of a program, in order: whom each asks, and by what its calls are known."""
    if not isinstance(program, dspy.Module):
        return []
    adapter = dspy.settings.adapter or dspy.ChatAdapter()
    found = []
    for _, predictor in sub_modules(program, dspy.Predict):
        lm = predictor.lm or dspy.settings.lm
        try:
            system = hashed(adapter.format_system_message(predictor.signature))
        except Exception:  # noqa: BLE001 - somebody's own adapter
            system = ""
        found.append((str(getattr(lm, "model", "")), system))
    return found


def judges_of(metric: Any) -> list[tuple[str, str]]:
    """Return likewise the predictors of what a metric reaches, and the LMs that it asks itself."""
    walk = _Judges()
    walk.digest(metric)
    found = [one for module in walk.modules for one in predictors_of(module)]
    return found + [(model, "") for model in sorted(walk.models - {model for model, _ in found})]


class _Judges(Walk):
    """The walk that makes fingerprints, which notes the modules and LMs on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: list[Any] = []
        self.models: set[str] = set()

    def _lm(self, lm: Any) -> Iterator[str]:
        self.models.add(str(getattr(lm, "model", "")))
        yield from super()._lm(lm)

    def _module(self, module: Any) -> Iterator[str]:
        if not any(module is one for known in self.modules for _, one in sub_modules(known)):
            self.modules.append(module)
        yield from super()._module(module)


def _dry(task: Task) -> phase:
    # Calls from elsewhere are none of its business.
    opened = phase(task.context.name, task.context.policy, guard=False)
    opened.context = task.phase().context.dried()
    return opened


def _replay(task: Task, kept: KeptPredictions, answers: dict[str, Answer], loops: Loops, repeat: int) -> None:
    def answer(number: int, run: Callable[[], Any]) -> Any:
        question = task.questions[number]
        found = answers[question.unit(repeat)]
        if kept.prediction(question, repeat) is not None:
            found.is_kept = True
            return dspy.Prediction()
        try:
            with draw_unit(question.unit(repeat)):
                loops.result(run())
            found.is_kept = not found.missed
        except Exception:  # noqa: BLE001 - it goes no further than what is stored
            # What failed without a call that is missing fails as often as it is asked, and costs nothing.
            found.is_kept = not found.missed
        return dspy.Prediction()

    examples: Sequence[NumberedExample] = [NumberedExample.of(one, number) for number, one in enumerate(task.devset)]
    evaluate_once(
        observed(task.program, answer),
        list(examples),
        lambda *_, **__: 0.0,
        None,
        failure_score=0.0,
        num_threads=task.num_threads,
        max_errors=len(examples) + 1,
    )


def _note(answer: Answer, call: Call) -> None:
    request = dict(call.asked.request or {})
    if call.answered.outcome == "missed":
        answer.missed.append(MissedCall(call.asked.model, predictor_of(request), length_of(request)))
    elif call.answered.origin is not None:
        answer.served.append((predictor_of(request), Past.of_call(call.answered.origin)))
