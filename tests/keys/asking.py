"""One call by each engine: what the provider receives for it, and whether it is served what another call bought."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dspy

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint

_OF_THE_CLIENT = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
)
CREDENTIALS = ("authorization", "x-api-key", "api-key", "cookie")
"""Headers that only say who asks."""

Call = Callable[[dict[str, Any], str], Any]


def _lm(make: Callable[..., Any], **fixed: Any) -> Call:
    return lambda options, text: make("openai/test-model", num_retries=0, **fixed, **options)(text)


def _wrapped(options: dict[str, Any], text: str) -> Any:
    return cachectl.wrap(dspy.LM("openai/test-model", num_retries=0, engine="litellm", **options))(text)


def _typed(make: Callable[..., Any], **fixed: Any) -> Call:
    request = dspy.lm15.Request
    return lambda options, text: make("openai/test-model", num_retries=0, **fixed, **options)(
        request(model="openai/test-model", messages=(dspy.lm15.Message.user(text),))
    )


ENGINES: dict[str, Call] = {
    "chat": _lm(cachectl.LM, engine="litellm"),
    "chat, as DSPy chooses": _lm(cachectl.LM),
    "text": _lm(cachectl.LM, model_type="text"),
    "responses": _lm(cachectl.LM, model_type="responses", engine="litellm"),
    "responses, as DSPy chooses": _lm(cachectl.LM, model_type="responses"),
    "plain": _lm(dspy.LM),
    "wrap": _wrapped,
    "typed": _typed(cachectl.LM, engine="litellm"),
    "typed, as DSPy chooses": _typed(cachectl.LM),
    "typed, plain": _typed(dspy.LM),
    "embedder": lambda options, text: dspy.Embedder("openai/test-model", **options)(text),
}


def sent(endpoint: Endpoint, engine: str, options: Mapping[str, Any], text: str) -> Any:
    """Return what the provider receives for a call, in one form; None where the call ends before that."""
    endpoint.reset_counts()
    with cachectl.phase("asking", cachectl.Policy.OFF):
        try:
            ENGINES[engine](dict(options), text)
        except (dspy.LMError, dspy.DSPyError):
            return None
        except Exception as error:
            if type(error).__module__.startswith("litellm"):
                return None
            raise
    received = endpoint.log()[0]
    headers = {
        name: value
        for name, value in received["headers"].items()
        if name not in {*_OF_THE_CLIENT, *CREDENTIALS} and not name.startswith("x-stainless")
    }
    body = {name: value for name, value in received["body"].items() if name != "stream"}
    return received["path"], received["query"], sorted(headers.items()), one_form(body)


def is_shared(endpoint: Endpoint, engine: str, one: Mapping[str, Any], other: Mapping[str, Any], text: str) -> bool:
    """Tell whether a call is served what the other bought, by the provider's counter."""
    endpoint.reset_counts()
    cachectl.install()
    ENGINES[engine](dict(one), text)
    assert endpoint.requests == 1
    ENGINES[engine](dict(other), text)
    return endpoint.requests == 1


def one_form(value: Any) -> str:
    """Return JSON in a form in which what is equal is equal: the order of a schema's properties counts, 1 is 1.0."""
    if isinstance(value, dict):
        order = list(value["properties"]) if isinstance(value.get("properties"), dict) else None
        return repr((order, sorted((name, one_form(item)) for name, item in value.items())))
    if isinstance(value, list):
        return repr([one_form(item) for item in value])
    return repr(float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value)
