"""One evaluation for each of several models: the program asks each in turn, and its judges stay what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypedDict

import dspy

from dspy_cachectl.batches.batch import Batch
from dspy_cachectl.batches.rounds import in_rounds
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.budget import Budget
from dspy_cachectl.calls.lm import wrap
from dspy_cachectl.config import settings
from dspy_cachectl.context.process import logger
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.evaluation.arguments import DependsOn
from dspy_cachectl.evaluation.clusters import Slices
from dspy_cachectl.evaluation.kept_predictions import Predictions
from dspy_cachectl.evaluation.limited import NotBegun
from dspy_cachectl.evaluation.observed_program import is_plain
from dspy_cachectl.fingerprints.modules import sub_modules
from dspy_cachectl.fingerprints.reached import lm_of_settings, metric_fingerprint
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.showing.stand_in import passes_on

Models = Sequence[Any] | Mapping[str, Any]


class Options(TypedDict, total=False):
    """The options of `evaluate`, beside the models."""

    repeats: int
    run_id: str | None
    num_threads: int | None
    clusters: Sequence[Any] | str | Callable[[dspy.Example], Any] | None
    slices: Slices | None
    baseline: EvalReport | None
    predictions: Predictions | None
    force_recompute: bool | None
    max_age: float | None
    depends_on: DependsOn
    display_progress: bool
    max_errors: int | None
    timeout: float | None
    failure_score: float
    level: float
    name: str | None
    mlflow: bool | str | None
    shard: tuple[int, int] | None
    executor: Any
    shards: int | None
    order: str
    seed: int
    until: float | None
    budget: Budget | None
    batch: bool | Batch
    holdout: Iterable[dspy.Example] | None


_JUDGES = "cachectl_judges_lm"
"""The key in DSPy's settings under which the LM travels that the metric asks where it has none of its own."""
_TOLD_BY = ("temperature", "max_tokens", "max_completion_tokens", "reasoning_effort")
"""What models of one name are told apart by, for people."""


def evaluate_each(evaluate: Callable[..., EvalReport], given: Mapping[str, Any]) -> Ranking:
    """Evaluate a program with each of several models, and return the reports ranked.

    Args:
        evaluate: Evaluates a program with one.
        given: What it is given, the models as `lms`.

    Raises:
        ConfigurationError: If these are no models, or the program asks none of them.
    """
    options = dict(given)
    program, named, name = options.pop("program"), _named(options.pop("lms")), options.pop("name")
    force = settings().force_recompute if options["force_recompute"] is None else options["force_recompute"]
    if options["run_id"] is not None and (force or options["max_age"] is not None):
        raise ConfigurationError(
            "with lms, run_id does not go together with force_recompute or max_age: once the first model is evaluated "
            "the run has draws, and a run's draws are never made anew. Leave run_id out"
        )
    programs = [_asking(lm, program) for lm in named.values()]
    for (model, lm), asking in zip(named.items(), programs, strict=True):
        with dspy.context(lm=lm):
            if lm_of_settings(asking) is None:
                raise ConfigurationError(
                    f"{model} would not be asked: each predictor of the program has an LM with a role of its own. Give "
                    "the model that role: cachectl.LM(..., role=...)"
                )
    reports: list[EvalReport] = []
    judges = dspy.settings.lm
    judges = wrap(judges) if is_plain(judges) else judges  # once: it is one judge for all

    not_begun = NotBegun(options)

    def evaluated(model: str, lm: Any, asking: Any, batch: Batch | None) -> EvalReport | None:
        # A bar of each look at each model would fill the screen within a day.
        how = {"batch": batch, "display_progress": False} if batch else {}
        with dspy.context(lm=lm, **{_JUDGES: (judges,)}):
            return not_begun.found(model, lambda: evaluate(asking, name=model, **{**options, **how}))

    each = [partial(evaluated, *one, asking) for one, asking in zip(named.items(), programs, strict=True)]
    try:
        # Those until an error, too.
        reports.extend(one for one in in_rounds(each, options["batch"]) if one is not None)
        not_begun.check(reports)
    except BaseException as error:
        if reports:
            error.reports = tuple(reports)  # type: ignore[attr-defined]  # for who catches it
            logger.warning(
                "%d of %d models were evaluated before this ended it: what was raised has their reports as its reports",
                len(reports),
                len(named),
            )
        raise
    title = f"{scrub(name or type(program).__name__)}, {plural(len(reports), 'model')},"
    return _ranked(reports, baseline=options["baseline"], title=title)


@passes_on
def _ranked(reports: Sequence[EvalReport], **options: Any) -> Ranking:
    return Ranking(tuple(reports), **options)


def as_judged() -> AbstractContextManager[Any]:
    """Return the settings in which a metric is asked: of whoever evaluates, whichever model the program is given."""
    judges = dspy.settings.get(_JUDGES)
    return nullcontext() if judges is None else dspy.context(lm=judges[0])


def hash_as_judged(metric: Any, known: str | None = None) -> str:
    """Return the hash of a metric, whose LM may be another than the program's; what is known is that with this one."""
    if known is not None and dspy.settings.get(_JUDGES) is None:
        return known
    with as_judged():
        return metric_fingerprint(metric)


def _named(lms: Any) -> dict[str, Any]:
    """Return the models by name: those that are given, or made of what tells them apart."""
    given = list(lms.items()) if isinstance(lms, Mapping) else [(None, lm) for lm in _listed(lms)]
    for _, lm in given:
        if not isinstance(lm, dspy.BaseLM):
            raise ConfigurationError(f"lms are LMs, such as cachectl.LM('openai/gpt-4o-mini'), and not {lm!r}")
    if not given:
        raise ConfigurationError("lms names no model: give one at least, or leave it out")
    own = isinstance(lms, Mapping)
    names = [scrub(str(name)) for name, _ in given] if own else list(_told_apart([lm for _, lm in given]))
    if len(set(names)) < len(names):
        raise ConfigurationError(f"models have different names, and these are {names}")
    return dict(zip(names, (lm for _, lm in given), strict=True))


def _listed(lms: Any) -> Iterable[Any]:
    if isinstance(lms, (str, bytes, dspy.BaseLM)) or not isinstance(lms, Iterable):
        raise ConfigurationError(f"lms is a list of LMs, or LMs by name, and not {lms!r}")
    return lms


def _told_apart(lms: Sequence[Any]) -> Iterator[str]:
    models = [str(getattr(lm, "model", type(lm).__name__)) for lm in lms]
    counts, seen = Counter(models), Counter[str]()
    for lm, model in zip(lms, models, strict=True):
        name = model
        if counts[model] > 1:
            options = {one: getattr(lm, "kwargs", {}).get(one) for one in _TOLD_BY}
            endpoint, version = (getattr(lm, one, None) for one in ("endpoint", "version"))
            told = {"endpoint": endpoint, "version": version, **options}
            name = " ".join([model, *(f"{what}={value}" for what, value in told.items() if value is not None)])
        name = scrub(name)
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _asking(lm: Any, program: Any) -> Any:
    """Return the program as it asks the LM that DSPy is set to, in place of others that the model stands for."""
    roles = {None, getattr(lm, "role", None)}

    def stands_for(predictor: Any) -> bool:
        return predictor.lm is not None and getattr(predictor.lm, "role", None) in roles

    if not isinstance(program, dspy.Module) or not any(map(stands_for, _predictors(program))):
        return program
    copied = program.deepcopy()
    for predictor in filter(stands_for, _predictors(copied)):
        predictor.lm = None
    return copied


def _predictors(program: Any) -> Iterator[Any]:
    # Of all modules, those that are compiled already too.
    return (predictor for _, predictor in sub_modules(program, dspy.Predict))
