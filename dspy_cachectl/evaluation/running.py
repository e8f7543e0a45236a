"""`evaluate()`: a score with its error bar, from fresh draws, and nothing computed twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, overload

import dspy

from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.calls.spans import forget_last_trace
from dspy_cachectl.config import settings as configured
from dspy_cachectl.context.evaluations import REPORTED, metric_name
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import draw_unit
from dspy_cachectl.errors import CachectlError, MissingExtraError
from dspy_cachectl.evaluation.arguments import DependsOn, known_names, listed
from dspy_cachectl.evaluation.awaiting import Loops
from dspy_cachectl.evaluation.clusters import clusters_of
from dspy_cachectl.evaluation.kept_predictions import (
    KeptPredictions,
    Predictions,
    key_of,
    library_of,
    log_beginning,
    output_hash,
)
from dspy_cachectl.evaluation.last import ReportOf, cut_short, log_finished
from dspy_cachectl.evaluation.made_calls import MadeCalls
from dspy_cachectl.evaluation.models import Models, Options, as_judged, evaluate_each, hash_as_judged
from dspy_cachectl.evaluation.observed_program import NumberedExample, evaluate_once, governed, observed
from dspy_cachectl.evaluation.patience import within
from dspy_cachectl.evaluation.reporting import draw_of, provenance, question_results
from dspy_cachectl.evaluation.scoring import FirstReturns, Scored, UnusableMetricError, check_metric, score_with
from dspy_cachectl.evaluation.which_run import phase_to_evaluate_in
from dspy_cachectl.fingerprints.data import Question, questions_of
from dspy_cachectl.fingerprints.provenance import provenance_of
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import DrawResult, QuestionResult
from dspy_cachectl.reports.texts import plural

if TYPE_CHECKING:
    from typing import Unpack

logger = logger_for(__name__)


@overload
def evaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Callable[..., Any],
    *,
    lms: Models,
    **options: Unpack[Options],
) -> Ranking: ...


@overload
def evaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Callable[..., Any],
    *,
    lms: None = None,
    **options: Unpack[Options],
) -> EvalReport: ...


@known_names
def evaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Callable[..., Any],
    *,
    lms: Models | None = None,
    repeats: int = 1,
    run_id: str | None = None,
    num_threads: int | None = None,
    clusters: Sequence[Any] | str | Callable[[dspy.Example], Any] | None = None,
    baseline: EvalReport | None = None,
    predictions: Predictions | None = None,
    force_recompute: bool | None = None,
    max_age: float | None = None,
    depends_on: DependsOn = (),
    display_progress: bool = True,
    max_errors: int | None = None,
    timeout: float | None = None,
    failure_score: float = 0.0,
    level: float = 0.95,
    name: str | None = None,
    mlflow: bool | str | None = None,
) -> EvalReport | Ranking:
    """Evaluate a program with `dspy.Evaluate`, in `phase("eval")`, each repeat with draws of its own.

    Every prediction is kept as soon as it is made. Kept ones are served again as long as model, program, data and
    generation configuration are the same, so a rerun computes only what changed, and a killed evaluation goes on
    where it was. Inside an open fresh or replay phase its policy, roles and run hold.

    Args:
        program: A `dspy.Module`, or anything callable with an example's inputs. One that has only `aforward`, or
            returns a coroutine, is awaited, in an event loop of the thread that asks.
        devset: The questions: examples with inputs, in a list or in anything that can be read through once.
        metric: Called with (example, prediction), or as GEPA's with three times None beside them; returns a number, a
            bool, `{"score": ..., "feedback": ...}` or something with a `score`, or a coroutine of one. Where it raises,
            the answer counts as failed; where it gives no score for any of the first answers, the evaluation ends.
        lms: Several models, or models by name: each is evaluated in turn, in place of the LM that the predictors have
            or DSPy is set to. One with a role keeps its LM, unless a model has that role, and judges keep theirs.
        repeats: How many answers to draw for each question.
        run_id: The run to draw under, or to resume. None: the run of the kept predictions, or a new one.
        num_threads: As for `dspy.Evaluate`.
        clusters: What each question belongs to, where questions are not independent: one id a question, the name
            of an example's field, or a function of the example.
        baseline: A report to compare with; see `EvalReport.comparison`.
        predictions: Where predictions are kept: a folder, a `Library`, False for nowhere, or True for the folder of the
            setting `predictions`, which is `outputs/cache/predictions` by itself (and nowhere inside a cassette).
            None: as that setting says.
        force_recompute: Draw everything afresh, whatever is kept. The draws of a run that `run_id` names are not made
            anew: it takes one that has none. Those of an open phase neither: the new ones are of a run of their own.
            None: as the setting of that name says.
        max_age: Seconds after which kept predictions are not served. None: as the setting `predictions_max_age` says,
            or the `Library`; by itself 30 days. What is older stays.
        depends_on: What program or metric read that is not in their code: files and folders, by their content; or a
            dictionary of values. Where it changes, everything is computed anew.
        display_progress: Whether to show a progress bar.
        max_errors: As for `dspy.Evaluate`: after so many failures of the program it gives up.
        timeout: Seconds after which a question is given up, and counts as failed. None: it is waited for.
        failure_score: What an answer counts for where the program or the metric failed.
        level: The nominal coverage of the intervals.
        name: What the report is called. None: the program's class.
        mlflow: Whether to log the report to MLflow: True for the run that autolog opened for it, the active one, or
            one of its own (see `log_to_mlflow`); or the id of a run. A server that is away costs 10 seconds at most,
            and the report waits in the outbox.

    Returns:
        The report; with `lms` the reports of all, ranked.

    Raises:
        ConfigurationError: If an argument cannot be used; the message says which and what to do.
        MissingExtraError: If scipy is not installed.
        Exception: What `dspy.Evaluate` raises when it gives up. What was computed until then is kept, after Ctrl-C too,
            and its report is the exception's `report`, and that of `last_report()`.
    """
    options = dict(locals())
    if find_spec("scipy") is None:
        raise MissingExtraError("evaluate()", extra="stats")  # before anything is paid for
    judge = check_metric(metric)
    library = library_of(predictions)
    devset = listed(devset)
    if lms is not None:
        return evaluate_each(evaluate, options | {"devset": devset})
    questions = questions_of(devset)
    groups = clusters_of(clusters, devset, questions)
    program, settings = governed(program)
    name = scrub(name or type(program).__name__)
    with settings, ExitStack() as stack:
        force = configured().force_recompute if force_recompute is None else bool(force_recompute)
        context, run_id = phase_to_evaluate_in(run_id, force=force, max_age=max_age)
        made_of = provenance_of(program, questions, metric, context.policy_for) | hash_as_judged(metric)
        session = None
        if library is not None:
            wish: dict[str, Any] = {"repeats": repeats, "run_id": run_id, "max_age": max_age, "force_recompute": force}
            key = key_of(program, context.policy.temperature, made_of["data"], depends_on)
            session = stack.enter_context(library.open(key, questions, **wish))
            run_id = session.run_id
        log_beginning(session, len(questions) * repeats)
        kept, began = KeptPredictions(library, session, program, metric, declared=bool(depends_on)), time.monotonic()
        with (
            phase(
                context.name,
                context.policy,
                roles=dict(context.roles),
                run_id=run_id,
                everywhere=context in state.everywhere,
                bypass_proxy=context.bypass_proxy,
            ) as run,
            progress(name, shown=display_progress) as show,
        ):
            run.evaluated_in = state.runs.get(context.token)
            evaluation = _Evaluation(
                loops=stack.enter_context(Loops()),
                program=program,
                devset=devset,
                metric=metric,
                judge=judge,
                metric_hash=made_of["metric_hash"],
                questions=questions,
                failure_score=failure_score,
                kept=kept,
                show=show,
                run=run,
                timeout=timeout,
                calls=MadeCalls(program, metric),
                results=[[None] * repeats for _ in devset],
                returns=FirstReturns(metric),
            )
            run.on_call, run.on_mishap = evaluation.calls.add, evaluation.calls.note
            # What is logged as a part of a report is not logged by itself as well.
            metadata = {REPORTED: True} if mlflow else None

            def report_of(questions: tuple[QuestionResult, ...], missing: int = 0) -> EvalReport:
                return EvalReport(
                    name=name,
                    questions=questions,
                    provenance=provenance(
                        made_of | evaluation.facts(), run, seconds=time.monotonic() - began, missing=missing
                    ),
                    level=level,
                    baseline=baseline,
                    path=kept.path if missing else None,
                )

            evaluation.run_all(groups, report_of, metadata, num_threads=num_threads, max_errors=max_errors)
        report = state.last_report = kept.finish(report_of(evaluation.question_results(groups)))
    if mlflow:
        log_finished(report, run, None if mlflow is True else mlflow)
    return report


@dataclass
class _Evaluation:
    """The answers as they come in, from the threads of `dspy.Evaluate`. Strictly private."""

    loops: Loops
    program: Any
    devset: Sequence[dspy.Example]
    metric: Callable[..., Any]
    judge: Callable[..., Any]
    metric_hash: str
    questions: Sequence[Question]
    failure_score: float
    kept: KeptPredictions
    show: Callable[..., None]
    run: PhaseRun
    timeout: float | None
    calls: MadeCalls
    results: list[list[DrawResult | None]]
    returns: FirstReturns
    count: int = 0
    failed: int = 0
    total: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: threading.Event = field(default_factory=threading.Event)

    def run_all(self, groups: Sequence[Any] | None, report_of: ReportOf, metadata: Any, **options: Any) -> None:
        """Let `dspy.Evaluate` ask every question in each repeat. What ends that takes along what there is."""
        try:
            for repeat in range(len(self.results[0])):
                self.run_repeat(repeat, metadata, **options)
        except UnusableMetricError as end:
            cut_short(end.error, report_of, *self._cut(groups))
            raise end.error from None
        except BaseException as error:
            cut_short(error, report_of, *self._cut(groups))
            raise

    def run_repeat(self, repeat: int, metadata: dict[str, Any] | None, **options: Any) -> None:
        """Let `dspy.Evaluate` ask every question once."""
        unscored: dict[int, DrawResult] = {}

        def answer(number: int, run: Callable[[], Any]) -> Any:
            if self.is_over.is_set():  # nobody waits for it, which DSPy may not know
                return dspy.Prediction()
            try:
                prediction, result = self._answer(number, repeat, run)
            except Exception:
                if self.is_over.is_set():
                    return dspy.Prediction()
                raise
            with self.lock:
                unscored[number] = result
            return prediction

        def scorer(example: NumberedExample, prediction: Any, trace: Any = None) -> Any:  # noqa: ARG001 - DSPy's
            if self.is_over.is_set():
                return self.failure_score
            scored = self._score(example.number, repeat, prediction)
            with self.lock:
                result = unscored[example.number]
                if result.loaded and not scored.kept:
                    self.kept.rescored()
            self._note(example.number, repeat, result, scored)
            with self.lock:
                self.returns.check(scored)
            return scored.for_dspy()

        scorer.__name__ = metric_name(self.metric)
        evaluate_once(
            observed(self.program, answer),
            [NumberedExample.of(example, number) for number, example in enumerate(self.devset)],
            scorer,
            metadata,
            failure_score=self.failure_score,
            **options,
        )

    def _answer(self, number: int, repeat: int, run: Callable[[], Any]) -> tuple[Any, DrawResult]:
        question = self.questions[number]
        kept = self.kept.prediction(question, repeat)
        if kept is not None:
            forget_last_trace()
            return kept
        unit = question.unit(repeat)
        try:
            with draw_unit(unit):
                prediction = within(self.timeout, lambda: self.calls.making(unit, lambda: self.loops.result(run())))
        except CachectlError:
            raise  # a replay's missing answer is no failure of the program
        except Exception as error:
            reason = f"the program raised {type(error).__name__}: {error}"
            made = self.calls.take(unit)
            self.kept.keep(question, repeat, self.devset[number], error, made)
            self._note(number, repeat, draw_of(made), Scored(self.failure_score, reason))
            raise
        made = self.calls.take(unit)
        self.kept.keep(question, repeat, self.devset[number], prediction, made)
        return prediction, draw_of(made, output_hash(prediction))

    def _score(self, number: int, repeat: int, prediction: Any) -> Scored:
        question, example = self.questions[number], self.devset[number]
        kept = self.kept.score(question, repeat, self.metric_hash)
        if kept is not None:
            return replace(kept, kept=True)
        unit = f"{question.unit(repeat)}/metric"
        with draw_unit(unit, judging=True), as_judged():
            scored = score_with(
                lambda *given: self.loops.result(self.judge(*given)),
                example,
                prediction,
                failure_score=self.failure_score,
            )
        self.calls.take(unit)  # what a judge costs is in the run's ledger, not in the answer's
        if scored.failed is None:
            self.kept.keep_score(question, repeat, self.metric_hash, scored, example)
        return scored

    def facts(self) -> dict[str, Any]:
        """Return what is known of its answers, of what answered and not of what is set, as fields of a provenance."""
        return {
            **self.calls.models(self.kept.asked, self.kept.judges(self.metric_hash)),
            **self.kept.provenance(),
            "metric": metric_name(self.metric),
            "unfinished": self.calls.unfinished,
            "failure_score": self.failure_score,
        }

    def _note(self, number: int, repeat: int, result: DrawResult, scored: Scored) -> None:
        with self.lock:
            if self.is_over.is_set():
                return
            is_first = self.results[number][repeat] is None
            self.results[number][repeat] = replace(
                result, score=scored.score, failed=scored.failed, feedback=scored.feedback
            )
            if is_first:  # a straggler may be asked twice
                self.count += 1
                self.failed += scored.failed is not None
                self.total += scored.score
                self.show(self.count, len(self.results) * len(self.results[0]), self._facts)

    def _facts(self) -> str:
        """Return what the progress bar says: score so far, requests, what was spent and saved."""
        stats = self.run.stats
        parts = [f"score {self.total / self.count:.3f}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{plural(stats.requests, 'request')}, {stats.served:,} served")
        parts.append(f"{plural(stats.tokens_spent, 'token')} spent, {stats.tokens_saved:,} saved")
        if stats.cost_spent or stats.cost_saved:
            parts.append(f"${stats.cost_spent:.4f} spent, ${stats.cost_saved:.4f} saved")
        return " · ".join(parts)

    def question_results(self, groups: Sequence[Any] | None) -> tuple[QuestionResult, ...]:
        """Return the results in the order of the data set."""
        return question_results(self.questions, self.devset, groups, self.results, failure_score=self.failure_score)

    def _cut(self, groups: Sequence[Any] | None) -> tuple[tuple[QuestionResult, ...], int]:
        """Take no more answers. Return the results of those that there are, and how many there are not."""
        with self.lock:
            self.is_over.set()
            there = [[draw for draw in draws if draw is not None] for draws in self.results]
        found = zip(self.question_results(groups), there, strict=True)
        missing = sum(map(len, self.results)) - sum(map(len, there))
        return tuple(replace(question, draws=tuple(draws)) for question, draws in found if draws), missing
