"""Which questions the candidates of an optimizer were scored on: the best of many looks better there than it is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.fingerprints.modules import own_predictors
from dspy_cachectl.seen.words import text_of

_MOST_TRIALS = 10_000
_MOST_COMPILES = 1_000

Told = frozenset[str]
"""What tells a program from other candidates: what each of its predictors is told."""


@dataclass(frozen=True, slots=True)
class Selection:
    """How a program, or others like it, were scored on questions before these were asked.

    Attributes:
        candidates: How many programs were scored on some of the questions, while compiling.
        questions: On how many of the questions.
        is_chosen: Whether the program was chosen among them: an optimizer returned it, or named it as a finalist.
    """

    candidates: int
    questions: int
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class _Trial:
    """A program as it was scored: in which compile, which it was, and on what."""

    compile_id: str
    program: Told
    examples: Sequence[Any]


@dataclass(slots=True)
class _Compile:
    """A compile: the program that it was given, the data that it was given, and those that it chose."""

    student: Told
    examples: Sequence[Any]
    chosen: frozenset[Told] = frozenset()


class Candidates:
    """What was compiled in this process: which programs were scored on which questions, and which were chosen.

    It holds the examples, which whoever compiles holds anyway, and no program. From any thread.
    """

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._trials: deque[_Trial] = deque(maxlen=_MOST_TRIALS)
        self._compiles: dict[str, _Compile] = {}

    def begin(self, compile_id: str, inputs: Mapping[str, Any]) -> None:
        """Note that a compile began.

        Args:
            compile_id: What tells it from others.
            inputs: The arguments of `compile`.
        """
        examples = inputs.get("valset") or inputs.get("trainset") or ()
        with self._lock:
            self._compiles[compile_id] = _Compile(_told(inputs.get("student")), examples)
            if len(self._compiles) > _MOST_COMPILES:
                del self._compiles[next(iter(self._compiles))]

    def score(self, compile_id: str, program: Any, examples: Sequence[Any]) -> None:
        """Note that a program is scored.

        Args:
            compile_id: The compile that it happens in; empty where somebody compiles by hand.
            program: The program.
            examples: What it is scored on.
        """
        with self._lock:
            self._trials.append(_Trial(compile_id, _told(program), examples))

    def end(self, compile_id: str, chosen: Any) -> None:
        """Note that a compile ended with this program, which may name others that were nearly as good."""
        compiled = self._compiles.get(compile_id)
        if compiled is None or chosen is None:
            return
        named = getattr(chosen, "candidate_programs", None) or ()
        programs = [_told(one.get("program")) for one in named if isinstance(one, Mapping)]
        winner = _told(chosen)
        with self._lock:
            compiled.chosen = frozenset([winner, *programs]) - ({compiled.student} - {winner}) - {frozenset()}
            if programs and not any(trial.compile_id == compile_id for trial in self._trials):
                # It scored them with means of its own.
                self._trials += [_Trial(compile_id, program, compiled.examples) for program in programs]

    def scored_on(self, program: Any, devset: Sequence[Any], keys: Sequence[str]) -> Selection | None:
        """Return how candidates were scored on questions; None where none was.

        Args:
            program: The program that is asked now. Where it was chosen in a compile, that one's candidates count.
            devset: The questions' examples.
            keys: The hash of what each asks.
        """
        with self._lock:
            trials, compiles = list(self._trials), dict(self._compiles)
        if not trials:
            return None
        known: dict[int, str | None] = {id(example): key for example, key in zip(devset, keys, strict=True)}
        asked = set(keys)
        found = [(trial, asked.intersection(_keys(trial.examples, known))) for trial in trials]
        there = {trial.compile_id for trial, seen in found if seen}
        told = _told(program)
        whose = {name for name in there & compiles.keys() if any(one <= told for one in compiles[name].chosen)}
        counted = [(trial.program, seen) for trial, seen in found if seen and (not whose or trial.compile_id in whose)]
        if not counted:
            return None
        scored = set().union(*(seen for _, seen in counted))
        programs = {candidate for candidate, _ in counted}
        return Selection(len(programs), sum(key in scored for key in keys), is_chosen=bool(whose))


def _keys(examples: Iterable[Any], known: dict[int, str | None]) -> Iterator[str]:
    """Yield what identifies questions, as far as it is known or can be told."""
    for example in examples:
        if id(example) not in known:
            try:
                known[id(example)] = questions_of([example])[0].example_key
            except ConfigurationError:
                known[id(example)] = None
        if key := known[id(example)]:
            yield key


def _told(program: Any) -> Told:
    import dspy

    if not isinstance(program, dspy.Module):
        return frozenset()
    return frozenset(
        canonical.digest([one.signature.instructions, [sorted(_fields(demo)) for demo in one.demos]])
        for _, one in own_predictors(program)
    )


def _fields(demo: Any) -> Iterator[tuple[str, str]]:
    yield from ((str(name), text_of(value)) for name, value in demo.items())
