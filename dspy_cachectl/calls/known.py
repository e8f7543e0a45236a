"""Whether what a provider answered was another draw's already, in this process or in a store: then it is not fresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from dspy_cachectl.calls.call import Call
from dspy_cachectl.context.process import state
from dspy_cachectl.entries.draw_tokens import known_as, mark_of
from dspy_cachectl.entries.records import Origin
from dspy_cachectl.stores.base import name_of
from dspy_cachectl.stores.tiers import Tiers


def mark(origin: Origin) -> str:
    """Return by what an answer is known again; "" where nothing tells it."""
    return _mark_of(origin.response_ids, origin.content)


_mark_of = lru_cache(maxsize=256)(mark_of)  # three ask for it where an answer is kept


def note_unstored(call: Call, tiers: Tiers | None) -> None:
    """Note a bought answer that goes into no store, and whether it was known."""
    origin = call.answered.origin
    if origin is not None and call.key is not None and (its := mark(origin)):
        stored = {} if tiers is None or call.asked.ruling.cassette is not None else tiers.marked(name_of(its))
        note(call, {**state.note_answer(call.key, its), **stored})


def note_stored(call: Call, before: Mapping[str, str]) -> None:
    """Note whether a bought answer was known when a store took it, which returned `before`."""
    origin = call.answered.origin
    if origin is not None and (its := mark(origin)):
        with state.lock:
            note(call, {**state.answers.named(name_of(its)), **before})


def note(call: Call, marks: Mapping[str, str]) -> None:
    """Count a bought answer as repeated where it was known, and say so once.

    Args:
        call: The call.
        marks: The marks of its answer's name that were there before, each with its first key.
    """
    origin, asked, answered = call.answered.origin, call.asked, call.answered
    if origin is None:
        return
    holder, is_sure = known_as(mark(origin), marks)
    if holder is None or holder in call.within:
        return
    # Whoever asks for one draw at the same time in two processes gets one draw, which is nobody else's.
    is_known = holder != call.key or bool(call.tally.expired) or not asked.decision.reads
    if is_known:
        answered.origin = replace(origin, known=True if is_sure else None)
    if not is_sure:
        return
    call.tally.not_distinct += is_known
    if answered.outcome in {"fresh", "refreshed"}:
        answered.outcome = "repeated"
    state.say_once(
        f"repeated:{asked.endpoint}:{asked.model}",
        f"{asked.model!r} answered with what it had answered before (response id {origin.response_ids[0]!r}): "
        "something on the way to the model caches by itself, so these draws are not distinct; they are counted as "
        "repeated, and not as fresh. A LiteLLM proxy can be asked not to, with phase(..., bypass_proxy=True)",
    )
