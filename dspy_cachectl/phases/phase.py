"""Phases: named regions of a program with a policy, opened and left, and what a store says of the run of one.

That is when it was opened, at which temperature, and whether it came to its end.
"""

from __future__ import annotations

import copy
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import dspy

from dspy_cachectl.accounting import runs
from dspy_cachectl.boundary.meant import meant, question
from dspy_cachectl.budget import Budget, checked_budget
from dspy_cachectl.budgets.opened import EVERYWHERE
from dspy_cachectl.budgets.prices import name_what_is_not_sure
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.installation import ensure_installed, installed, open_budget
from dspy_cachectl.calls.spans import watch_autolog
from dspy_cachectl.config import settings
from dspy_cachectl.context import carried
from dspy_cachectl.context.homes import Waiting, home_here, is_main_thread, waiting_here
from dspy_cachectl.context.open_cassette import OpenCassette
from dspy_cachectl.context.phases import Entered, PhaseContext, PhaseRun, new_run_id
from dspy_cachectl.context.process import SETTING, state
from dspy_cachectl.context.ruling import around, phase_around
from dspy_cachectl.entries import records
from dspy_cachectl.errors import BudgetExceededError, CacheMissError, ConfigurationError, StoreError
from dspy_cachectl.limits.rates import joined, rates_of
from dspy_cachectl.phases.decoration import Block
from dspy_cachectl.policy import PRESETS, Policy

P = ParamSpec("P")
T = TypeVar("T")


class phase(Block[PhaseRun]):  # noqa: N801 - used as a word: with phase("eval")
    """A named region of a program in which a policy rules the cache.

    Works as a context manager, sync and async, and as a decorator of functions and coroutine functions. The
    inner of two nested phases rules. A `dspy.configure()` inside it takes effect at once. Nothing of a phase is on the
    program's stack, and no callback of it in DSPy's settings: what a program makes of its own traceback stays the same.

    Args:
        name: The phase's name. `"compile"` and `"eval"` are known; others need a policy, here or configured.
        policy: What the cache does. None: what is configured for the name.
        run_id: Draw under this identity: stored draws of the run are served, and only the missing ones are
            bought. None: a new one, where the policy draws afresh.
        roles: The policies of the roles that are treated differently.
        everywhere: Make this the process's default while it lasts, so that it also holds in threads that do
            not carry DSPy's settings.
        guard: Whether calls from bare threads, which carry no phase, are counted as strayed from it, and refused
            where it replays. That is for scripts and notebooks; a server says False, as other requests are none of
            its business. None: what is configured, and never in a thread that is not the main one.
        bypass_proxy: Ask a LiteLLM proxy not to answer from its own cache. It is sent with each call as
            `extra_body={"cache": {"no-cache": True}}`, for which DSPy's `auto` engine chooses LiteLLM.
        requests_per_minute: How many requests its calls may send a minute, in all processes that share the store and
            open a phase of this name. What is served from the store waits for nothing. It holds in the phases within.
        tokens_per_minute: How many tokens they may send and receive, likewise.
        budget: What its calls may spend: none is made that would go beyond, and what was not made is said at the end.
        **overrides: Fields of `Policy` that differ: `temperature`, `max_age`, `scope`, ...

    Attributes:
        context: What it will make travel with the calls, but for what is known at its opening.
        run: The passage that is open, or None.

    Raises:
        ConfigurationError: If the name is not known and has no policy, or an option cannot be used.
        BudgetExceededError: At the end of its block, if calls were not made since the budget did not allow them.
    """

    def __init__(
        self,
        name: str,
        policy: Policy | None = None,
        *,
        run_id: str | None = None,
        roles: Mapping[str, Policy] | None = None,
        everywhere: bool = False,
        guard: bool | None = None,
        bypass_proxy: bool = False,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        budget: Budget | None = None,
        **overrides: Any,
    ) -> None:
        _check_options(name, roles, overrides)
        configured, known_roles = (policy, {}) if policy is not None else settings().phase_policy(name)
        if not isinstance(configured, Policy):
            raise ConfigurationError(f"a phase's policy is a Policy such as Policy.REUSE, not {_named(policy)}")
        for role, of_role in (roles or {}).items():
            if not isinstance(of_role, Policy):
                raise ConfigurationError(f"the policy of role {role!r} is a Policy, not {_named(of_role)}")
        self.context = PhaseContext(
            name=name,
            policy=configured.with_overrides(**overrides),
            roles=tuple(sorted({**known_roles, **(roles or {})}.items(), key=lambda item: item[0])),
            run_id=_checked_run_id(run_id),
            bypass_proxy=bypass_proxy,
            rates=rates_of(f"phase {name}", requests_per_minute, tokens_per_minute),
        )
        self.run: PhaseRun | None = None
        self._waiting: Waiting | None = None
        self._everywhere = everywhere
        self._guard = guard
        self._budget = settings().phase_budget(name) if budget is None else checked_budget(budget)
        if run_id is not None and not self.context.strays_matter:
            raise ConfigurationError(
                f"phase {name!r} makes no draws of its own, so run_id={run_id!r} would have no effect; "
                "use a fresh policy (Policy.FRESH) or replay one (Policy.REPLAY)"
            )

    def __enter__(self) -> PhaseRun:
        if self.run is not None:
            raise ConfigurationError(f"this phase({self.context.name!r}) is open already; make a new one to nest")
        outer = phase_around()
        context = replace(_described(_at_opening(self.context, outer)), entered=Entered(home_here(), outer))
        own = None if self._budget is None else open_budget(self._budget, f"phase {context.name!r}")
        around_it = () if outer is None else outer.budgets
        drawn_on = tuple(dict.fromkeys((*around_it, *context.budgets, *(() if own is None else (own,)))))
        if drawn_on:
            context = replace(context, budgets=drawn_on)
        run = PhaseRun(context)
        if own is not None or (EVERYWHERE and outer is None):
            run.tells_of(own, EVERYWHERE if outer is None else ())
            name_what_is_not_sure(run.answers_for, dspy.settings.lm)
        watch_autolog()
        run.outer = outer
        if outer is not None and (around := state.runs.get(outer.token)) is not None:
            run.is_within(around, outer)
        run.is_told = settings().guard if self._guard is None else self._guard
        run.guards = run.is_told and (self._guard is not None or is_main_thread())
        self._put = carried.put(SETTING, context)
        # Whoever waits for this thread, where the block goes on without it.
        self._waiting = waiting_here()
        if self._waiting is not None:
            self._waiting.run(carried.put, SETTING, context)
        with state.lock:
            state.enter(run)
            if self._everywhere:
                state.everywhere.append(context)
        self.run = run
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run, self.run = self.run, None
        if run is None:
            return
        _leave(run, self._take_back())
        with state.lock:
            if self._everywhere and run.context in state.everywhere:
                state.everywhere.remove(run.context)
            if not run.context.is_cassette:
                state.last_run = run
        incomplete = run.incomplete()
        if isinstance(incomplete, BudgetExceededError):
            incomplete.report = getattr(error, "report", None)
        _describe_end(run, error or incomplete)
        # What interrupts the program goes through, and so does a miss that nobody swallowed.
        if incomplete is not None and (
            error is None or (isinstance(error, Exception) and not _says(error, incomplete))
        ):
            raise incomplete from error

    def _take_back(self) -> carried.Taken:
        """Take back what was put into the context, and into that of whoever waited; in whatever context this is."""
        before = around(self._put.before)
        taken = carried.take_back(SETTING, self._put, before)
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return taken
        waiting.run(carried.exchange, SETTING, self._put.value, before)
        return carried.Taken(here=True, wholly=True)

    def without_its_own(self) -> phase:
        """Return it without the budget that the settings say, where somebody has opened that before."""
        self._budget = None
        return self

    def _again(self) -> phase:
        again = copy.copy(self)
        again.run = None
        return again


def _says(error: Exception, incomplete: Exception) -> bool:
    """Tell whether what leaves a block says already what is raised at its end."""
    if isinstance(incomplete, BudgetExceededError):
        return False
    return isinstance(error, (type(incomplete), CacheMissError))


def _leave(run: PhaseRun, taken: carried.Taken) -> None:
    state.leave(run, stays_behind=not taken.wholly)
    if not taken.here and not run.stats.calls and any(policy != Policy.REUSE for policy in run.context.policies):
        state.say_once(
            f"rules-nothing:{run.name}",
            f"phase {run.name!r} was left in another context than it was entered in, and no call was made in it: a "
            "block that is entered in a thread, a task or a copied context rules only there. Enter it where the calls "
            "are made",
        )


def _at_opening(context: PhaseContext, outer: PhaseContext | None) -> PhaseContext:
    """Return a context with what is known when it opens: its token, its run and the cassette that it is within."""
    cassette_token = context.cassette_token or (outer.cassette_token if outer is not None else "")
    rates = context.rates if outer is None else joined(outer.rates, context.rates)
    if context.wet is not None or (outer is not None and outer.wet is not None):
        context = context.dried()
    made: dict[str, Any] = {"token": uuid.uuid4().hex, "process": os.getpid(), "rates": rates}
    context = replace(context, cassette_token=cassette_token, **made)
    cassette = state.cassettes.get(cassette_token)
    if cassette is not None:
        return _in_cassette(context, cassette)
    if context.run_id is None and context.draws_afresh:
        return replace(context, run_id=_run_in_answer(context.name, outer) or new_run_id(context.name))
    return context


def _run_in_answer(name: str, outer: PhaseContext | None) -> str | None:
    """Return the run of a phase that is opened in an answer of another's run, so that it is resumed with that; or None.

    Args:
        name: The phase's name.
        outer: The phase around it.
    """
    around_it = list(_outwards(outer))
    if all(context.draws_of is None for context in around_it):
        return None
    drawn = next((context for context in around_it if context.run_id is not None and context.draws_afresh), None)
    run = None if drawn is None else state.runs.get(drawn.token)
    if drawn is None or run is None:
        return None
    named = f"{drawn.judging}/{name}"
    place = f"{drawn.draws_of}/{named}/{run.ordinals.next(named, unit=drawn.draws_of)}"
    return f"{drawn.run_id}-{hashlib.sha256(place.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _outwards(context: PhaseContext | None) -> Iterator[PhaseContext]:
    while context is not None:
        yield context
        context = None if context.entered is None else context.entered.outer


def _described(context: PhaseContext) -> PhaseContext:
    """Put the cache in place, describe a fresh run, and look up the temperature of a replayed one.

    Returns:
        The context to open.

    Raises:
        ConfigurationError: If another package's cache is in place, and the phase needs ours.
    """
    cache = ensure_installed()
    if cache is None:
        if any(policy != Policy.REUSE for policy in context.policies):
            raise ConfigurationError(
                f"phase {context.name!r} needs the managed cache, and dspy.cache is a {type(dspy.cache).__name__} of "
                "another package; call cachectl.install() to replace it"
            )
        return context
    if context.run_id is None or context.cassette_token:
        return context  # a cassette knows its runs
    drawn_at = _run_temperature(cache, context.run_id)
    policy = context.policy
    if policy.replays and policy.temperature is None:
        return replace(context, policy=replace(policy, temperature=drawn_at))
    if _is_described(context):
        if drawn_at is not None and drawn_at != policy.temperature:
            state.say_once(
                f"run-temperature:{context.run_id}",
                f"run {context.run_id!r} was drawn with the temperature {drawn_at:g} lent, and now "
                f"{policy.temperature!r} is: its stored draws do not answer these calls",
            )
        runs.note_opening(
            cache.tiers,
            context.run_id,
            phase=context.name,
            policy=policy.name,
            temperature=policy.temperature,
            token=context.token,
            part=context.part[0],
            parts=context.part[1],
        )
    return context


def _describe_end(run: PhaseRun, error: BaseException | None) -> None:
    """Note that a run is complete, if nothing failed, and keep the statistics of use."""
    cache = installed()
    context = run.context
    if run.is_handed_over:
        return  # a forked child leaves the block of its parent, too
    if cache is not None and error is None and context.run_id is not None and _is_described(context):
        part, parts = context.part
        runs.note_end(cache.tiers, context.run_id, token=context.token, tally=run.own_stats, part=part, parts=parts)
    if state.usage is not None:
        state.usage.flush()


def _is_described(context: PhaseContext) -> bool:
    return context.policy.fresh and context.policy.stores and not context.cassette_token


def _run_temperature(cache: ManagedCache, run_id: str) -> float | None:
    """Return the temperature that a run's draws were lent; None where none was, or the run is not known."""
    data = cache.tiers.get(runs.run_key(run_id))
    if data is None:
        return None
    try:
        return records.decode_origin(data).temperature
    except StoreError as error:
        state.say_once(f"run:{run_id}", f"the description of run {run_id!r} cannot be read: {error}")
        return None


def _in_cassette(context: PhaseContext, cassette: OpenCassette) -> PhaseContext:
    context = replace(
        context,
        policy=cassette.policy(context.policy),
        roles=tuple((role, cassette.policy(policy)) for role, policy in context.roles),
    )
    if context.run_id is None and context.draws_afresh:
        context = replace(context, run_id=cassette.next_run(context.name))
    if context.run_id is None:
        return context
    if context.policy.replays and context.policy.temperature is None:
        drawn_at = cassette.temperatures.get(context.run_id)
        return replace(context, policy=replace(context.policy, temperature=drawn_at))
    cassette.temperatures.setdefault(context.run_id, context.policy.temperature)
    return context


def _named(given: Any) -> str:
    """Return what was given in place of a policy, with the one that was meant where that can be told."""
    near = [f"Policy.{name}" for name in meant(given, PRESETS)] if isinstance(given, str) else []
    return f"{given!r}" + (f": did you mean {' or '.join(near)}?" if near else "")


def _check_options(name: Any, roles: Any, overrides: Mapping[str, Any]) -> None:
    if not (isinstance(name, str) and name.strip()):
        raise ConfigurationError(f"a phase's name is a text that is not empty, not {name!r}")
    if not isinstance(roles or {}, Mapping):
        raise ConfigurationError(f'roles are policies by role, as in {{"judge": Policy.REUSE}}, not {roles!r}')
    for option in overrides:
        guess = question(option, _OWN_OPTIONS)
        if guess and option not in _OF_POLICIES:
            raise ConfigurationError(f"phase() has no option {option!r}: {guess}")


_OF_POLICIES = frozenset(field.name for field in fields(Policy))
_OF_RATES = ("requests_per_minute", "tokens_per_minute")
_BY_NAME = ("policy", "run_id", "roles", "everywhere", "guard", "bypass_proxy", "budget")
_OWN_OPTIONS = (*sorted(_OF_POLICIES), *_OF_RATES, *_BY_NAME)


def _checked_run_id(run_id: str | None) -> str | None:
    if run_id is not None and not (run_id.strip() and run_id.isprintable()):
        raise ConfigurationError(f"a run id is a printable text that is not empty, not {run_id!r}")
    return run_id
