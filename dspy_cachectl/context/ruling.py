"""Where a call is made: which phase rules there."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

from dspy_cachectl.budgets.opened import EVERYWHERE, OpenBudget
from dspy_cachectl.config import settings
from dspy_cachectl.context import carried
from dspy_cachectl.context.elsewhere import OpenElsewhere, open_elsewhere
from dspy_cachectl.context.evaluations import is_metrics
from dspy_cachectl.context.homes import has_its_own_task, home_here
from dspy_cachectl.context.open_cassette import UNCACHED_RUN, OpenCassette
from dspy_cachectl.context.phases import NO_PHASE, PhaseContext, PhaseRun
from dspy_cachectl.context.process import SETTING, state
from dspy_cachectl.policy import Decision, Kind, Policy, decide

_DECIDED: dict[tuple[Any, ...], tuple[Policy, Decision]] = {}
"""What policies have said, with or without the temperature that they lend, by all that it rests on."""
_MOST_DECIDED = 1000


class Ruling(NamedTuple):
    """The phase that rules a call at this place.

    Attributes:
        context: The phase, or the process's default where there is none.
        run: Its passage; None outside phases, or when nobody holds it any more.
        stray_of: The fresh and replay phases that are open elsewhere, when the call itself is in none.
        late: Whether the call arrives after the phase's end.
        cassette: The cassette that it is within, or None.
        refused: Why no call is made here; "" where calls are.
        beside: The replay in another process that did not come along and for which no call is made here, or None.
    """

    context: PhaseContext
    run: PhaseRun | None
    stray_of: tuple[PhaseRun, ...] = ()
    late: bool = False
    cassette: OpenCassette | None = None
    refused: str = ""
    beside: OpenElsewhere | None = None

    def replays(self, role: str | None) -> bool:
        """Tell whether no call of a role reaches a provider here."""
        return self.context.policy_for(role).replays or (self.cassette is not None and self.cassette.replays)

    def decide(self, policy: Policy, kind: Kind, model: str, temperature: float | None = None) -> Decision:
        """Return what is done for a call: what the policy says, and what a cassette makes of it."""
        lends = policy.temperature is not None and not (self.context.judging or is_metrics(None))
        has_run = self.context.run_id is not None
        if not lends:
            temperature = None  # it says nothing then, and may be anything
        asked = id(policy), kind._value_, model, temperature, lends, has_run
        known = _DECIDED.get(asked)
        if known is None or known[0] is not policy:
            if len(_DECIDED) >= _MOST_DECIDED:
                _DECIDED.clear()
            lending = policy if lends else replace(policy, temperature=None)
            said = decide(lending, kind=kind, temperature=temperature, model=model, has_run=has_run)
            known = _DECIDED[asked] = policy, said
        return known[1] if self.cassette is None else self.cassette.decide(known[1])

    def next_ordinal(self, request: str, program_rollout_id: Any) -> int:
        """Return which asking of a request a call is within its unit and run."""
        unit = self.context.draws_of
        if isinstance(self.context.judging, str):
            unit = f"{unit}/{self.context.judging}"
        if self.cassette is not None and self.context.run_id == UNCACHED_RUN:
            # Not of the passage through a phase: the next one must not be served these draws.
            return self.cassette.ordinals.next(request, unit=unit, program_rollout_id=program_rollout_id)
        if self.run is None:
            return 0
        return self.run.ordinals.next(request, unit=unit, program_rollout_id=program_rollout_id)


def phase_around() -> PhaseContext | None:
    """Return the phase that was opened around this place, or for the whole process, or None."""
    context: PhaseContext | None = carried.found(SETTING)
    if context is not None and context.entered is not None and context.entered.left:
        context = _not_left(context)
    if context is None:
        context = _by_default()
    elif not context.token:
        return None
    if context is not None and context.process != state.process:
        context = _still_open(context)
    return context


def _by_default() -> PhaseContext | None:
    context = _at_home() if state.at_home else None
    # A slice, since another thread may leave the last one in between.
    return context if context is not None else next(iter(state.everywhere[-1:]), None)


def _still_open(context: PhaseContext | None) -> PhaseContext | None:
    """Return what is around the phases that a forked child has its part in and that have ended in its parent."""
    while context is not None and context.process != state.process and not context.carried:
        run = state.runs.get(context.token)
        if run is None or not run.has_ended():
            break
        state.left_elsewhere(run)
        context = run.outer if run.outer is not None else _by_default()
    return context


def _not_left(context: PhaseContext | None) -> PhaseContext | None:
    """Return what is around the phases that were left, for what comes after them where they were entered.

    A block that is left in another context stays behind in its own, from where whatever begins there has it. Stragglers
    run elsewhere: they are in the midst of a module's call, or it is certain that they began before the end, or they
    carry it by hand.
    """
    while context is not None and not context.carried and (entered := context.entered) is not None and entered.left:
        if entered.home != home_here():
            if context.unit is not None or not entered.stays_behind:
                break
            _say_what_is_outside(context)
        context = entered.outer
    return context


def around(context: PhaseContext | None) -> PhaseContext | None:
    """Return a phase, or where its block was left the one around it that was not."""
    while context is not None and (entered := context.entered) is not None and entered.left:
        context = entered.outer
    return context


def _say_what_is_outside(context: PhaseContext) -> None:
    state.say_once(
        f"left:{context.name}",
        f"phase {context.name!r} was not left where it was entered, as a generator is that another thread or task "
        "closes: what asks elsewhere from now on is outside of it, also where it began before. Close a generator where "
        "it is used, with contextlib.closing() or aclosing()",
    )


def _at_home() -> PhaseContext | None:
    """Return the phase whose block was entered right here, in a context that is no more or a copy of this one.

    From here on it is carried to whatever begins here.
    """
    here = home_here()
    context = next((run.context for run in reversed(state.at_home[:]) if run.home == here), None)
    if context is not None and context.entered is not None:
        context.entered.stays_behind = True
        carried.put(SETTING, context)
    return context


def _in_child() -> None:
    """Have a part in what was open where this process was forked: not for longer than its block, and in any thread.

    A pool starts some of its workers from threads of its own, which carry nothing.
    """
    context = phase_around()
    if context is None:
        context = next((run.context for run in reversed(state.open_runs) if _is_open_beside(run)), None)
    if context is not None:
        carried.put(SETTING, replace(context, carried=False) if context.carried else context)


def _is_open_beside(run: PhaseRun) -> bool:
    return run.guards and run.home.thread() is not threading.current_thread() and not has_its_own_task(run.home)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_in_child)


@functools.lru_cache(maxsize=8)
def _outside(policy: str) -> PhaseContext:
    return PhaseContext(name="", policy=Policy.named(policy))


def phase_here() -> Ruling:
    """Return the phase that rules at this place."""
    context = phase_around()
    if context is not None:
        run, cassette = state.runs.get(context.token), state.cassettes.get(context.cassette_token)
        ruling = Ruling(context, run, (), run is None or run.closed, cassette)
        if context.process != state.process and (run is None or run.is_handed_over):
            ruling = _come_along(ruling)
        return ruling
    outside = _outside(settings().policy)
    watched = tuple(run for run in state.open_runs[:] if _strays_from(run)) if state.open_runs else ()
    if watched and _carried_in_none():
        return Ruling(outside, None)
    if not watched:
        return _beside_others(Ruling(outside, None))
    # A replay never calls, not even from a thread that its phase did not reach.
    replay = next((run for run in reversed(watched) if run.context.replays), None)
    if replay is not None:
        return Ruling(replay.context, replay, stray_of=watched)
    return Ruling(outside, None, stray_of=watched)


def _carried_in_none() -> bool:
    return bool(carried.found(SETTING) == NO_PHASE)


def _strays_from(run: PhaseRun) -> bool:
    """Tell whether a call that is made here, in no phase, puts the results of one that is open in doubt."""
    return run.guards and run.context.strays_matter and not has_its_own_task(run.home) and not run.has_ended()


def _come_along(ruling: Ruling) -> Ruling:
    """Return what rules in a phase that another process opened."""
    refused = _why_refused(ruling.context, ruling.run, ruling.cassette)
    if refused:
        return ruling._replace(refused=refused)
    # What is carried rules where it is called; a fork is where its parent was.
    return ruling if ruling.context.carried else _beside_others(ruling)


def _why_refused(context: PhaseContext, run: PhaseRun | None, cassette: OpenCassette | None) -> str:
    """Say why no call is made here in a phase that another process opened; nothing where calls are."""
    if context.cassette_token and (cassette is None or not cassette.replays):
        why = "it is within a cassette, which records in the process that opened it only"
    elif run is None:
        why = "it came here without its run: hand it over with cachectl.carry()"
    else:
        why = run.refused
    return f"phase {context.name!r} was opened in another process, and no call is made in it here: {why}" if why else ""


def _beside_others(ruling: Ruling) -> Ruling:
    """Return what rules in a worker, where a phase is open in a process that it comes from and did not come along."""
    open_there = open_elsewhere(ruling.context.token)
    if not open_there or _carried_in_none():
        return ruling
    replay = next((one for one in open_there if one.replays and one.guards), None)
    found = replay or open_there[0]
    inside = f"phase {ruling.context.name!r}" if ruling.context.token else "no phase"
    state.say_once(
        f"elsewhere:{found.name}:{inside}:{replay is not None}",
        f"phase {found.name!r} is open in the process that started this worker, and did not come along: "
        + ("calls are refused as in its replay. " if replay else f"calls here are in {inside}. ")
        + "Hand the pool cachectl.carry(function), which takes the phase, its run and its counters along",
    )
    if replay is None or all(policy.replays for policy in ruling.context.policies):
        return ruling
    return Ruling(PhaseContext(name=replay.name, policy=Policy.REPLAY), None, beside=replay)


def budgets_here(role: str | None) -> tuple[OpenBudget, ...]:
    """Return what a call of a role draws on at this place; in a bare thread, that of the phases that guard it."""
    context = phase_around()
    found = () if context is None else context.budgets
    if context is None and not _carried_in_none():
        found = tuple(one for run in state.open_runs[:] if run.guards for one in run.context.budgets)
    every = dict.fromkeys((*EVERYWHERE, *found))
    return tuple(one for budget in every for one in budget.for_role(role))


def draw_unit(name: str, *, judging: bool | str = False) -> AbstractContextManager[None]:
    """Return a block whose draws are those of one unit (an example and a repeat): their ordinals begin at 0.

    Args:
        name: The unit's name.
        judging: Whether a metric makes them. Several metrics have a name each: what one asks is counted as if it
            were alone, so where two ask the same it is one draw.
    """
    context = phase_around()
    return contextlib.nullcontext() if context is None else carried.held(SETTING, context.within(name, judging=judging))


def in_tool(key: str | None) -> AbstractContextManager[None]:
    """Return a block in which a tool runs: what it asks is numbered within its call."""
    context = None if key is None else phase_around()
    if context is None or not context.numbers_draws:
        return contextlib.nullcontext()
    return carried.held(SETTING, replace(context, tool=key))


def current_phase() -> PhaseRun | None:
    """Return the passage through the phase that rules here, or None outside phases."""
    found = phase_here()
    return None if found.stray_of or found.context.is_cassette else found.run


def last_phase() -> PhaseRun | None:
    """Return the passage that ended last in this process, or None."""
    return state.last_run
