"""`dspy.cache` under a policy: the same two questions, `get` and `put`, answered by the phase.

DSPy asks `get` before it has an engine, so raising there stops a call before money is spent; it asks `put` after
the answer was paid for, so `put` never raises. Each question carries the call that asks it (see `patches`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dspy.clients.cache import Cache

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.calls import answering, known
from dspy_cachectl.calls.account import account, count_for
from dspy_cachectl.calls.call import CALL, Asked, Asking, Call, current_call
from dspy_cachectl.calls.miss import explained
from dspy_cachectl.calls.opening import open_plain_call, say_what_is_shared
from dspy_cachectl.context.process import state
from dspy_cachectl.entries import answers, draws, records
from dspy_cachectl.entries.cleaning import holds_secret
from dspy_cachectl.entries.decoded import Decoded, DecodedEntries
from dspy_cachectl.entries.nearest import NEVER_STORED
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.policy import Kind
from dspy_cachectl.stores import DSPY_KIND, Label, Store, dspy_key
from dspy_cachectl.stores.base import Put
from dspy_cachectl.stores.tiers import Doing, Into, Tiers

_OF_MEMORY = 8
"""Which part of the memory's budget those entries may take again that were decoded."""
_MOST_ON_A_LOOP = 256 * 1024
"""Bytes of an entry that is decoded on an event loop: it takes some milliseconds at most."""
_SAMPLED = (Kind.LM, Kind.PLAIN_LM)

Question = Callable[[], tuple[dict[str, Any], list[str] | None]]


class ManagedCache(Cache):  # type: ignore[misc]
    """DSPy's cache, ruled by the phase that the call is made in.

    It serves governed LMs (`LM`, `wrap`), plain `dspy.LM`s and embedders. For code that never enters a phase it
    does what DSPy's own cache does, with stores that do not unpickle and that never lose a paid answer.

    Args:
        stores: Where entries live, nearest first.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(enable_disk_cache=False, enable_memory_cache=False, disk_cache_dir=None)
        self._of_others: set[str] = set()  # keys under which another model's answer lies: not at hand
        self._looked_for_now: set[str] = set()  # and those that a thread asks all stores for: others share its answer
        self.enable_memory_cache = True  # what DSPy and others read as "caching is on"
        note_fault = lambda doing, error: self.note_fault(doing, error, current_call())  # noqa: E731
        self.tiers = Tiers(stores, on_fault=note_fault, for_memory=records.for_memory, for_store=records.for_store)
        memory = self.tiers.memory
        self._decoded = None if memory is None else DecodedEntries(memory.max_bytes // _OF_MEMORY)
        for store in stores:
            if hasattr(store, "on_evicted"):
                store.on_evicted = functools.partial(self._note_evicted, store.location)

    def __contains__(self, key: str) -> bool:
        return self.tiers.get(key) is not None

    def cache_key(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> str:  # noqa: ARG002
        """Return the key under which a plain request is kept in the phase that rules here.

        Raises:
            UncacheableError: If the request has no canonical form.
        """
        key = open_plain_call(request).key
        if key is None:
            raise draws.UncacheableError("the request has no canonical form")
        return key

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:
        """Return the stored answer of a request, or None.

        Raises:
            CacheMissError: In a replay phase, where there is none.
        """
        call = request.get(CALL) or open_plain_call(request)
        found = self.find(call, lambda: (request, ignored_args_for_cache_key))
        if found is None and "_fn_identifier" in request and call.asked.kind is not Kind.LM:
            # DSPy's `request_cache` puts the answer under a copy of this dictionary, and lets both go. Others, such as
            # its TypeSafe client, keep theirs in a history, where no call must stay.
            request[CALL] = call
        return None if found is None else found.answer()

    def find(self, call: Call, question: Question) -> Decoded | None:
        """Return the entry that answers a call, or None where it has to be bought.

        Args:
            call: The call.
            question: Returns what DSPy asks its cache, and the names of the fields that it leaves out of its own key.

        Raises:
            CacheMissError: In a replay phase, where there is none.
        """
        if call.asked.kind is Kind.LM:
            return self.look_up(call, question)  # its LM counts it
        say_what_is_shared(call)
        try:
            if call.asked.kind is Kind.PLAIN_LM and self.find_at_hand(call) and call.at_hand is not None:
                return call.serve_at_hand()
            return self.look_up(call, question)
        finally:
            account(call)

    def put(
        self,
        request: dict[str, Any],
        value: Any,
        ignored_args_for_cache_key: list[str] | None = None,  # noqa: ARG002 - DSPy's signature
        enable_memory_cache: bool = True,
    ) -> None:
        """Keep an answer that was paid for, as far as the policy says. Never raises."""
        call: Call | None = request.get(CALL)
        try:
            call = call or open_plain_call(request)
        except Exception as error:  # noqa: BLE001 - as for `keep`
            self._note_unkept(None, error)
            return
        if call.asked.kind is not Kind.LM:
            call.tally = Tally()  # it was counted when it asked; this counts how it was answered
        self.keep(call, value, "all" if enable_memory_cache else "disk")
        if call.asked.kind is not Kind.LM:
            account(call)

    def keep(self, call: Call, value: Any, into: Into = "all") -> Any:
        """Keep an answer as `put` does. Return what the program is given: that, or what an equal call stored first."""
        try:
            self._keep(call, value, into)
        except Exception as error:  # noqa: BLE001 - a paid answer reaches its caller whatever happens here
            self._note_unkept(call, error)
        return value if call.answered.instead is None else call.answered.instead

    def file(self, call: Call, answer: Any) -> None:
        """Store an answer, of which it is known where it comes from, as that of a call, unless there is one."""
        if call.key is not None:
            self._put(call, call.asked, answering.encoded(call, answer, call.asked), "all", only_first=True)

    def _note_unkept(self, call: Call | None, error: Exception) -> None:
        self._count_fault("write", call)
        state.say_once(f"put:{type(error).__name__}", f"an answer could not be kept, and reaches its caller: {error!r}")

    def reset_memory_cache(self) -> None:
        """Forget what is kept in memory; what is on disk stays."""
        self.tiers.clear_memory()
        if self._decoded is not None:
            self._decoded.clear()

    def save_memory_cache(self, filepath: str) -> None:
        """Refused: DSPy's format is a pickle.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(f"not saving {filepath!r}: DSPy's format is a pickle. The store keeps every entry")

    def load_memory_cache(self, filepath: str, allow_pickle: bool = False) -> None:  # noqa: ARG002
        """Refused likewise, and raises as that does."""
        raise ConfigurationError(f"not loading {filepath!r}: DSPy's format is a pickle, and nothing is unpickled here")

    def find_at_hand(self, call: Call, *, on_loop: bool = False) -> bool:
        """Find what answers a call, on a loop without waiting or decoding much. Tell whether it is there."""
        asked, key = call.asked, call.asked.key.entry
        if key is None or not (asked.decision.reads and asked.cached):
            return False
        if asked.ruling.cassette is not None:
            call.found_bytes = self._entry(call, key)
            return call.found_bytes is not None
        if key in self._of_others:
            return False
        data = self.tiers.peek(key)
        if data is None and not on_loop:
            data = self.tiers.glance(key) if self.tiers.glances else self._looked_for(call, key)
        if data is not None and not (on_loop and len(data) > _MOST_ON_A_LOOP):
            call.at_hand = self.serving(call, key, data)
        return call.at_hand is not None

    def _looked_for(self, call: Call, key: str) -> bytes | None:
        """Return what the stores have; for who shares its answer, only where it would look there before its turn."""
        if key in self._looked_for_now or (call.coalesces and not self.tiers.has_turns):
            return None
        self._looked_for_now.add(key)
        try:
            with Asking(call, None):  # whose faults these are
                data = self.tiers.get(key)
        finally:
            self._looked_for_now.discard(key)
        call.was_looked = data is None
        return data

    def serving(self, call: Call, key: str, data: bytes) -> Decoded | None:
        """Return what stored bytes hold, where that is an answer to a call."""
        try:
            entry = self._opened(call, key, data)
        except (CorruptEntryError, FormatVersionError):
            return None  # who looks it up will say so
        is_refused = answering.why_too_old(call, entry.origin) or answering.why_not_served(call, entry.origin)
        return None if is_refused else entry

    def note_fault(self, doing: Doing, error: StoreError, call: Call | None = None) -> None:
        """Count a fault of a store, of a call or else of the phase that rules here, and say it once."""
        self._count_fault(doing, call)
        said = f"a {doing} of the store failed, and the program goes on without it: {error}"
        state.say_once(f"fault:{doing}:{type(error).__name__}", said)

    def _note_evicted(self, location: str, count: int) -> None:
        """Count what had to make room in a store, and say it once."""
        count_for(current_call(), Tally(evicted=count))
        state.say_once(
            f"evicted:{location}",
            f"the store {location} is full: for new answers those stored first are removed, which may be this run's "
            "own, and would be bought again. Raise disk_bytes; they are counted as evicted",
        )

    def _count_fault(self, doing: Doing, call: Call | None) -> None:
        count_for(call, Tally(failed_reads=1) if doing == "read" else Tally(failed_writes=1))

    def look_up(self, call: Call, question: Question) -> Decoded | None:
        """Do the same as `find` without counting the call."""
        decision, why_not, found = call.asked.decision, "", None
        if call.key is None:
            # What the program's own function answers is no call of a provider, and goes on in a replay.
            if decision.raises and not call.asked.local:
                raise call.miss("the request has no canonical form, so nothing can be stored for it")
        elif decision.reads:
            found, why_not = self._stored_entry(call, call.key)
            if found is None and decision.raises:
                raise call.miss(**explained(call, why_not, self.tiers))
            if found is None:
                found = self._imported_entry(call, *question())
        # From here on the provider takes its time.
        call.sent_at = time.monotonic()
        return found

    def _stored_entry(self, call: Call, key: str) -> tuple[Decoded | None, str]:
        """Return the stored entry that answers a call, or why there is none."""
        data = self._entry(call, key) if call.found_bytes is None else call.found_bytes
        if data is None:
            return None, NEVER_STORED
        call.turned_down = data
        try:
            entry = self._opened(call, key, data)
        except (CorruptEntryError, FormatVersionError) as error:
            self.note_fault("read", error, call)
            return None if call.asked.ruling.cassette is not None else self._beyond(call, key, error), str(error)
        if too_old := answering.why_too_old(call, entry.origin):
            call.tally.expired += 1
            return None, too_old
        if others := ("" if call.from_leader else answering.why_not_served(call, entry.origin)):
            self._of_others.add(key)
            return None, others
        call.serve(entry.origin, data)
        return entry, ""

    def _beyond(self, call: Call, key: str, error: StoreError) -> Decoded | None:
        """Return what a farther store has for a call, where the nearest one's cannot be read."""
        call.is_newer_stored = isinstance(error, FormatVersionError)
        opened = functools.partial(self.serving, call, key)
        found = self.tiers.beyond(key, opened, replaces=not call.is_newer_stored)
        if found is None:
            return None
        call.serve(found[0].origin, found[1])
        return found[0]

    def _opened(self, call: Call, key: str, data: bytes) -> Decoded:
        if self._decoded is None or call.asked.ruling.cassette is not None:  # which is served once
            return Decoded(data, key).checked()
        entry = self._decoded.decode(key, data)
        return entry if entry.is_checked or call.takes_records else entry.checked()

    def _entry(self, call: Call, key: str) -> bytes | None:
        cassette = call.asked.ruling.cassette
        if cassette is None:  # a store that has just failed would be counted to fail twice
            return self.tiers.peek(key) if call.was_looked or call.tally.failed_reads else self.tiers.get(key)
        return cassette.find(key, call.asked.key.request or key, draw=call.asked.decision.from_run)

    @functools.cached_property
    def has_imported(self) -> bool:
        """Whether the store has answers that came out of DSPy's own cache."""
        return any(label.kind == DSPY_KIND for label in self.tiers.labels())

    def _imported_entry(self, call: Call, request: dict[str, Any], ignored: list[str] | None) -> Decoded | None:
        """Serve what was imported from DSPy's own cache, and file it under the call's key from then on."""
        asked = call.asked
        may_be = asked.ruling.cassette is None and asked.decision.stores and not asked.decision.from_run
        if not may_be or call.tally.failed_reads or not self.has_imported:  # it would be counted to fail twice
            return None
        try:
            by_itself = {field: value for field, value in request.items() if field != CALL}
            data = self.tiers.get(dspy_key(super().cache_key(by_itself, ignored)))
        except Exception:  # noqa: BLE001 - DSPy keeps nothing for a request that it has no key for, whatever that raises
            return None
        if data is None:
            return None
        try:
            found = records.decode(data)
            _, answer, tagged, _ = records.take_apart(data)
        except StoreError as error:
            self.note_fault("read", error, call)
            return None
        if answering.why_too_old(call, found.origin) or (found.origin.endpoint != asked.endpoint and not asked.local):
            return None
        if answering.why_not_served(call, replace(found.origin, model=asked.model)):
            return None
        origin, entry = answering.adopted(found.origin, asked, answer, tagged=tagged)
        label = Label(origin.kind, origin.model, origin.phase, origin.role or "", "")
        self.tiers.put(call.key or "", entry, label, mark=known.mark(origin))
        call.serve(origin, entry)
        return Decoded(entry).checked()

    def _keep(self, call: Call, value: Any, into: Into) -> None:
        """Count an answer as bought, and store it where it may be."""
        asked, (cassette, tool) = call.asked, (call.asked.ruling.cassette, call.asked.ruling.context.tool)
        facts = answers.read(value, sampled=asked.kind in _SAMPLED)
        origin = call.buy(facts)
        # A cassette also keeps the answers that nobody would want to be served again: the program went on with them.
        if call.key is None or not (asked.decision.stores and (facts.storable or cassette is not None)):
            why = "the phase does not store" if facts.storable else "it was empty, or stopped by a content filter"
            self._note_not_stored(call, why)
            return
        if cassette is not None:
            known.note_unstored(call, None)
        try:
            filed = answering.asked_in_the_end(asked, facts)
            stored = records.stored(value)
            data = answering.encoded(call, stored, filed)
        except UnstorableError as error:
            self._count_fault("write", call)
            state.say_once(f"unstorable:{error}", f"an answer of {asked.model!r} is not stored: {error}")
            self._note_not_stored(call, str(error))
            return
        if cassette is not None:
            call.answered.entry = cassette.keep(call.key, asked.key.request or call.key, data, tool)
            return
        call.answered.entry = data
        if not (asked.kind is Kind.EMBEDDING or stored.is_vector) and holds_secret(stored):
            answering.say_is_secret(call)
            call.tally.unstored += facts.storable
            if into == "disk":
                known.note_unstored(call, self.tiers)
                return
            into = "memory"
        into = "memory" if call.is_newer_stored else into
        self._store(call, filed, data, into)
        if call.answered.paid is None and call.answered.origin != origin:
            # Whoever is served it later is told as well.
            self._put(call, filed, answering.encoded(call, stored, filed), into, only_first=False)

    def _store(self, call: Call, filed: Asked, data: bytes, into: Into) -> None:
        # What a fallback gave is no answer to an equal call of its model; and who does not read replaces.
        is_first = call.asked.decision.reads and filed.key.entry in {None, call.key}
        put = self._put(call, filed, data, into, only_first=is_first)
        origin, key = call.answered.origin, filed.key.entry or call.key or ""
        if origin is None or call.answered.paid is not None:
            return
        (self._of_others.add if answering.is_by_another(filed.model, origin) else self._of_others.discard)(key)
        if put is None or put.marks is None:  # a store that has just failed would be counted to fail twice
            known.note_unstored(call, None)
        else:
            known.note_stored(call, put.marks)

    def _put(self, call: Call, filed: Asked, data: bytes, into: Into, *, only_first: bool) -> Put | None:
        """Store an answer; or hand over what another process, or thread, has stored meanwhile, where that stays."""
        origin, key, turned_down = call.answered.origin, filed.key.entry or call.key, call.turned_down
        assert origin is not None and key is not None  # noqa: S101, PT018 - for the type checker
        label = Label(origin.kind, filed.model, origin.phase, origin.role or "", origin.run_id or "")
        mark = known.mark(origin)
        call.answered.entry = data
        if not only_first:
            return self.tiers.put(key, data, label, mark=mark, into=into)
        while True:
            put = self.tiers.put_first(key, data, label, mark=mark, into=into, instead_of=turned_down)
            if put is None or put.there is None or self._gives_way(call, key, put.there):
                return put
            turned_down = put.there

    def _gives_way(self, call: Call, key: str, there: bytes) -> bool:
        try:
            entry = Decoded(there, key).checked()
        except StoreError as error:
            if call.turned_down is None:  # or else it was counted when it was looked up
                self.note_fault("read", error, call)
            return isinstance(error, FormatVersionError)  # what may be read elsewhere is not written over
        if answering.why_too_old(call, entry.origin) or answering.why_not_served(call, entry.origin):
            return False
        call.give_way(entry.origin, there, entry.answer())
        return True

    def _note_not_stored(self, call: Call, why: str) -> None:
        state.note_why_not_stored(call.asked.key.request, f"it was bought in this process, and not stored: {why}")
        known.note_unstored(call, self.tiers)
