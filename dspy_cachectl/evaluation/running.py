"""`evaluate()`: a score with its error bar, from fresh draws, and nothing computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import dspy

from dspy_cachectl.batches.batch import Batch, batch_of
from dspy_cachectl.budget import Budget
from dspy_cachectl.context.evaluations import REPORTED
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.evaluation.arguments import DependsOn, known_names, listed
from dspy_cachectl.evaluation.asking import asked
from dspy_cachectl.evaluation.clusters import Slices
from dspy_cachectl.evaluation.growing import grown
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions, Predictions
from dspy_cachectl.evaluation.last import log_finished
from dspy_cachectl.evaluation.limited import NotBegun, one_for_all
from dspy_cachectl.evaluation.models import Models, Options, evaluate_each
from dspy_cachectl.evaluation.opening import (
    check_before_paying,
    check_holdout,
    held_out,
    name_of,
    opened,
    phase_to_evaluate_in,
)
from dspy_cachectl.evaluation.pools.spreading import spread
from dspy_cachectl.evaluation.scoring import Metrics
from dspy_cachectl.evaluation.task import Task
from dspy_cachectl.evaluation.waves.rehearsing import opened_as_begun, opened_in_waves
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport

if TYPE_CHECKING:
    from typing import Unpack


@overload
def evaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    lms: Models,
    **options: Unpack[Options],
) -> Ranking: ...


@overload
def evaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    lms: None = None,
    **options: Unpack[Options],
) -> EvalReport: ...


@known_names
def evaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    lms: Models | None = None,
    repeats: int = 1,
    run_id: str | None = None,
    num_threads: int | None = None,
    clusters: Sequence[Any] | str | Callable[[dspy.Example], Any] | None = None,
    slices: Slices | None = None,
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
    shard: tuple[int, int] | None = None,
    executor: Any = None,
    shards: int | None = None,
    order: str = "given",
    seed: int = 0,
    until: float | None = None,
    budget: Budget | None = None,
    batch: bool | Batch = False,
    holdout: Iterable[dspy.Example] | None = None,
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
            Several by name, `{"exact": ..., "judge": ...}`, judge the same answers: the report's own score is that of
            the first, and `EvalReport.metrics` has them all. Beside them "cost", "seconds" and "tokens" are metrics
            that need no code, by predictor too: `{"exact": ..., "cost": "cost", "ranking": "cost of rank"}`. One of all
            answers together, such as F1 or BLEU, is a `CorpusMetric`.
        lms: Several models, or models by name: each is evaluated in turn, in place of the LM that the predictors have
            or DSPy is set to. One with a role keeps its LM, unless a model has that role, and judges keep theirs.
        repeats: How many answers to draw for each question.
        run_id: The run to draw under, or to resume. None: the run of the kept predictions, or a new one.
        num_threads: As for `dspy.Evaluate`.
        clusters: What each question belongs to, where questions are not independent: one id a question, the name
            of an example's field, or a function of the example.
        slices: By what the questions are looked at apart: the name of a field, several names, or a function of the
            example that returns a name, several, or None; see `EvalReport.slices` and `Comparison.slices`.
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
        shard: Evaluate a part, `(0, 4)` to `(3, 4)` of four, each in a process of its own, on any machine, under one
            `run_id`: every fourth question, as the evaluation of all of them would. `EvalReport.merge` makes one
            report of the parts. Draws are shared where the store is.
        executor: Evaluate on the workers of a pool, in processes, on other machines, or threads of this one: what has
            `submit(function, *arguments)` and returns futures, or a function that makes it, so that a pool that breaks
            is replaced. Workers take the keys of LMs, and the store's password, from their environment. Each asks with
            `num_threads` threads.
        shards: Into how many parts that is made. None: 32 at most, with a question for each thread.
        order: "random" asks the questions in a random order, so that what there is of an evaluation that is cut short
            is a sample of all. The report has them in the order of the data set, and their draws are the same.
        seed: What that order is told by.
        until: Stop when the interval of the score is this wide or narrower, in units of the score (0.1 for ± 0.05): the
            questions are asked in random order, and no more than that takes.
        budget: What the evaluation may spend. Where it is spent the report is of the questions that were answered, in
            its random order, and says of how many; the same with a larger one asks the rest. With `lms` and `holdout`
            it is one for all. None: as the settings say.
        batch: Send the calls as batches, which cost less and take up to a day; a `Batch` says how to wait. The program
            runs in waves: each sends what it lacks as one batch for each model, and then runs again. Another process
            goes on where one ended.
        holdout: Other questions, which no optimizer chose the program by: they are asked afterwards, and the report
            tells both scores, and by how much the first looks too good; see `EvalReport.holdout`.

    Returns:
        The report; with `lms` the reports of all, ranked.

    Raises:
        ConfigurationError: If an argument cannot be used; the message says which and what to do.
        MissingExtraError: If scipy is not installed.
        BudgetExceededError: If a budget is spent before anything is answered, or one of a phase around it is.
        BatchPendingError: If a batch is on its way, and is not to be waited for.
        BatchError: If a provider refuses a batch, or somebody has cancelled it.
        Exception: What `dspy.Evaluate` raises when it gives up. What was computed until then is kept, after Ctrl-C too,
            and its report is the exception's `report`, and that of `last_report()`.
    """
    options = dict(locals())
    check_before_paying(metric)
    devset = options["devset"] = listed(devset)
    if lms is not None or holdout is not None:
        options = one_for_all(phase_to_evaluate_in(None, force=False, max_age=None)[0], options)
    if holdout is not None:
        options["holdout"] = listed(holdout)
        check_holdout(options)
    if lms is not None:
        return evaluate_each(evaluate, options)
    how_sent = batch_of(batch)
    if state.instead_of_evaluating is not None:
        opens = opened if how_sent is None else opened_as_begun
        with opens(options if until is None else {**options, "name": f"{name_of(options)}, at most"}) as (task, kept):
            instead: EvalReport = state.instead_of_evaluating(task, kept, baseline)
        return instead if holdout is None else evaluate(**held_out(options))
    with opened(options) if how_sent is None else opened_in_waves(options, how_sent) as (task, kept):
        kept.log_beginning(len(task.questions) * repeats)
        found, run = _found(task, kept, options)
        report = state.last_report = kept.finish(found)
    if holdout is not None:
        others = NotBegun(options).found("the part that is held out", lambda: evaluate(**held_out(options)))
        report = state.last_report = replace(report, holdout=others)
    if mlflow:
        log_finished(report, run, None if mlflow is True else mlflow)
    return report


def _found(task: Task, kept: KeptPredictions, options: Mapping[str, Any]) -> tuple[EvalReport, PhaseRun]:
    """Ask all that is to be asked: on a pool, piece by piece, or at once."""
    # What is logged as a part of a report is not logged by itself as well.
    metadata = {REPORTED: True} if options["mlflow"] else None
    how: dict[str, Any] = {"shown": options["display_progress"], "baseline": options["baseline"]}
    if options["executor"] is not None:
        return spread(task, kept.session, options["executor"], shards=options["shards"], seed=options["seed"], **how)
    if options["until"] is not None or options["order"] != "given" or task.is_limited:
        return grown(task, kept, until=options["until"], seed=options["seed"], metadata=metadata, **how)
    return asked(task, kept, metadata=metadata, **how)
