"""Rehearsals of a program: it runs to its first call without an answer, until every call has one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import dspy
from dspy.utils.parallelizer import ParallelExecutor

from dspy_cachectl.batches import notes
from dspy_cachectl.batches.batch import Batch
from dspy_cachectl.batches.delivering import Sending
from dspy_cachectl.batches.waves import Missed, Waves
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.context.phases import new_run_id
from dspy_cachectl.context.ruling import draw_unit
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError
from dspy_cachectl.evaluation.awaiting import Loops
from dspy_cachectl.evaluation.growing import random_order
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions, key_of
from dspy_cachectl.evaluation.models import as_judged
from dspy_cachectl.evaluation.observed_program import NumberedExample, observed
from dspy_cachectl.evaluation.opening import opened
from dspy_cachectl.evaluation.patience import within
from dspy_cachectl.evaluation.scoring import Metric, check_metric
from dspy_cachectl.evaluation.task import Task, metrics_unit
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.predictions.outputs import restore
from dspy_cachectl.reports.progress_bar import progress

_logger = logger_for(__name__)

_DRAIN = 10.0
"""Seconds that what a question has begun beside its first miss may take to come to a miss of its own."""


class _Over(BaseException):
    """Leaves the phase of a rehearsal, which is not the end of its run."""


@contextmanager
def opened_in_waves(options: Mapping[str, Any], how: Batch) -> Iterator[tuple[Task, KeptPredictions]]:
    """Open an evaluation as `opened` does, and give it when the answers to its calls are there, by batches.

    Args:
        options: The arguments of `evaluate`, each of them.
        how: How to wait for batches.

    Raises:
        ConfigurationError: If an argument cannot be used, or a call cannot be sent with a batch.
        BatchPendingError: If a batch is not done, and is not to be waited for.
        BatchError: If the provider refuses a batch, or somebody has cancelled it.
    """
    with opened_as_begun(options) as (begun, kept):
        _check(begun)
        name, task = _name_of(begun, options), begun
        if task.run_id is None and task.context.draws_afresh:
            task = replace(task, run_id=new_run_id(task.context.name))
        if not task.context.replays:
            places = _places(task, options["seed"]) if task.is_limited else None
            task = replace(task, waves=_rehearsed(task, kept, name, how, places, shown=options["display_progress"]))
        yield task, kept
        if task.waves is not None and task.waves.refusal is not None:
            return  # the same evaluation with a larger budget goes on with what is noted
        for note in notes.noted():
            if note.evaluation == name:
                notes.remove(note)


@contextmanager
def opened_as_begun(options: Mapping[str, Any]) -> Iterator[tuple[Task, KeptPredictions]]:
    """Open an evaluation as `opened` does, under the run of what was sent of it before, where that was none.

    Args:
        options: The arguments of `evaluate`, each of them.
    """
    with contextlib.ExitStack() as stack:
        task, kept = stack.enter_context(opened(options))
        sent = sent_before(task, options)
        begun = sent[-1].run_id if sent else None
        if options["run_id"] is None and begun is not None and begun != task.run_id:
            stack.pop_all().close()
            again = {**options, "run_id": begun, "force_recompute": False, "max_age": None}
            task, kept = stack.enter_context(opened(again))
        yield replace(task, sent=sent), kept


def sent_before(task: Task, options: Mapping[str, Any]) -> list[notes.Note]:
    """Return the batches that were sent of an evaluation until now, the oldest first; none of one that is done.

    Args:
        task: What is evaluated.
        options: The arguments of `evaluate`, each of them.
    """
    there = notes.noted()
    name = _name_of(task, options) if there else ""
    return [note for note in there if note.evaluation == name]


def _name_of(task: Task, options: Mapping[str, Any]) -> str:
    """Return a hash of an evaluation by which another process knows it."""
    key = key_of(task.program, task.context.policy.temperature, task.made_of["data"], options["depends_on"])
    text = f"{key.hash}/{task.shard}/{bool(options['force_recompute'])}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _places(task: Task, seed: int) -> dict[str, int]:
    """Return the units of questions, and of what judges them, in the order in which they are asked within a budget."""
    asked = [(number, repeat) for repeat in range(task.repeats) for number in random_order(task, seed)]
    places = {task.questions[number].unit(repeat): place for place, (number, repeat) in enumerate(asked)}
    return places | {metrics_unit(unit): place for unit, place in places.items()}


def _check(task: Task) -> None:
    """Refuse what cannot go by batches.

    Raises:
        ConfigurationError: If it cannot.
    """
    if task.context.cassette_token:
        raise ConfigurationError("a cassette records calls as they are made, and batches make none: leave batch out")


def _rehearsed(
    task: Task, kept: KeptPredictions, name: str, how: Batch, places: Mapping[str, int] | None, *, shown: bool
) -> Waves:
    """Rehearse a program, and send what it misses, until it misses nothing."""
    waves = Waves()
    waves.count_as_bought(key for note in notes.noted() if note.evaluation == name for key in note.keys)
    left = [(number, repeat) for repeat in range(task.first, task.repeats) for number in range(len(task.devset))]
    left = _Rehearsal(task, kept, waves).run(left)
    with progress(f"{task.name}, in batches", shown=shown and bool(waves.lines)) as show:
        sending, wave = Sending(how, name, task.run_id, show, places=places), 0
        while waves.lines:
            wave += 1
            sending.deliver(waves, wave)
            left = _Rehearsal(task, kept, waves).run(left)
    waves.is_rehearsal = False
    return waves


class _Rehearsal:
    """One rehearsal of an evaluation.

    Args:
        task: What is evaluated.
        kept: What is kept of it.
        waves: What answers its calls, or takes them down.
    """

    def __init__(self, task: Task, kept: KeptPredictions, waves: Waves) -> None:
        self._task, self._session, self._waves = task, kept.session, waves
        self._judges = [(metric, check_metric(metric.function)) for metric in task.metrics]
        self._answering = self._answer  # which the program does not hold
        self._program = observed(task.program, self._answering)
        self._missed: list[tuple[int, int]] = []
        self._repeat = 0

    def run(self, left: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Run the program and the metric for some questions and repeats. Return those that missed an answer."""
        self._waves.begin()
        # Nobody hears of it but who is asked in earnest: no callback, no trace, no history.
        quiet = dspy.context(callbacks=[], disable_history=True, track_usage=False, usage_tracker=None)
        with suppress(_Over), Loops() as self._loops, self._task.phase() as run, quiet:
            run.waves = self._waves
            for repeat in sorted({repeat for _, repeat in left}):
                self._repeat = repeat
                self._run_all([number for number, of in left if of == repeat])
            raise _Over
        self._waves.end()
        return self._missed

    def _run_all(self, numbers: list[int]) -> None:
        executor = ParallelExecutor(
            num_threads=self._task.num_threads, max_errors=len(numbers) + 1, disable_progress_bar=True, timeout=0
        )
        executor.execute(self._run_one, numbers)

    def _run_one(self, number: int) -> None:
        if self._waves.refused is not None:
            return
        question, example = self._task.questions[number], self._task.devset[number]
        try:
            kept, left = self._kept(question)
            if not left:
                return
            if kept is None:
                with draw_unit(question.unit(self._repeat)):
                    kept = self._program(**NumberedExample.of(example, number).inputs())
            judged = [self._judged(metrics_unit(question.unit(self._repeat)), *one, example, kept) for one in left]
            if not all(judged):
                self._missed.append((number, self._repeat))
        except Missed:
            self._missed.append((number, self._repeat))
        except Exception as error:  # noqa: BLE001 - it is the program's, and told of in earnest
            _logger.debug("a rehearsal ended with an error: %r", error)

    def _judged(self, unit: str, metric: Metric, judge: Callable[..., Any], example: Any, answer: Any) -> bool:
        """Let a metric judge an answer; tell whether it missed nothing."""
        try:
            with draw_unit(unit, judging=metric.name), as_judged():
                self._loops.result(_drained(judge(example, answer)))
        except Missed:
            return False
        except Exception as error:  # noqa: BLE001 - it is the metric's, and told of in earnest
            _logger.debug("a rehearsal ended with an error: %r", error)
        return True

    def _answer(self, _: int, run: Any) -> Any:
        return within(self._task.timeout, lambda: self._loops.result(_drained(run())))

    def _kept(self, question: Question) -> tuple[Any, list[tuple[Metric, Callable[..., Any]]]]:
        """Return the kept answer to a question, or None, and the metrics that have not judged it."""
        session = self._session
        row = None if session is None else session.kept_row(question, self._repeat)
        if session is None or row is None or row.output is None:
            return None, self._judges
        with suppress(CorruptEntryError):  # it is computed again
            prediction = restore(row.output, self._task.program)
            scored = {one.hash for one, _ in self._judges if session.score(question, self._repeat, one.hash)}
            return prediction, [one for one in self._judges if one[0].hash not in scored]
        return None, self._judges


def _drained(said: Any) -> Any:
    """Return what a program says; of a coroutine, let what it has begun at once come to a miss, too."""
    if not inspect.isawaitable(said):
        return said

    async def awaited() -> Any:
        try:
            return await said
        except Missed:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=_DRAIN)
            raise

    return awaited()
