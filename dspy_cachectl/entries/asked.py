"""What of a call's options is asked, as plain data of one form: two calls that ask the same have the same.

Nothing is dropped that is not known: an option, a header or a parameter goes only where its exact name is that of a
credential, or of something that no provider gets to see. What merely sounds or looks like a secret stands there as its
hash. Whatever JSON has one form for has one here: mappings are sorted later, numbers count by their value. Only a
schema's properties have an order, since a model writes its answer in it; it stands beside them under `$order`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from dspy_cachectl.boundary.secret_names import (
    HEADER_OPTIONS,
    KNOWN_HEADERS,
    KNOWN_OPTIONS,
    KNOWN_PARAMETERS,
    QUERY_OPTIONS,
    is_secret_header,
    is_secret_name,
    is_secret_parameter,
)
from dspy_cachectl.boundary.secrets import SCHEMAS, has_scheme, hashed, is_of_schemas, readable_text

NEVER_SENT = frozenset({"api_base", "base_url", "cache", "rollout_id", "timeout", "stream"})
"""Options that are no part of what is asked, whoever asks. The endpoint and the rollout id enter the key apart."""

UNSENT_BY_LITELLM = frozenset(
    {
        "num_retries",
        "max_retries",
        "retry_policy",
        "retry_strategy",
        "cooldown_time",
        "request_timeout",
        "force_timeout",
    }
    | {"stream_timeout", "caching", "caching_groups", "cache_key", "preset_cache_key", "ttl", "metadata", "tags"}
    | {"litellm_metadata", "litellm_call_id", "litellm_trace_id", "litellm_session_id", "litellm_logging_obj"}
    | {"litellm_disabled_callbacks", "litellm_request_debug", "logger_fn", "verbose", "no-log", "model_info"}
    | {"fallbacks", "context_window_fallback_dict"}
    | {"turn_off_message_logging", "input_cost_per_token", "output_cost_per_token", "input_cost_per_second"}
    | {"output_cost_per_second", "max_budget", "budget_duration", "rpm", "tpm", "max_parallel_requests"}
    | {"shared_session", "client", "proxy_server_request", "completion_call_id"}
)
"""Options that LiteLLM keeps to itself; DSPy's native engine would send them, or refuse the call."""

HEADERS = "extra_headers"
"""Under which name all headers of a call stand in what is asked."""

_LITELLMS_BODY = "extra_body"
_WORD_FOR_WORD = frozenset({"messages", "prompt", "input", "batch_inputs"})
_CONTAINERS = frozenset({dict, list, tuple})
_LONGEST = 65_536
_EXACT = 2**53  # up to here, each whole number is a float too
_ORDER = "$order"


def is_litellms(options: Mapping[str, Any]) -> bool:
    """Tell whether it matters to what is asked that LiteLLM sends it."""
    return not UNSENT_BY_LITELLM.isdisjoint(options) or options.get(_LITELLMS_BODY) == {}


def asked_of(options: Mapping[str, Any], *, by_litellm: bool = False) -> dict[str, Any]:
    """Return what of a call's options is asked.

    Args:
        options: The call's options with its model and messages. Nothing in them is changed.
        by_litellm: Whether LiteLLM sends it, and keeps to itself what it does not send.

    Raises:
        ValueError: If a number is none that JSON has.
        RecursionError: If a value holds itself.
    """
    asked: dict[str, Any] = {}
    unsent = _unsent(options) if by_litellm else _NOTHING
    for name, value in options.items():
        if (
            value is None
            or name in NEVER_SENT
            or name in KNOWN_OPTIONS
            or (name in unsent and not (name == _LITELLMS_BODY and value))
        ):
            continue
        if name in _WORD_FOR_WORD:
            asked[name] = value
        elif isinstance(value, Mapping) and name in HEADER_OPTIONS:
            _add_headers(asked, HEADERS if name == "headers" else name, value)
        elif isinstance(value, Mapping) and name in QUERY_OPTIONS:
            if found := _named(value, KNOWN_PARAMETERS, is_secret_parameter):
                asked[name] = found
        else:
            asked[name] = _item(name, value) if type(value) not in _CONTAINERS else _remembered(name, value)
    return asked


def _remembered(name: str, value: Any) -> Any:
    """Return an option of many values, which the next call has again: to write it takes less than to walk through."""
    try:
        data = orjson.dumps(value)
    except TypeError:  # there is something in it that JSON has not, or has in two forms
        return _item(name, value)
    # `null` stands for numbers too that JSON has not.
    return _item(name, value) if len(data) > _LONGEST or b"null" in data else _walked(name, data)


@lru_cache(maxsize=256)
def _walked(name: str, data: bytes) -> Any:
    return _item(name, orjson.loads(data))


def _unsent(options: Mapping[str, Any]) -> frozenset[str]:
    """Return the options that LiteLLM does not send; the API of responses takes `metadata`, as proxies do."""
    takes_metadata = "responses" in str(options.get("_fn_identifier")) or "proxy" in str(options.get("model"))
    return _BUT_METADATA if takes_metadata else _UNSENT


_UNSENT = UNSENT_BY_LITELLM | {_LITELLMS_BODY}
_BUT_METADATA = _UNSENT - {"metadata", "tags"}
_NOTHING: frozenset[str] = frozenset()


def _add_headers(asked: dict[str, Any], option: str, headers: Mapping[Any, Any]) -> None:
    """Add headers to those that are asked with: their names count in any case; two values stay two."""
    found = _named({str(name).lower(): value for name, value in headers.items()}, KNOWN_HEADERS, is_secret_header)
    before: dict[str, Any] = asked.get(option) or {}
    for name, value in before.items():
        found[name] = value if found.get(name, value) == value else [value, found[name]]
    if found:
        asked[option] = found


def _named(values: Mapping[Any, Any], known: frozenset[str], sounds: Callable[[str], bool]) -> dict[Any, Any]:
    """Return headers or parameters without known credentials, and with a hash of what may be one."""
    kept = {}
    for name, value in values.items():
        if isinstance(name, str) and name.lower() in known:
            continue
        doubtful = has_scheme(value) or (isinstance(name, str) and sounds(name))
        kept[_key(name)] = _hidden(value) if doubtful and _may_be_secret(value) else _plain(value)
    return kept


def _item(name: Any, value: Any) -> Any:
    if type(name) is not str:
        return _plain(value)
    if is_secret_name(name) and _may_be_secret(value):
        return _hidden(value)
    if name in HEADER_OPTIONS and isinstance(value, Mapping):
        return _named(value, KNOWN_HEADERS, is_secret_header)
    if name in SCHEMAS and is_of_schemas(value):
        return {_key(key): _plain(schema) for key, schema in value.items()}
    return value if name in _WORD_FOR_WORD else _plain(value)


def _may_be_secret(value: Any) -> bool:
    return value is not None and not isinstance(value, bool)


def _hidden(value: Any) -> str:
    plain = value if isinstance(value, str) else _plain(value)
    # What JSON cannot write is told apart by what it is, as a function that gets tokens.
    text = plain if isinstance(plain, str) else orjson.dumps(plain, default=_kind, option=orjson.OPT_SORT_KEYS).decode()
    return hashed(text)


def _kind(value: Any) -> str:
    kind = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return readable_text(value)
    if kind is dict:
        return _mapping(value)
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    if kind is float:
        return _number(value)
    if kind in _AS_THEY_ARE:
        return value
    return _other(value)


_AS_THEY_ARE = frozenset({int, bool, type(None)})


def _other(value: Any) -> Any:
    if isinstance(value, str):
        return readable_text(value) if type(value).__str__ is str.__str__ else value
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _number(float(value)) if isinstance(value, float) else value


def _mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    kept = {_key(name): _item(name, item) for name, item in value.items()}
    properties = value.get("properties")
    if properties and is_of_schemas(properties):
        names = [str(name) for name in properties]
        if names != sorted(names):
            kept[_ORDER] = names
    return kept


def _key(name: Any) -> Any:
    # Some libraries refuse `{50: 1}` where they take `{"50": 1}`.
    return name if type(name) is str or not isinstance(name, (bool, int, float)) else f"${type(name).__name__} {name}"


def _number(value: float) -> float:
    """Return a number as it counts in JSON, which knows one kind: a temperature of 1.0 is one of 1."""
    if value.is_integer():
        return int(value) if abs(value) <= _EXACT else value
    if value - value != 0:
        raise ValueError(f"JSON has no number {value}")
    return value
