"""What a request may come to before it is sent, and what it came to by its answer: tokens, and their price.

A text has no more tokens than bytes. What an answer comes to at most is told by `max_tokens`; where nothing is said, it
is what 99 of 100 answers of the same kind came to before.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from dspy_cachectl.budgets.counts import Amounts, Need
from dspy_cachectl.budgets.opened import OpenBudget

_AROUND, _AROUND_ALL = 16, 64
"""How many tokens a provider puts around each message, and around all, at most."""
_OF_MEDIA = 4096
"""How many tokens are reckoned for an image, a sound or a document."""
_MEDIA = 1024
_BASE64 = re.compile(rf"[A-Za-z0-9+/=]{{{_MEDIA}}}")
_FIRST_GUESS = 1024
"""How many tokens an answer is taken to have, of which nothing is said or known."""
_REMEMBERED, _SHARE = 500, 0.99
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_OF_PROMPTS = ("messages", "prompt", "tools", "response_format", "functions")

_ANSWERS: dict[tuple[str, str], deque[int]] = {}
"""How many tokens answers had, by model and signature."""


class LMTerms:
    """What the requests of a call of an LM come to.

    Args:
        lm: The LM.
        prepared: The call as DSPy has prepared it.
        request: What its native engine is asked, or None.
        provider: Whose API that is, or None.
    """

    def __init__(self, lm: Any, prepared: Any, request: Any, provider: str | None) -> None:
        self._lm, self._request, self._provider = lm, request, provider
        self.is_alone: bool = prepared.managed
        options = prepared.legacy
        typed = prepared.request
        own = vars(typed.config) if typed is not None else options
        limit = next((found for name in _LIMITS if isinstance(found := own.get(name), int)), None)
        self._kind = (lm.model, _signature())
        self._candidates = 1 if request is not None else options.get("n") or 1
        self._read = _most_tokens(
            _said(typed) if typed is not None else {name: options.get(name) for name in _OF_PROMPTS}
        )
        self._written = (_usually(self._kind) if limit is None else limit) * self._candidates
        self._is_estimated = limit is None
        fallbacks = options.get("fallbacks")
        self._hidden = len(fallbacks) if isinstance(fallbacks, (list, tuple)) else 0

    def need(self, budget: OpenBudget) -> Need:
        """Return what a request needs of a budget."""
        tokens = float(self._read + self._written)
        if not self.is_alone:
            return Need({"requests": 1.0}, {})  # what it sends by DSPy takes for itself, and the rest is not known
        most: dict[str, float] = {"requests": float(self._hidden), "tokens": tokens}
        price = budget.price_of(self._lm.model) or _price(self._lm, self._provider, self._read)
        if price is None:
            _miss_price(budget, self._lm.model)
        else:
            most["cost"] = self._read * price[0] + self._written * price[1]
        return Need({"requests": 1.0}, most, estimated=self._is_estimated)

    def spent(self, budget: OpenBudget, answer: Any) -> Amounts:
        """Return what an answer came to, beside the request itself."""
        read, written, cost = self._facts(answer)
        seen = _ANSWERS.setdefault(self._kind, deque(maxlen=_REMEMBERED))
        seen.append(-(-written // self._candidates))
        given = budget.price_of(self._lm.model)
        if given is not None:
            cost = read * given[0] + written * given[1]
        return {"tokens": float(read + written), "cost": cost or 0.0, "requests": float(_fallbacks_in(answer))}

    def _facts(self, answer: Any) -> tuple[int, int, float | None]:
        """Return the tokens that were read and written, and the price that DSPy itself reckons."""
        from dspy.clients import execution
        from dspy.clients.call_result import CallResult, usage_dict

        if answer is None:
            return 0, 0, None
        if isinstance(answer, CallResult):
            execution._price_legacy(self._lm, answer, self._provider)  # noqa: SLF001 - as DSPy does next
            usage, cost = answer.usage or {}, answer.cost
        else:
            priced = SimpleNamespace(cost=None, cost_details=None)
            if hasattr(answer, "message"):
                execution._price_result(  # noqa: SLF001 - likewise
                    self._lm, priced, answer, self._provider, self._request
                )
            usage = usage_dict(answer, self._provider) if getattr(answer, "usage", None) else {}
            cost = priced.cost
        read, written = (usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens"))
        return int(read), int(written), cost


class EmbeddingTerms:
    """What a request for embeddings comes to: DSPy does not tell of it, so it is reckoned at the most.

    Args:
        model: The model's name.
        texts: What is embedded.
        options: What it is asked with.
    """

    is_alone = True

    def __init__(self, model: str, texts: Any, options: Mapping[str, Any]) -> None:
        self._model = model
        self._tokens = float(_most_tokens(texts))
        retries = options.get("max_retries", options.get("num_retries"))
        self._hidden = float(retries if isinstance(retries, int) else 2)  # as OpenAI's client does by itself

    def need(self, budget: OpenBudget) -> Need:
        """Return what a request needs of a budget."""
        most = {"requests": self._hidden, "tokens": self._tokens}
        price = budget.price_of(self._model) or _price_by_litellm(self._model)
        if price is None:
            _miss_price(budget, self._model)
        else:
            most["cost"] = self._tokens * price[0]
        return Need({"requests": 1.0}, most)

    def spent(self, budget: OpenBudget, answer: Any) -> Amounts:  # noqa: ARG002
        """Return what an answer came to, beside the request itself."""
        return {kind: most for kind, most in self.need(budget).most.items() if kind != "requests"}


def _miss_price(budget: OpenBudget, model: str) -> None:
    """Say once that a model has no price, where the cost is limited; or refuse it.

    Raises:
        BudgetExceededError: If the budget is strict.
    """
    if "cost" in budget.limits:
        budget.note_unsure(
            model, f'its price is not known, so it counts as free: give it, as prices={{"{model}": (0.15, 0.60)}}'
        )


def _most_tokens(value: Any) -> int:
    """Return how many tokens something that is asked has at most."""
    if isinstance(value, str):
        is_media = len(value) > _MEDIA and (value.startswith("data:") or _BASE64.match(value))
        return _OF_MEDIA if is_media else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Mapping):
        return _AROUND + sum(len(str(name)) + _most_tokens(part) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return _AROUND_ALL + sum(_AROUND + _most_tokens(part) for part in value)
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        return _most_tokens(value.model_json_schema())
    return len(str(value)) if value is not None else 0


def _said(request: Any) -> Any:
    from dspy._vendor.lm15.serde import request_to_dict

    return request_to_dict(request)


def _signature() -> str:
    import dspy

    caller = dspy.settings.get("caller_predict")
    return str(getattr(getattr(caller, "signature", None), "signature", ""))


def _usually(kind: tuple[str, str]) -> int:
    """Return what 99 of 100 answers of a kind came to."""
    seen = sorted(_ANSWERS.get(kind, ()))
    return seen[min(len(seen) - 1, int(_SHARE * len(seen)))] if seen else _FIRST_GUESS


def _fallbacks_in(answer: Any) -> int:
    from dspy_cachectl.entries.answers import read

    raw = getattr(answer, "raw", None)
    return 0 if raw is None else read(raw).fallback or 0


def _price(lm: Any, provider: str | None, read: int) -> tuple[float, float] | None:
    """Return what a token read and one written cost at most in US dollars, as DSPy or LiteLLM knows it; or None."""
    if provider is None:
        return _price_by_litellm(lm.model, read > _LONG)
    from dspy.clients.capabilities import resolve
    from dspy.clients.model_metadata import model_info
    from dspy.lm15 import _binding_for

    route = resolve(lm)
    binding = _binding_for(getattr(lm, "_providers", ()), provider) if route.declared else None
    namespaces = None if binding is None else binding.metadata_namespaces
    return _highest(model_info(provider, route.model, namespaces=namespaces), is_long=read > _LONG)


_LONG = 100_000


@functools.lru_cache(maxsize=256)
def _price_by_litellm(model: str, is_long: bool = False) -> tuple[float, float] | None:
    import litellm

    try:
        info = dict(litellm.get_model_info(model))
    except Exception:  # noqa: BLE001 - it raises whatever for a model that it does not know
        return None
    return _highest(info, is_long=is_long)


def _highest(info: Mapping[str, Any], *, is_long: bool) -> tuple[float, float] | None:
    """Return the highest price that may be asked, without what only a request for it gets."""

    def highest(*begins: str) -> float | None:
        found = [
            price
            for name, price in info.items()
            if name.startswith(begins)
            and isinstance(price, (int, float))
            and "priority" not in name
            and (is_long or "_above_" not in name)
        ]
        return max(found, default=None)

    read = highest("input_cost_per_token", "cache_creation_input_token_cost")
    written = highest("output_cost_per_token", "output_cost_per_reasoning_token")
    return None if read is None else (read, written or 0.0)


def name_what_is_not_sure(budgets: Iterable[tuple[OpenBudget, int]], lm: Any) -> None:
    """Say of the LM that DSPy is set to, before it is asked, that a budget cannot count it for certain, if so."""
    if lm is None or not any("cost" in budget.limits for budget, _ in budgets):
        return
    try:
        from dspy.clients.capabilities import resolve

        is_native = getattr(lm, "_engine_spec", None) == "auto"
        known = _price(lm, resolve(lm).provider if is_native else None, 0)
    except Exception:  # noqa: BLE001 - whatever DSPy makes of it is said when it is asked
        return
    for budget, _ in budgets:
        if known is None and budget.price_of(lm.model) is None and not budget.budget.strict:
            _miss_price(budget, lm.model)
