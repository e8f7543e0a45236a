"""Phases: named regions of a program with a policy.

The phase travels in DSPy's own settings, because that is what `Evaluate`, `Parallel`, `asyncify` and the
optimizers carry into their threads. What travels is a frozen value; counters and ordinals stay behind in the
`PhaseRun`, found by its token.
"""

from __future__ import annotations

import datetime as dt
import functools
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import dspy

from dspy_cachectl._process import SETTING, state
from dspy_cachectl.config import settings
from dspy_cachectl.decoration import within
from dspy_cachectl.draws import Ordinals
from dspy_cachectl.errors import CacheMissError, ConfigurationError, ReplayIncompleteError
from dspy_cachectl.evaluations import Evaluation, EvaluationObserver
from dspy_cachectl.ledger import Ledger, Stats
from dspy_cachectl.policy import Policy
from dspy_cachectl.seam import settings_overridden
from dspy_cachectl.tape import RUN, Tape
from dspy_cachectl.units import MARKER

P = ParamSpec("P")
T = TypeVar("T")

_KEPT_MISSES = 5


@dataclass(frozen=True)
class PhaseContext:
    """What of a phase travels with the calls: frozen and picklable.

    Attributes:
        name: The phase's name.
        policy: What the cache does.
        token: Finds the `PhaseRun` in this process.
        roles: The policies of the roles that are treated differently.
        run_id: The run whose draws are made or served, or None.
        unit: What the draws are numbered within: an example and its repeat, or else the outermost call of a module.
        bypass_proxy: Whether a LiteLLM proxy is asked not to answer from its own cache.
        automatic: Whether `AutoPhase` entered it.
        cassette: Finds the tape of the cassette that it is within, in this process; empty outside one.
    """

    name: str
    policy: Policy
    token: str = ""
    roles: tuple[tuple[str, Policy], ...] = ()
    run_id: str | None = None
    unit: str | None = None
    bypass_proxy: bool = False
    automatic: bool = False
    cassette: str = ""

    def policy_for(self, role: str | None) -> Policy:
        """Return the policy for a role."""
        return next((policy for name, policy in self.roles if name == role), self.policy)

    @property
    def is_cassette(self) -> bool:
        """Whether nobody opened it but a cassette."""
        return bool(self.cassette) and self.run_id == RUN

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy that can rule a call in it."""
        return (self.policy, *(policy for _, policy in self.roles))

    @property
    def guarded(self) -> bool:
        """Whether calls from outside, while it is open, put its results in doubt."""
        return any(policy.fresh or policy.replays for policy in self.policies)


class PhaseRun:
    """One passage through a phase: its counters, its run id, what was evaluated in it.

    Attributes:
        name: The phase's name.
        policy: What the cache does in it.
        run_id: The identity of its fresh draws; pass it to `phase(..., run_id=...)` to resume. None where the
            policy makes no draws of its own.
        closed: Whether its block has ended.
        on_call: Called with each `Call` of it that has ended, in the thread that made it; None for nobody.
    """

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.name = context.name
        self.policy = context.policy
        self.run_id = context.run_id
        self.closed = False
        self.ordinals = Ordinals()
        self.ledger = Ledger()
        self.observer = EvaluationObserver() if context.guarded else None
        self.on_call: Callable[[Any], None] | None = None
        self._lock = threading.Lock()
        self._misses: list[CacheMissError] = []
        self._missed = 0

    @property
    def stats(self) -> Stats:
        """What happened to its calls so far: a snapshot."""
        return self.ledger.snapshot()

    @property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations that ran in it; noted in fresh and replay phases only."""
        return self.observer.evaluations() if self.observer is not None else []

    def missed(self, miss: CacheMissError) -> None:
        """Keep a miss, to raise it again at the end."""
        with self._lock:
            self._missed += 1
            if len(self._misses) < _KEPT_MISSES:
                self._misses.append(miss)

    @property
    def explains_next_miss(self) -> bool:
        """Whether the next miss is still among those that are kept; looking for the nearest entry takes time."""
        return self._missed < _KEPT_MISSES

    def incomplete(self) -> ReplayIncompleteError | None:
        """Return the error that says what missed, or None where nothing did."""
        with self._lock:
            return ReplayIncompleteError(self.name, self._missed, self._misses) if self._missed else None

    def __repr__(self) -> str:
        run = f", run_id={self.run_id!r}" if self.run_id else ""
        return f"<PhaseRun {self.name!r}{run}, {'closed' if self.closed else 'open'}: {self.stats!r}>"


class phase:  # noqa: N801 - used as a word: with phase("eval")
    """A named region of a program in which a policy rules the cache.

    Works as a context manager, sync and async, and as a decorator of functions and coroutine functions. The
    inner of two nested phases rules. A `dspy.configure()` inside it takes effect at once, but for `callbacks`: a
    fresh or replay phase adds its own to those that it finds.

    Args:
        name: The phase's name. `"compile"` and `"eval"` are known; others need a policy, here or configured.
        policy: What the cache does. None: what is configured for the name.
        run_id: Draw under this identity: stored draws of the run are served, and only the missing ones are
            bought. None: a new one, where the policy draws afresh.
        roles: The policies of the roles that are treated differently.
        everywhere: Make this the process's default while it lasts, so that it also holds in threads that do
            not carry DSPy's settings.
        bypass_proxy: Ask a LiteLLM proxy not to answer from its own cache. It is sent with each call as
            `extra_body={"cache": {"no-cache": True}}`, for which DSPy's `auto` engine chooses LiteLLM.
        **overrides: Fields of `Policy` that differ: `temperature`, `max_age`, `scope`, ...

    Raises:
        ConfigurationError: If the name is not known and has no policy, or an option cannot be used.
    """

    def __init__(
        self,
        name: str,
        policy: Policy | None = None,
        *,
        run_id: str | None = None,
        roles: Mapping[str, Policy] | None = None,
        everywhere: bool = False,
        bypass_proxy: bool = False,
        **overrides: Any,
    ) -> None:
        if not name:
            raise ConfigurationError("a phase's name must not be empty")
        configured, known_roles = (policy, {}) if policy is not None else settings().phase_policy(name)
        if not isinstance(configured, Policy):
            raise ConfigurationError(f"a phase's policy is a Policy such as Policy.REUSE, not {policy!r}")
        for role, of_role in (roles or {}).items():
            if not isinstance(of_role, Policy):
                raise ConfigurationError(f"the policy of role {role!r} is a Policy, not {of_role!r}")
        self._context = PhaseContext(
            name=name,
            policy=configured.with_overrides(**overrides),
            roles=tuple(sorted({**known_roles, **(roles or {})}.items(), key=lambda item: item[0])),
            run_id=_checked_run_id(run_id),
            bypass_proxy=bypass_proxy,
        )
        self._everywhere = everywhere
        self._opened: _Open | None = None
        if run_id is not None and not any(one.fresh or one.replays for one in self._context.policies):
            raise ConfigurationError(
                f"phase {name!r} makes no draws of its own, so run_id={run_id!r} would have no effect; "
                "use a fresh policy (Policy.FRESH) or replay one (Policy.REPLAY)"
            )

    def __enter__(self) -> PhaseRun:
        if self._opened is not None:
            raise ConfigurationError(f"this phase({self._context.name!r}) is open already; make a new one to nest")
        self._opened = _Open(self._context, everywhere=self._everywhere)
        return self._opened.run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close(error)

    async def __aenter__(self) -> PhaseRun:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function, running in this phase each time it is called."""
        return within(self._again, function, name="phase")

    @property
    def context(self) -> PhaseContext:
        """What it will make travel with the calls, but for what is known at its opening."""
        return self._context

    @property
    def run(self) -> PhaseRun | None:
        """The passage that is open, or None."""
        return None if self._opened is None else self._opened.run

    def automatic(self) -> None:
        """Mark it as opened by no one's hand, before it is entered."""
        self._context = replace(self._context, automatic=True)

    def within(self, cassette: str) -> None:
        """Make it the phase that a cassette opens, before it is entered. Its tape is found under this token."""
        self._context = replace(self._context, cassette=cassette, run_id=RUN)

    def _again(self) -> phase:
        # Each call of a decorated function is a passage of its own; they may overlap.
        again = object.__new__(type(self))
        again._context, again._everywhere, again._opened = self._context, self._everywhere, None
        return again


_PREPARATIONS: list[Callable[[PhaseContext], PhaseContext]] = []


def prepare_phases_with(prepare: Callable[[PhaseContext], PhaseContext]) -> None:
    """Register what happens to a phase before it opens: the cache makes sure that it is in place."""
    _PREPARATIONS.append(prepare)


_FINISHES: list[Callable[[PhaseRun, BaseException | None], None]] = []


def finish_phases_with(finish: Callable[[PhaseRun, BaseException | None], None]) -> None:
    """Register what happens after a phase, given its passage and the error that ended it or None. It must not raise."""
    _FINISHES.append(finish)


_ARRANGEMENTS: list[Callable[[list[Any]], list[Any]]] = []


def arrange_callbacks_with(arrange: Callable[[list[Any]], list[Any]]) -> None:
    """Register who stands among DSPy's callbacks in every phase: what shows its calls in the traces of MLflow."""
    _ARRANGEMENTS.append(arrange)


class _Open:
    """A phase that is entered. Strictly private."""

    def __init__(self, context: PhaseContext, *, everywhere: bool) -> None:
        outer = ruling()
        cassette = context.cassette or (outer.cassette if outer is not None else "")
        context = replace(context, token=uuid.uuid4().hex, cassette=cassette)
        tape = state.tapes.get(cassette)
        if tape is not None:
            context = _on_tape(context, tape)
        elif context.run_id is None and any(policy.fresh for policy in context.policies):
            context = replace(context, run_id=new_run_id(context.name))
        for prepare in _PREPARATIONS:
            context = prepare(context)
        self.run = PhaseRun(context)
        self._everywhere = everywhere
        override: dict[str, Any] = {SETTING: context}
        before: list[Any] = dspy.settings.get("callbacks") or []
        callbacks = functools.reduce(lambda found, arrange: arrange(found), _ARRANGEMENTS, before)
        if self.run.observer is not None:
            callbacks = [*callbacks, MARKER, self.run.observer]
        if callbacks is not before:
            override["callbacks"] = callbacks
        self._entered: AbstractContextManager[None] = settings_overridden(**override)
        self._entered.__enter__()
        with state.lock:
            state.runs[context.token] = self.run
            if context.guarded:
                state.open_runs.append(self.run)
            if everywhere:
                state.everywhere.append(context)

    def close(self, error: BaseException | None) -> None:
        run = self.run
        with state.lock:
            run.closed = True
            if run in state.open_runs:
                state.open_runs.remove(run)
            if self._everywhere and run.context in state.everywhere:
                state.everywhere.remove(run.context)
            if not run.context.is_cassette:
                state.last_run = run
        self._entered.__exit__(None, None, None)
        incomplete = run.incomplete()
        for finish in _FINISHES:
            finish(run, error or incomplete)
        # What interrupts the program goes through, and so does a miss that nobody swallowed.
        if incomplete is not None and (
            error is None or (isinstance(error, Exception) and not isinstance(error, CacheMissError))
        ):
            raise incomplete from error


def ruling() -> PhaseContext | None:
    """Return the phase that was opened around this place, or for the whole process, or None."""
    context: PhaseContext | None = dspy.settings.get(SETTING)
    if context is None and state.everywhere:
        with state.lock:
            context = state.everywhere[-1] if state.everywhere else None
    return context


def _on_tape(context: PhaseContext, tape: Tape) -> PhaseContext:
    if not context.is_cassette:
        tape.policies[context.name] = context.policy.name
    context = replace(
        context,
        policy=tape.policy(context.policy),
        roles=tuple((role, tape.policy(policy)) for role, policy in context.roles),
    )
    if context.run_id is None and any(policy.fresh for policy in context.policies):
        context = replace(context, run_id=tape.next_run(context.name))
    if context.run_id is None:
        return context
    if context.policy.replays and context.policy.temperature is None:
        drawn_at = tape.temperatures.get(context.run_id)
        return replace(context, policy=replace(context.policy, temperature=drawn_at))
    tape.temperatures.setdefault(context.run_id, context.policy.temperature)
    return context


def new_run_id(name: str) -> str:
    """Return a run id that nobody has used: the phase's name, the time, and chance."""
    now = dt.datetime.now(dt.timezone.utc)
    return f"{name}-{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"


def _checked_run_id(run_id: str | None) -> str | None:
    if run_id is not None and not (run_id.strip() and run_id.isprintable()):
        raise ConfigurationError(f"a run id is a printable text that is not empty, not {run_id!r}")
    return run_id
