"""`check_judge()`: the same answers judged several times, so that all that differs is the judge's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import dspy
from dspy.utils.parallelizer import ParallelExecutor

from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.context.evaluations import metric_name
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import draw_unit
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.evaluation.arguments import Rule, is_whole, known_names_and, listed
from dspy_cachectl.evaluation.awaiting import Loops
from dspy_cachectl.evaluation.clusters import clusters_of
from dspy_cachectl.evaluation.opening import check_before_paying
from dspy_cachectl.evaluation.reporting import question_id
from dspy_cachectl.evaluation.running import evaluate
from dspy_cachectl.evaluation.scoring import Scored, check_metric, score_with
from dspy_cachectl.fingerprints.data import Question, questions_of
from dspy_cachectl.judging.check import JudgeCheck
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy
from dspy_cachectl.predictions.outputs import restore
from dspy_cachectl.reports.apart.labels import as_numbers, is_listed
from dspy_cachectl.reports.kept_texts import question_of
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.showing.stand_in import StandIn

Answers = EvalReport | Iterable[Sequence[Any]]
"""A report whose predictions are kept; or pairs of an example and what was answered, as `dspy.Evaluate` returns."""

_RULES: dict[str, Rule] = {
    "repeats": (lambda value: is_whole(value, 2), "is how often each answer is judged: 2 or more"),
    "labels": (lambda value: value is None or is_listed(value), "are a number for each answer in order, or None"),
}


@known_names_and(_RULES)
def check_judge(
    judge: Callable[..., Any],
    answers: Answers,
    *,
    devset: Iterable[dspy.Example] | None = None,
    repeats: int = 3,
    labels: Iterable[float | None] | None = None,
    clusters: Sequence[Any] | str | Callable[[dspy.Example], Any] | None = None,
    run_id: str | None = None,
    num_threads: int | None = None,
    level: float = 0.95,
) -> JudgeCheck:
    """Judge the same answers several times, each time afresh, and say how far the judge agrees with itself.

    Nothing but the judge is asked: no program runs. It is asked at its own temperature, whatever its role, and each
    verdict is a draw of its own.

    Args:
        judge: A metric, as for `evaluate`.
        answers: A report whose predictions are kept, with `devset`: its first answers are judged. Or pairs of an
            example and a prediction, such as the `results` of what `dspy.Evaluate` returns.
        devset: The report's questions.
        repeats: How often each answer is judged.
        labels: What people say of the answers, in their order; None where they were not asked.
        clusters: Which questions belong together, as for `evaluate`: a field, a function of an example, or one for each
            answer. None: the clusters of the report, or equal questions, where there are some.
        run_id: The run to draw under, or to resume. None: a new one.
        num_threads: How many verdicts are asked for at once. None: as DSPy is set.
        level: The nominal coverage of the intervals.

    Returns:
        How far it agrees with itself, and with people where there are labels.

    Raises:
        ConfigurationError: If an argument cannot be used, or no verdict is there twice.
        MissingExtraError: If scipy is not installed.
    """
    check_before_paying(judge)
    asked = check_metric(judge)
    is_report = isinstance(answers, (EvalReport, StandIn))
    pairs = list(_from_report(answers, devset) if is_report else _pairs(answers))
    if state.instead_of_evaluating is not None:
        examples = [example for example, _ in pairs] or listed(devset or ())
        how: dict[str, Any] = {"repeats": repeats, "num_threads": num_threads, "predictions": False}
        dried: Any = evaluate(lambda **_: dspy.Prediction(), examples, judge, name=metric_name(judge), **how)
        instead: JudgeCheck = dried  # a stand-in
        return instead
    said = [None] * len(pairs) if labels is None else _checked(list(labels), len(pairs))
    questions = questions_of([example for example, _ in pairs])
    groups = clusters_of(clusters, [example for example, _ in pairs], questions) or _told(answers, questions)

    with Loops() as loops, phase("judge", Policy.FRESH, run_id=run_id) as run:

        def verdict(item: tuple[int, int]) -> Scored:
            place, repeat = item
            with draw_unit(f"{questions[place].unit(repeat)}/judged", judging=True):
                return score_with(lambda *given: loops.result(asked(*given)), *pairs[place], failure_score=0.0)

        items = [(place, repeat) for repeat in range(repeats) for place in range(len(pairs))]
        executor = ParallelExecutor(num_threads=num_threads, max_errors=1, disable_progress_bar=True)
        found: list[Scored] = executor.execute(verdict, items)
    given: list[list[float]] = [[] for _ in pairs]
    for (place, _), scored in zip(items, found, strict=True):
        if scored.failed is None:
            given[place].append(scored.score)
    failed = next((scored.failed for scored in found if scored.failed is not None), None)
    if not any(len(row) > 1 for row in given):
        raise ConfigurationError(f"the judge {metric_name(judge)!r} gave no answer two scores: {failed}")
    failures = sum(scored.failed is not None for scored in found)
    name, scores = scrub(metric_name(judge)), tuple(map(tuple, given))
    return JudgeCheck(
        name, scores, tuple(said), failures, run.run_id, run.stats, level, None if groups is None else tuple(groups)
    )


def _pairs(answers: Any) -> Iterator[tuple[dspy.Example, Any]]:
    for answer in answers:
        if not (isinstance(answer, (tuple, list)) and len(answer) >= 2 and isinstance(answer[0], dspy.Example)):
            raise ConfigurationError(
                "answers are pairs of an example and a prediction, such as the `results` of dspy.Evaluate, or a report "
                f"of evaluate() with devset=; and not {type(answer).__name__}"
            )
        yield answer[0], answer[1]


def _from_report(report: Any, devset: Iterable[dspy.Example] | None) -> Iterator[tuple[dspy.Example, Any]]:
    if devset is None:
        raise ConfigurationError("a report has its answers and not its examples: give its questions as devset=")
    examples = listed(devset)
    named = {question_id(one): example for one, example in zip(questions_of(examples), examples, strict=True)}
    kept = {question_of(row): row for row in report.rows() if row.repeat == 0 and row.output is not None}
    for question in report.questions:
        row = kept.get(question.question)
        if row is not None and row.output is not None and question.question in named:
            yield named[question.question], restore(row.output)


def _told(answers: Any, questions: Sequence[Question]) -> Sequence[Any] | None:
    """Return the cluster of each question where a report tells it, or some are equal."""
    keys = [question.example_key for question in questions]
    told = answers.table.clusters if isinstance(answers, EvalReport) else None
    if isinstance(answers, EvalReport) and told is not None:
        names = {one.question.partition("#")[0]: group for one, group in zip(answers.questions, told, strict=True)}
        return [names[question_id(one).partition("#")[0]] for one in questions]
    return keys if len(set(keys)) < len(keys) else None


def _checked(labels: list[Any], count: int) -> list[float | None]:
    if len(labels) != count:
        raise ConfigurationError(
            f"{len(labels):,} labels for {count:,} answers: give one each, and None where there is none"
        )
    return as_numbers(labels)
