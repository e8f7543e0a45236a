"""A call as a line of a batch, and what a batch answers as what DSPy would have made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.clients.call_result import CallResult
from dspy.clients.lm15_boundary import request_kwargs
from dspy.lm15 import response_from_openai_chat

from dspy_cachectl.budgets.opened import OpenBudget
from dspy_cachectl.budgets.sending import Guard, Terms
from dspy_cachectl.calls.adapter import cache_request, dspys_request
from dspy_cachectl.calls.call import Call
from dspy_cachectl.errors import ConfigurationError

PROVIDERS = ("openai", "azure", "hosted_vllm", "litellm_proxy", "mistral", "xai")
"""Those whose batches LiteLLM sends, and which answer as OpenAI does."""

ENDPOINT = "/v1/chat/completions"

_CLIENTS = frozenset(CLIENT_KEYS) | {"ssl_verify", "azure_ad_token", "tenant_id", "client_id", "client_secret"}
_NOT_SENT = frozenset({"_fn_identifier", "model", "rollout_id", "num_generations", "stream", "extra_body"})


@dataclass(frozen=True, eq=False)
class Line:
    """One call of a batch.

    Attributes:
        key: The key of its entry, by which its answer is known.
        unit: What the call belongs to: a question and a repeat.
        model: The model, as the provider calls it.
        provider: The provider, as LiteLLM calls it.
        endpoint: The identity of where the model is served, or None.
        run_id: The run that its answer is a draw of, or None.
        connection: What LiteLLM reaches the provider with: address, key, and the like. Nothing of it is written down.
        body: What is asked.
        read: Makes what DSPy makes of an answer, given the answer and its cost.
        budgets: What it draws on.
        terms: What is known of what it comes to, where there are budgets.
    """

    key: str
    unit: str | None
    model: str
    provider: str
    endpoint: str | None
    run_id: str | None
    connection: Mapping[str, Any] = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)
    read: Callable[[dict[str, Any], float | None], CallResult] = field(repr=False)
    budgets: tuple[OpenBudget, ...] = field(default=(), repr=False)
    terms: Terms | None = field(default=None, repr=False)

    @property
    def group(self) -> str:
        """What the lines of one batch have in common: a batch is of one model, and of one account."""
        return repr((self.provider, self.model, self.endpoint, sorted(self.connection.items(), key=repr)))

    def as_bytes(self) -> bytes:
        """Return the line of the file."""
        asked = {"custom_id": self.key, "method": "POST", "url": ENDPOINT, "body": {**self.body, "model": self.model}}
        return json.dumps(asked, ensure_ascii=False).encode() + b"\n"

    def answer(self, body: dict[str, Any]) -> CallResult:
        """Return what DSPy would have made of an answer, at the price of batches.

        Raises:
            ValueError: If it has not as many choices as were asked for.
        """
        choices = body.get("choices")
        wanted = self.body.get("n") or 1
        if not isinstance(choices, list) or len(choices) != wanted:
            raise ValueError(f"it has not {wanted} choices, as was asked for")
        return self.read(body, cost_of(self, body.get("usage") or {}))


def why_not(lm: Any, prepared: Any, call: Call | None) -> str:
    """Say why a call cannot be sent with a batch; nothing where it can."""
    if call is None or call.key is None:
        return "nothing can be stored for it: its caching is off, or what it asks has no canonical form"
    if not (call.asked.decision.reads and call.asked.decision.stores):
        return f"the policy {call.asked.policy.name} does not read and store, so its answer would not be found again"
    if lm.model_type != "chat":
        return f"it goes to the API of {lm.model_type}, and batches are sent to that of chat completions"
    if not prepared.managed or not isinstance(getattr(lm, "_engine_spec", None), str):
        return "it has an engine of its own"
    provider = _provider_of(lm, {**lm.kwargs, **prepared.kwargs})[0]
    if provider not in PROVIDERS:
        return f"the provider {provider} is not among those whose batches are known: {', '.join(PROVIDERS)}"
    return ""


def line_of(lm: Any, prepared: Any, call: Call, *, backend: Any, request: Any, by: str | None) -> Line:
    """Return the line of a call that can be sent with a batch.

    Args:
        lm: Its LM.
        prepared: The call as DSPy has prepared it.
        call: The call.
        backend: The engine that DSPy would ask.
        request: What that would be given; None where it is given DSPy's older form.
        by: The provider, as DSPy calls it, or None.
    """
    options = {**lm.kwargs, **prepared.kwargs}
    provider, model = _provider_of(lm, options)
    body = _body(lm, prepared)
    several = (body.get("n") or 1) > 1

    def read(answer: dict[str, Any], cost: float | None) -> CallResult:
        import litellm

        if request is None or several:
            raw = litellm.ModelResponse(**answer)
            raw._hidden_params["response_cost"] = cost  # noqa: SLF001 - where LiteLLM has it, and DSPy looks for it
            return CallResult.legacy(lm, raw, kwargs=prepared.legacy)
        said = backend._response(answer, request) if hasattr(backend, "_response") else None  # noqa: SLF001
        said = said or response_from_openai_chat(answer, model=request.model)
        wants = prepared.request.config.logprobs if prepared.request is not None else prepared.legacy.get("logprobs")
        result = CallResult.native(said, logprobs=bool(wants), provider=by)
        result.cost = cost
        return result

    return Line(
        key=call.key or "",
        unit=call.asked.ruling.context.unit,
        model=model,
        provider=provider,
        endpoint=call.asked.endpoint,
        run_id=call.asked.ruling.context.run_id,
        # How long a call may take says nothing of how long a file does.
        connection={
            name: value
            for name, value in options.items()
            if _is_of_client(name) and name != "timeout" and value is not None
        },
        body=body,
        read=read,
        budgets=tuple(backend.budgets) if isinstance(backend, Guard) else (),
        terms=backend.terms if isinstance(backend, Guard) else None,
    )


def cost_of(line: Line, usage: Mapping[str, Any]) -> float | None:
    """Return what an answer costs, in US dollars; None where the price of batches is not known.

    Args:
        line: What it answers.
        usage: Its usage, as the provider says it.
    """
    import litellm

    try:
        price: Mapping[str, Any] = litellm.get_model_info(line.model, custom_llm_provider=line.provider)
    except Exception:  # noqa: BLE001 - LiteLLM raises a plain one for a model that it does not know
        return None
    read, written = price.get("input_cost_per_token_batches"), price.get("output_cost_per_token_batches")
    if read is None or written is None:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    of_cached = price.get("cache_read_input_token_cost_batches")
    new = (usage.get("prompt_tokens") or 0) - cached
    spent = new * read + cached * (read if of_cached is None else of_cached)
    return float(spent + (usage.get("completion_tokens") or 0) * written)


def _provider_of(lm: Any, options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the provider and the model as LiteLLM calls them."""
    import litellm

    address = options.get("api_base") or options.get("base_url")
    named = options.get("custom_llm_provider")
    try:
        model, provider, *_ = litellm.get_llm_provider(lm.model, custom_llm_provider=named, api_base=address)
    except Exception as error:
        raise ConfigurationError(f"LiteLLM knows no provider of the model {lm.model!r}: {error}") from error
    return provider, model


def _body(lm: Any, prepared: Any) -> dict[str, Any]:
    """Return what is asked, as OpenAI's API of chat completions has it."""
    if prepared.request is not None:
        return dict(request_kwargs(prepared.request, "chat"))
    from litellm.types.utils import all_litellm_params

    asked = cache_request(dspys_request(prepared, lm, False))[1]
    own = {name: value for name, value in asked.items() if not (name in _NOT_SENT or _is_of_client(name))}
    own = {name: value for name, value in own.items() if name not in all_litellm_params}
    return {name: value for name, value in {**own, **(asked.get("extra_body") or {})}.items() if value is not None}


def _is_of_client(name: str) -> bool:
    return name in _CLIENTS or name.startswith(("aws_", "vertex_"))
