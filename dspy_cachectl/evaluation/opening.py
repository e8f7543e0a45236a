"""What comes before the first question of an evaluation: what is asked, in which phase, and what is kept of it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from dspy_cachectl.accounting import runs
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.calls.installation import ensure_installed
from dspy_cachectl.config import settings as configured
from dspy_cachectl.context.phases import PhaseContext, new_run_id
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_around
from dspy_cachectl.errors import ConfigurationError, MissingExtraError, StoreError
from dspy_cachectl.evaluation.arguments import listed
from dspy_cachectl.evaluation.clusters import clusters_of, slices_of_questions
from dspy_cachectl.evaluation.kept_predictions import KeptPredictions, key_of, library_of
from dspy_cachectl.evaluation.limited import limited
from dspy_cachectl.evaluation.models import hash_as_judged
from dspy_cachectl.evaluation.observed_program import governed
from dspy_cachectl.evaluation.reporting import question_id
from dspy_cachectl.evaluation.scoring import Metric, metrics_by_name
from dspy_cachectl.evaluation.task import Task
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.fingerprints.provenance import provenance_of
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.reports.apart.corpus import CORPUS, CorpusMetric
from dspy_cachectl.reports.measurement import MEASURE
from dspy_cachectl.reports.results import OtherMetric
from dspy_cachectl.seen.leaks import leaks_of

_OF_THE_TASK = ("repeats", "num_threads", "max_errors", "timeout", "failure_score", "level")


def check_before_paying(metric: Any) -> None:
    """Refuse what could not be reported, or not be scored.

    Raises:
        MissingExtraError: If scipy is not installed.
        ConfigurationError: If the metric is none, or one of several.
    """
    if find_spec("scipy") is None:
        raise MissingExtraError("evaluate()", extra="stats")
    metrics_by_name(metric)


def check_holdout(options: Mapping[str, Any]) -> None:
    """Refuse questions to hold out that are no others, before anything is paid for.

    Args:
        options: The arguments of `evaluate`, the devset and the holdout as lists.

    Raises:
        ConfigurationError: If some are among the data set, or candidates of an optimizer were scored on some.
    """
    program, holdout = options["program"], options["holdout"]
    keys = [one.example_key for one in questions_of(holdout)]
    common = len({one.example_key for one in questions_of(options["devset"])}.intersection(keys))
    before = state.candidates.scored_on(program, holdout, keys)
    for count, where in ((common, "in the devset too"), (before.questions if before else 0, "what candidates saw")):
        if count:
            raise ConfigurationError(
                f"holdout is to be of other questions, and {count:,} of its {len(keys):,} are {where}: leave them out"
            )
    slices_of_questions(options["slices"], holdout)
    if options["shard"] is not None or not (options["clusters"] is None or _is_rule(options["clusters"])):
        raise ConfigurationError("holdout is asked whole, in clusters that a field or a function tells: leave it out")


def _is_rule(clusters: Any) -> bool:
    return isinstance(clusters, str) or callable(clusters)


def held_out(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the evaluation of the questions that are held out, which are asked afterwards.

    Args:
        options: The arguments of `evaluate`.
    """
    run_id = options["run_id"] and f"{options['run_id']}-holdout"
    others = {"devset": options["holdout"], "holdout": None, "baseline": None, "mlflow": None, "run_id": run_id}
    return {**options, **others, "until": None, "order": "given", "name": f"{name_of(options)}, held out"}


def name_of(options: Mapping[str, Any]) -> str:
    """Return what an evaluation is called, given the arguments of `evaluate`."""
    return options["name"] or type(options["program"]).__name__


@contextmanager
def opened(options: Mapping[str, Any]) -> Iterator[tuple[Task, KeptPredictions]]:
    """Open an evaluation of one program: give what is to be asked, and what is kept of it while it is asked.

    Args:
        options: The arguments of `evaluate`, each of them.

    Raises:
        ConfigurationError: If one of them cannot be used.
    """
    named, depends_on, shard = metrics_by_name(options["metric"]), options["depends_on"], options["shard"]
    functions = [(name, metric) for name, metric in named.items() if not isinstance(metric, str)]
    repeats, max_age, force = options["repeats"], options["max_age"], options["force_recompute"]
    library = library_of(options["predictions"])
    devset = listed(options["devset"])
    questions = questions_of(devset)
    groups = clusters_of(options["clusters"], devset, questions)
    program, settings = governed(options["program"])
    with settings:
        force = configured().force_recompute if force is None else bool(force)
        context, run_id = phase_to_evaluate_in(
            options["run_id"], force=force, max_age=max_age, in_parts=shard is not None
        )
        context, is_limited = limited(context, options["budget"])
        made_of = provenance_of(program, questions, functions[0][1], context.policy_for)
        asked = {question_id(one): example.inputs() for one, example in zip(questions, devset, strict=True)}
        made_of["leaks"] = leaks_of(program, asked)
        keys = [one.example_key for one in questions]
        made_of["selection"] = state.candidates.scored_on(program, devset, keys)
        metrics = [Metric(functions[0][0], functions[0][1], hash_as_judged(functions[0][1], made_of["metric_hash"]))]
        for name, function in functions[1:]:
            kind = CORPUS if isinstance(function, CorpusMetric) else ""
            metrics.append(Metric(name, function, kind + hash_as_judged(function)))
        session = None
        if library is not None:
            wish: dict[str, Any] = {"repeats": repeats, "run_id": run_id, "max_age": max_age, "force_recompute": force}
            key = key_of(program, context.policy.temperature, made_of["data"], depends_on)
            session = library.open(key, questions, part=shard or (0, 1), **wish)
            run_id = session.run_id
        task = Task(
            program=program,
            devset=devset,
            metrics=metrics,
            measures=[OtherMetric(name, MEASURE + metric) for name, metric in named.items() if isinstance(metric, str)],
            questions=questions,
            groups=groups,
            slices=slices_of_questions(options.get("slices"), devset),
            made_of=made_of,
            context=context,
            run_id=run_id,
            is_limited=is_limited,
            declared=bool(depends_on),
            name=scrub(name_of(options)),
            **{name: options[name] for name in _OF_THE_TASK},
        )
        task = task if shard is None else task.part(*shard)
        kept = KeptPredictions(library, session, program, metrics, declared=task.declared)
        if session is None:
            yield task, kept
            return
        with session:
            yield task, kept


def phase_to_evaluate_in(
    run_id: str | None, *, force: bool, max_age: float | None, in_parts: bool = False
) -> tuple[PhaseContext, str | None]:
    """Return the phase to evaluate in, and the run to draw under: an open fresh or replay phase holds.

    A run's draws are served and never made anew. Where others are asked for than an open phase has, they are of a run
    of their own, which is None here.

    Args:
        run_id: The run that is named, or None.
        force: Whether everything is to be drawn anew.
        max_age: How old a kept answer may be, in seconds, or None.
        in_parts: Whether other processes make parts of it.

    Raises:
        ConfigurationError: If others than the named run's draws are asked for, or parts would be of several runs.
    """
    anew = force or max_age is not None
    if in_parts and anew:
        raise ConfigurationError(
            "shard does not go together with force_recompute or max_age: once the first shard is evaluated the run has "
            "draws, and a run's draws are never made anew. Name a new run for all shards instead"
        )
    context, run_id = _context_and_run(run_id, force=force, max_age=max_age, anew=anew)
    if in_parts and run_id is None and context.draws_afresh:
        raise ConfigurationError(
            f"shards are parts of one run: give all of them the same, for example run_id={new_run_id('eval')!r}"
        )
    return context, run_id


def _context_and_run(
    run_id: str | None, *, force: bool, max_age: float | None, anew: bool
) -> tuple[PhaseContext, str | None]:
    oldest = None if force else max_age
    if run_id is not None and anew and _has_draws(run_id, older_than=oldest):
        asked = "force_recompute" if oldest is None else f"max_age={oldest:g}"
        raise ConfigurationError(
            f"run {run_id!r} has draws in the store, and a run's draws are never made anew: {asked} asks for others. "
            f"Name a run that has none, for example run_id={new_run_id('eval')!r}, or none at all"
        )
    ruling = phase_around()
    if ruling is None or not ruling.is_evaluated_in or ruling.is_cassette:
        return replace(phase("eval").context, rates=() if ruling is None else ruling.rates), run_id
    if run_id is not None or ruling.run_id is None:
        return ruling, run_id
    run_id = _run_within(ruling, ruling.run_id)
    is_other = anew and ruling.policy.fresh and _has_draws(run_id, older_than=oldest)
    return ruling, new_run_id(ruling.name) if is_other else run_id


def _run_within(ruling: PhaseContext, run_id: str) -> str:
    """Return the run of an evaluation in an open phase: one of its own in each answer of a program that evaluates."""
    if ruling.unit is None:
        return run_id
    unit = hashlib.sha256(f"{ruling.unit}/{ruling.judging}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{run_id}-{unit[:12]}"


def _has_draws(run_id: str, *, older_than: float | None) -> bool:
    """Tell whether a run has draws, and began longer ago than so many seconds; None: whenever it began."""
    cache = ensure_installed()
    if cache is None or not any(label.is_answer and label.run == run_id for label in cache.tiers.labels()):
        return False
    began = 0.0
    data = cache.tiers.get(runs.run_key(run_id), behind=True)
    with contextlib.suppress(StoreError):  # what cannot be read says nothing of its age
        began = runs.decode(data)[0].created if data is not None else 0.0
    return older_than is None or age_of(began) > older_than
