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
from dspy_cachectl.calls.adapter import embedders_request
from dspy_cachectl.calls.alike import TEXTS
from dspy_cachectl.calls.at_hand import KNOWN_DSPY
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.call import Answered, Call
from dspy_cachectl.calls.opening import identify, open_shared_call
from dspy_cachectl.entries import draws, origins
from dspy_cachectl.entries.asked import is_litellms
from dspy_cachectl.entries.decoded import Decoded
from dspy_cachectl.policy import Kind

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


class IntoArray(list[str]):
    """Texts whose vectors become the rows of an array, and are seen by nobody before: these need be no lists."""


_IS_KNOWN = dspy.__version__ == KNOWN_DSPY
_POSTPROCESS = dspy.Embedder._postprocess  # noqa: SLF001
"""DSPy's own method; another may stand in its place later."""
_OF_ARRAYS = frozenset({"__call__", "acall", "_postprocess"})


def becomes_array(ours: Any, embedder: Any) -> bool:
    """Tell whether all that sees an embedder's vectors is what DSPy makes an array by, in DSPy or in our class."""
    kind, base = type(embedder), dspy.Embedder
    return (
        kind._postprocess is ours._postprocess  # noqa: SLF001
        and base._postprocess is _POSTPROCESS  # noqa: SLF001
        and kind.__call__ is base.__call__
        and kind.acall is base.acall
        and _OF_ARRAYS.isdisjoint(vars(embedder))
    )


def as_array(rows: list[Any], *, is_single: bool) -> Any:
    """Return what DSPy makes of vectors, which looks for numpy anew at each of its names; None where it is unknown.

    Args:
        rows: The vectors.
        is_single: Whether one text was given, and no list of them.
    """
    if not (_IS_KNOWN and dspy.Embedder._postprocess is _POSTPROCESS):  # noqa: SLF001
        return None
    import numpy as np

    made = np.array(rows, dtype=np.float32)
    return made[0] if is_single else made


class _Batch:
    """A batch on its way, and the calls that would be made for each of its texts."""

    def __init__(
        self, cache: ManagedCache, model: Any, texts: Sequence[str], options: Mapping[str, Any], identifier: str
    ) -> None:
        self._cache, self._model, self._texts = cache, model, list(texts)
        self._options, self._identifier = options, identifier
        self._into_array = isinstance(texts, IntoArray)
        self.call = open_shared_call(Kind.EMBEDDING, embedders_request(model, self._texts, options))
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
            whole = self._found_for(self.call, self._texts)
            if whole is not None:
                self._spread(whole)
                return []
        self.call.sent_at = time.monotonic()
        for text in dict.fromkeys(self._texts):
            one = self._each[text] = self._one(text)
            vector = self._found_for(one, [text])
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
        if not self._texts or self.call.key is None or self.call.asked.ruling.cassette is not None:
            return False
        texts = list(dict.fromkeys(self._texts))
        keys = [self._key(text) for text in texts]
        entries = self._at_hand(keys)
        if entries is None:
            return False
        self._found = {text: self._row(entry) for text, entry in zip(texts, entries, strict=True)}
        self._serve_together(entries)
        note_all_served(self.call, keys)
        return True

    def _at_hand(self, keys: list[str]) -> list[Decoded] | None:
        """Return what is kept under some keys, where each is found without waiting and answers the call."""
        if not self.call.asked.decision.reads:
            return None
        found: list[Decoded] = []
        for key, data in zip(keys, self._cache.tiers.glance_all(keys), strict=True):
            entry = None if data is None else self._cache.serving(self.call, key, data)
            if entry is None:
                return None
            found.append(entry)
        return found

    def _key(self, text: str) -> str:
        """Return the key of one of the texts: where all together have one, each has."""
        asked = self.call.asked
        if asked.alike is not None:
            fingerprint = asked.alike.around.fingerprint([text])
        else:
            one = {**(asked.request or {}), TEXTS: [text]}
            fingerprint = draws.fingerprint(one, endpoint=asked.endpoint, version=asked.version)
        key = draws.key_within(
            fingerprint, scope=asked.policy.scope, program_rollout_id=asked.program_rollout_id, run_id=asked.run_id
        )
        return key.entry or ""

    def _row(self, entry: Decoded) -> Any:
        """Return the vector that an entry holds; where it only goes into an array, without a list of its numbers."""
        return entry.vector if self._into_array and entry.vector is not None else entry.answer()[0]

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

    def _found_for(self, call: Call, texts: list[str]) -> Any:
        found = self._cache.look_up(call, lambda: (self._request(texts), _IGNORED))
        return None if found is None else found.answer()

    def _request(self, texts: list[str]) -> dict[str, Any]:
        """Return what DSPy would ask its cache."""
        named = {"positional_arg_0": self._model, "positional_arg_1": texts, "_fn_identifier": self._identifier}
        return {**self._options, **named}

    def _one(self, text: str) -> Call:
        asked = self.call.asked
        if asked.sent is None:  # it has no canonical form, and so has none of its texts
            return Call(replace(asked), parent=self.call.parent, tally=Tally())
        one = replace(asked)
        identify(one, {**asked.sent, TEXTS: [text]}, by_litellm=is_litellms(self._options))
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
