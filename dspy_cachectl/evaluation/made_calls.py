"""The calls of an evaluation as they end, and what goes wrong around them: answer by answer."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import dspy

from dspy_cachectl.accounting.asked import AskedModel, counted, counted_together, facts
from dspy_cachectl.accounting.spent import Spent
from dspy_cachectl.accounting.troubles import Mishap, Trouble
from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.calls.call import Call
from dspy_cachectl.context.phases import PhaseContext
from dspy_cachectl.context.ruling import phase_here
from dspy_cachectl.drift.states import Followed
from dspy_cachectl.evaluation.asked_models import asked_model
from dspy_cachectl.evaluation.kept_predictions import AnswerCost
from dspy_cachectl.evaluation.predictor_names import PredictorNames
from dspy_cachectl.fingerprints.reached import only_judges_ask
from dspy_cachectl.policy import Kind
from dspy_cachectl.stores.base import OTHERS

T = TypeVar("T")

_MOST_PREDICTORS = 50
"""How many predictors of one answer have a name; the others are counted together."""


class _Made:
    """What one answer, or one judgement of a metric, is made of."""

    def __init__(self) -> None:
        self.cost = AnswerCost()
        self.mishaps: dict[str, Counter[str]] = {}
        self.spent: dict[str, list[Any]] = {}
        # The calls of predictors whose last answer could not be parsed, by the list that DSPy makes for each call.
        self.unparsed: dict[int, Any] = {}


class MadeCalls:
    """Takes calls and mishaps from the threads that they happen in, and hands them out by answer. Thread-safe.

    Args:
        program: The program that is evaluated.
        metrics: What judges it.
    """

    def __init__(self, program: Any, metrics: Any) -> None:
        self._judges = only_judges_ask(program, metrics)
        self._asked: Counter[AskedModel] = Counter()
        self._judged: Counter[tuple[Any, AskedModel | None]] = Counter()
        self._names = PredictorNames(program)
        self._made: defaultdict[str, _Made] = defaultdict(_Made)
        # The answers that were begun, and how many are being made of each.
        self._under_way: Counter[str] = Counter()
        self._lock = free_after_fork(threading.Lock())

    def making(self, unit: str, run: Callable[[], T]) -> T:
        """Run what makes an answer, and return what it returns. It may end when nobody waits for it any more."""
        with self._lock:
            self._under_way[unit] += 1
        try:
            return run()
        finally:
            with self._lock:
                self._under_way[unit] -= 1

    @property
    def unfinished(self) -> int:
        """How many answers are being made."""
        with self._lock:
            return sum(self._under_way.values())

    def add(self, call: Call, within: PhaseContext | None = None) -> None:
        """Add a call that has ended to its answer: of a question and a repeat, or of the metric.

        One from a thread that carries no phase may be of any answer that is being made, unless only judges ask its LM.

        Args:
            call: The call.
            within: Where the phase was opened that it was made in, if that is one of the program's own.
        """
        asked, how = call.asked, asked_model(call)
        ruling, context = asked.ruling, within or asked.ruling.context
        unit = context.unit
        with self._lock:
            if ruling.stray_of:
                begun = () if (asked.model, asked.endpoint) in self._judges else +self._under_way
                for one in begun:
                    self._made[one].cost.strayed = True
                return
            if context.judging:
                self._judged[context.judging, how] += how is not None
            elif how is not None:
                self._asked[how] += 1
            if unit is None or not (context.judging or unit in self._under_way):
                return  # a phase that rules everywhere: it is known that it was asked, and not for which answer
            made = self._made[unit]
            made.cost.add(call, how)
            if not context.judging:
                self._spend(made, call)
            self._look_at(made, call)

    def _look_at(self, made: _Made, call: Call) -> None:
        """Count what went wrong around a call that has ended."""
        # A call that only the cache sees ends twice: it counts as a call once, and has its answer once.
        if made.unparsed and call.tally.calls and made.unparsed.pop(id(_callers()), None) is not None:
            self._count(made, Mishap.FALL_BACK)
        if call.answered.origin is not None and call.answered.origin.truncated:
            self._count(made, Mishap.TRUNCATED)

    def note(self, what: Mishap) -> None:
        """Add what went wrong to the answer that is being made here."""
        unit = phase_here().context.unit
        if unit is None:
            return
        with self._lock:
            made, callers = self._made[unit], _callers()
            if what is Mishap.UNPARSED:
                if id(callers) in made.unparsed:
                    return  # an adapter says of another's error what that has said
                made.unparsed[id(callers)] = callers
            self._count(made, what)

    def take(self, unit: str) -> AnswerCost:
        """Return what is known of an answer, and forget it."""
        with self._lock:
            made = self._made.pop(unit, None) or _Made()
        made.cost.spent = tuple(Spent(name, *sums) for name, sums in sorted(made.spent.items()))
        made.cost.troubles = tuple(Trouble(name, **counts) for name, counts in sorted(made.mishaps.items()))
        return made.cost

    def models(self, loaded: Iterable[AskedModel], followed: Iterable[Followed] = ()) -> dict[str, Any]:
        """Return what answered these calls (see `facts`).

        Args:
            loaded: What answered those of the answers that were loaded.
            followed: The states of models that were new to the store.
        """
        with self._lock:
            found = facts(counted(self._asked), loaded)
        before = {(one.model, one.endpoint, one.state): one.before for one in followed}
        if before:
            said = [(one, (one.model, one.endpoint, one.state or one.answered_by)) for one in found["models"]]
            found["models"] = tuple(replace(one, state_before=before.get(key)) for one, key in said)
        return found

    def judges(self, metric: str, kept: Iterable[AskedModel]) -> tuple[AskedModel, ...]:
        """Return what answered a metric's own calls.

        Args:
            metric: Its name.
            kept: What answered those for scores that were kept.
        """
        with self._lock:
            made = [replace(how, calls=calls) for (by, how), calls in self._judged.items() if how and by == metric]
            return counted_together([made, kept])

    def _spend(self, made: _Made, call: Call) -> None:
        origin = call.answered.origin
        if origin is None:
            return
        sums = made.spent.setdefault(self._name(made.spent), [0, 0.0, 0.0])
        sums[0] += (origin.prompt_tokens or 0) + (origin.completion_tokens or 0)
        sums[1] += origin.seconds
        is_known = sums[2] is not None and not (origin.cost is None and call.asked.kind is not Kind.EMBEDDING)
        sums[2] = sums[2] + (origin.cost or 0.0) if is_known else None

    def _name(self, known: Mapping[str, Any]) -> str:
        """Return the name of the predictor that calls here; that of all others where there are too many."""
        name = self._names.of(_callers())
        return OTHERS if name not in known and len(known) >= _MOST_PREDICTORS else name

    def _count(self, made: _Made, what: Mishap) -> None:
        name = self._name(made.mishaps)
        made.mishaps.setdefault(name, Counter())[what.value] += 1


def _callers() -> Any:
    """Return the modules that are being called here: a list of its own for each call of a module."""
    return dspy.settings.get("caller_modules") or ()
