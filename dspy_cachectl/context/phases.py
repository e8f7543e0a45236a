"""What a phase is while it lasts: what of it travels with the calls, and what stays behind to count them.

The phase travels in DSPy's own settings, because that is what `Evaluate`, `Parallel`, `asyncify` and the
optimizers carry into their threads. What travels is a frozen value; counters and ordinals stay behind in the
`PhaseRun`, found by its token.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dspy_cachectl.accounting.ledger import Ledger, Row, Stats, Tally
from dspy_cachectl.accounting.troubles import Mishap
from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.budgets.best import Best
from dspy_cachectl.budgets.opened import OpenBudget
from dspy_cachectl.context.elsewhere import OpenElsewhere
from dspy_cachectl.context.evaluations import Evaluation, EvaluationObserver
from dspy_cachectl.context.homes import Home, home_here
from dspy_cachectl.context.open_cassette import CASSETTE_RUN
from dspy_cachectl.context.shared import SharedPassage
from dspy_cachectl.drift.states import States
from dspy_cachectl.entries.draws import Ordinals
from dspy_cachectl.errors import BudgetExceededError, CacheMissError, DriftError, ReplayIncompleteError, StoreError
from dspy_cachectl.limits.rates import Rate
from dspy_cachectl.policy import Policy
from dspy_cachectl.showing.sheets import Cell, Part

_KEPT_MISSES = 5

_logger = logger_for("dspy_cachectl")


@dataclass
class Entered:
    """Where a block was entered and how it was left, for all that carries its phase in this process.

    Attributes:
        home: Where it was entered.
        outer: The phase around it, or None.
        left: Whether it was left.
        stays_behind: Whether its phase may be left behind in the context that it was entered in, or in others: what
            carries it when it was left need not have begun before.
    """

    home: Home
    outer: PhaseContext | None
    left: bool = False
    stays_behind: bool = False


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
        tool: The call of a tool in which they are numbered apart, by its key; None outside of tools.
        judging: Whether a metric makes the calls, or which: the temperature of a phase is lent to the program's own.
        bypass_proxy: Whether a LiteLLM proxy is asked not to answer from its own cache.
        automatic: Whether `AutoPhase` entered it.
        carried: Whether `carry()` took it along, maybe for longer than its block.
        cassette_token: Finds the cassette that it is within, in this process; empty outside one.
        part: Which part of its run it makes, from 0, and of how many.
        rates: What may be asked in it a minute, and in the phases around it.
        wet: What the cache would do, where nobody is asked in it and in the phases within; None where somebody is.
        process: The process that opened it, by its number there.
        entered: Where its block was entered and how it was left; None in a process that it was handed over to.
        budgets: What its calls draw on: its own budget, and those of the phases around it.
    """

    name: str
    policy: Policy
    token: str = ""
    roles: tuple[tuple[str, Policy], ...] = ()
    run_id: str | None = None
    unit: str | None = None
    tool: str | None = None
    judging: bool | str = False
    bypass_proxy: bool = False
    automatic: bool = False
    carried: bool = False
    cassette_token: str = ""
    part: tuple[int, int] = (0, 1)
    rates: tuple[Rate, ...] = ()
    wet: Policy | None = None
    process: int = field(default_factory=os.getpid)
    entered: Entered | None = field(default=None, compare=False, repr=False)
    budgets: tuple[OpenBudget, ...] = field(default=(), compare=False, repr=False)

    # No `vars()` of what threads share: Python 3.11 frees its values twice where a collection interrupts the first.
    def __getstate__(self) -> dict[str, Any]:
        return {**{one.name: getattr(self, one.name) for one in fields(self)}, "entered": None}

    def dried(self) -> PhaseContext:
        """Return the same, in which nothing is asked."""
        roles = tuple((role, policy.dry) for role, policy in self.roles)
        return replace(self, policy=self.policy.dry, roles=roles, wet=self.wet or self.policy)

    @property
    def is_evaluated_in(self) -> bool:
        """Whether an evaluation within it is one of its own: it draws afresh, or replays."""
        if self.wet is None:
            return self.strays_matter
        return self.wet.fresh or self.wet.replays

    def within(self, unit: str | None, *, judging: bool | str) -> PhaseContext:
        """Return the same within a unit."""
        return replace(self, unit=unit, judging=judging)

    @property
    def draws_of(self) -> str | None:
        """What its draws are numbered within: where a tool's result is served, what it asks itself leaves no gap."""
        return self.unit if self.tool is None else f"{self.unit}/{self.tool}"

    @property
    def numbers_draws(self) -> bool:
        """Whether calls in it can be draws, which are numbered within their unit."""
        return self.run_id is not None or bool(self.cassette_token)

    def policy_for(self, role: str | None) -> Policy:
        """Return the policy for a role."""
        return next((policy for name, policy in self.roles if name == role), self.policy) if self.roles else self.policy

    @property
    def is_cassette(self) -> bool:
        """Whether nobody opened it but a cassette."""
        return bool(self.cassette_token) and self.run_id == CASSETTE_RUN

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy that can rule a call in it."""
        return (self.policy, *(policy for _, policy in self.roles))

    @property
    def draws_afresh(self) -> bool:
        """Whether a call in it can be a draw of a run of its own."""
        return any(policy.fresh for policy in self.policies)

    @property
    def replays(self) -> bool:
        """Whether a call in it can be one that reaches no provider."""
        return any(policy.replays for policy in self.policies)

    @property
    def strays_matter(self) -> bool:
        """Whether calls from outside, while it is open, put its results in doubt."""
        return any(policy.fresh or policy.replays for policy in self.policies)


NO_PHASE = PhaseContext(name="", policy=Policy.REUSE, carried=True)
"""What travels where `carry()` was called in no phase: there is none, whatever is open where the function is called."""


class PhaseRun:
    """One passage through a phase: its counters, its run id, what was evaluated in it.

    Attributes:
        name: The phase's name.
        policy: What the cache does in it.
        run_id: The identity of its fresh draws; pass it to `phase(..., run_id=...)` to resume. None where the
            policy makes no draws of its own.
        closed: Whether its block has ended.
        outer: The phase around it, or None.
        evaluated_in: The passage whose policy and run it evaluates by, or in which the program is evaluated that opened
            it, and whose stats tell of its calls too; or None.
        home: Where its block was entered.
        guards: Whether calls that carry no phase are counted as strayed from it, and refused where it replays.
        is_told: Whether workers that it does not reach are told of it.
        on_call: Called with each `Call` of it that has ended, in the thread that made it, and with the context of the
            answer that it is for, where that is not its own; None for nobody.
        on_mishap: Called likewise with what goes wrong around a call without failing it.
        waves: What answers its calls in place of a provider, where they go by batches (`batches.waves`); or None.
        logged: The uids that it was first logged as, by where it was logged to.
        shared: What other processes share of it; None where none has a part in it.
        states: In which states the models that it asks have answered.
        drift: That one of them has changed, where its policy refuses to mix; None else.
        refused: Why calls in it are refused in this process, to which it was handed over; "" where they are not.
        budget: What its calls may spend; None where it has no budget of its own.
        best: The best program of an optimizer in it; None where it tells of no budget.
        refused_units: Of each unit what was raised last where a budget did not allow one of its calls; None where
            nobody asks for it.
        answers_for: The budgets whose refusals are told at its end, each with how many there were before.
    """

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.name = context.name
        self.policy = context.policy
        self.run_id = context.run_id
        self.closed = False
        self.outer: PhaseContext | None = None
        self.evaluated_in: PhaseRun | None = None
        self.home = home_here()
        self.guards = self.is_told = False
        self.ordinals = Ordinals()
        self.ledger, self.of_evaluations = Ledger(), Ledger()
        self.observer = EvaluationObserver() if context.strays_matter else None
        self.on_call: Callable[..., None] | None = None
        self.on_mishap: Callable[[Mishap], None] | None = None
        self.waves: Any = None
        self.logged: dict[tuple[str | None, ...], str] = {}
        self.shared: SharedPassage | None = None
        self.budget: OpenBudget | None = None
        self.best: Best | None = None
        self.refused_units: dict[str | None, BudgetExceededError] | None = None
        self.answers_for: Sequence[tuple[OpenBudget, int]] = ()
        self.refused = self._why_unshared = ""
        self._within: dict[tuple[str, bool | str], tuple[PhaseContext, PhaseContext]] = {}
        self._lock = free_after_fork(threading.Lock())
        self._misses: list[CacheMissError] = []
        self._missed = self._refused_elsewhere = 0
        self.states = States()
        self.drift: DriftError | None = None

    def once_within(self, unit: str, context: PhaseContext, judging: bool | str) -> PhaseContext:
        """Return what travels, within a unit that many calls are in: made once, as it takes as long as a look-up."""
        known = self._within.get((unit, judging))
        if known is None or known[0] is not context:
            known = self._within[unit, judging] = context, context.within(unit, judging=judging)
        return known[1]

    @property
    def stats(self) -> Stats:
        """What happened so far to its calls, and to those that `evaluate()` made within it: a snapshot.

        It tells of those that other processes made in it; where it was handed over, of those that were made there.
        """
        return Stats.of([*self.own_stats.by.items(), *self.of_evaluations.snapshot().by.items()])

    @property
    def own_stats(self) -> Stats:
        """The same without those that `evaluate()` made within it."""
        elsewhere = {} if self.shared is None or self.is_handed_over else self.shared.tallies()
        return Stats.of([*self.ledger.snapshot().by.items(), *elsewhere.items()])

    @property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations that ran in it; noted in fresh and replay phases only."""
        return self.observer.evaluations() if self.observer is not None else []

    def is_within(self, run: PhaseRun, context: PhaseContext) -> None:
        """Tell of its calls as of those of an answer, where what is evaluated in another opens it.

        Args:
            run: The other one.
            context: Where it is opened: in which answer.
        """
        tell = run.on_call
        if tell is not None:
            self.evaluated_in, self.on_call = run, lambda call, _within=None: tell(call, context)

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

    def incomplete(self) -> ReplayIncompleteError | BudgetExceededError | DriftError | None:
        """Return the error that says what missed, or why calls were refused; None where all calls were made."""
        with self._lock:
            missed = max(self._missed, self.stats.missed if self.shared else 0) + self._refused_elsewhere
            if self.context.wet is not None:
                return None  # it is only estimated
            if missed:
                return ReplayIncompleteError(self.name, missed, self._misses)
        told = (budget.exceeded(before) for budget, before in self.answers_for)
        exceeded = next((error for error in told if error is not None), None)
        if exceeded is not None and self.best is not None:
            self.best.give(exceeded)
        return exceeded or self.drift

    def tells_of(self, own: OpenBudget | None, every: Sequence[OpenBudget]) -> None:
        """Tell at the end what budgets did not allow.

        Args:
            own: Its own; None where it has none.
            every: Those of the whole process, where a program that swallows errors has no other end to see it at.
        """
        self.budget, self.best = own, Best()
        budgets = every if own is None else (*every, own)
        self.answers_for = [(one, one.all_refused()) for one in budgets]

    def share(self) -> None:
        """Let other processes have a part in it: its ordinals are counted for all, and their calls are counted here."""
        with self._lock:
            if self.shared is None and not self._why_unshared:
                try:
                    self.shared = SharedPassage.made()
                    self.ordinals.shared, self.ordinals.forget_shared = self.shared.next, self.shared.forget
                except StoreError as error:
                    self._why_unshared = f"it could not be handed over: {error}"

    def hand_over(self) -> None:
        """Be what it is in another process than the one that opened it."""
        self.ledger.clear()
        self.of_evaluations.clear()
        self.on_call = self.on_mishap = None
        if self.shared is None:
            self.refused = self._why_unshared or "it came here without its run: hand it over with cachectl.carry()"
        else:
            self.ordinals.shared, self.ordinals.forget_shared = self.shared.next, self.shared.forget
            self.ledger.also = self.of_evaluations.also = self._send_home

    def end(self, refused: int) -> None:
        """Note that its block was left.

        Args:
            refused: How many calls were refused in other processes for the replay that it is.
        """
        self.closed = True
        if self.is_handed_over:
            return
        self._refused_elsewhere = refused
        if self.shared is not None:
            try:
                self.shared.end()
            except StoreError as error:
                _logger.warning("what comes late in other processes is not told from the rest: %s", error)

    def to_tell(self, around: Sequence[str], *, replays: bool) -> OpenElsewhere:
        """Return what workers are told of it.

        Args:
            around: The tokens of the passages around it.
            replays: Whether a call in it, or of its cassette, can be one that reaches no provider.
        """
        return OpenElsewhere(self.context.process, self.context.token, self.name, replays, self.guards, around)

    def has_ended(self) -> bool:
        """Tell whether its block was left, in whichever process it was opened."""
        if self.closed or self.shared is None or not self.is_handed_over:
            return self.closed
        try:
            self.closed = self.shared.has_ended(self.context.process)
        except StoreError:
            return False  # what is asked in it is refused, with the reason
        return self.closed

    @property
    def is_handed_over(self) -> bool:
        """Whether another process opened it."""
        return bool(self.refused) or self.ledger.also is not None

    def _send_home(self, row: Row, tally: Tally) -> None:
        assert self.shared is not None  # noqa: S101 - for the type checker
        try:
            self.shared.add(row, tally)
        except StoreError as error:  # it was paid for, and reaches its caller
            _logger.warning("a call in %r is not counted where the phase was opened: %s", self.name, error)

    def _repr_html_(self) -> str:
        from dspy_cachectl.showing.render import as_html  # it takes a moment to load

        run = f", run {self.run_id}" if self.run_id else ""
        scores = [(one.metric, f"{one.n:,}", f"{one.score:g}%") for one in self.evaluations if one.score is not None]
        evaluations = Part(
            "dspy.Evaluate", tuple(tuple(map(Cell, row)) for row in scores), header=("metric", "questions", "score")
        )
        state = "closed" if self.closed else "open"
        return as_html(self.stats.sheet(f"Phase {self.name}{run}, {state}", evaluations))

    def __repr__(self) -> str:
        run = f", run_id={self.run_id!r}" if self.run_id else ""
        return f"<PhaseRun {self.name!r}{run}, {'closed' if self.closed else 'open'}: {self.stats!r}>"


def new_run_id(name: str) -> str:
    """Return a run id that nobody has used: the phase's name, the time, and chance."""
    now = dt.datetime.now(dt.timezone.utc)
    return f"{name}-{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
