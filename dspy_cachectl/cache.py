"""`dspy.cache` under a policy: the same two questions, `get` and `put`, answered by the phase.

DSPy asks `get` before it has an engine, so raising there stops a call before money is spent; it asks `put` after
the answer was paid for, so `put` never raises.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from dspy.clients.cache import Cache

from dspy_cachectl import answers, calls, draws, explain, opening, places, records
from dspy_cachectl._process import state
from dspy_cachectl.calls import Call
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.ledger import Row, Tally
from dspy_cachectl.policy import Kind
from dspy_cachectl.stores import Label, Store
from dspy_cachectl.stores.tiers import Into, Tiers
from dspy_cachectl.values import UnstorableError

_SEARCHED_FOR_NEAREST = 500
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

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:  # noqa: ARG002
        """Return the stored answer of a request, or None.

        Raises:
            CacheMissError: In a replay phase, where there is none.
        """
        call = calls.current()
        if call is not None and call.awaited:
            call.awaited = False
            return self._look_up(call)
        plain = opening.open_plain_call(request)
        try:
            answer = self._look_up(plain)
        finally:
            plain.record()
        if answer is None:
            if call is not None and plain.key is not None:
                call.foreign.add(plain.key)
            self._note_asked(plain)
        elif plain.kind is Kind.PLAIN_LM and plain.outcome in {"resumed", "collapsed"}:
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
        call = calls.current()
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
            call.handed = self.tiers.peek(call.key)
        return call.handed is not None

    def _look_up(self, call: Call) -> Any:
        call.asked_at = time.monotonic()
        if call.key is None:
            if call.decision.raises and not call.local:
                raise call.miss("the request has no canonical form, so nothing can be stored for it")
            return None
        if not call.decision.reads:
            return None
        data = call.handed if call.handed is not None else self.tiers.get(call.key)
        reason = "it was never stored, or not for this model, endpoint, options and draw"
        if data is not None:
            try:
                entry = records.decode(data)
            except (CorruptEntryError, FormatVersionError) as error:
                call.keep_stored = isinstance(error, FormatVersionError)
                self._fault("read", error, call)
                reason = str(error)
            else:
                too_old = call.policy.max_age is not None and time.time() - entry.origin.created > call.policy.max_age
                if not too_old:
                    call.served(entry.origin)
                    call.entry = data
                    return _as_hit(entry.answer)
                call.tally.expired += 1
                reason = f"the stored answer is older than max_age={call.policy.max_age:g} s"
        if call.decision.raises:
            raise call.miss(reason, **self._nearest(call))
        call.asked_at = time.monotonic()
        return None

    def _keep(self, call: Call, value: Any, into: Into) -> None:
        facts = answers.read(value, sampled=call.kind in {Kind.LM, Kind.PLAIN_LM})
        seconds = call.seconds()
        call.bought(facts, seconds)
        origin = call.drawn = call.origin(facts, seconds)
        if not (call.decision.stores and facts.storable) or call.key is None:
            return
        try:
            data = records.encode(origin, value, draws.plain_text(call.description()))
        except UnstorableError as error:
            call.tally.failed_writes += 1
            state.say_once(f"unstorable:{error}", f"an answer of {call.model!r} is not stored: {error}")
            return
        call.entry = data
        label = Label(origin.kind, origin.model, origin.phase, origin.role or "", origin.run_id or "")
        self.tiers.put(call.key, data, label, into="memory" if call.keep_stored else into)

    def _keep_plain(self, plain: Call, value: Any, into: Into) -> None:
        # The call itself was counted when it asked; this counts how it was answered.
        plain.tally, plain.place = Tally(), replace(plain.place, stray_of=(), late=False)
        with self._asked_lock:
            plain.asked_at = self._asked.pop(plain.key or "", None)
        self._keep(plain, value, into)
        plain.record()
        if plain.decision.from_run and plain.kind is Kind.PLAIN_LM:
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
            f"{plain.model!r} is a plain dspy.LM in the fresh phase {plain.place.context.name!r}: it is fresh, but "
            "equal calls within the run share one draw, and no temperature is lent. Use cachectl.LM or wrap(lm)",
        )

    def _nearest(self, call: Call) -> dict[str, Any]:
        if call.run is not None and not call.run.explains_next_miss:
            return {}
        asked = orjson.loads(draws.plain_text(call.description()))
        best: tuple[float, str, dict[str, Any]] | None = None
        for index, key in enumerate(self.tiers.keys(call.kind.value)):
            if index >= _SEARCHED_FOR_NEAREST:
                break
            try:
                stored = records.decode_request(self.tiers.get(key) or b"")
            except StoreError:
                continue  # a damaged entry is nobody's nearest
            alike = explain.similarity(asked, stored)
            if best is None or alike > best[0]:
                best = alike, key, stored
        if best is None:
            return {}
        return {"nearest": best[1], "differences": explain.differences(asked, best[2])}

    def _fault(self, doing: str, error: StoreError, call: Call | None = None) -> None:
        tally = Tally(failed_reads=1) if doing == "read" else Tally(failed_writes=1)
        self._count(call or calls.current(), tally)
        state.say_once(
            f"fault:{doing}:{type(error).__name__}",
            f"a {doing} of the store failed, and the program goes on without it: {error}",
        )

    def _count(self, call: Call | None, tally: Tally) -> None:
        if call is not None:
            call.tally.add(tally)
        else:
            place = places.here()
            row = Row(place.context.name, None, "")
            state.ledger.record(row, tally)
            if place.run is not None:
                place.run.ledger.record(row, tally)


def _as_hit(answer: Any) -> Any:
    if hasattr(answer, "usage"):
        answer.usage = {}  # nothing was used now; DSPy counts usage from here
        # Strict response models refuse undeclared attributes, so it is set past them, as DSPy does.
        object.__setattr__(answer, "cache_hit", True)
    return answer
