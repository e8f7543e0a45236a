"""`evaluate()`: a score with its error bar, from fresh draws, and nothing computed twice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from types import NoneType
from typing import Any

import dspy

from dspy_cachectl._version import __version__
from dspy_cachectl.calls.lm import Governed, wrap
from dspy_cachectl.calls.spans import forget_last_trace
from dspy_cachectl.config import settings as configured
from dspy_cachectl.context.evaluations import REPORTED
from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.context.process import SETTING
from dspy_cachectl.context.ruling import draw_unit, phase_here
from dspy_cachectl.errors import CachectlError, ConfigurationError, MissingExtraError
from dspy_cachectl.evaluation.draws import DrawLog, UnitLog
from dspy_cachectl.evaluation.metrics import Scored, check_metric, metric_name, score_with
from dspy_cachectl.evaluation.programs import Item, run_in_unit, under_evaluation
from dspy_cachectl.evaluation.progress import EvaluationProgress
from dspy_cachectl.evaluation.saved import Predictions, Saved, output_hash
from dspy_cachectl.fingerprints.code import metric_fingerprint
from dspy_cachectl.fingerprints.data import Question, hash_of_questions, questions_of
from dspy_cachectl.fingerprints.models import generation_config, model_identity
from dspy_cachectl.fingerprints.programs import program_fingerprint
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.reports.measurement import DrawResult, QuestionResult
from dspy_cachectl.reports.provenance import Provenance
from dspy_cachectl.reports.report import EvalReport

logger = logging.getLogger(__name__)

_PREVIEW = 80


def evaluate(
    program: Any,
    devset: Sequence[dspy.Example],
    metric: Callable[..., Any],
    *,
    repeats: int = 1,
    run_id: str | None = None,
    num_threads: int | None = None,
    clusters: Sequence[Any] | str | Callable[[dspy.Example], Any] | None = None,
    baseline: EvalReport | None = None,
    predictions: Predictions = True,
    force_recompute: bool = False,
    max_age: float | None = None,
    display_progress: bool = True,
    max_errors: int | None = None,
    failure_score: float = 0.0,
    level: float = 0.95,
    name: str | None = None,
    mlflow: bool | str | None = None,
) -> EvalReport:
    """Evaluate a program with `dspy.Evaluate`, in `phase("eval")`, each repeat with draws of its own.

    Every prediction is kept as soon as it is made. Kept ones are served again as long as model, program, data and
    generation configuration are the same, so a rerun computes only what changed, and a killed evaluation goes on
    where it was. Inside an open fresh or replay phase its policy, roles and run hold.

    Args:
        program: A `dspy.Module`, or anything callable with an example's inputs.
        devset: The questions: examples with inputs.
        metric: Called with (example, prediction); returns a number, a bool, or something with a `score`. Where it
            raises, the answer counts as failed.
        repeats: How many answers to draw for each question.
        run_id: The run to draw under, or to resume. None: the run of the saved predictions, or a new one.
        num_threads: As for `dspy.Evaluate`.
        clusters: What each question belongs to, where questions are not independent: one id a question, the name
            of an example's field, or a function of the example.
        baseline: A report to compare with; see `EvalReport.comparison`.
        predictions: Where predictions are kept: True for `outputs/cache/predictions` (and nowhere inside a
            cassette), a folder, a `Library`, or False for nowhere.
        force_recompute: Draw everything afresh, whatever is kept; so does the setting of that name.
        max_age: Seconds after which kept predictions are not served. None: the library's limit, 30 days.
        display_progress: Whether to show a progress bar.
        max_errors: As for `dspy.Evaluate`: after so many failures of the program it gives up.
        failure_score: What an answer counts for where the program or the metric failed.
        level: The nominal coverage of the intervals.
        name: What the report is called. None: the program's class.
        mlflow: Whether to log the report to MLflow: True for the run that autolog opened for it, the active one, or
            one of its own (see `log_to_mlflow`); or the id of a run. A server that is away costs 10 seconds at most,
            and the report waits in the outbox.

    Returns:
        The report.

    Raises:
        ConfigurationError: If an argument cannot be used; the message says which and what to do.
        MissingExtraError: If scipy is not installed.
        Exception: What `dspy.Evaluate` raises when it gives up; what was computed until then is kept.
    """
    if find_spec("scipy") is None:
        raise MissingExtraError("evaluate()", extra="stats")  # before anything is paid for
    if repeats < 1:
        raise ConfigurationError(f"repeats must be 1 or more, not {repeats!r}")
    if not isinstance(mlflow, (bool, str, NoneType)):
        raise ConfigurationError(f"mlflow is True, False or the id of a run, not {mlflow!r}")
    check_metric(metric)
    if predictions is True and phase_here().cassette is not None:
        predictions = False  # a cassette records calls, and kept predictions make none
    questions = questions_of(devset)
    groups = _clusters(clusters, devset)
    program, settings = _governed(program)
    with settings:
        job = _Job(
            program=program,
            devset=devset,
            metric=metric,
            metric_hash=metric_fingerprint(metric),
            questions=questions,
            failure_score=failure_score,
            name=name or type(program).__name__,
            reported=bool(mlflow),
        )
        opening, chosen_run = _opening(run_id)
        key = _key(program, questions, opening)
        with Saved.open(
            predictions,
            key,
            program,
            questions,
            repeats=repeats,
            run_id=chosen_run,
            max_age=max_age,
            force=force_recompute or configured().force_recompute,
        ) as saved:
            began = time.time()
            with (
                phase(
                    opening.name, opening.policy, roles=dict(opening.roles), run_id=saved.run_id or chosen_run
                ) as run,
                EvaluationProgress(len(devset) * repeats, job.name, shown=display_progress) as progress,
            ):
                progress.begin(run)
                run.on_call = job.log
                evaluation = _Evaluation(job, saved, progress, repeats)
                for repeat in range(repeats):
                    evaluation.run_repeat(repeat, num_threads=num_threads, max_errors=max_errors)
            provenance = _provenance(job, key, run, saved, time.time() - began)
            report = EvalReport(
                name=job.name,
                questions=evaluation.results(groups),
                provenance=provenance,
                level=level,
                baseline=baseline,
            )
            path = saved.finish(report)
    if path is not None:
        report = _with_library(report, str(path), saved)
    if mlflow:
        _log_to_mlflow(report, run, None if mlflow is True else mlflow)
    return report


@dataclass
class _Job:
    """What is evaluated. Strictly private."""

    program: Any
    devset: Sequence[dspy.Example]
    metric: Callable[..., Any]
    metric_hash: str
    questions: Sequence[Question]
    failure_score: float
    name: str
    reported: bool
    log: DrawLog = field(default_factory=DrawLog)


class _Evaluation:
    """The answers as they come in. Strictly private."""

    def __init__(self, job: _Job, saved: Saved, progress: EvaluationProgress, repeats: int) -> None:
        self.job, self.saved, self.progress = job, saved, progress
        self._lock = threading.Lock()
        self._results: list[list[DrawResult | None]] = [[None] * repeats for _ in job.devset]

    def run_repeat(self, repeat: int, *, num_threads: int | None, max_errors: int | None) -> None:
        """Let `dspy.Evaluate` ask every question once."""
        job = self.job
        items = [Item.of(example, number) for number, example in enumerate(job.devset)]
        pending: dict[int, DrawResult] = {}

        def answer(number: int, inputs: Mapping[str, Any], run: Callable[[], Any]) -> Any:  # noqa: ARG001
            prediction, result = self._answer(number, repeat, run)
            with self._lock:
                pending[number] = result
            return prediction

        def scorer(item: Item, prediction: Any, trace: Any = None) -> float:  # noqa: ARG001 - DSPy's signature
            scored = self._score(item.number, repeat, prediction)
            with self._lock:
                result = pending[item.number]
            self._note(item.number, repeat, result, scored)
            return scored.score

        scorer.__name__ = metric_name(job.metric)
        dspy.Evaluate(
            devset=items,
            metric=scorer,
            num_threads=num_threads,
            max_errors=max_errors,
            failure_score=job.failure_score,
            display_progress=False,
        )(under_evaluation(job.program, answer), callback_metadata={REPORTED: True} if job.reported else None)

    def _answer(self, number: int, repeat: int, run: Callable[[], Any]) -> tuple[Any, DrawResult]:
        question = self.job.questions[number]
        kept = self.saved.prediction(question, repeat)
        if kept is not None:
            forget_last_trace()
            return kept
        unit_name = _unit_name(question, repeat)
        try:
            prediction = run_in_unit(unit_name, run)
        except CachectlError:
            raise  # a replay's missing answer is no failure of the program
        except Exception as error:
            reason = f"the program raised {type(error).__name__}: {error}"
            made = self.job.log.take(unit_name)
            self._note(number, repeat, self._result(made, ""), Scored(self.job.failure_score, reason))
            raise
        made = self.job.log.take(unit_name)
        self.saved.keep(question, repeat, self.job.devset[number], prediction, made)
        return prediction, self._result(made, output_hash(prediction))

    def _result(self, log: UnitLog, output: str) -> DrawResult:
        return DrawResult(
            score=self.job.failure_score,
            draw="+".join(log.draws),
            output=output,
            requests=log.requests,
            tokens=log.prompt_tokens + log.completion_tokens,
            cost=log.cost,
            seconds=log.seconds,
            oldest=log.oldest,
            newest=log.newest,
        )

    def _score(self, number: int, repeat: int, prediction: Any) -> Scored:
        question = self.job.questions[number]
        kept = self.saved.score(question, repeat, self.job.metric_hash)
        if kept is not None:
            return kept
        unit_name = f"{_unit_name(question, repeat)}/metric"
        with draw_unit(unit_name):
            scored = score_with(
                self.job.metric, self.job.devset[number], prediction, failure_score=self.job.failure_score
            )
        self.job.log.take(unit_name)  # what a judge costs is in the run's ledger, not in the answer's
        if scored.failed is None:
            self.saved.keep_score(question, repeat, self.job.metric_hash, scored, self.job.devset[number])
        return scored

    def _note(self, number: int, repeat: int, result: DrawResult, scored: Scored) -> None:
        done = replace(result, score=scored.score, failed=scored.failed)
        with self._lock:
            first = self._results[number][repeat] is None
            self._results[number][repeat] = done
        if first:  # a straggler may be asked twice
            self.progress.scored(scored.score, failed=scored.failed is not None)

    def results(self, groups: Sequence[Any] | None) -> tuple[QuestionResult, ...]:
        """Return the results in the order of the data set."""
        missing = DrawResult(score=self.job.failure_score, failed="dspy.Evaluate returned no answer")
        return tuple(
            QuestionResult(
                question=_question_name(question),
                preview=_preview(example),
                draws=tuple(draw or missing for draw in draws),
                cluster=None if groups is None else str(groups[number]),
            )
            for number, (question, example, draws) in enumerate(
                zip(self.job.questions, self.job.devset, self._results, strict=True)
            )
        )


def _question_name(question: Question) -> str:
    return question.example_key[:16] + (f"#{question.occurrence}" if question.occurrence else "")


def _unit_name(question: Question, repeat: int) -> str:
    return f"{question.example_key}#{question.occurrence}/{repeat}"


def _preview(example: dspy.Example) -> str:
    text = " · ".join(str(value) for _, value in example.inputs().items())
    return text if len(text) <= _PREVIEW else f"{text[: _PREVIEW - 1]}…"


def _clusters(given: Any, devset: Sequence[dspy.Example]) -> Sequence[Any] | None:
    if given is None:
        return None
    if isinstance(given, str):
        missing = [number for number, example in enumerate(devset) if given not in example]
        if missing:
            raise ConfigurationError(f"example {missing[0]} has no field {given!r} to take its cluster from")
        groups = [example[given] for example in devset]
    else:
        groups = [given(example) for example in devset] if callable(given) else list(given)
    if len(groups) != len(devset):
        raise ConfigurationError(f"there are {len(devset)} questions and {len(groups)} cluster ids; give one each")
    without = [number for number, group in enumerate(groups) if group is None]
    if without:
        raise ConfigurationError(f"example {without[0]} has no cluster id; a question that stands alone gets its own")
    return groups


def _governed(program: Any) -> tuple[Any, AbstractContextManager[Any]]:
    """Return the program with governed LMs, and the settings to run it in."""
    if isinstance(program, dspy.Module) and any(
        isinstance(predictor.lm, dspy.BaseLM) and not isinstance(predictor.lm, Governed)
        for predictor in program.predictors()
    ):
        program = program.deepcopy()
        for predictor in program.predictors():
            if isinstance(predictor.lm, dspy.BaseLM) and not isinstance(predictor.lm, Governed):
                predictor.lm = wrap(predictor.lm)
    lm = dspy.settings.lm
    if isinstance(lm, dspy.BaseLM) and not isinstance(lm, Governed):
        return program, dspy.context(lm=wrap(lm))
    return program, nullcontext()


def _opening(run_id: str | None) -> tuple[PhaseContext, str | None]:
    """Return the phase to evaluate in, and the run to draw under: an open fresh or replay phase holds."""
    ruling: PhaseContext | None = dspy.settings.get(SETTING)
    if ruling is not None and ruling.strays_matter and not ruling.is_cassette:
        return ruling, run_id or ruling.run_id
    return phase("eval").context, run_id


def _key(program: Any, questions: Sequence[Question], opening: PhaseContext) -> SnapshotKey:
    return SnapshotKey(
        model=model_identity(dspy.settings.lm, program=program),
        program=program_fingerprint(program),
        generation=generation_config(dspy.settings.lm, opening.policy.temperature, program=program),
        dataset=hash_of_questions(questions),
    )


def _provenance(job: _Job, key: SnapshotKey, run: PhaseRun, saved: Saved, seconds: float) -> Provenance:
    lm = dspy.settings.lm
    return Provenance(
        run_id=run.run_id,
        phase=run.name,
        policy=run.policy.name,
        model=key.model.model,
        endpoint=key.model.endpoint,
        version=key.model.checkpoint or key.model.version,
        temperature=lm.kwargs.get("temperature") if isinstance(lm, dspy.BaseLM) else None,
        temperature_lent=run.policy.temperature,
        program=key.program.hash,
        data=key.dataset,
        metric=metric_name(job.metric),
        metric_hash=job.metric_hash,
        predictions=saved.status,
        changes=saved.changes,
        snapshot=saved.file_name,
        unsaved=saved.unsaved,
        counters=run.stats.as_dict(),
        seconds=seconds,
        created=time.time(),
        versions={"dspy-cachectl": __version__, "dspy": version("dspy"), "litellm": version("litellm")},
    )


def _log_to_mlflow(report: EvalReport, run: PhaseRun, mlflow_run: str | None) -> None:
    from dspy_cachectl.tracking.log import log_report

    try:
        log_report(report, run.evaluations, run_id=mlflow_run)
    except Exception as error:  # noqa: BLE001 - the report is paid for, and reaches the caller whatever MLflow does
        logger.warning("the report %r could not be logged to MLflow: %r", report.name, error)


def _with_library(report: EvalReport, path: str, saved: Saved) -> EvalReport:
    used, limit = saved.room()
    provenance = replace(report.provenance, library_bytes=used, library_limit=limit)
    return replace(report, path=path, provenance=provenance)
