"""`settle()`: which of two programs is better, with no more questions than that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import dspy

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.evaluation.arguments import PROGRAM, DependsOn, Rule, is_number, is_whole, known_names_and, listed
from dspy_cachectl.evaluation.growing import Growing, random_order, sizes_of_looks
from dspy_cachectl.evaluation.kept_predictions import Predictions
from dspy_cachectl.evaluation.limited import one_for_all
from dspy_cachectl.evaluation.opening import check_before_paying, opened, phase_to_evaluate_in
from dspy_cachectl.evaluation.scoring import Metrics
from dspy_cachectl.reports.comparison import compare_two
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.settling.dry import dried, options_of
from dspy_cachectl.settling.result import Look, Settled
from dspy_cachectl.statistics.looks import DECIDES_NOTHING, Bound, look_level, may_decide
from dspy_cachectl.statistics.verdicts import Verdict

BOUNDS = tuple(bound.value for bound in Bound)
RULES: dict[str, Rule] = {
    "smallest_difference": (
        lambda value: value is None or (is_number(value) and value > 0),
        "is a number above 0, in units of the score (say 0.05), or None",
    ),
    "bound": (lambda value: value in BOUNDS, f"is one of {', '.join(map(repr, BOUNDS))}"),
    "budget": (lambda value: value is None or is_whole(value, 1), "is a whole number of questions, or None"),
    "batch": (lambda value: value is None or is_whole(value, 1), "is a whole number of questions, or None"),
}
_NAMES: Rule = (
    lambda value: not isinstance(value, str) and len({str(one) for one in value}) == len(list(value)) == 2,
    "are two different names",
)


@known_names_and({**RULES, "baseline": PROGRAM, "candidate": PROGRAM, "names": _NAMES})
def settle(
    baseline: Any,
    candidate: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    smallest_difference: float | None = None,
    bound: str = Bound.OBRIEN_FLEMING.value,
    budget: int | None = None,
    repeats: int = 1,
    batch: int | None = None,
    seed: int = 0,
    names: Sequence[str] = ("baseline", "candidate"),
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
) -> Settled:
    """Ask two programs until it is settled which of them is better, and no further.

    Questions are asked in a random order, the same for both, and looked at after each batch. A look has a verdict where
    one that was looked at once would, at a level that keeps the error of all looks together: the probability of BETTER
    or WORSE where there is no difference is at most one minus the level, however early it stops. It ends with BETTER,
    WORSE, NO DIFFERENCE OF SIZE d, or BUDGET SPENT, with what it would take.

    What has been answered is kept as by `evaluate`: the same call again, or after a Ctrl-C, asks only what is new.

    Args:
        baseline: The program to compare with.
        candidate: The program that may be better.
        devset: The questions, as for `evaluate`.
        metric: As for `evaluate`; of several the first settles it.
        smallest_difference: d, the smallest difference that matters, in units of the score; None for a twentieth of the
            scale.
        bound: How the error is shared out among the looks: "obrien-fleming" finds about what one look at everything
            would; "pocock" stops sooner where the difference is large, and finds fewer small ones; "any-time" lets one
            go on with more questions later, and is the quickest where many could be asked and the difference is large.
        budget: How many questions to ask at most, of each program; None: all. Fix it before the first look.
        repeats: How many answers to each question to draw at most. New questions tell more than repeats, so these are
            drawn only when all questions are asked and it is not settled. Not with "any-time".
        batch: How many questions to ask between two looks; None: a tenth of all, and 20 at least.
        seed: What the random order is told by.
        names: What the two are called.
        run_id: The run to draw under, or to resume: each program draws under one of its own, which is named by it too.
        num_threads: As for `evaluate`, like all that follow.
        clusters: See there. The questions of a cluster are asked one after the other, and before the end nothing is
            decided by so few of them that they are worth less than ten degrees of freedom.
        predictions: See there.
        force_recompute: See there.
        max_age: See there.
        depends_on: See there.
        display_progress: Whether to show how far it is, at each look.
        max_errors: See there; for each batch.
        timeout: See there.
        failure_score: See there.
        level: The level of all looks together.

    Returns:
        The verdict, with the comparison at the last look, both reports and all looks.

    Raises:
        ConfigurationError: If an argument cannot be used; the message says which and what to do.
        MissingExtraError: If scipy is not installed.
        Exception: What `evaluate` raises. What was answered until then is kept.
    """
    options = dict(locals())
    check_before_paying(metric)
    # Its budget is of questions, and not of money as that of `evaluate`.
    options |= {"devset": listed(devset), "shard": None, "budget": None}
    options = one_for_all(phase_to_evaluate_in(None, force=False, max_age=None)[0], options)
    rule = Bound(bound)
    if rule is Bound.ANY_TIME and repeats > 1:
        raise ConfigurationError('bound="any-time" counts questions: leave repeats out, or take another bound')
    programs = dict(zip(map(str, names), (baseline, candidate), strict=True))
    most = min(len(options["devset"]), budget or len(options["devset"]))
    instead: Settled | None = dried(programs, options, most)
    if instead is not None:
        return instead
    with ExitStack() as stack:
        growing: list[Growing] = []
        for name, program in programs.items():
            task, kept = stack.enter_context(opened(options_of(name, program, options)))
            growing.append(Growing(task, kept, random_order(task, seed)))
        show = stack.enter_context(progress(" against ".join(map(str, reversed(names))), shown=display_progress))
        looks: list[Look] = []
        answers: list[int] = []
        for count, repeat in steps_of(most, batch, repeats):
            reports = [one.ask(count, range(repeat, repeat + 1)) for one in growing]
            now, at = count + repeat * most, DECIDES_NOTHING
            if now == most * repeats or may_decide(reports[0].error):
                answers.append(now)
                at = look_level(answers, most * repeats, bound=rule, level=level)
            found = compare_two(*reports, smallest_difference=smallest_difference, level=at)
            looks.append(Look.at(found, now))
            show(now, most * repeats, looks[-1].said)
            if found.verdict is not Verdict.INCONCLUSIVE:
                break
        finished = tuple(_finished(one, len(looks), seed) for one in growing)
    return Settled(replace(found, reports=finished), tuple(looks), rule, level, most, repeats)


def steps_of(most: int, batch: int | None, repeats: int) -> Iterator[tuple[int, int]]:
    """Yield up to which question is asked before each look, and in which repeat: all questions first, then again."""
    yield from ((count, 0) for count in sizes_of_looks(most, batch))
    yield from ((most, repeat) for repeat in range(1, repeats))


def _finished(one: Growing, looks: int, seed: int) -> EvalReport:
    return one.finish(stopping=one.stopping(looks, seed, by="comparison"))
