"""An evaluation on the workers of a pool, from where it was asked for: parts are sent, repeated and put together."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import dspy

from dspy_cachectl.accounting.asked import asked_in, counted_together
from dspy_cachectl.accounting.ledger import Row, Tally
from dspy_cachectl.calls.installation import place_to_hand_over
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_here
from dspy_cachectl.context.shared import machine
from dspy_cachectl.errors import CachectlError, ConfigurationError
from dspy_cachectl.evaluation.asking import Task
from dspy_cachectl.evaluation.last import cut_short
from dspy_cachectl.evaluation.pools.sending import packed, settings_to_send, unpacked
from dspy_cachectl.evaluation.pools.working import Common, Outcome, Part, work
from dspy_cachectl.evaluation.reporting import question_id
from dspy_cachectl.predictions.rows import decode
from dspy_cachectl.predictions.session import Session
from dspy_cachectl.reports.merging import joined
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import QuestionResult
from dspy_cachectl.reports.texts import plural

_MOST_SHARDS = 32
_ATTEMPTS = 3
"""How often a part is sent whose worker is lost."""


class Workers:
    """The workers of somebody's pool.

    Args:
        executor: What has `submit(function, *arguments)` and returns futures; or a function that makes one.

    Raises:
        ConfigurationError: If it is neither.
    """

    def __init__(self, executor: Any) -> None:
        self._make: Callable[[], Any] | None = None
        if not hasattr(executor, "submit"):
            if not callable(executor):
                raise ConfigurationError(
                    "executor is something with submit(function, *arguments), such as a ProcessPoolExecutor, or a "
                    f"function that makes one; not {executor!r}"
                )
            self._make = executor
            executor = executor()
        self._pool = self._usable(executor)

    @property
    def are_threads(self) -> bool:
        """Whether they are threads of this process, to which nothing is sent."""
        return isinstance(self._pool, ThreadPoolExecutor)

    def submit(self, *call: Any) -> Any:
        """Have a function called; return its future."""
        return self._pool.submit(*call)

    def renew(self) -> bool:
        """Take another pool in the place of one that is broken. Tell whether there is one."""
        if self._make is None:
            return False
        self.close()
        self._pool = self._usable(self._make())
        return True

    def close(self) -> None:
        """Let go of a pool that was made here."""
        if self._make is not None and hasattr(self._pool, "shutdown"):
            self._pool.shutdown(wait=True)

    @staticmethod
    def _usable(pool: Any) -> Any:
        # A client of Dask takes equal calls for one; its executor does not.
        return pool.get_executor() if hasattr(pool, "get_executor") else pool


def spread(
    task: Task,
    session: Session | None,
    executor: Any,
    *,
    shards: int | None,
    shown: bool,
    baseline: EvalReport | None,
) -> tuple[EvalReport, PhaseRun]:
    """Have a task done by the workers of a pool. Return its report, and the passage through the phase.

    Args:
        task: What is evaluated.
        session: What is kept of it, and takes what is to be kept; None for nothing.
        executor: The pool (see `Workers`).
        shards: Into how many parts it is made; None: as many as there is a part for each thread of a worker.
        shown: Whether to show a progress bar.
        baseline: The report to compare with.

    Raises:
        ConfigurationError: If it cannot be sent; nothing was paid for then.
        CachectlError: If workers are lost again and again.
        Exception: What ended a part. What was answered until then is its `report`.
    """
    if phase_here().cassette is not None:
        raise ConfigurationError("a cassette records in its own process only: evaluate within it without executor")
    threads = task.num_threads or dspy.settings.num_threads
    of = shards or max(1, min(_MOST_SHARDS, len(task.questions) // threads))
    task.part(of - 1, of)  # there is a question in each
    with task.phase() as run, progress(task.name, shown=shown) as show:
        workers = Workers(executor)
        try:
            spreading = _Spreading(replace(task, run_id=run.run_id), session, workers, run=run, of=of, show=show)
            return replace(spreading.all(), baseline=baseline), run
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
        show: Callable[..., None],
    ) -> None:
        self._task, self._session, self._workers, self._run = task, session, workers, run
        self._of, self._show = of, show
        self._began = time.monotonic()
        self._done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._in_air: dict[int, Any] = {}
        self._tried: dict[int, int] = dict.fromkeys(range(of), 0)
        self._reports: dict[int, EvalReport] = {}
        self._common, self._parts = self._packed()
        run.evaluated_in = state.runs.get(task.context.token)

    def all(self) -> EvalReport:
        """Have all parts done. What ends that takes along what there is."""
        try:
            for index in range(self._of):
                self._send(index)
            while self._in_air:
                index, future = self._done.get()
                if self._in_air.get(index) is future:
                    del self._in_air[index]
                    self._take(index, future)
        except BaseException as error:
            for future in self._in_air.values():
                future.cancel()
            self._cut(error)
            raise
        return self._report(self._questions())

    def _packed(self) -> tuple[Any, list[Any]]:
        task, session = self._task, self._session
        common = Common(
            task=task.without_questions(),
            settings=settings_to_send(),
            home=(machine(), os.getpid()),
            place=None if self._workers.are_threads else place_to_hand_over(),
            key=None if session is None else session.key,
            run_id=task.run_id,
        )
        parts = [self._part(index) for index in range(self._of)]
        if self._workers.are_threads:
            return common, parts
        return packed(common), [packed(part) for part in parts]

    def _part(self, index: int) -> Part:
        part = self._task.part(index, self._of)
        rows = []
        if self._session is not None:
            places = ((one.example_key, one.occurrence, at) for one in part.questions for at in range(part.repeats))
            rows = [row for place in places if (row := self._session.kept.get(place)) is not None]
        return Part((index, self._of), part.its_questions(), rows)

    def _send(self, index: int) -> None:
        self._tried[index] += 1
        try:
            future = self._workers.submit(work, self._common, self._parts[index])
        except BrokenExecutor as error:
            self._renew(error)
            future = self._workers.submit(work, self._common, self._parts[index])
        self._in_air[index] = future
        future.add_done_callback(lambda done: self._done.put((index, done)))

    def _take(self, index: int, future: Any) -> None:
        try:
            outcome: Outcome = future.result()
        except Exception as error:  # noqa: BLE001 - of whichever engine
            self._repeat(index, error)
            return
        for row in outcome.rows if self._session is not None else ():
            self._session.keep(decode(row))  # type: ignore[union-attr] # it is there
        if outcome.report is not None:
            self._reports[index] = outcome.report
            for row in outcome.report.provenance.counters.get("by", ()):
                amounts = Tally()
                amounts.add_all(row)
                self._run.ledger.record(Row(row["phase"], row["role"], row["model"]), amounts)
        if outcome.error is not None:
            raise unpacked(outcome.error)
        self._say()

    def _repeat(self, index: int, error: Exception) -> None:
        """Send a part again whose worker was lost: what it had bought is in the store."""
        if self._tried[index] >= _ATTEMPTS:
            raise CachectlError(
                f"shard {index} of {self._of} was sent {_ATTEMPTS} times, and each time its worker was lost: "
                f"{type(error).__name__}: {error}"
            ) from error
        state.say_once(
            f"lost:{self._run.context.token}",
            f"a worker was lost ({type(error).__name__}: {error}), and what it did is sent again",
        )
        self._send(index)

    def _renew(self, error: Exception) -> None:
        if not self._workers.renew():
            raise CachectlError(
                f"the pool is broken, since one of its workers was lost ({error}), and takes no more work. The same "
                "evaluation with another pool goes on from here; give executor= a function that makes the pool, and "
                "another one is made"
            ) from error

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
            if sum(draw.loaded for draw in report.draws) > report.provenance.rescored:
                before = asked_in(session.judges.get(self._task.made_of["metric_hash"]))
                kept["judges"] = counted_together([report.provenance.judges, before])
        made = replace(
            report.provenance,
            counters=self._run.stats.as_dict(),
            seconds=time.monotonic() - self._began,
            created=time.time(),
            missing=missing,
            **kept,
        )
        path = str(session.path) if session is not None and missing else None
        return replace(report, provenance=made, path=path)

    def _cut(self, error: BaseException) -> None:
        questions = self._questions()
        asked = len(self._task.questions) * self._task.repeats
        cut_short(error, self._report, questions, asked - sum(len(question.draws) for question in questions))
