"""An evaluation on the workers of a pool, from where it was asked for: parts are sent, repeated and put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dspy_cachectl.accounting.ledger import Row, Tally
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_here
from dspy_cachectl.errors import BudgetExceededError, ConfigurationError
from dspy_cachectl.evaluation.growing import random_order
from dspy_cachectl.evaluation.last import cut_short
from dspy_cachectl.evaluation.limited import Ending
from dspy_cachectl.evaluation.pools.sending import packed, settings_to_send, unpacked
from dspy_cachectl.evaluation.pools.workers import Workers, outcomes, parts_for
from dspy_cachectl.evaluation.pools.working import Common, Home, Outcome, Part, work
from dspy_cachectl.evaluation.reporting import question_id
from dspy_cachectl.evaluation.task import Task
from dspy_cachectl.predictions.rows import decode
from dspy_cachectl.predictions.session import Session
from dspy_cachectl.reports.apart.corpus import without_values
from dspy_cachectl.reports.merging import joined
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import QuestionResult, Stopping
from dspy_cachectl.reports.texts import plural


def spread(
    task: Task,
    session: Session | None,
    executor: Any,
    *,
    shards: int | None,
    seed: int,
    shown: bool,
    baseline: EvalReport | None,
) -> tuple[EvalReport, PhaseRun]:
    """Have a task done by the workers of a pool. Return its report, and the passage through the phase.

    Where a budget may end it, its parts are made of its questions in random order, so that what there is is a sample.

    Args:
        task: What is evaluated.
        session: What is kept of it, and takes what is to be kept; None for nothing.
        executor: The pool (see `Workers`).
        shards: Into how many parts it is made; None: as many as there is a part for each thread of a worker.
        seed: What that order is told by.
        shown: Whether to show a progress bar.
        baseline: The report to compare with.

    Raises:
        ConfigurationError: If it cannot be sent; nothing was paid for then.
        CachectlError: If workers are lost again and again.
        Exception: What ended a part. What was answered until then is its `report`.
    """
    if phase_here().cassette is not None:
        raise ConfigurationError("a cassette records in its own process only: evaluate within it without executor")
    of = shards or parts_for(len(task.questions), task.num_threads)
    task.part(of - 1, of)  # there is a question in each
    with task.phase() as run, progress(task.name, shown=shown) as show:
        workers = Workers(executor)
        try:
            spreading = _Spreading(
                replace(task, run_id=run.run_id), session, workers, run=run, of=of, seed=seed, show=show
            )
            with Ending(run, takes=task.is_limited) as ending:
                report = spreading.all()
            return replace(ending.report or report, baseline=baseline), run
        finally:
            workers.close()


class _Spreading:
    """The parts as they come in. All of it runs in the thread that asked for the evaluation."""

    def __init__(
        self,
        task: Task,
        session: Session | None,
        workers: Workers,
        *,
        run: PhaseRun,
        of: int,
        seed: int,
        show: Callable[..., None],
    ) -> None:
        self._task, self._session, self._workers, self._run = task, session, workers, run
        self._of, self._seed, self._show = of, seed, show
        self._began = time.monotonic()
        self._reports: dict[int, EvalReport] = {}
        self._refusal: BudgetExceededError | None = None
        self._common, self._parts = self._packed()
        run.evaluated_in = state.runs.get(task.context.token)

    def all(self) -> EvalReport:
        """Have all parts done. What ends that takes along what there is; where a budget is spent, each ends itself."""
        try:
            self._take_all()
        except BaseException as error:
            self._cut(error)
            raise
        return self._report(self._questions())

    def _take_all(self) -> None:
        for index, outcome in outcomes(self._workers, work, self._common, self._parts):
            self._take(index, outcome)
        if self._refusal is not None:
            raise self._refusal

    def _packed(self) -> tuple[Any, list[Any]]:
        task, session = self._task, self._session
        common = Common(
            task=task.without_questions(),
            settings=settings_to_send(),
            home=Home.here(sends=not self._workers.are_threads),
            key=None if session is None else session.key,
            run_id=task.run_id,
        )
        whole = task.only(random_order(task, self._seed), range(task.repeats)) if task.is_limited else task
        parts = [self._part(whole, index) for index in range(self._of)]
        if self._workers.are_threads:
            return common, parts
        return packed(common), [packed(part) for part in parts]

    def _part(self, whole: Task, index: int) -> Part:
        part = whole.part(index, self._of)
        rows = []
        if self._session is not None:
            places = ((one.example_key, one.occurrence, at) for one in part.questions for at in range(part.repeats))
            rows = [row for place in places if (row := self._session.kept.get(place)) is not None]
        return Part((index, self._of), part.its_questions(), rows)

    def _take(self, index: int, outcome: Outcome) -> None:
        for row in outcome.rows if self._session is not None else ():
            self._session.keep(decode(row))  # type: ignore[union-attr] # it is there
        if outcome.report is not None:
            self._reports[index] = outcome.report
            for row in outcome.report.provenance.counters.get("by", ()):
                amounts = Tally()
                amounts.add_all(row)
                self._run.ledger.record(Row(row["phase"], row["role"], row["model"]), amounts)
            self._say()
        if outcome.error is not None:
            error = unpacked(outcome.error)
            if not isinstance(error, BudgetExceededError):
                raise error
            self._refusal = self._refusal or error

    def _say(self) -> None:
        draws = [draw for report in self._reports.values() for draw in report.draws]
        stats = self._run.stats
        score = sum(draw.score for draw in draws) / len(draws)
        said = f"score {score:.3f} · {plural(stats.requests, 'request')}, {stats.served:,} served"
        self._show(len(draws), len(self._task.questions) * self._task.repeats, lambda: said)

    def _questions(self) -> tuple[QuestionResult, ...]:
        """Return what was answered, in the order of the data set."""
        found: Mapping[str, QuestionResult] = {
            question.question: question for report in self._reports.values() for question in report.questions
        }
        names = map(question_id, self._task.questions)
        return tuple(found[name] for name in names if name in found)

    def _report(self, questions: tuple[QuestionResult, ...], missing: int = 0) -> EvalReport:
        report = joined([self._reports[index] for index in sorted(self._reports)], questions)
        session = self._session
        kept: dict[str, Any] = {}
        if session is not None:
            kept = {"predictions": session.status, "changes": tuple(session.changes), "snapshot": session.path.name}
        made = replace(
            report.provenance,
            counters=self._run.stats.as_dict(),
            seconds=time.monotonic() - self._began,
            created=time.time(),
            missing=missing,
            stopping=self._stopping(questions),
            **kept,
        )
        path = str(session.path) if session is not None and missing else None
        return replace(report, provenance=made, path=path)

    def _stopping(self, questions: tuple[QuestionResult, ...]) -> Stopping | None:
        if self._refusal is None or not self._task.is_limited:
            return None
        return Stopping(by="budget", looks=0, asked=len(questions), offered=len(self._task.questions), seed=self._seed)

    def _cut(self, error: BaseException) -> None:
        questions = without_values(self._questions())
        asked = len(self._task.questions) * self._task.repeats
        cut_short(error, self._report, questions, asked - sum(len(question.draws) for question in questions))
