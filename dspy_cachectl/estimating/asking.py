"""`estimate()`: what an evaluation would cost, before anybody is asked."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dspy

from dspy_cachectl.calls.installation import ensure_installed
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.estimating.estimate import Estimate, Range, money_between
from dspy_cachectl.estimating.history import Calls, Past, calls_of
from dspy_cachectl.estimating.optimizers import is_optimizer, most_answers
from dspy_cachectl.estimating.replayed import Answer, judges_of, predictors_of, replayed
from dspy_cachectl.estimating.simulated import Missing, simulated
from dspy_cachectl.evaluation.arguments import DependsOn, known_names, listed
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions, Predictions
from dspy_cachectl.evaluation.opening import opened
from dspy_cachectl.evaluation.running import evaluate
from dspy_cachectl.evaluation.scoring import Metrics
from dspy_cachectl.evaluation.task import Task
from dspy_cachectl.evaluation.waves.rehearsing import sent_before
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.statistics.quantiles import needed

_FEWEST_ANSWERS, _FEWEST_CALLS = 20, 10
"""From so many on the past of a program tells more than that of its model."""
_NOTHING_TELLS = "Nothing that is stored tells what a call costs here."
ALL_STORED = "all of it is stored"


@known_names
def estimate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics | None = None,
    *,
    repeats: int = 1,
    baseline: EvalReport | None = None,
    optimizer: Any = None,
    run_id: str | None = None,
    num_threads: int | None = None,
    predictions: Predictions | None = None,
    force_recompute: bool | None = None,
    max_age: float | None = None,
    depends_on: DependsOn = (),
    name: str | None = None,
) -> Estimate:
    """Tell what `evaluate()` with these arguments would ask, what of it is stored, and what the rest would cost.

    Nobody is asked. The program runs on what is stored, question by question, as far as that goes: so do its tools.
    What is missing is drawn from what answers of this program have cost, or calls of its predictors, or else other
    calls of its models.

    Args:
        program: As for `evaluate`; likewise all but `baseline`.
        devset: The questions.
        metric: The metric, where it asks a judge: one call of each judge for each answer that it has not scored.
        repeats: How many answers to draw for each question.
        baseline: A report whose answers cost what these will: of the program before a change, or on other questions.
            None: what is kept and stored tells.
        optimizer: Tell what it would cost at most that this optimizer compiles the program with these questions, to
            train and to validate on: the answers of the program. What the optimizer itself asks is not in it.
        run_id: The run that would be drawn under, or resumed.
        num_threads: How many questions would be asked at once.
        predictions: Where predictions are kept.
        force_recompute: Whether everything would be drawn afresh.
        max_age: Seconds after which kept predictions are not served.
        depends_on: What program or metric read that is not in their code.
        name: What it is called. None: the program's class.

    Returns:
        The estimate: ranges that hold the truth in more than nine of ten runs; None where nothing tells anything.

    Raises:
        MissingExtraError: If numpy is not installed.
        ConfigurationError: If an argument cannot be used.
    """
    given = dict(locals())
    needed("numpy", "estimate()")
    baseline, optimizer = given.pop("baseline"), given.pop("optimizer")
    if not (optimizer is None or is_optimizer(optimizer)):
        raise ConfigurationError(f"optimizer is one of DSPy's, such as dspy.MIPROv2(...), not {optimizer!r}")
    defaults = {one.name: one.default for one in inspect.signature(evaluate).parameters.values()}
    options = {**defaults, **given, "metric": metric or _unscored, "devset": listed(devset)}
    with opened(options) as (whole, kept):
        task = replace(whole, sent=sent_before(whole, options))
        return estimated(task, kept, baseline) if optimizer is None else _of_optimizer(optimizer, task, kept, baseline)


def estimated(task: Task, kept: KeptPredictions, baseline: EvalReport | None = None) -> Estimate:
    """Return what an evaluation that is opened would cost.

    Args:
        task: What would be evaluated.
        kept: What is kept of it.
        baseline: A report whose answers cost what these will, or None.
    """
    _check(task)
    answers = replayed(task, kept)
    missing = [answer for answer in answers if not answer.is_kept]
    served = [past for answer in missing for _, past in answer.served]
    made: dict[str, Any] = {
        "name": task.name,
        "questions": len(task.questions),
        "repeats": task.repeats,
        "stored": len(answers) - len(missing),
        "served": len(served),
        "saved": Past.total(served).cost,
    }
    parts: list[Missing] = []
    basis = ALL_STORED
    if missing:
        past = _past_answers(answers, kept, baseline)
        parts, basis = _parts(task, missing, past, is_given=baseline is not None)
    judged = _judged(task, kept)
    if not missing and not judged:
        nothing = dict.fromkeys(("requests", "tokens", "cached_tokens", "cost", "seconds"), Range(0.0, 0.0))
        made.update(nothing)
    elif all(part.past for part in judged) and (parts or not missing):
        made.update(_ranges(task, [*parts, *judged], len(answers)), notes=tuple(_notes([*parts, *judged])))
    else:
        made["notes"] = (_unknown_judge(task, parts, len(answers)) if parts else _NOTHING_TELLS,)
    made["notes"] = (*made.get("notes", ()), *_on_their_way(task))
    return Estimate(**made, judged=sum(part.number for part in judged), basis=basis)


def _of_optimizer(optimizer: Any, task: Task, kept: KeptPredictions, baseline: EvalReport | None) -> Estimate:
    """Return what it would cost at most that an optimizer compiles a program."""
    most = most_answers(optimizer, task.program, len(task.questions))
    name = f"{type(optimizer).__name__} of {task.name}"
    made: dict[str, Any] = {"name": name, "questions": most or len(task.questions), "repeats": 1, "stored": 0}
    if most is None:
        return Estimate(
            **made, notes=("This optimizer does not say how much it asks: it may be any number of answers.",)
        )
    past = _past_answers([], kept, baseline)
    parts, basis = _parts(task, [Answer() for _ in range(most)], past, is_given=baseline is not None)
    if not parts:
        return Estimate(**made, basis=basis)
    judges = [judge for metric in task.metrics for judge in judges_of(metric.function)]
    judged = [_drawn_from(_calls(model), judge, most) for model, judge in judges]
    if not all(part.past for part in judged):
        return Estimate(**made, judged=most * len(judges), basis=basis, notes=(_unknown_judge(task, parts, most),))
    parts += judged
    ranges = {what: said and Range(0.0, said.high) for what, said in _ranges(task, parts, most).items()}
    told = ("It is an upper bound: what is stored, or asked twice, costs nothing. What it asks itself comes on top.",)
    made.update(judged=most * len(judges), notes=(*told, *_notes(parts)))
    return Estimate(**made, **ranges, basis=basis)  # type: ignore[arg-type]


def _check(task: Task) -> None:
    """Refuse to estimate where calls are recorded.

    Raises:
        ConfigurationError: If it is within a cassette.
    """
    if task.context.cassette_token:
        raise ConfigurationError("within a cassette no call is estimated: it serves, or records, what is asked")


def _unscored(example: Any, prediction: Any) -> float:  # noqa: ARG001 - a metric's
    return 0.0


def _past_answers(answers: Sequence[Answer], kept: KeptPredictions, baseline: EvalReport | None) -> list[Past]:
    """Return what answers of this program have cost."""
    if baseline is not None:
        return [
            Past(
                requests=draw.draw.count("+") + 1,
                prompt=draw.tokens,
                cached=draw.cached_tokens,
                cost=math.nan if draw.cost is None else draw.cost,
                seconds=draw.seconds,
            )
            for question in baseline.questions
            for draw in question.draws
            if draw.draw
        ]
    rows = [Past.of_row(row) for row in kept.past() if row.draws]
    return rows or [Past.total(past for _, past in one.served) for one in answers if one.is_kept and one.served]


def _parts(task: Task, missing: Sequence[Answer], past: Sequence[Past], *, is_given: bool) -> tuple[list[Missing], str]:
    """Return what is missing, with what tells what it costs, and that in words; nothing where nothing does.

    Args:
        task: What would be evaluated.
        missing: The answers that are missing.
        past: What answers of this program have cost.
        is_given: Whether the user says that these will cost as much.
    """
    predictors = predictors_of(task.program)
    paid = [Past.total(one for _, one in answer.served) for answer in missing]
    whole = [Missing(past, len(missing), paid)], f"{plural(len(past), 'past answer')} of this program"
    if past and (is_given or (len(past) >= _FEWEST_ANSWERS and len(predictors) != 1)):
        return whole
    models = {call.model for answer in missing for call in answer.missed} | {model for model, _ in predictors}
    parts = list(_by_predictor(missing, predictors, {model: _calls(model) for model in models}))
    if not parts or not all(part.past for part in parts):
        return whole if past else ([], "nothing: neither this program nor its models were asked before")
    number = sum(len(some) for some in {id(part.past): part.past for part in parts}.values())
    of_others = any(part.is_of_others for part in parts)
    return parts, f"{plural(number, 'past call')} of {'its models alone' if of_others else 'this program'}"


def _judged(task: Task, kept: KeptPredictions) -> list[Missing]:
    """Return the calls that the metric's judges would be asked for, where any are known."""
    judges = [judge for metric in task.metrics for judge in judges_of(metric.function)]
    hashes = {metric.hash for metric in task.metrics}
    number = sum(
        not hashes <= kept.scores(question, repeat).keys()
        for question in task.questions
        for repeat in range(task.repeats)
    )
    calls = {model: _calls(model) for model, _ in judges}
    return [_drawn_from(calls[model], predictor, number) for model, predictor in judges if number]


def _unknown_judge(task: Task, parts: Sequence[Missing], answers: int) -> str:
    """Say that nothing tells what the judges cost, and what the rest does."""
    cost = _ranges(task, parts, answers)["cost"]
    rest = "" if cost is None else f" Without its judges it is {money_between(cost)}."
    return f"Nothing that is stored tells what the metric's judges cost.{rest}"


def _calls(model: str) -> Calls:
    cache = ensure_installed()
    return calls_of([] if cache is None else cache.tiers.stores, model)


def _by_predictor(
    missing: Sequence[Answer], predictors: Sequence[tuple[str, str]], calls: Mapping[str, Calls]
) -> Iterator[Missing]:
    """Yield the calls that are missing, by whom they ask: those that were come to, and those behind them."""
    seen: dict[tuple[str, str], list[int]] = defaultdict(list)
    for answer in missing:
        for call in answer.missed:
            seen[call.model, call.predictor].append(call.characters)
    for (model, predictor), characters in seen.items():
        yield _drawn_from(calls[model], predictor, len(characters), characters)
    often = _how_often(predictors, calls)
    for (model, predictor), times in often.items():
        there = sum(name == predictor for answer in missing for name, _ in answer.served)
        behind = round(times * len(missing)) - len(seen.get((model, predictor), ())) - there
        if behind > 0:
            yield _drawn_from(calls[model], predictor, behind)


def _drawn_from(calls: Calls, predictor: str, number: int, characters: Sequence[int] = ()) -> Missing:
    own = calls.by_predictor.get(predictor, ())
    is_enough = len(own) >= _FEWEST_CALLS
    return Missing(own if is_enough else calls.all, number, characters=characters, is_of_others=not is_enough)


def _how_often(predictors: Sequence[tuple[str, str]], calls: Mapping[str, Calls]) -> dict[tuple[str, str], float]:
    """Return how often each predictor is asked for an answer, by what is stored: the one asked least often, once."""
    there = {one: len(calls[one[0]].by_predictor.get(one[1], ())) for one in predictors}
    least = min((count for count in there.values() if count), default=0)
    return {one: max(1.0, count / least) if least else 1.0 for one, count in there.items()}


def _ranges(task: Task, parts: Sequence[Missing], answers: int) -> dict[str, Range | None]:
    found = simulated(parts)
    threads = min(answers, task.num_threads or dspy.settings.num_threads)
    tokens = [found["prompt"][end] + found["completion"][end] for end in (0, 2)]
    ranges: dict[str, Range | None] = {
        "requests": Range(math.floor(found["requests"][0]), math.ceil(found["requests"][2])),
        "tokens": Range(*tokens),
        "cached_tokens": Range(found["cached"][0], found["cached"][2]),
        "seconds": _time(task, Range(found["seconds"][0] / threads, found["seconds"][2] / threads), found),
        "cost": None if math.isnan(found["cost"][1]) else Range(found["cost"][0], found["cost"][2]),
    }
    return ranges


def _time(task: Task, seconds: Range, found: Mapping[str, tuple[float, float, float]]) -> Range | None:
    """Return how long it takes, no shorter than the limits of the phase and of the program's LM let it."""
    if math.isnan(seconds.low):
        return None
    lm: Any = dspy.settings.lm
    limits = [rate.requests for rate in task.context.rates] + [getattr(lm, "requests_per_minute", None)]
    least = min((limit for limit in limits if limit is not None), default=math.inf)
    low, high = (60.0 * found["requests"][end] / least for end in (0, 2))
    return Range(max(seconds.low, low), max(seconds.high, high))


def _on_their_way(task: Task) -> Iterator[str]:
    cache = ensure_installed() if task.sent else None
    keys = {key for note in task.sent for key in note.keys if cache is None or cache.tiers.get(key) is None}
    if keys:
        ids = ", ".join(str(note.batch) for note in task.sent if not keys.isdisjoint(note.keys))
        yield (
            f"{plural(len(keys), 'call')} of it {'is' if len(keys) == 1 else 'are'} on the way in a batch ({ids}), and "
            "counted as still to be asked: evaluate(batch=True) takes what is answered."
        )


def _notes(parts: Sequence[Missing]) -> Iterator[str]:
    if any(part.is_of_others for part in parts):
        yield "This program was hardly asked before: its answers may be longer or shorter than those of others."
    if any(math.isnan(one.cost) for part in parts for one in part.past):
        yield "Some of those calls have no price, so the cost is not known."
