"""One call on its way: what the policy decided for it, what became of it, and how it is counted.

The LM opens a call (see `opening`) and the cache, which DSPy asks in between, finds it in a context variable. A call
of a plain `dspy.LM` or an embedder is opened by the cache itself.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dspy.utils.callback_context import ACTIVE_CALL_ID

from dspy_cachectl.accounting.ledger import Row, Tally
from dspy_cachectl.context import scopes
from dspy_cachectl.context.open_cassette import OpenCassette
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import Ruling
from dspy_cachectl.entries.answers import AnswerFacts
from dspy_cachectl.entries.records import Origin
from dspy_cachectl.errors import CacheMissError
from dspy_cachectl.policy import Decision, Kind, Policy

_SERVED = frozenset({"resumed", "reused", "coalesced", "collapsed", "replayed"})

_CURRENT: contextvars.ContextVar[Call | None] = contextvars.ContextVar("dspy_cachectl_call", default=None)

WATCHED: dict[str, Call | None] = {}
"""What is known of the LM calls that somebody wants to know of, by DSPy's id of the call."""


@dataclass(eq=False)
class Call:
    """One call on its way.

    Attributes:
        kind: What it asks for.
        model: The model's name.
        role: The LM's role, or None.
        endpoint: The endpoint's identity, or None.
        ruling: The phase that rules it.
        policy: What the cache does for it.
        decision: What that comes to.
        request: What is asked, cleaned; None where it has no canonical form.
        fingerprint: The hash of what is asked of whom, or None.
        key: The key of its entry, or None.
        asked: The key of what is asked, whichever draw of it this is; or None.
        version: The user's name for a version of the model, or None.
        rollout_id: The rollout id in the key, or None.
        own: The rollout id that the program chose, which that of a draw encloses; or None.
        ordinal: Which asking of this request it is within its run; None outside runs.
        temperature: The temperature that is sent, or None.
        cached: Whether DSPy will ask the cache.
        local: Whether a function of the program answers it, and no provider.
        parent: The call within which this one is made, or None.
        awaited: Whether the cache's next question is this call's.
        handed: The bytes of an entry that were found, or handed over by a leader.
        coalesced: Whether `handed` comes from a leader that bought it.
        entry: The bytes of the entry that answered it.
        keep_stored: Whether the stored entry must not be overwritten.
        outcome: How it was answered: a counter of `Tally`, or None while it is not.
        tally: What is counted for it.
        asked_at: When the provider was asked, on the monotonic clock; None before.
        foreign: The keys of other calls that were made within this one and are not answered yet.
        drawn: Where its answer comes from; None while it has none, or where nothing is known of it.
    """

    kind: Kind
    model: str
    role: str | None
    endpoint: str | None
    ruling: Ruling
    policy: Policy
    decision: Decision
    request: dict[str, Any] | None
    fingerprint: str | None
    key: str | None
    asked: str | None = None
    version: str | None = None
    rollout_id: Any = None
    own: Any = None
    ordinal: int | None = None
    temperature: float | None = None
    cached: bool = True
    local: bool = False
    parent: Call | None = None
    awaited: bool = False
    handed: bytes | None = None
    coalesced: bool = False
    entry: bytes | None = None
    keep_stored: bool = False
    outcome: str | None = None
    tally: Tally = field(default_factory=lambda: Tally(calls=1))
    asked_at: float | None = None
    foreign: set[str] = field(default_factory=set)
    drawn: Origin | None = None

    @property
    def cassette(self) -> OpenCassette | None:
        """The cassette that it is within, or None."""
        return self.ruling.cassette

    @property
    def run(self) -> PhaseRun | None:
        """The phase run it belongs to, or None."""
        return self.ruling.run

    @property
    def coalesces(self) -> bool:
        """Whether it may share the answer of an identical call in flight."""
        if not (self.decision.coalesces and self.cached and self.key is not None):
            return False
        ancestor = self.parent
        while ancestor is not None:
            if ancestor.key == self.key:
                return False
            ancestor = ancestor.parent
        return True

    @property
    def draw_id(self) -> str:
        """What identifies the answer: the provider's ids of it, or the key where the provider gave none.

        Two calls with one draw id have one answer, whether the store, a proxy or the provider repeated it.
        """
        if self.drawn is not None and self.drawn.response_ids and self.fingerprint is not None:
            return f"{self.fingerprint[:16]}:{':'.join(self.drawn.response_ids)}"
        return self.key or f"uncached:{uuid.uuid4().hex}"

    @property
    def run_id(self) -> str | None:
        """The run that it is a draw of, or None."""
        return self.ruling.context.run_id if self.decision.from_run else None

    def description(self) -> dict[str, Any]:
        """Return what is asked, for people: what an entry keeps beside the answer."""
        return {
            "request": self.request or {"model": self.model},
            "endpoint": self.endpoint,
            "version": self.version,
            "rollout_id": self.rollout_id,
            "scope": dict(self.policy.scope) or None,
            **({} if self.own is None or self.run_id is None else {"own_rollout_id": self.own}),
        }

    def served(self, origin: Origin) -> None:
        """Note that a stored answer was served."""
        if self.coalesced:
            self.outcome = "coalesced"
        elif self.decision.raises:
            self.outcome = "replayed"
        elif self.decision.from_run:
            self.outcome = "collapsed" if self._handed_out_before() else "resumed"
        else:
            self.outcome = "reused"
        self.tally.prompt_tokens_saved += origin.prompt_tokens or 0
        self.tally.completion_tokens_saved += origin.completion_tokens or 0
        self.tally.cost_saved += origin.cost or 0.0
        self.tally.seconds_saved += origin.seconds
        self.drawn = origin
        self._check_distinct(origin.response_ids)

    def bought(self, facts: AnswerFacts, seconds: float) -> None:
        """Note that the provider answered."""
        if self.decision.reads and self.cached and self.key is not None:
            self.outcome = "fresh"
        else:
            self.outcome = "refreshed" if self.decision.stores and self.cached and self.key else "uncacheable"
        self._handed_out_before()
        self.tally.requests += 0 if self.local else facts.requests
        self.tally.prompt_tokens_spent += facts.prompt_tokens or 0
        self.tally.completion_tokens_spent += facts.completion_tokens or 0
        self.tally.cost_spent += facts.cost or 0.0
        self.tally.unpriced += facts.cost is None and self.kind is not Kind.EMBEDDING
        self.tally.seconds_spent += seconds
        self.tally.truncated += facts.truncated
        self.tally.unstored += not facts.storable
        self._check_distinct(facts.response_ids)

    def origin(self, facts: AnswerFacts, seconds: float) -> Origin:
        """Return where its answer comes from."""
        return Origin(
            kind=self.kind.value,
            model=self.model,
            endpoint=self.endpoint,
            phase=self.ruling.context.name,
            role=self.role,
            run_id=self.run_id,
            rollout_id=self.rollout_id,
            ordinal=self.ordinal,
            temperature=self.temperature,
            lent=self.decision.lent_temperature is not None,
            created=time.time(),
            seconds=seconds,
            requests=facts.requests,
            prompt_tokens=facts.prompt_tokens,
            completion_tokens=facts.completion_tokens,
            cost=facts.cost,
            response_ids=facts.response_ids,
            truncated=facts.truncated,
        )

    def seconds(self) -> float:
        """Return how long the provider has taken so far."""
        return 0.0 if self.asked_at is None else time.monotonic() - self.asked_at

    def miss(self, reason: str, **nearest: Any) -> CacheMissError:
        """Note that a replay has no answer, and return the error to raise."""
        self.outcome = "missed"
        cassette = self.cassette
        error = CacheMissError(
            reason,
            key=self.key,
            model=self.model,
            phase=self.ruling.context.name or "(replay)",
            cassette=None if cassette is None else cassette.name,
            **nearest,
        )
        if self.run is not None:
            self.run.missed(error)
        if cassette is not None:
            cassette.missed(error)
        return error

    def record(self) -> None:
        """Count it: in its phase, in the phases it strayed from, and in the process."""
        if self.outcome is not None:
            setattr(self.tally, self.outcome, getattr(self.tally, self.outcome) + 1)
        ruling = self.ruling
        self.tally.late += ruling.late
        self.tally.stray += bool(ruling.stray_of)
        row = Row(ruling.context.name, self.role, self.model)
        state.ledger.record(row, self.tally)
        scopes.record(row, self.tally)
        if WATCHED and self.kind is Kind.PLAIN_LM and (call_id := ACTIVE_CALL_ID.get()) in WATCHED:
            WATCHED[call_id] = self
        if ruling.cassette is not None:
            ruling.cassette.ledger.record(row, self.tally)
        elif state.usage is not None:
            used = (self.kind.value, self.model, ruling.context.name, self.role or "", self.run_id or "")
            state.usage.record(used, self.tally, self.key if self.outcome in _SERVED else None)
        if ruling.run is not None:
            ruling.run.ledger.record(row, self.tally)
            if ruling.run.on_call is not None:
                ruling.run.on_call(self)
        for run in ruling.stray_of:
            if run is not ruling.run:
                run.ledger.record(row, Tally(stray=1))
        if ruling.stray_of:
            names = ", ".join(repr(run.name) for run in ruling.stray_of)
            state.say_once(
                f"stray:{names}",
                f"a call to {self.model!r} came from a thread that carries no phase while {names} is open elsewhere. "
                "A bare thread pool does not carry DSPy's settings: open the phase with everywhere=True, or hand the "
                "pool cachectl.carry(function). Such calls are counted as stray",
            )

    def _handed_out_before(self) -> bool:
        """Note that a plain LM's draw is handed out. Tell whether it was before, in this passage of the run."""
        if self.kind is not Kind.PLAIN_LM or self.run is None or self.key is None or not self.decision.from_run:
            return False
        return self.run.ordinals.next(unit="handed out", own=None, request=self.key) > 0

    def _check_distinct(self, response_ids: tuple[str, ...]) -> None:
        if self.fingerprint is None or self.key is None or self.coalesced:
            return
        for response_id in response_ids:
            if state.given_before(self.fingerprint, response_id, self.key):
                self.tally.not_distinct += 1
                state.say_once(
                    f"not-distinct:{self.endpoint}:{self.model}",
                    f"{self.model!r} answered two draws with one response id ({response_id!r}): something on the way "
                    "to the model caches by itself, so these draws are not distinct; they are counted as not_distinct. "
                    "A LiteLLM proxy can be asked not to, with phase(..., bypass_proxy=True)",
                )
                return


@contextlib.contextmanager
def asking(call: Call) -> Iterator[None]:
    """Make a call the one whose question the cache expects next."""
    call.awaited = call.cached
    token = _CURRENT.set(call)
    try:
        yield
    finally:
        call.awaited = False
        _CURRENT.reset(token)


@contextlib.contextmanager
def counted(call: Call) -> Iterator[None]:
    """Count a call when it has ended, however it ended."""
    try:
        yield
    except CacheMissError:
        call.outcome = "missed"
        raise
    except BaseException:
        if call.outcome is None:
            call.outcome = "failed"
        raise
    finally:
        call.record()


def current_call() -> Call | None:
    """Return the call within which this code runs, or None."""
    return _CURRENT.get()
