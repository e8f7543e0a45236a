"""What of a call's options is asked, as plain data of one form: two calls that ask the same have the same.

Nothing is dropped that is not known: an option, a header or a parameter goes only where its exact name is that of a
credential, or of something that no provider gets to see; of what is sent in the body nothing goes. What sounds or looks
like a secret stands there as its hash. Whatever JSON has one form for has one here: mappings are sorted later, numbers
count by their value. Only a schema's properties have an order, since a model writes its answer in it; it stands beside
them under `$order`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson
import pydantic

from dspy_cachectl.boundary.secret_names import (
    HEADER_OPTIONS,
    KNOWN_HEADERS,
    KNOWN_OF,
    KNOWN_OPTIONS,
    KNOWN_PARAMETERS,
    is_secret_header,
    is_secret_parameter,
    sounds_secret,
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

_HEADER_OPTIONS = ("headers", HEADERS)  # LiteLLM sends the second where both have one
_QUERY = "extra_query"
_LITELLMS_BODY = "extra_body"
_TYPED = "request"
_WORD_FOR_WORD = frozenset({"messages", "batch_inputs"})
_ONE_TEXT = frozenset({"prompt", "input"})
_CONTAINERS = frozenset({dict, list, tuple})
_LONGEST = 65_536
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # what orjson writes
_ORDER = "$order"
_OURS = re.compile(r"\$+(?:order\Z|int |float |bool )")
_EXAMPLES = frozenset({"default", "const", "enum", "examples", "example"})
"""Where a schema has values of what it describes."""


def is_litellms(options: Mapping[str, Any]) -> bool:
    """Tell whether it matters to what is asked that LiteLLM sends it."""
    if _MAY_MATTER.isdisjoint(options):
        return False
    return not UNSENT_BY_LITELLM.isdisjoint(options) or any(
        options.get(name) == said for name, said in (*_SAYS_NOTHING.items(), (_LITELLMS_BODY, {}))
    )


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
    for name, value in (_litellms(options) if by_litellm else options).items():
        if value is None or name in _UNASKED or (name in _AT_TIMES and _is_unasked(name, value, options, by_litellm)):
            continue
        if name in _WORD_FOR_WORD or (name in _ONE_TEXT and isinstance(value, str)):
            asked[name] = value
        elif name in _TRANSPORT and isinstance(value, Mapping):
            asked |= _transport(name, value, options)
        else:
            asked[name] = _item(name, value) if type(value) not in _CONTAINERS else _remembered(name, value)
    return asked


_UNASKED = NEVER_SENT | KNOWN_OPTIONS
_TRANSPORT = frozenset({_TYPED, _QUERY, *_HEADER_OPTIONS})


def _transport(name: str, value: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked of an option that is no part of the body; nothing where nothing is left of it."""
    if name == _TYPED:
        return {name: _typed(value)}
    if name == _QUERY:
        found = _named(value, KNOWN_PARAMETERS, is_secret_parameter)
    else:
        name, found = HEADERS, _headers(options)
    return {name: found} if found else {}


def _provider(options: Mapping[str, Any]) -> str:
    return str(options.get("custom_llm_provider") or options.get("model") or "")


def _typed(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `dspy.lm15.Request` as plain data: its messages word for word."""
    rest = {name: value for name, value in request.items() if name not in _WORD_FOR_WORD}
    return {**_remembered(_TYPED, rest), **{name: request[name] for name in _WORD_FOR_WORD if name in request}}


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


def _litellms(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those that LiteLLM does not send, and an empty body of its own."""
    sent = {
        name: value
        for name, value in options.items()
        if name not in UNSENT_BY_LITELLM and not (name == _LITELLMS_BODY and not value)
    }
    metadata = options.get(_METADATA)
    previews = getattr(sys.modules.get("litellm"), "enable_preview_features", False)
    if previews or "responses" in str(options.get("_fn_identifier")) or options.get("model_type") == "responses":
        sent[_METADATA] = metadata
    elif isinstance(metadata, Mapping) and any(name in _provider(options) for name in _ANTHROPICS):
        sent[_METADATA] = {"user_id": metadata["user_id"]} if metadata.get("user_id") is not None else None
    return sent


_METADATA = "metadata"
_ANTHROPICS = ("anthropic", "claude")
_SAYS_NOTHING: dict[str, Any] = {"tools": [], "stop": [], "n": 1}
"""What DSPy's native engine does not send, and LiteLLM does."""


_AT_TIMES = frozenset(KNOWN_OF) | frozenset(_SAYS_NOTHING)
_MAY_MATTER = UNSENT_BY_LITELLM | frozenset(_SAYS_NOTHING) | {_LITELLMS_BODY}


def _is_unasked(name: str, value: Any, options: Mapping[str, Any], by_litellm: bool) -> bool:
    """Tell whether an option is no part of what is asked here: another's engine or provider's."""
    if name in KNOWN_OF:
        return _provider(options).startswith(KNOWN_OF[name])
    return not by_litellm and type(value) in {list, int} and _SAYS_NOTHING[name] == value


def _headers(options: Mapping[str, Any]) -> dict[Any, Any]:
    """Return the headers that a call is sent with: their names count in any case, and of two values the one sent."""
    given = [value for name in _HEADER_OPTIONS if isinstance(value := options.get(name), Mapping)]
    lowered = {str(name).lower(): value for headers in given for name, value in headers.items()}
    return _named(lowered, KNOWN_HEADERS, is_secret_header)


def _named(values: Mapping[Any, Any], known: frozenset[str], sounds: Callable[[str], bool]) -> dict[Any, Any]:
    """Return headers or parameters without known credentials, and with a hash of what may be one."""
    return {
        _key(name): _hidden(value) if _is_doubtful(name, value, sounds) or has_scheme(value) else _plain(value)
        for name, value in values.items()
        if not (isinstance(name, str) and name.lower() in known)
    }


def _item(name: Any, value: Any) -> Any:
    if _is_doubtful(name, value, sounds_secret):
        return _hidden(value)
    if isinstance(value, Mapping):
        if name in SCHEMAS and is_of_schemas(value):
            return {_key(key): _schema(key, schema) for key, schema in value.items()}
        if name in HEADER_OPTIONS:
            return _mapping(value, _header)
    return _plain(value)


def _header(name: Any, value: Any) -> Any:
    return _hidden(value) if _is_doubtful(name, value, is_secret_header) or has_scheme(value) else _item(name, value)


def _schema(name: Any, schema: Any) -> Any:
    """Return the schema of a property: where the property is a secret, without the values that are given of it."""
    plain = _plain(schema)
    if not isinstance(schema, Mapping) or not _is_doubtful(name, schema, sounds_secret):
        return plain
    return {key: _hidden(schema[key]) if key in _EXAMPLES else value for key, value in plain.items()}


def _is_doubtful(name: Any, value: Any, sounds: Callable[[str], bool]) -> bool:
    return isinstance(name, str) and _may_be_secret(value) and sounds(name)


def _may_be_secret(value: Any) -> bool:
    return value is not None and not isinstance(value, bool)


def _hidden(value: Any) -> str:
    if isinstance(value, str):
        return hashed(f'"{value}')  # a text is not what it reads like
    # What JSON cannot write is told apart by what it is, as a function that gets tokens.
    return hashed(orjson.dumps(_plain(value), default=_kind, option=orjson.OPT_SORT_KEYS).decode())


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
    if kind is int:
        return _whole(value)
    return value if kind is bool or value is None else _other(value)


def _other(value: Any) -> Any:
    if isinstance(value, str):
        return readable_text(value) if type(value).__str__ is str.__str__ else value
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, pydantic.BaseModel):
        # As the providers' clients write it.
        return _plain(value.model_dump(mode="json", by_alias=True, exclude_unset=True))
    return _number(float(value)) if isinstance(value, float) else value


def _mapping(value: Mapping[Any, Any], written: Callable[[Any, Any], Any] | None = None) -> dict[Any, Any]:
    kept = {_key(name): (written or _item)(name, item) for name, item in value.items()}
    properties = value.get("properties")
    if isinstance(properties, Mapping):
        names = [str(name) for name in properties]
        if names != sorted(names):
            kept[_ORDER] = names
    return kept


def _key(name: Any) -> Any:
    if type(name) is str:
        return f"${name}" if name.startswith("$") and _OURS.match(name) else name
    # Some libraries refuse `{50: 1}` where they take `{"50": 1}`.
    return f"${type(name).__name__} {name}" if isinstance(name, (bool, int, float)) else name


def _number(value: float) -> Any:
    """Return a number as it counts in JSON, which knows one kind: a temperature of 1.0 is one of 1."""
    if value.is_integer():
        return _whole(int(value))
    if value - value != 0:
        raise ValueError(f"JSON has no number {value}")
    return value


def _whole(value: int) -> Any:
    return value if _SMALLEST <= value <= _LARGEST else f"$int {value:x}"
