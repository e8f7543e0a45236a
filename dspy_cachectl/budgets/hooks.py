"""Where DSPy is made to ask the budgets: at its choice of an engine, and at what makes embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from dspy_cachectl.budgets.opened import LIVE, OpenBudget
from dspy_cachectl.budgets.prices import EmbeddingTerms, LMTerms
from dspy_cachectl.budgets.sending import AsyncGuard, Guard, within, within_async

Original = Any
Here = Callable[[Any], tuple[OpenBudget, ...]]
"""Returns what a call of a role draws on where it is made."""


def engine_within(original: Original, here: Here) -> Original:
    """Around DSPy's choice of an engine: where there are budgets, each request asks them first."""

    def choose(lm: Any, prepared: Any, asynchronous: bool) -> Any:
        engine, request, provider = original(lm, prepared, asynchronous)
        if not LIVE or not (budgets := here(getattr(lm, "role", None))):
            return engine, request, provider
        if not prepared.managed:
            for budget in budgets:
                budget.note_unsure(lm.model, "it runs its own forward(), which may send more than DSPy knows of")
        guard, terms = AsyncGuard if asynchronous else Guard, LMTerms(lm, prepared, request, provider)
        if request is not None and prepared.n > 1:  # DSPy sends each candidate by itself, and without all has no answer
            for budget in budgets:
                budget.check(terms.need(budget).times(prepared.n))
        return guard(engine, budgets, terms), request, provider

    return choose


def embedding_within(original: Original, here: Here) -> Original:
    """Around what asks a provider for embeddings; a function of the user's own is none."""

    def embed(model: Any, texts: Any, *args: Any, **kwargs: Any) -> Any:
        if not LIVE or not isinstance(model, str) or not (budgets := here(None)):
            return original(model, texts, *args, **kwargs)
        ask, terms = partial(original, model, texts, *args, **kwargs), EmbeddingTerms(model, texts, kwargs)
        is_async = inspect.iscoroutinefunction(original)
        return within_async(budgets, terms, ask) if is_async else within(budgets, terms, ask)

    return embed
