"""What an answer says of itself: tokens, cost, the provider's ids, why it ended. Pure, over DSPy's two forms.

DSPy's native engine caches a dictionary (`_dspy_format`), its LiteLLM engine the response object, and an
embedder plain lists.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from dspy_cachectl.entries.token_counts import field, read_counts

_NATIVE = "dspy-lm15-result-v1"


class AnswerFacts(NamedTuple):
    """What is known of one answer.

    Attributes:
        requests: How many responses of the provider it is made of.
        prompt_tokens: Tokens read, or None where the provider did not say.
        completion_tokens: Tokens written, or None.
        cached_tokens: Those of the read ones that the provider had in its own cache, or None.
        cache_creation_tokens: Those of the read ones that it wrote to its cache, or None.
        reasoning_tokens: Those of the written ones that were its reasoning, or None.
        cost: US dollars, or None where the price is not known.
        response_ids: The provider's ids, where it gave any.
        empty: Whether there is nothing in it: no text, no tool call.
        refused: Whether a content filter stopped it.
        truncated: Whether it was cut at the token limit.
        content: A hash of what it says, 16 hexadecimal digits; empty where nothing is known of it.
        seconds: How long the provider had the request, as LiteLLM measured it; None where that is not known.
        answered_by: The names of the models that answered, as the provider says them; empty where it says none.
        system_fingerprints: What the provider calls the state of its servers that answered; empty where it says none.
        fallback: Which model answered by LiteLLM's count: 0 the one that was asked, then its `fallbacks`; None where it
            does not say.
    """

    requests: int = 1
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None
    response_ids: tuple[str, ...] = ()
    empty: bool = False
    refused: bool = False
    truncated: bool = False
    content: str = ""
    seconds: float | None = None
    answered_by: tuple[str, ...] = ()
    system_fingerprints: tuple[str, ...] = ()
    fallback: int | None = None

    @property
    def storable(self) -> bool:
        """Whether it is worth keeping: an empty answer or a refusal would be served for ever."""
        return not (self.empty or self.refused)


def read(answer: Any, *, sampled: bool = True) -> AnswerFacts:
    """Read the facts of an answer.

    Args:
        answer: What DSPy puts into its cache.
        sampled: Whether it is an answer of a language model; other values are never empty.
    """
    if not sampled:
        return AnswerFacts()
    if isinstance(answer, Mapping) and answer.get("_dspy_format") == _NATIVE:
        return _native(answer)
    return _provider(answer)


def is_truncated(response: Any) -> bool:
    """Tell whether an answer was cut at the token limit: a response of the provider, or several, as DSPy's history."""
    parts = response if isinstance(response, (list, tuple)) else [response]
    return any(field(part, "finish_reason") == "length" or _provider(part).truncated for part in parts)


def noted(entry: Mapping[str, Any]) -> AnswerFacts:
    """Read the facts of an answer that DSPy's history notes: with caching off, nothing else says what was paid."""
    response = entry.get("response")
    responses = response if isinstance(response, (list, tuple)) else [response]
    return AnswerFacts(
        requests=max(len(responses), 1),
        **used(entry.get("usage"), entry.get("cost")),
        truncated=is_truncated(response),
        response_ids=_ids(field(one, "id") for one in responses),
        content=_hash(list(map(_said, entry.get("outputs") or []))),
        answered_by=_ids([entry.get("response_model")]),
        fallback=next((_provider(one).fallback for one in responses), None),
    )


def used(usage: Any, cost: Any) -> dict[str, Any]:
    """Return tokens and price of an answer, as fields of its facts. The price is what LiteLLM or DSPy reckoned.

    A price of tokens that cannot be, of a server that miscounts, is not known.
    """
    counts, is_sound = read_counts(usage)
    price = _number(cost)
    known = is_sound and price is not None and 0 <= price < math.inf
    return {**counts._asdict(), "cost": price if known else None}


def _native(record: Mapping[str, Any]) -> AnswerFacts:
    responses = record.get("responses") or []
    raw = record.get("raw")
    if not responses and raw is not None:
        return _provider(raw, cost=record.get("cost"))
    reasons = {response.get("finish_reason") for response in responses}
    return AnswerFacts(
        requests=max(len(responses), 1),
        **used(record.get("usage"), record.get("cost")),
        response_ids=_ids([response.get("id") for response in responses]),
        empty=not any(map(_has_content, record.get("outputs") or [])),
        refused="content_filter" in reasons,
        truncated="length" in reasons,
        content=_hash(list(map(_said, record.get("outputs") or []))),
        answered_by=_ids(dict.fromkeys(map(_model, responses))),
        system_fingerprints=_ids(dict.fromkeys(map(_fingerprint, responses))),
    )


def _provider(response: Any, cost: Any = None) -> AnswerFacts:
    hidden = getattr(response, "_hidden_params", None) or {}
    choices = field(response, "choices") or []
    output = field(response, "output") or []
    reasons = {field(choice, "finish_reason") for choice in choices}
    incomplete = field(field(response, "incomplete_details"), "reason")
    return AnswerFacts(
        **used(field(response, "usage"), hidden.get("response_cost") if cost is None else cost),
        response_ids=_ids([field(response, "id")]),
        empty=not (any(map(_choice_has_content, choices)) or any(map(_item_has_content, output))),
        refused="content_filter" in reasons or incomplete == "content_filter",
        truncated="length" in reasons or incomplete == "max_output_tokens",
        content=_hash([_said(choice) for choice in choices] or output),
        seconds=_seconds(hidden),
        answered_by=_ids([hidden.get("provider_response_model") or field(response, "model")]),
        system_fingerprints=_ids([field(response, "system_fingerprint")]),
        fallback=_count(hidden.get("additional_headers") or {}, "x-litellm-attempted-fallbacks"),
    )


def _model(response: Mapping[str, Any]) -> Any:
    # Of a stream DSPy notes the model that was asked; what the provider sent says who answered.
    sent = response.get("provider_data") or {}
    return sent.get("model") or sent.get("modelVersion") or response.get("model")  # the second is Gemini's


def _fingerprint(response: Mapping[str, Any]) -> Any:
    return field(response.get("provider_data"), "system_fingerprint")


def _seconds(hidden: Mapping[str, Any]) -> float | None:
    """Return how long the request itself took: what LiteLLM took for its own part is not the provider's time."""
    whole, own = (_number(hidden.get(name)) for name in ("_response_ms", "litellm_overhead_time_ms"))
    return None if whole is None or own is None else max(0.0, whole - own) / 1000


def _said(output: Any) -> list[Any]:
    """Return what a choice of the provider's says, or DSPy's output of it: the same, whichever engine asked."""
    message = output if isinstance(output, str) else field(output, "message") or output
    text = message if isinstance(message, str) else field(message, "content") or field(message, "text")
    calls = None if isinstance(message, str) else field(message, "tool_calls")
    reasoning = None if isinstance(message, str) else field(message, "reasoning_content")
    return [text or None, reasoning or None, [_called(call) for call in calls or []]]


def _called(call: Any) -> list[str]:
    function = field(call, "function") or call
    arguments = field(function, "arguments") or field(function, "input")
    with contextlib.suppress(orjson.JSONDecodeError):
        arguments = orjson.loads(arguments) if isinstance(arguments, str) else arguments
    return [str(field(function, "name")), repr(arguments)]


def _hash(said: Any) -> str:
    text = repr(said).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).hexdigest()[:16] if said else ""


def _has_content(output: Any) -> bool:
    if isinstance(output, Mapping):
        return bool(output.get("tool_calls")) or _is_text(output.get("text"))
    return _is_text(output)


def _choice_has_content(choice: Any) -> bool:
    message = field(choice, "message")
    if message is None:
        return _is_text(field(choice, "text"))
    return bool(field(message, "tool_calls")) or _is_text(field(message, "content"))


def _item_has_content(item: Any) -> bool:
    if field(item, "type") == "message":
        return any(_is_text(field(part, "text")) for part in field(item, "content") or [])
    return field(item, "type") not in {"reasoning", None}


def _is_text(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or (value is not None and not isinstance(value, str))


def _count(counts: Any, name: str) -> int | None:
    value = field(counts, name)
    return value if type(value) is int else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _ids(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple([value for value in values if isinstance(value, str) and value])
