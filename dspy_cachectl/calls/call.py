"""One call on its way: what was asked, what was answered, and what is counted for it.

Whoever opens a call knows all of `Asked`; the cache sets `Answered` once; `account` counts both. The LM's call is
found in a context variable by those who run within it.
"""

from __future__ import annotations

import contextvars
import functools
import time
import uuid
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.boundary.secrets import readable_values
from dspy_cachectl.calls.alike import Alike
from dspy_cachectl.context.ruling import Ruling
from dspy_cachectl.entries import token_counts
from dspy_cachectl.entries.answers import AnswerFacts
from dspy_cachectl.entries.cleaning import cleaned
from dspy_cachectl.entries.decoded import Decoded
from dspy_cachectl.entries.draw_tokens import token_of
from dspy_cachectl.entries.draws import Key, canonical, clean_request
from dspy_cachectl.entries.origins import Origin, made_at_once
from dspy_cachectl.errors import CacheMissError, ToolMissError
from dspy_cachectl.policy import Decision, Kind, Policy

CALL = "_cachectl_call"
"""The field under which a question of DSPy's to its cache carries the call that asks it."""

_CURRENT: contextvars.ContextVar[Call | None] = contextvars.ContextVar("dspy_cachectl_call", default=None)


NO_KEY = Key()


@dataclass(eq=False)
class Asked:
    """What is asked of whom, and what the phase decided for it: all that is known before there is an answer.

    Attributes:
        kind: What it asks for.
        model: The model's name.
        ruling: The phase that rules it.
        policy: What the cache does for it.
        decision: What that comes to.
        role: The LM's role, or None.
        endpoint: The endpoint's identity, or None.
        version: The user's name for a version of the model, or None.
        temperature: The temperature that is sent, or None.
        program_rollout_id: The rollout id that the program chose, which that of a draw encloses; or None.
        making: Makes what DSPy is asked; None where that has no canonical form, or is known already.
        key: Which answer it stands for.
        alike: What it has in common with calls that were made before; None where it has nothing.
        cached: Whether DSPy will ask the cache.
        local: Whether a function of the program answers it, and no provider.
    """

    kind: Kind
    model: str
    ruling: Ruling
    policy: Policy
    decision: Decision
    role: str | None = None
    endpoint: str | None = None
    version: str | None = None
    temperature: float | None = None
    program_rollout_id: Any = None
    making: Callable[[], Mapping[str, Any]] | None = field(default=None, repr=False)
    key: Key = NO_KEY
    alike: Alike | None = None
    cached: bool = True
    local: bool = False

    @functools.cached_property
    def sent(self) -> Mapping[str, Any] | None:
        """What DSPy is asked, with its options as they are; None where that is not known."""
        return None if self.making is None else self.making()

    @functools.cached_property
    def request(self) -> dict[str, Any] | None:
        """What is asked, cleaned; None where it has no canonical form. A hit needs it seldom."""
        return None if self.sent is None else clean_request(self.sent, by_litellm=self.kind is Kind.EMBEDDING)

    @property
    def run_id(self) -> str | None:
        """The run that it is a draw of, or None."""
        return self.ruling.context.run_id if self.decision.from_run else None

    def description(self) -> bytes:
        """Return what is asked as JSON, for people: what an entry keeps beside the answer.

        There is no secret in it. Where one was, it says that it was cleaned: its key cannot be made of it any more.

        Raises:
            UncacheableError: If what is asked has no canonical form.
        """
        is_draw = self.program_rollout_id is not None and self.run_id is not None
        scope = readable_values(dict(self.policy.scope))
        said = {
            "request": self.request or {"model": self.model},
            "endpoint": self.endpoint,
            "version": self.version,
            "rollout_id": self.key.rollout_id,
            "scope": scope or None,
            "own_rollout_id": self.program_rollout_id if is_draw else None,
            "cleaned": scope != dict(self.policy.scope) or None,
        }
        text = canonical({name: value for name, value in said.items() if value is not None})
        clean = cleaned(text)
        return text if clean is None else canonical({**clean, "cleaned": True})


@dataclass
class Answered:
    """What became of a call.

    Attributes:
        outcome: How it was answered: a counter of `Tally`; None while it is not.
        origin: Where the answer comes from; None where there is none.
        entry: The bytes of the entry that holds it; None where it is in no store.
        paid: Where the answer comes from that was paid for, where another's was handed over in its place.
        instead: What is handed over in the place of what was bought; None where nothing is.
        facts: What the answer said of itself that was bought; None where another is handed over.
    """

    outcome: str | None = None
    origin: Origin | None = None
    entry: bytes | None = None
    paid: Origin | None = None
    instead: Any = None
    facts: AnswerFacts | None = None


_UNANSWERED = Answered()

_NEW = {"fresh", "repeated", "bought_twice", "coalesced"}
"""The outcomes of a leader that did not find its answer at once."""


class Call:
    """One call on its way.

    Args:
        asked: What is asked, of whom, and what was decided.
        parent: The call within which this one is made, or None.
        tally: What is counted for it so far; None for one call.

    Attributes:
        asked: What is asked, of whom, and what was decided.
        parent: The call within which this one is made, or None.
        answered: What became of it.
        tally: What is counted for it.
        awaited_from: The LM whose next question of the cache is this call's; None once it was asked.
        messages: What its key was made of; None where that was no list of messages.
        at_hand: The entry that answers it, which was found before it was shared; None where none was.
        found_bytes: The entry that was found in a cassette, or handed over by a leader; None before.
        from_leader: Whether that comes from a leader that bought it.
        turned_down: The stored bytes that were no answer to it: too old, damaged, another model's; or None.
        sent_at: When the provider was asked, on the monotonic clock; None before.
        is_newer_stored: Whether a newer version of this package wrote the stored entry, which stays as it is.
        was_looked: Whether all stores were just asked for what answers it, and gave nothing.
        waited: Whether it was waited for another process that asks the same.
        within: The keys of the calls that were made within it: it may pass on the answer of one.
        takes_records: Whether it is given what DSPy stored, and makes an answer of that itself.
        is_of_parts: Whether it is answered by entries of its parts, which it is noted beside each of.
    """

    # On the class, since most stays so of a hit; nobody changes these, but puts others in their place.
    answered: Answered = _UNANSWERED
    awaited_from: Any = None
    messages: Any = None
    at_hand: Decoded | None = None
    found_bytes: bytes | None = None
    from_leader: bool = False
    turned_down: bytes | None = None
    sent_at: float | None = None
    is_newer_stored: bool = False
    was_looked: bool = False
    waited: bool = False
    within: Set[str] = frozenset()
    takes_records: bool = False
    is_of_parts: bool = False

    def __init__(self, asked: Asked, parent: Call | None = None, tally: Tally | None = None) -> None:
        self.asked, self.parent = asked, parent
        if tally is None:
            tally = Tally()
            tally.calls = 1
        self.tally = tally

    def __deepcopy__(self, memo: Any) -> Call:
        # DSPy's `request_cache` copies the question that it asked, and puts the answer under the copy.
        return self

    @property
    def key(self) -> str | None:
        """The key of its entry, or None."""
        return self.asked.key.entry

    @property
    def coalesces(self) -> bool:
        """Whether it may share the answer of an identical call in flight."""
        if not (self.asked.decision.coalesces and self.asked.cached and self.key is not None):
            return False
        ancestor = self.parent
        while ancestor is not None:
            if ancestor.key == self.key:
                return False
            ancestor = ancestor.parent
        return True

    @property
    def shared(self) -> Answered | None:
        """What is handed to those who wait for its answer; None where that is in no store."""
        # Each answer is made anew from the entry's bytes.
        return None if self.answered.entry is None else self.answered

    @property
    def draw_id(self) -> str:
        """What identifies the answer, whether the store, a proxy or the provider repeated it (see `draw_tokens`)."""
        origin, key = self.answered.origin, self.key or f"uncached:{uuid.uuid4().hex}"
        if origin is None:
            return token_of((), "", key)
        return token_of(origin.response_ids, origin.content, key, origin.known)

    def noted(self) -> dict[str, Any]:
        """Return what is noted of it in the history."""
        asked = self.asked
        return {
            "outcome": self.answered.outcome,
            "phase": asked.ruling.context.name or None,
            "role": asked.role,
            "run_id": asked.run_id,
            "key": asked.key.entry,
        }

    def serve(self, origin: Origin, entry: bytes) -> None:
        """Note that a stored answer is served."""
        decision, run = self.asked.decision, self.asked.ruling.run
        if run is not None and run.waves is not None and run.waves.is_bought_now(self.key):
            self._handed_out_before()
            outcome = "repeated" if origin.known else "fresh"
        elif self.from_leader or self.waited:
            outcome = "coalesced"
        elif decision.raises:
            outcome = "replayed"
        elif decision.from_run:
            outcome = "collapsed" if self._handed_out_before() else "resumed"
        else:
            outcome = "reused"
        self.answered = Answered(outcome, origin, entry)

    def serve_at_hand(self) -> Decoded:
        """Note that what is at hand is served, and return that."""
        assert self.at_hand is not None  # noqa: S101 - for the type checker
        self.serve(self.at_hand.origin, self.at_hand.data)
        return self.at_hand

    def buy(self, facts: AnswerFacts) -> Origin:
        """Note that the provider answered. Return where the answer comes from."""
        asked = self.asked
        decision, caches = asked.decision, asked.cached and self.key is not None
        outcome = "fresh" if decision.reads and caches else "refreshed" if decision.stores and caches else "uncacheable"
        self._handed_out_before()
        ancestor = self.parent
        while ancestor is not None and self.key is not None:
            vars(ancestor).setdefault("within", set()).add(self.key)
            ancestor = ancestor.parent
        self.tally.unstored += not facts.storable
        origin = made_at_once(
            kind=asked.kind.value,
            model=asked.model,
            endpoint=asked.endpoint,
            phase=asked.ruling.context.name,
            role=asked.role,
            run_id=asked.run_id,
            rollout_id=asked.key.rollout_id,
            ordinal=asked.key.ordinal,
            temperature=asked.temperature,
            lent=decision.lent_temperature is not None,
            created=time.time(),
            seconds=self._seconds(facts),
            requests=facts.requests,
            **{name: getattr(facts, name) for name in token_counts.NAMES},
            cost=facts.cost,
            response_ids=facts.response_ids,
            truncated=facts.truncated,
            content=facts.content,
            answered_by=facts.answered_by,
            known=False,
            system_fingerprints=facts.system_fingerprints,
        )
        self.answered = Answered(outcome, origin, facts=facts)
        return origin

    def give_way(self, origin: Origin, entry: bytes, answer: Any) -> None:
        """Note that an equal call's answer was stored first, and is handed over in the place of what was bought."""
        self.answered = Answered("bought_twice", origin, entry, paid=self.answered.origin, instead=answer)

    def _seconds(self, facts: AnswerFacts) -> float:
        """Return how long the provider took: without what was waited for here, where that is known apart."""
        waited = 0.0 if self.sent_at is None else time.monotonic() - self.sent_at
        return waited if facts.seconds is None else min(waited, facts.seconds)

    def miss(self, reason: str, **nearest: Any) -> CacheMissError:
        """Note that a replay has no answer, and return the error to raise."""
        self.answered = Answered("missed")
        ruling = self.asked.ruling
        if ruling.cassette is not None and ruling.cassette.is_unfinished:
            reason = f'{reason}. The recording was cut short; the mode "record" goes on with it'
        error = (ToolMissError if self.asked.kind is Kind.TOOL else CacheMissError)(
            reason,
            key=self.key,
            model=self.asked.model,
            phase=ruling.context.name or "(replay)",
            cassette=None if ruling.cassette is None else ruling.cassette.name,
            **nearest,
        )
        for who in (ruling.run, ruling.cassette, ruling.beside):
            if who is not None:
                who.missed(error)
        return error

    def _handed_out_before(self) -> bool:
        """Note that a plain LM's draw is handed out. Tell whether it was before, in this passage of the run."""
        run = self.asked.ruling.run
        if self.asked.kind is not Kind.PLAIN_LM or run is None or self.key is None or not self.asked.decision.from_run:
            return False
        return run.ordinals.next(self.key, unit="handed out") > 0


class Asking:
    """A block in which a call is the one within which code runs, and the LM's next question of the cache is its own.

    Args:
        call: The call.
        lm: Its LM.
        handed: What a leader handed over, or None.
    """

    def __init__(self, call: Call, lm: Any, handed: Answered | None = None) -> None:
        if handed is not None:
            call.found_bytes, call.from_leader = handed.entry, handed.outcome in _NEW
        self._call, self._lm = call, lm

    def __enter__(self) -> None:
        """Begin."""
        self._call.awaited_from = self._lm if self._call.asked.cached else None
        self._token = _CURRENT.set(self._call)

    def __exit__(self, *_: object) -> None:
        """End."""
        self._call.awaited_from = None
        _CURRENT.reset(self._token)


def current_call() -> Call | None:
    """Return the LM call within which this code runs, or None."""
    return _CURRENT.get()
