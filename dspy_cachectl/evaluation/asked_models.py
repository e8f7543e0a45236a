"""Which models a program asked, and how: counted from the calls that were made, whatever the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspy_cachectl.accounting.asked import AskedModel
from dspy_cachectl.calls.answering import asked_in_its_place, is_by_another
from dspy_cachectl.calls.call import Asked, Call
from dspy_cachectl.entries.records import Origin
from dspy_cachectl.policy import Kind

_SEEDS = frozenset({"seed", "random_seed"})
_NO_OPTIONS = frozenset({"messages", "prompt", "input", "tools", "tool_choice", "response_format", "metadata"})


def asked_model(call: Call) -> AskedModel | None:
    """Return what answered a call that has ended; None where nothing did."""
    asked, origin = call.asked, call.answered.origin
    if origin is None:
        return None
    by, lent = _who_was_asked(call, origin)
    return AskedModel(
        by.model,
        by.endpoint,
        by.version,
        by.temperature,
        lent,
        answered_by=" + ".join(origin.answered_by) or None,
        is_other=is_by_another(asked.model, origin),
        instead_of=None if by.model == asked.model else asked.model,
        seed=_seed_in(asked.request or asked.sent or {}),
        embeds=asked.kind is Kind.EMBEDDING,
        state=_state(call, origin),
    )


def _state(call: Call, origin: Origin) -> str | None:
    """Return in which state a model answered, where it says so."""
    run = call.asked.ruling.run
    if run is None or not (origin.answered_by and origin.system_fingerprints):
        return None
    asked = call.asked.model, call.asked.endpoint
    return str(run.states.met(asked, origin.answered_by, origin.system_fingerprints).state)


def _who_was_asked(call: Call, origin: Origin) -> tuple[Asked, bool]:
    """Return what was asked of whoever answered, a fallback maybe, and whether its temperature was lent."""
    asked, facts = call.asked, call.answered.facts
    if facts is not None:
        instead = asked_in_its_place(asked, facts)
        by = asked if instead is None else instead[0]
        return by, origin.lent and by.temperature == asked.temperature
    if asked.ruling.cassette is not None or (origin.model, origin.endpoint) == (asked.model, asked.endpoint):
        return asked, origin.lent
    # It was bought by an equal call, of a fallback.
    by = replace(asked, model=origin.model, endpoint=origin.endpoint, version=None, temperature=origin.temperature)
    return by, origin.lent


def _seed_in(request: Mapping[str, Any]) -> int | str | None:
    """Return the seed that a provider is sent: an option, or however deep in a part of the body that is given as it is.

    As `options` of Ollama, say. What is said to the model, and which form its answer has, is no option.
    """
    found: list[Any] = [value for name, value in request.items() if name in _SEEDS and value is not None]
    parts = [value for name, value in request.items() if name not in _NO_OPTIONS and isinstance(value, Mapping)]
    found += [seed for seed in map(_seed_in, parts) if seed is not None]
    return next((seed if isinstance(seed, int) else str(seed) for seed in found), None)
