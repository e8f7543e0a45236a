"""`dspy.cache` under a policy: the same two questions, `get` and `put`, answered by the phase.

DSPy asks `get` before it has an engine, so raising there stops a call before money is spent; it asks `put` after
the answer was paid for, so `put` never raises.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson
from dspy.clients.cache import Cache

from dspy_cachectl.accounting.ledger import Row, Tally
from dspy_cachectl.calls import adapter, opening
from dspy_cachectl.calls.call import Call, current_call
from dspy_cachectl.config import settings
from dspy_cachectl.context.process import STARTED, state
from dspy_cachectl.context.ruling import phase_here
from dspy_cachectl.entries import answers, draws, explain, records
from dspy_cachectl.entries.nearest import NEVER_STORED, nearest
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.policy import Kind
from dspy_cachectl.stores import DSPY_KIND, Label, Store, dspy_key
from dspy_cachectl.stores.tiers import Doing, Into, Tiers

_SEARCHED_FOR_NEAREST = 2_000
_MOST_ASKED = 10_000


class ManagedCache(Cache):  # type: ignore[misc]
    """DSPy's cache, ruled by the phase that the call is made in.

    It serves governed LMs (`LM`, `wrap`), plain `dspy.LM`s and embedders. For code that never enters a phase it
    does what DSPy's own cache does, with stores that do not unpickle and that never lose a paid answer.

    Args:
        stores: Where entries live, nearest first.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(enable_disk_cache=False, enable_memory_cache=False, disk_cache_dir=None)
        self.enable_memory_cache = True  # what DSPy and others read as "caching is on"
        self.tiers = Tiers(stores, on_fault=self._fault)
        self._has_imported: bool | None = None
        self._asked_lock = threading.Lock()
        self._asked: dict[str, float] = {}

    def __contains__(self, key: str) -> bool:
        return self.tiers.get(key) is not None

    def cache_key(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> str:  # noqa: ARG002
        """Return the key under which a plain request is kept in the phase that rules here.

        Raises:
            UncacheableError: If the request has no canonical form.
        """
        key = opening.open_plain_call(request).key
        if key is None:
            raise draws.UncacheableError("the request has no canonical form")
        return key

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:
        """Return the stored answer of a request, or None.

        Raises:
            CacheMissError: In a replay phase, where there is none.
        """
        call = current_call()
        if call is not None and call.awaited:
            call.awaited = False
            answer = self._look_up(call)
            return answer if answer is not None else self._imported(call, request, ignored_args_for_cache_key)
        plain = opening.open_plain_call(request)
        try:
            answer = self._look_up(plain)
            if answer is None:
                answer = self._imported(plain, request, ignored_args_for_cache_key)
        finally:
            plain.record()
        if answer is None:
            if call is not None and plain.key is not None:
                call.foreign.add(plain.key)
            self._note_asked(plain)
        elif plain.cassette is None and plain.kind is Kind.PLAIN_LM and plain.outcome in {"resumed", "collapsed"}:
            self._say_plain(plain)
        return answer

    def put(
        self,
        request: dict[str, Any],
        value: Any,
        ignored_args_for_cache_key: list[str] | None = None,  # noqa: ARG002 - DSPy's signature
        enable_memory_cache: bool = True,
    ) -> None:
        """Keep an answer that was paid for, as far as the policy says. Never raises."""
        call = current_call()
        plain: Call | None = None
        try:
            if call is None or call.outcome is not None or call.foreign or not call.cached:
                plain = opening.open_plain_call(request)
                if call is not None and call.outcome is None and call.cached and plain.key not in call.foreign:
                    plain = None
                elif call is not None and plain.key is not None:
                    call.foreign.discard(plain.key)
            into: Into = "all" if enable_memory_cache else "behind"
            if plain is None and call is not None:
                self._keep(call, value, into)
            elif plain is not None:
                self._keep_plain(plain, value, into)
        except Exception as error:  # noqa: BLE001 - a paid answer reaches its caller whatever happens here
            self._count(call or plain, Tally(failed_writes=1))
            state.say_once(
                f"put:{type(error).__name__}", f"an answer could not be kept, and reaches its caller: {error!r}"
            )

    def reset_memory_cache(self) -> None:
        """Forget what is kept in memory; what is on disk stays."""
        self.tiers.clear_memory()

    def save_memory_cache(self, filepath: str) -> None:
        """Refused: DSPy's format is a pickle.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(f"not saving {filepath!r}: DSPy's format is a pickle. The store keeps every entry")

    def load_memory_cache(self, filepath: str, allow_pickle: bool = False) -> None:  # noqa: ARG002
        """Refused: DSPy's format is a pickle.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(f"not loading {filepath!r}: DSPy's format is a pickle, and nothing is unpickled here")

    def peek(self, call: Call) -> bool:
        """Find a call's entry in memory, without waiting for anything. Tell whether it is there."""
        if call.decision.reads and call.key is not None:
            call.handed = self.tiers.peek(call.key) if call.cassette is None else self._stored(call, call.key)
        return call.handed is not None

    def _look_up(self, call: Call) -> Any:
        call.asked_at = time.monotonic()
        if call.key is None:
            if call.decision.raises and not call.local:
                raise call.miss("the request has no canonical form, so nothing can be stored for it")
            return None
        if not call.decision.reads:
            return None
        data = call.handed if call.handed is not None else self._stored(call, call.key)
        reason = NEVER_STORED
        if data is not None:
            try:
                entry = records.decode(data)
            except (CorruptEntryError, FormatVersionError) as error:
                call.keep_stored = isinstance(error, FormatVersionError)
                self._fault("read", error, call)
                reason = str(error)
            else:
                too_old = _too_old(call, entry.origin)
                if too_old is None:
                    call.served(entry.origin)
                    call.entry = data
                    return _as_hit(entry.answer)
                call.tally.expired += 1
                reason = too_old
        if call.decision.raises:
            raise call.miss(**self._why(call, reason))
        call.asked_at = time.monotonic()
        return None

    def _imported(self, call: Call, request: dict[str, Any], ignored: list[str] | None) -> Any:
        """Serve what was imported from DSPy's own cache, and file it under the call's key from then on."""
        decided = call.decision
        if call.key is None or call.cassette is not None or not (decided.reads and decided.stores) or decided.from_run:
            return None
        if call.tally.failed_reads:
            return None  # the store has just failed, and would be counted to fail twice
        if self._has_imported is None:
            self._has_imported = any(label.kind == DSPY_KIND for label in self.tiers.labels())
        if not self._has_imported:
            return None
        try:
            data = self.tiers.get(dspy_key(super().cache_key(adapter.as_dspy_asks(request), ignored)))
        except Exception:  # noqa: BLE001 - DSPy keeps nothing for a request that it has no key for, whatever that raises
            return None
        if data is None:
            return None
        try:
            found = records.decode(data)
            _, answer, tagged, _ = records.take_apart(data)
        except StoreError as error:
            self._fault("read", error, call)
            return None
        is_old = call.policy.max_age is not None and time.time() - found.origin.created > call.policy.max_age
        if is_old or (found.origin.endpoint != call.endpoint and not call.local):
            return None
        origin = replace(found.origin, kind=call.kind.value, model=call.model, role=call.role, rollout_id=call.own)
        description = orjson.loads(draws.plain_text(call.description()))
        call.entry = records.put_together(records.as_facts(origin), answer, tagged=tagged, request=description)
        self.tiers.put(call.key, call.entry, Label(origin.kind, origin.model, origin.phase, origin.role or "", ""))
        call.served(origin)
        return _as_hit(found.answer)

    def _stored(self, call: Call, key: str) -> bytes | None:
        if call.cassette is None:
            return self.tiers.get(key)
        return call.cassette.find(key, call.asked or key, draw=call.decision.from_run)

    def _keep(self, call: Call, value: Any, into: Into) -> None:
        facts = answers.read(value, sampled=call.kind in {Kind.LM, Kind.PLAIN_LM})
        seconds = call.seconds()
        call.bought(facts, seconds)
        origin = call.drawn = call.origin(facts, seconds)
        # A cassette also keeps the answers that nobody would want to be served again: the program went on with them.
        if call.key is None or not (call.decision.stores and (facts.storable or call.cassette is not None)):
            why = "the phase does not store" if facts.storable else "it was empty, or stopped by a content filter"
            state.note_why_not_stored(call.asked, f"it was bought in this process, and not stored: {why}")
            return
        try:
            data = records.encode(origin, value, draws.plain_text(call.description()))
        except UnstorableError as error:
            call.tally.failed_writes += 1
            state.say_once(f"unstorable:{error}", f"an answer of {call.model!r} is not stored: {error}")
            state.note_why_not_stored(call.asked, f"it was bought in this process, and not stored: {error}")
            return
        if call.cassette is not None:
            call.entry = call.cassette.keep(call.key, call.asked or call.key, data)
            return
        call.entry = data
        label = Label(origin.kind, origin.model, origin.phase, origin.role or "", origin.run_id or "")
        self.tiers.put(call.key, data, label, into="memory" if call.keep_stored else into)

    def _keep_plain(self, plain: Call, value: Any, into: Into) -> None:
        # The call itself was counted when it asked; this counts how it was answered.
        plain.tally, plain.ruling = Tally(), replace(plain.ruling, stray_of=(), late=False)
        with self._asked_lock:
            plain.asked_at = self._asked.pop(plain.key or "", None)
        self._keep(plain, value, into)
        plain.record()
        if plain.cassette is None and plain.decision.from_run and plain.kind is Kind.PLAIN_LM:
            self._say_plain(plain)

    def _note_asked(self, plain: Call) -> None:
        if plain.key is not None and plain.asked_at is not None:
            with self._asked_lock:
                if len(self._asked) >= _MOST_ASKED:
                    self._asked.clear()
                self._asked[plain.key] = plain.asked_at

    def _say_plain(self, plain: Call) -> None:
        state.say_once(
            "plain",
            f"{plain.model!r} is a plain dspy.LM in the fresh phase {plain.ruling.context.name!r}: it is fresh, but "
            "equal calls within the run share one draw, and no temperature is lent. Use cachectl.LM or wrap(lm)",
        )

    def _why(self, call: Call, reason: str) -> dict[str, Any]:
        """Return the reason of a miss, and the nearest entry with what differs: the arguments of `Call.miss`."""
        if call.run is not None and not call.run.explains_next_miss:
            return {"reason": reason}
        unstored = state.why_not_stored.get(call.asked or "")
        if unstored is not None:
            return {"reason": unstored}
        asked = orjson.loads(draws.plain_text(call.description()))
        if call.cassette is not None:
            asked = call.cassette.clean.request(asked)  # as its recordings are, and as a message may show it
        found = nearest(asked, self._like(call)) if call.cassette is None else call.cassette.nearest(asked)
        if found is None:
            return {"reason": reason}
        if reason == NEVER_STORED:
            reason = found.reason(asked, call.run_id)
        return {
            "reason": reason,
            "nearest": found.key,
            "differences": explain.differences(asked, found.description),
        }

    def _like(self, call: Call) -> Iterator[tuple[str, bytes]]:
        for key in itertools.islice(self.tiers.keys(call.kind.value), _SEARCHED_FOR_NEAREST):
            yield key, self.tiers.get(key) or b""

    def note_fault(self, doing: Doing, error: StoreError) -> None:
        """Count a fault of a store that is no call's, in the phase that rules here, and say it once."""
        self._note_fault(doing, error, None)

    def _fault(self, doing: Doing, error: StoreError, call: Call | None = None) -> None:
        self._note_fault(doing, error, call or current_call())

    def _note_fault(self, doing: Doing, error: StoreError, call: Call | None) -> None:
        self._count(call, Tally(failed_reads=1) if doing == "read" else Tally(failed_writes=1))
        state.say_once(
            f"fault:{doing}:{type(error).__name__}",
            f"a {doing} of the store failed, and the program goes on without it: {error}",
        )

    def _count(self, call: Call | None, tally: Tally) -> None:
        if call is not None:
            call.tally.add(tally)
        else:
            ruling = phase_here()
            row = Row(ruling.context.name, None, "")
            state.ledger.record(row, tally)
            if ruling.run is not None:
                ruling.run.ledger.record(row, tally)


def _too_old(call: Call, origin: records.Origin) -> str | None:
    """Say why a stored answer is too old to be served, or return None."""
    if call.policy.max_age is not None and time.time() - origin.created > call.policy.max_age:
        return f"the stored answer is older than max_age={call.policy.max_age:g} s"
    if origin.created < STARTED and call.cassette is None and not call.decision.raises and settings().force_recompute:
        return "the stored answer is older than this process, which recomputes everything"
    return None


def _as_hit(answer: Any) -> Any:
    if hasattr(answer, "usage"):
        answer.usage = {}  # nothing was used now; DSPy counts usage from here
        # Strict response models refuse undeclared attributes, so it is set past them, as DSPy does.
        object.__setattr__(answer, "cache_hit", True)
    return answer
