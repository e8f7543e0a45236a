"""Embeddings, text by text: of a corpus to which one text is added only that one is computed.

DSPy asks its cache for a whole batch. Here each text of the batch has an entry of its own; what is missing is computed
in one batch, as the program would have. The program has made one call all the same, and that is what is counted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dspy
from dspy.clients import embedding

from dspy_cachectl.accounting.ledger import SERVED, Tally
from dspy_cachectl.calls.account import Counted, note_all_served
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.call import Answered, Call
from dspy_cachectl.calls.opening import identify, open_plain_call
from dspy_cachectl.entries import draws, origins
from dspy_cachectl.entries.asked import is_litellms
from dspy_cachectl.entries.decoded import Decoded

_IGNORED = ["api_key", "api_base", "base_url"]
_IDENTIFIER = "dspy.clients.embedding._cached_{}compute_embeddings"


def by_text(original: Callable[..., Any]) -> Callable[..., Any]:
    """In the place of what DSPy computes a batch by where its cache has none."""

    def compute(model: Any, batch_inputs: Sequence[str], caching: bool = True, **options: Any) -> Any:
        cache = vars(dspy).get("cache")
        if not isinstance(cache, ManagedCache):
            return original(model, batch_inputs, caching=caching, **options)
        batch = _Batch(cache, model, batch_inputs, {"caching": caching, **options}, _IDENTIFIER.format(""))
        with Counted(batch.call):
            missing = batch.missing()
            if missing:
                batch.buy(missing, embedding._compute_embeddings(model, missing, caching=caching, **options))  # noqa: SLF001
            return batch.vectors()

    return compute


def by_text_async(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Do the same for its coroutine function."""

    async def compute(model: Any, batch_inputs: Sequence[str], caching: bool = True, **options: Any) -> Any:
        cache = vars(dspy).get("cache")
        if not isinstance(cache, ManagedCache):
            return await original(model, batch_inputs, caching=caching, **options)
        batch = _Batch(cache, model, batch_inputs, {"caching": caching, **options}, _IDENTIFIER.format("a"))
        with Counted(batch.call):
            missing = batch.missing()
            if missing:
                found = await embedding._acompute_embeddings(model, missing, caching=caching, **options)  # noqa: SLF001
                batch.buy(missing, found)
            return batch.vectors()

    return compute


class _Batch:
    """A batch on its way, and the calls that would be made for each of its texts."""

    def __init__(
        self, cache: ManagedCache, model: Any, texts: Sequence[str], options: Mapping[str, Any], identifier: str
    ) -> None:
        self._cache = cache
        self._texts = list(texts)
        # What DSPy would ask its cache.
        self._request = {
            **options,
            "positional_arg_0": model,
            "positional_arg_1": self._texts,
            "_fn_identifier": identifier,
        }
        self._by_litellm = is_litellms(options)
        self.call = open_plain_call(self._request)
        self._each: dict[str, Call] = {}
        self._found: dict[str, Any] = {}

    def missing(self) -> list[str]:
        """Return the texts that have no vector yet, each once.

        Raises:
            CacheMissError: In a replay, where there is one.
        """
        if not self._cache.has_imported:
            if self._finds_at_hand():
                return []
        else:  # whose batches are whole
            whole = self._found_for(self.call, self._request)
            if whole is not None:
                self._spread(whole)
                return []
        self.call.sent_at = time.monotonic()
        for text in dict.fromkeys(self._texts):
            one = self._each[text] = self._one(text)
            vector = self._found_for(one, {**self._request, "positional_arg_1": [text]})
            if vector is not None:
                self._found[text] = vector[0]
        missing = [text for text in self._each if text not in self._found]
        if not missing:
            self._serve()
        return missing

    def _finds_at_hand(self) -> bool:
        """Find the vectors of all texts where each is at hand. Tell whether they were: otherwise nothing has changed.

        Then no call is made for each of the texts, and they are counted together.
        """
        asked, cleaned = self.call.asked, self.call.asked.request
        if cleaned is None or self.call.key is None or asked.ruling.cassette is not None:
            return False
        found: dict[str, Decoded] = {}
        keys: list[str] = []
        for text in dict.fromkeys(self._texts):
            fingerprint = draws.fingerprint(
                {**cleaned, "batch_inputs": [text]}, endpoint=asked.endpoint, version=asked.version
            )
            key = self._key(fingerprint)
            entry = self._cache.at_hand(self.call, key) if key is not None else None
            if key is None or entry is None:
                return False
            found[text] = entry
            keys.append(key)
        if not found:
            return False
        self._found = {text: entry.answer()[0] for text, entry in found.items()}
        self._serve_together(list(found.values()))
        note_all_served(self.call, keys)
        return True

    def _key(self, fingerprint: str) -> str | None:
        asked = self.call.asked
        return draws.key_within(
            fingerprint, scope=asked.policy.scope, program_rollout_id=asked.program_rollout_id, run_id=asked.run_id
        ).entry

    def _serve_together(self, entries: list[Decoded]) -> None:
        first, seconds = entries[0], sum(entry.origin.seconds for entry in entries)
        self.call.serve(first.origin, first.data)
        self.call.answered = Answered(
            self.call.answered.outcome, origins.with_seconds(first.origin, seconds), first.data
        )

    def buy(self, missing: list[str], vectors: Any) -> None:
        """Keep what was computed for the missing texts.

        Raises:
            ValueError: If there is not a vector for each of them.
        """
        if len(vectors) != len(missing):
            raise ValueError(f"{self.call.asked.model!r} gave {len(vectors):,} vectors for {len(missing):,} texts")
        for place, text in enumerate(missing):
            one = self._each[text]
            if self.call.sent_at is not None and one.sent_at is not None:
                # Of the time that the batch took, each has its share.
                one.sent_at = time.monotonic() - (time.monotonic() - one.sent_at) / len(missing)
            kept = self._cache.keep(one, vectors[place : place + 1])
            self._found[text] = kept[0]
        bought = self._each[missing[0]].answered
        if bought.origin is not None:
            seconds = sum(
                each.answered.origin.seconds for text in missing if (each := self._each[text]).answered.origin
            )
            self.call.answered = Answered(bought.outcome, replace(bought.origin, seconds=seconds))
        self._add_tallies()

    def vectors(self) -> Any:
        """Return the vectors of all texts, in their order."""
        return [self._found[text] for text in self._texts]

    def _found_for(self, call: Call, request: dict[str, Any]) -> Any:
        found = self._cache.look_up(call, lambda: (request, _IGNORED))
        return None if found is None else found.answer()

    def _one(self, text: str) -> Call:
        asked = self.call.asked
        if asked.sent is None:  # it has no canonical form, and so has none of its texts
            return Call(replace(asked), parent=self.call.parent, tally=Tally())
        one = replace(asked)
        identify(one, {**asked.sent, "batch_inputs": [text]}, by_litellm=self._by_litellm)
        return Call(one, parent=self.call.parent, tally=Tally())

    def _spread(self, whole: Any) -> None:
        for place, text in enumerate(self._texts):
            one = self._one(text)
            one.answered = replace(self.call.answered, entry=None)
            self._cache.file(one, whole[place : place + 1])
            self._found[text] = whole[place]

    def _serve(self) -> None:
        served = [one for one in self._each.values() if one.answered.origin is not None]
        if served:
            first, seconds = (
                served[0].answered,
                sum(one.answered.origin.seconds for one in served if one.answered.origin),
            )
            assert first.origin is not None  # noqa: S101 - for the type checker
            self.call.answered = Answered(first.outcome, replace(first.origin, seconds=seconds), first.entry)
        self._add_tallies()

    def _seconds(self, texts: Iterable[str]) -> float:
        origins = (self._each[text].answered.origin for text in texts)
        return sum(origin.seconds for origin in origins if origin is not None)

    def _add_tallies(self) -> None:
        for one in self._each.values():
            self.call.tally.add(one.tally)
        served = (one.key for one in self._each.values() if one.answered.outcome in SERVED)
        note_all_served(self.call, [key for key in served if key is not None])
