"""`race()`: which of several programs is the best, asking those that have lost no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import combinations
from typing import Any

import dspy

from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.context.process import state
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.evaluation.arguments import DependsOn, is_whole, known_names_and, listed
from dspy_cachectl.evaluation.growing import Growing, random_order, sizes_of_looks
from dspy_cachectl.evaluation.kept_predictions import Predictions
from dspy_cachectl.evaluation.limited import one_for_all
from dspy_cachectl.evaluation.opening import check_before_paying, opened, phase_to_evaluate_in
from dspy_cachectl.evaluation.scoring import Metrics
from dspy_cachectl.reports.comparison import Comparison, compare_two
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.settling.dry import dried, options_of
from dspy_cachectl.settling.race import Race, Runner
from dspy_cachectl.settling.two import RULES
from dspy_cachectl.statistics.looks import Bound, look_level, may_decide
from dspy_cachectl.statistics.verdicts import Verdict

LevelAt = Callable[[int], float]
"""The level of a comparison at a look, given how many of all pairs are told apart already (Holm)."""


@known_names_and({**RULES, "finalists": (lambda value: is_whole(value, 2), "is a whole number, and 2 at least")})
def race(
    programs: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    finalists: int = 8,
    smallest_difference: float | None = None,
    bound: str = Bound.OBRIEN_FLEMING.value,
    budget: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    run_id: str | None = None,
    num_threads: int | None = None,
    clusters: Sequence[Any] | str | Callable[[dspy.Example], Any] | None = None,
    predictions: Predictions | None = None,
    force_recompute: bool | None = None,
    max_age: float | None = None,
    depends_on: DependsOn = (),
    display_progress: bool = True,
    max_errors: int | None = None,
    timeout: float | None = None,
    failure_score: float = 0.0,
    level: float = 0.95,
) -> Race:
    """Ask several programs the same questions in random order, and after each batch drop those that have lost.

    One has lost where the leader is better, at a level that holds for all pairs and all looks together: the
    probability that even one program is dropped that is as good as the leader is at most one minus the level. It ends
    with a winner, with several of which none differs from the leader by d, or with the budget.

    Args:
        programs: Programs by name; or what an optimizer returned, or its `candidate_programs`: then its finalists, the
            ones that it scored highest. Race them on questions that it has not seen.
        devset: The questions, as for `evaluate`.
        metric: As for `evaluate`; of several the first decides.
        finalists: How many of an optimizer's candidates take part.
        smallest_difference: As for `settle`, like the next four.
        bound: See there.
        budget: See there.
        batch: See there.
        seed: See there.
        run_id: See there.
        num_threads: As for `evaluate`, like all that follow.
        clusters: See there.
        predictions: See there.
        force_recompute: See there.
        max_age: See there.
        depends_on: See there.
        display_progress: Whether to show how many are left, at each look.
        max_errors: See there; for each batch of each program.
        timeout: See there.
        failure_score: See there.
        level: The level of all pairs and all looks together.

    Returns:
        Who is left, with a report of each program and of what it was dropped by.

    Raises:
        ConfigurationError: If an argument cannot be used, or these are no two programs.
        MissingExtraError: If scipy is not installed.
        Exception: What `evaluate` raises. What was answered until then is kept.
    """
    options = dict(locals())
    check_before_paying(metric)
    named = _named(programs, finalists)
    options |= {"devset": listed(devset), "shard": None, "repeats": 1, "budget": None}
    options = one_for_all(phase_to_evaluate_in(None, force=False, max_age=None)[0], options)
    rule, pairs = Bound(bound), len(list(combinations(named, 2)))
    most = min(len(options["devset"]), budget or len(options["devset"]))
    instead: Race | None = dried(named, options, most)
    if instead is not None:
        return instead
    with ExitStack() as stack:
        running: dict[str, Growing] = {}
        for name, program in named.items():
            task, kept = stack.enter_context(opened(options_of(name, program, options)))
            running[name] = Growing(task, kept, random_order(task, seed))
        show = stack.enter_context(progress(f"race of {len(named)}", shown=display_progress))
        left, lost, looks = list(named), list[tuple[Comparison, int]](), list[int]()
        for count in sizes_of_looks(most, batch):
            reports = [running[name].ask(count, range(1)) for name in left]
            if count < most and not may_decide(reports[0].error):
                continue
            looks.append(count)
            at = partial(_level_at, looks, most, bound=rule, level=level, pairs=pairs)
            leader = max(reports, key=lambda report: report.score)
            others = [report for report in reports if report is not leader]
            compare = partial(_compared, leader, smallest_difference=smallest_difference)
            lost += [(one, len(looks)) for one in losers(others, compare, at=at, told=len(lost))]
            left = [name for name in left if name not in {one.baseline for one, _ in lost}]
            last = [compare(other, level=at(0)) for other in others if other.name in left]
            show(count, most, f"{len(left)} left, {leader.name} leads with {leader.score:.3f}".__str__)
            if all(one.verdict is Verdict.NO_DIFFERENCE for one in last):
                break
        done = {
            name: one.finish(stopping=one.stopping(len(looks), seed, by="comparison")) for name, one in running.items()
        }
    against = {one.baseline: one for one in (*last, *(one for one, _ in lost))}
    dropped = {one.baseline: look for one, look in lost}
    order = sorted(done, key=lambda name: (dropped.get(name, len(looks) + 1), done[name].score), reverse=True)
    runners = tuple(Runner(done[name], against.get(name), dropped.get(name)) for name in order)
    return Race(runners, leader.name, tuple(looks), rule, level, most)


def losers(
    others: Sequence[Measurement], compare: Callable[..., Comparison], *, at: LevelAt, told: int
) -> Iterator[Comparison]:
    """Yield the comparisons of those that have lost against the leader, by Holm's method over all pairs.

    Source for its use at several looks: Maurer & Bretz, Statistics in Biopharmaceutical Research 5 (2013) 311-320: what
    a rejected hypothesis had of the error passes to the others, at this look and all later ones.

    Args:
        others: Those that are left beside the leader.
        compare: Compares the leader with one of them, at a level.
        at: The level, given how many pairs are told apart.
        told: How many are told apart from looks before.
    """
    for other in sorted(others, key=lambda other: compare(other, level=at(told)).p_value):
        found = compare(other, level=at(told))
        if found.verdict is not Verdict.BETTER:
            return
        told += 1
        yield found


def _level_at(looks: Sequence[int], most: int, told: int, *, bound: Bound, level: float, pairs: int) -> float:
    return look_level(looks, most, bound=bound, level=1.0 - (1.0 - level) / (pairs - told))


def _compared(leader: EvalReport, other: EvalReport, *, smallest_difference: float | None, level: float) -> Comparison:
    return compare_two(other, leader, smallest_difference=smallest_difference, level=level)


def _named(programs: Any, finalists: int) -> dict[str, Any]:
    """Return programs by name: those that are given by it, or an optimizer's finalists.

    Raises:
        ConfigurationError: If these are none.
    """
    if state.instead_of_evaluating is not None and getattr(programs, "candidate_programs", None) is None:
        # What an optimizer gives back in a dry run has no candidates; of each the program is as good an example.
        programs = {f"finalist {place + 1}": programs for place in range(finalists)} if callable(programs) else programs
    if isinstance(programs, Mapping):
        named = {scrub(str(name)): program for name, program in programs.items()}
    else:
        named = dict(_finalists(getattr(programs, "candidate_programs", programs), finalists))
    wrong = [name for name, program in named.items() if not callable(program) or isinstance(program, type)]
    if wrong or len(named) < 2:
        raise ConfigurationError(
            "a race is of two programs at least, by name: race({'zero-shot': one, 'compiled': other}, ...); or of what "
            f"an optimizer returned, with its candidate_programs. {f'{wrong[0]} is none' if wrong else ''}"
        )
    return named


def _finalists(candidates: Any, most: int) -> Iterator[tuple[str, Any]]:
    """Yield an optimizer's candidates by name, the one that it scored highest first."""
    if not isinstance(candidates, (list, tuple)):
        return
    found = [one for one in candidates if isinstance(one, Mapping) and "program" in one]
    for place, one in enumerate(sorted(found, key=lambda one: -float(one.get("score") or 0.0))[:most], start=1):
        yield f"finalist {place}", one["program"]
