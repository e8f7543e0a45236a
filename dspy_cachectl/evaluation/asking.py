"""An evaluation at work: the answers as they come in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dspy

from dspy_cachectl.accounting.asked import counted
from dspy_cachectl.calls.call import Call
from dspy_cachectl.calls.spans import forget_last_trace
from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import draw_unit
from dspy_cachectl.errors import BudgetExceededError, CachectlError
from dspy_cachectl.evaluation.awaiting import Loops
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions
from dspy_cachectl.evaluation.last import ReportOf, cut_short
from dspy_cachectl.evaluation.limited import Ending, Spending
from dspy_cachectl.evaluation.made_calls import MadeCalls
from dspy_cachectl.evaluation.models import as_judged
from dspy_cachectl.evaluation.observed_program import NumberedExample, evaluate_once, observed, output_hash
from dspy_cachectl.evaluation.patience import AskedAgainError, Passing, within
from dspy_cachectl.evaluation.reporting import draw_of, provenance, question_results, so_far
from dspy_cachectl.evaluation.scoring import FirstReturns, Scored, UnusableMetricError, check_metric, score_with
from dspy_cachectl.evaluation.task import Task, metrics_unit
from dspy_cachectl.reports.apart.corpus import without_values
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import DrawResult, OtherMetric, OtherScore, QuestionResult


def asked(
    task: Task,
    kept: KeptPredictions,
    *,
    shown: bool = False,
    metadata: Any = None,
    baseline: EvalReport | None = None,
    is_part: bool = False,
) -> tuple[EvalReport, PhaseRun]:
    """Ask all that is to be asked here. Return the report, and the passage through the phase.

    Args:
        task: What is evaluated.
        kept: What is kept of it.
        shown: Whether to show a progress bar.
        metadata: What `dspy.Evaluate` tells its callbacks.
        baseline: The report to compare with.
        is_part: Whether somebody puts the report together with others.
    """
    began = time.monotonic()
    with Loops() as loops, task.phase() as run, progress(task.name, shown=shown) as show:
        run.evaluated_in, run.waves = state.runs.get(task.context.token) or run.evaluated_in, task.waves
        asking = _Asking(task, kept, run, loops, show)

        def report_of(questions: tuple[QuestionResult, ...], missing: int = 0) -> EvalReport:
            made = provenance(
                {**task.made_of, **asking.facts()}, run, seconds=time.monotonic() - began, missing=missing
            )
            return EvalReport(
                name=task.name,
                questions=questions,
                provenance=replace(made, shard=task.shard),
                level=task.level,
                baseline=baseline,
                path=kept.path if missing else None,
            )

        with Ending(run, takes=task.is_limited and not is_part) as ending:
            asking.run_all(report_of, metadata, is_part=is_part)
    return ending.report or report_of(asking.question_results()), run


class _Asking:
    """The answers of an evaluation as they come in, from the threads of `dspy.Evaluate`.

    Args:
        task: What is evaluated, and how.
        kept: What is kept of it.
        run: The phase that it runs in.
        loops: Where coroutines are awaited.
        show: Told how many answers there are, of how many, and what makes a sentence of them.
    """

    def __init__(
        self, task: Task, kept: KeptPredictions, run: PhaseRun, loops: Loops, show: Callable[..., None]
    ) -> None:
        self.task, self.kept, self.run, self.loops, self.show = task, kept, run, loops, show
        self.judges = [(metric, check_metric(metric.function), FirstReturns(metric.name)) for metric in task.metrics]
        self.calls = MadeCalls(task.program, [metric.function for metric in task.metrics])
        self.results: list[list[DrawResult | None]] = [[None] * (task.repeats - task.first) for _ in task.devset]
        self.count = self.failed = 0
        self.total = 0.0
        self.spending = Spending(run)
        self.lock = threading.Lock()
        self.is_over = threading.Event()
        outer = run.on_call

        def told(call: Call, within: PhaseContext | None = None) -> None:
            self.calls.add(call, within)
            if outer is not None:
                outer(call)

        run.on_call, run.on_mishap = told, self.calls.note

    def run_all(self, report_of: ReportOf, metadata: Any, *, is_part: bool) -> None:
        """Let `dspy.Evaluate` ask every question in each repeat. What ends that takes along what there is."""
        try:
            for repeat in range(self.task.first, self.task.repeats):
                self.run_repeat(repeat, metadata)
                if self._is_ending():
                    break
            self._check_that_all_are_asked()
        except UnusableMetricError as end:
            cut_short(end.error, report_of, *self._cut(), is_part=is_part)
            raise end.error from None
        except BaseException as error:
            cut_short(error, report_of, *self._cut(), is_part=is_part)
            raise

    def run_repeat(self, repeat: int, metadata: dict[str, Any] | None) -> None:
        """Let `dspy.Evaluate` ask every question once, and once more what failed for a reason that passes."""
        answered: dict[int, tuple[Any, DrawResult]] = {}
        passing = Passing(self.task.max_errors, self.task.num_threads)

        def answer(number: int, run: Callable[[], Any]) -> Any:
            try:
                if number not in answered:  # or else only its metric is asked again
                    answered[number] = self._answer(number, repeat, run, passing)
            except Exception as error:
                if self._is_counted(error):
                    raise
                return dspy.Prediction()
            passing.answered()
            return answered[number][0]

        def scorer(example: NumberedExample, prediction: Any, trace: Any = None) -> Any:  # noqa: ARG001 - DSPy's
            number = example.number
            if self.is_over.is_set() or number not in answered:
                return self.task.failure_score
            result = answered[number][1]
            scored = self._scored_now(number, repeat, prediction, passing, is_loaded=result.loaded)
            if scored is None:
                return self.task.failure_score
            self._note(number, repeat, result, scored)
            self._check(scored)
            return scored[0].for_dspy()

        scorer.__name__ = self.task.metrics[0].name
        program = observed(self.task.program, answer, awaited=self.loops.awaiting is not None)
        self._evaluate(program, scorer, passing, metadata)

    def _scored_now(
        self, number: int, repeat: int, prediction: Any, passing: Passing, *, is_loaded: bool
    ) -> list[Scored] | None:
        """Return what each metric says of an answer; None where one is asked again later, or no more is allowed."""
        try:
            scored = self._scored(number, repeat, prediction, is_loaded=is_loaded)
        except BudgetExceededError as error:
            self.spending.ends(error)
            return None
        if any(one.error is not None and passing.puts_off(number, one.error) for one in scored):
            self.run.ordinals.forget(metrics_unit(self.task.questions[number].unit(repeat)))
            return None
        return scored

    def _is_counted(self, error: Exception) -> bool:
        """Tell whether a question that failed is the program's failure, which DSPy is told of."""
        is_left = self.is_over.is_set() or isinstance(error, AskedAgainError)
        return not (is_left or self.spending.ends(error))

    def _evaluate(self, program: Any, scorer: Callable[..., Any], passing: Passing, metadata: Any) -> None:
        numbers = list(range(len(self.task.devset)))
        while numbers and not self._is_ending():
            evaluate_once(
                program,
                [NumberedExample.of(self.task.devset[number], number) for number in numbers],
                scorer,
                metadata,
                failure_score=self.task.failure_score,
                num_threads=self.task.num_threads,
                max_errors=self.task.max_errors,
            )
            numbers = passing.to_ask(self._is_ending)

    def _check_that_all_are_asked(self) -> None:
        refusal = self.spending.refusal or (None if self.task.waves is None else self.task.waves.refusal)
        if (refusal or self._is_ending()) and self.count < len(self.results) * len(self.results[0]):
            raise refusal or asyncio.CancelledError

    def _is_ending(self) -> bool:
        is_left = self.loops.awaiting is not None and self.loops.awaiting.is_ending
        return is_left or self.spending.refusal is not None

    def _answer(self, number: int, repeat: int, run: Callable[[], Any], passing: Passing) -> tuple[Any, DrawResult]:
        question = self.task.questions[number]
        unit = question.unit(repeat)
        is_left_out = self.task.waves is not None and unit in self.task.waves.left_out
        if is_left_out or self.is_over.is_set() or self._is_ending():  # nobody waits for it, which DSPy may not know
            raise AskedAgainError
        kept = self.kept.prediction(question, repeat)
        if kept is not None:
            forget_last_trace()
            return kept
        try:
            with draw_unit(unit):
                prediction = within(
                    self.task.timeout,
                    lambda: self.spending.of(unit, lambda: self.calls.making(unit, lambda: self.loops.result(run()))),
                )
        except CachectlError:
            raise  # a replay's missing answer is no failure of the program
        except Exception as error:
            if not self.is_over.is_set() and passing.puts_off(number, error):
                self.run.ordinals.forget(unit)  # what was answered of it is the same draws when it is asked again
                raise AskedAgainError from error
            reason = f"the program raised {type(error).__name__}: {error}"
            made = self.calls.take(unit)
            self.kept.keep(question, repeat, self.task.devset[number], error, made)
            self._note(number, repeat, draw_of(made), self._unscored(number, reason))
            raise
        made = self.calls.take(unit)
        self.kept.keep(question, repeat, self.task.devset[number], prediction, made)
        return prediction, draw_of(made, output_hash(prediction))

    def _scored(self, number: int, repeat: int, prediction: Any, *, is_loaded: bool) -> list[Scored]:
        """Return what each metric says of an answer."""
        question, example = self.task.questions[number], self.task.devset[number]
        kept, unit, found = self.kept.scores(question, repeat), metrics_unit(question.unit(repeat)), []
        for metric, judge, _ in self.judges:
            scored = kept.get(metric.hash)
            if scored is None:
                with draw_unit(unit, judging=metric.name), as_judged():
                    scored = score_with(
                        lambda *given, judge=judge: self.spending.of(unit, lambda: self.loops.result(judge(*given))),
                        example,
                        prediction,
                        failure_score=self.task.failure_score,
                        whole=metric.is_of_all,
                    )
                # What a judge costs is in the run's ledger, not in the answer's.
                judges = counted(self.calls.take(unit).models)
                if scored.failed is None and not metric.is_of_all:
                    self.kept.keep_score(question, repeat, metric.hash, scored, example, judges=judges)
                if is_loaded and not metric.is_of_all:
                    self.kept.rescored(metric.hash)
            found.append(scored)
        return found

    def _unscored(self, number: int, reason: str) -> list[Scored]:
        """Return what there is of each metric where the program failed: what a whole set needs of no answer."""
        found = [Scored(self.task.failure_score, reason)] * len(self.judges)
        for at, (metric, judge, _) in enumerate(self.judges):
            if metric.is_of_all:
                said = score_with(judge, self.task.devset[number], None, failure_score=0.0, whole=True)
                found[at] = replace(found[at], value=said.value)
        return found

    def _check(self, scored: Sequence[Scored]) -> None:
        with self.lock:
            for (_, _, returns), said in zip(self.judges, scored, strict=True):
                returns.check(said)

    def facts(self) -> dict[str, Any]:
        """Return what is known of its answers, of what answered and not of what is set, as fields of a provenance."""
        first, *others = [
            OtherMetric(
                one.name,
                one.hash,
                self.calls.judges(one.name, self.kept.judged[one.hash]),
                self.kept.rescored_by(one.hash),
            )
            for one in self.task.metrics
        ]
        return {
            **self.calls.models(self.kept.asked, self.run.states.followed_by),
            **self.kept.provenance(),
            **vars(first),
            "others": (*others, *self.task.measures),
            "unfinished": self.calls.unfinished,
            "failure_score": self.task.failure_score,
        }

    def _note(self, number: int, repeat: int, result: DrawResult, said: Sequence[Scored]) -> None:
        scored, *others = said
        with self.lock:
            if self.is_over.is_set():
                return
            draws, place = self.results[number], repeat - self.task.first
            is_first = draws[place] is None
            beside = [
                OtherScore(one.name, its.score, its.failed, its.feedback, its.value)
                for one, its in zip(self.task.metrics[1:], others, strict=True)
            ]
            score, failed, feedback = scored.score, scored.failed, scored.feedback
            draws[place] = replace(result, score=score, failed=failed, feedback=feedback, others=tuple(beside))
            if is_first:  # a straggler may be asked twice
                self.count += 1
                self.failed += scored.failed is not None
                self.total += scored.score
                self.show(self.count, len(self.results) * len(self.results[0]), self._facts)

    def _facts(self) -> str:
        return so_far(self.run.stats, score=self.total / self.count, failed=self.failed)

    def question_results(self) -> tuple[QuestionResult, ...]:
        """Return the results in the order of the data set."""
        task = self.task
        return question_results(
            task.questions, task.devset, task.groups, task.slices, self.results, failure_score=task.failure_score
        )

    def _cut(self) -> tuple[tuple[QuestionResult, ...], int]:
        """Take no more answers. Return the results of those that there are, and how many there are not."""
        with self.lock:
            self.is_over.set()
            there = [[draw for draw in draws if draw is not None] for draws in self.results]
        found = zip(self.question_results(), there, strict=True)
        missing = sum(map(len, self.results)) - sum(map(len, there))
        questions = tuple(replace(question, draws=tuple(draws)) for question, draws in found if draws)
        return without_values(questions), missing
