"""Where DSPy is made to wait for its turn: at the sending of one request, and at what makes embeddings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.limits.pacing import Pacer
from dspy_cachectl.limits.rates import Rate

Original = Any


@dataclass(frozen=True)
class Here:
    """What rules where a request is sent.

    Attributes:
        rates: Returns what limits it, given its LM, or None, and the engine that sends it, or None.
        pacer: Returns what lets it go.
        waited: Is told for how many seconds it waited.
    """

    rates: Callable[[Any, Any], tuple[Rate, ...]]
    pacer: Callable[[], Pacer]
    waited: Callable[[float], None]


def paced(original: Original, here: Here) -> Original:
    """Around the sending of one request."""

    def attempt(lm: Any, prepared: Any, *rest: Any) -> None:
        rates = here.rates(lm, rest[0])
        if not rates:
            original(lm, prepared, *rest)
            return
        pacer, characters = here.pacer(), _characters(prepared)
        began = time.monotonic()
        taken = pacer.enter(rates, characters, _max_tokens(prepared)).result()
        here.waited(time.monotonic() - began)
        original(lm, prepared, *rest)
        pacer.settle(rates, taken, characters, _tokens(rest))

    return attempt


def paced_async(original: Original, here: Here) -> Original:
    """Do the same around a coroutine, which is only another one where there are limits."""

    def attempt(lm: Any, prepared: Any, *rest: Any) -> Any:
        rates = here.rates(lm, rest[0])
        if not rates:
            return original(lm, prepared, *rest)

        async def later() -> None:
            pacer, characters = here.pacer(), _characters(prepared)
            began = time.monotonic()
            taken = await asyncio.wrap_future(pacer.enter(rates, characters, _max_tokens(prepared)))
            here.waited(time.monotonic() - began)
            await original(lm, prepared, *rest)
            await asyncio.to_thread(pacer.settle, rates, taken, characters, _tokens(rest))

        return later()

    return attempt


def embedding_paced(original: Original, here: Here) -> Original:
    """Around what asks a provider for embeddings; a function of the user's own is none."""

    def embed(model: Any, texts: Any, *args: Any, **kwargs: Any) -> Any:
        rates = here.rates(None, None) if isinstance(model, str) else ()
        if rates:
            here.pacer().enter(rates, sum(map(len, texts)), 0).result()
        return original(model, texts, *args, **kwargs)

    return embed


def embedding_paced_async(original: Original, here: Here) -> Original:
    """Do the same around a coroutine function."""

    async def embed(model: Any, texts: Any, *args: Any, **kwargs: Any) -> Any:
        rates = here.rates(None, None) if isinstance(model, str) else ()
        if rates:
            await asyncio.wrap_future(here.pacer().enter(rates, sum(map(len, texts)), 0))
        return await original(model, texts, *args, **kwargs)

    return embed


def _characters(prepared: Any) -> int:
    asked = prepared.request if prepared.request is not None else prepared.legacy.get("messages")
    return len(str(asked))


def _max_tokens(prepared: Any) -> float | None:
    said = prepared.request.config if prepared.request is not None else prepared.legacy
    found = said.get("max_tokens") if isinstance(said, Mapping) else getattr(said, "max_tokens", None)
    return found if isinstance(found, (int, float)) else None


def _tokens(of_attempt: tuple[Any, ...]) -> int:
    """Return how many tokens an answer was paid for, sent and received."""
    state_of_it = of_attempt[-2]
    usage = getattr(state_of_it.result, "usage", None) or {}
    return sum(int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
