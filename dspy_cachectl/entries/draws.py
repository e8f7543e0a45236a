"""Which answer a call stands for: request material, fingerprint, ordinals, rollout ids and the cache key.

Pure functions over plain data. The material is what the program asked of which model at which endpoint,
without anything secret and without anything that only says how to store it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
import pydantic

from dspy_cachectl.entries.secrets import is_secret_header, is_secret_name
from dspy_cachectl.errors import CachectlError

KEY_VERSION = 1
"""Part of every key. Raised when the meaning of a key changes, so that old entries are not misread."""

ROLLOUT_BITS = 53
"""Rollout ids are integers that survive a trip through JSON numbers: at most 53 bits."""

_TRANSPORT = frozenset(
    {"api_base", "base_url", "cache", "caching", "rollout_id", "num_retries", "max_retries", "timeout"}
    | {"stream", "stream_options"}
)
"""Options of a call that do not change what is asked. The endpoint and the rollout id enter the key apart."""

_CONTENT = frozenset(
    {"messages", "prompt", "input", "batch_inputs", "request", "response_format", "tools", "functions", "tool_choice"}
)
"""What is asked, word for word: a tool's parameter named `password` is no secret."""

_HEADERS = frozenset({"headers", "extra_headers", "default_headers"})


class UncacheableError(CachectlError):
    """A request or an answer holds something that has no canonical form. It is counted, never shown."""


def clean_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a request that says what is asked: no secrets, no transport, nothing unset.

    Args:
        request: DSPy's request fields: model, messages, generation options.

    Returns:
        A new dictionary. Values are shared with the request and must not be changed.

    Raises:
        UncacheableError: If a value holds itself.
    """
    clean = {}
    for name, value in request.items():
        if value is None or name in _TRANSPORT or is_secret_name(name):
            continue
        try:
            kept = value if name in _CONTENT else _without_secrets(value, headers=name in _HEADERS)
        except RecursionError as error:
            raise UncacheableError(f"the option {name!r} has no canonical form: it holds itself") from error
        # Headers that held nothing but secrets say nothing.
        if kept or not isinstance(kept, dict) or name in _CONTENT:
            clean[name] = kept
    return clean


def _without_secrets(value: Any, *, headers: bool) -> Any:
    if isinstance(value, Mapping):
        drop = is_secret_header if headers else is_secret_name
        return {
            key: _without_secrets(item, headers=headers or key in _HEADERS)
            for key, item in value.items()
            if not (isinstance(key, str) and drop(key))
        }
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item, headers=headers) for item in value]
    return value


@lru_cache(maxsize=1024)
def clean_endpoint(url: str | None) -> str | None:
    """Return the identity of an endpoint: its address without credentials, fragment and trailing slash."""
    if not url:
        return None
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        return url
    host = parts.netloc.rsplit("@", 1)[-1].lower()
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if not is_secret_header(name)])
    return urlunsplit((parts.scheme.lower(), host, parts.path.rstrip("/"), query, ""))


def fingerprint(request: Mapping[str, Any], *, endpoint: str | None, version: str | None = None) -> str:
    """Hash what is asked of whom: the SHA-256 of canonical JSON, mappings sorted, lists in their order.

    Args:
        request: The cleaned request (see `clean_request`).
        endpoint: The identity of the endpoint, or None for the provider's own.
        version: The user's name for a version of the model, or None.

    Returns:
        64 hexadecimal digits.

    Raises:
        UncacheableError: If the request has no canonical form.
    """
    material = {"v": KEY_VERSION, "request": request}
    if endpoint is not None:
        material["endpoint"] = endpoint
    if version is not None:
        material["version"] = version
    return hashlib.sha256(_canonical(material)).hexdigest()


def cache_key(print_: str, *, rollout_id: object = None, scope: tuple[tuple[str, str], ...] = ()) -> str:
    """Return the key of an entry: the fingerprint, the rollout and the policy's scope.

    Args:
        print_: The fingerprint of the request.
        rollout_id: The rollout of this draw; None for the program's plain call.
        scope: Extra key material of the policy.

    Returns:
        64 hexadecimal digits.

    Raises:
        UncacheableError: If the rollout id has no canonical form.
    """
    if rollout_id is None and not scope:
        return print_
    return hashlib.sha256(_canonical([KEY_VERSION, print_, rollout_id, scope])).hexdigest()


def described_key(description: Mapping[str, Any], *, rollout_id: object = None) -> str | None:
    """Return the key of what is described beside an entry; None where it has none.

    Args:
        description: What was asked: `request`, `endpoint`, `version` and `scope`.
        rollout_id: The rollout of the draw.
    """
    request, scope = description.get("request"), description.get("scope")
    if not isinstance(request, Mapping):
        return None
    try:
        print_ = fingerprint(request, endpoint=description.get("endpoint"), version=description.get("version"))
        pairs = tuple(sorted(scope.items())) if isinstance(scope, Mapping) else ()
        return cache_key(print_, rollout_id=rollout_id, scope=pairs)
    except (UncacheableError, TypeError):
        return None


def rollout_id(run_id: str, *, own: object = None, unit: str | None = None, request: str = "", ordinal: int = 0) -> int:
    """Derive the rollout id of a fresh draw.

    The same arguments give the same id on any machine and under any thread schedule.

    Args:
        run_id: The run that the draw belongs to.
        own: The rollout id that the program chose, if it did. It is enclosed, never replaced.
        unit: What is being evaluated (example and repeat), if known.
        request: The fingerprint of the request.
        ordinal: How many times this request was asked before within the run, unit and own rollout.

    Returns:
        An integer of at most 53 bits, never 0.

    Raises:
        UncacheableError: If the program's rollout id has no canonical form.
    """
    digest = hashlib.sha256(_canonical([KEY_VERSION, run_id, own, unit, request, ordinal])).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - ROLLOUT_BITS)) or 1


class Ordinals:
    """Counts how often each request was asked within a run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str | None, str, str]] = Counter()

    def next(self, *, unit: str | None, own: object, request: str) -> int:
        """Return 0 for the first such request, 1 for the second, and so on.

        Raises:
            UncacheableError: If the program's rollout id has no canonical form.
        """
        key = (unit, "" if own is None else _canonical(own).decode(), request)
        with self._lock:
            ordinal = self._counts[key]
            self._counts[key] += 1
        return ordinal


def plain_text(value: Any) -> bytes:
    """Return canonical JSON of a cleaned request, as it is kept beside an entry.

    Raises:
        UncacheableError: If the value has no canonical form.
    """
    return _canonical(value)


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_transform, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        # orjson wraps what `_transform` raises; its own message names the type.
        raise UncacheableError(f"a request has no canonical form: {error}") from error


def _transform(value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, pydantic.BaseModel):
        return {"$schema-of": value.__name__, "schema": _schema(value)}
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} cannot be part of a cache key")


@lru_cache(maxsize=1024)
def _schema(model: type[pydantic.BaseModel]) -> orjson.Fragment:
    # Building a JSON schema takes longer than all the rest of a hit, and adapters pass the same class each time.
    return orjson.Fragment(orjson.dumps(model.model_json_schema(), option=orjson.OPT_SORT_KEYS))
