"""Who sends a call, where that is more than an address: an engine or a provider of the user's own, or LiteLLM.

DSPy chooses by an LM's engine, the options, the environment and what its native engine can say. What two of them write
differently is asked differently.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from dspy_cachectl.boundary.secret_names import KNOWN_HEADERS, KNOWN_OPTIONS
from dspy_cachectl.boundary.secrets import without_known
from dspy_cachectl.entries import draws
from dspy_cachectl.entries.asked import NEVER_SENT, UNSENT_BY_LITELLM, is_litellms
from dspy_cachectl.entries.differences import ENGINE
from dspy_cachectl.fingerprints import canonical

_IDENTITY = "engine:"
_LITELLMS_CLIENT = frozenset(
    {"headers", "extra_headers", "api_version", "azure_ad_token_provider", "organization", "project", "extra_query"}
    | {"custom_llm_provider"}
)
"""Options that the native engine does not take: DSPy leaves calls with them to LiteLLM."""

_WRITTEN_ALIKE = (
    frozenset({"_fn_identifier", "model", "messages", "temperature", "top_p", "seed", "tools", "tool_choice"})
    | {"response_format", "logit_bias", "extra_body"}
    | _LITELLMS_CLIENT
    | NEVER_SENT
    | KNOWN_OPTIONS
    | UNSENT_BY_LITELLM
)
_WRITTEN_ALIKE_TO_OPENAI = _WRITTEN_ALIKE | {"reasoning"}
_HEAD = re.compile(r"[/:]")


def client_options(lm: Any) -> dict[str, Any]:
    """Return those of an LM's own options that are sent with a `dspy.lm15.Request` too, and the API that it uses."""
    sent = {name: value for name, value in (getattr(lm, "kwargs", None) or {}).items() if name in _LITELLMS_CLIENT}
    kind = getattr(lm, "model_type", "chat")
    return sent if kind == "chat" else {**sent, "model_type": kind}


def with_engine(request: dict[str, Any], lm: Any) -> dict[str, Any]:
    """Return what is asked of an LM, with LiteLLM's name in it where LiteLLM sends it and writes it otherwise.

    Args:
        request: What is asked, with the LM's options.
        lm: The LM.
    """
    if not is_litellms_own(lm, request):  # which is the quicker question
        return request
    alike = _WRITTEN_ALIKE_TO_OPENAI if lm.model.startswith("openai/") else _WRITTEN_ALIKE
    if all(value is None or name in alike for name, value in request.items()):
        return request
    return {**request, ENGINE: "litellm"}


def is_litellms_own(lm: Any, options: Mapping[str, Any]) -> bool:
    """Tell whether DSPy leaves a call to LiteLLM whatever is in its messages, by what takes no time to see."""
    engine = getattr(lm, "_engine_spec", None)
    if engine == "litellm" or engine != "auto" or getattr(lm, "model_type", "chat") == "text":
        return engine == "litellm"
    return not _LITELLMS_CLIENT.isdisjoint(options) or leads_to_litellm(lm.model)


def sent_by_litellm(
    lm: Any, prompt: Any = "", messages: Any = None, kwargs: Mapping[str, Any] | None = None, *, prepared: Any = None
) -> bool:
    """Tell whether LiteLLM will send a call of an LM, and not DSPy's native engine or one of the user's.

    DSPy is asked, which chooses by the model, the options, the environment and what the native engine can say. It takes
    as long as a hit: for calls where something rests on it.
    """
    from dspy import LMError
    from dspy.clients import execution
    from dspy.clients.engines.litellm_engine import LiteLLMEngine

    engine, options = getattr(lm, "_engine_spec", None), kwargs or {}
    if not isinstance(engine, str) or engine == "lm15":
        return False
    if lm.model_type == "text" or is_litellms_own(lm, {**lm.kwargs, **options}):
        return True
    try:
        prepared = prepared or execution.prepare(lm, prompt, messages, dict(options))
        backend = execution._select_engine(lm, prepared, False)[0]  # noqa: SLF001 - the one place where DSPy decides it
    except (LMError, TypeError, ValueError):
        return False  # the call will say so itself
    return isinstance(backend, LiteLLMEngine)


def asked_of_lm(lm: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return what of an LM's options is asked (see `clean_request`), whatever its messages are.

    Args:
        lm: The LM.
        options: Its options, or what is put in their place.
    """
    asked = draws.clean_request({"model": getattr(lm, "model", None), **options}, by_litellm=_matters(lm, options))
    return {name: value for name, value in with_engine(asked, lm).items() if name != "model"}


def _matters(lm: Any, options: dict[str, Any]) -> bool:
    return is_litellms(options) and sent_by_litellm(lm)


def leads_to_litellm(model: str) -> bool:
    """Tell whether a variable is set by which DSPy leaves a model to LiteLLM, unless it is told otherwise."""
    return is_any_set(variables_of(model))


@lru_cache(maxsize=1024)
def variables_of(model: str) -> tuple[str, ...]:
    """Return the variables by which DSPy leaves a model to LiteLLM."""
    prefix = model.partition("/")[0].upper()
    return (f"{prefix}_API_BASE", f"{prefix}_BASE_URL")


def declared(model: str, providers: Any) -> tuple[str | None, str] | None:
    """Return the address of the provider that a model's name stands for, and a hash of how it is asked.

    Args:
        model: The model's name.
        providers: The providers that the LM knows by `dspy.lm15.register_provider`.

    Returns:
        None where it is none of these.
    """
    if not providers:
        return None
    head = _HEAD.split(model, maxsplit=1)[0].replace("_", "-")
    found = next((one.definition for one in providers if head in one.definition.spellings), None)
    return None if found is None else (found.access.base_url, _declaration(found))


def _declaration(definition: Any) -> str:
    known = _DECLARED.get(id(definition))
    if known is None or known[0] is not definition:
        access = definition.access
        headers = tuple((name.lower(), value) for name, value in access.headers if name.lower() not in KNOWN_HEADERS)
        how = (definition.dialect, headers, access.system_prefix, access.backend, access.backend_options, access.host)
        text = canonical.without_addresses(repr((how, definition.compat)))
        known = _DECLARED[id(definition)] = definition, _hash(text.encode("utf-8", "surrogatepass"))
    return known[1]


_DECLARED: dict[int, tuple[Any, str]] = {}


def is_own_engine(identity: str | None) -> bool:
    """Tell whether an endpoint is an engine of the user's, which knows of itself what it leads to."""
    return identity is not None and identity.startswith(_IDENTITY)


def engine_identity(engine: Any) -> str:
    """Return what tells an engine of the user's from others.

    By DSPy's contract that is its state, which is plain and holds no secret. An engine that has no `dump_state` is told
    by its attributes, as they are at each call; where these cannot be told from others, by being this object, so that
    nobody else is served what it said.
    """
    name = f"{_IDENTITY}{canonical.type_name(type(engine))}"
    dump = getattr(engine, "dump_state", None)
    if callable(dump):
        return f"{name}#{_hash(orjson.dumps(dump(), option=_PLAIN, default=repr))}"
    try:
        return f"{name}#{canonical.digest(without_known(vars(engine)))[:16]}"
    except (canonical.UnstableError, TypeError):  # the latter: it has no attributes of its own
        return f"{name}{_ITSELF}{_number(engine)}"


def is_told_by_being_itself(identity: str) -> bool:
    """Tell whether an engine has no identity that another process would know."""
    return _ITSELF in identity


def _number(engine: Any) -> str:
    try:
        return _NUMBERS.setdefault(engine, uuid.uuid4().hex)
    except TypeError:  # it has no hash, or no weak references
        return _KEPT.setdefault(id(engine), (engine, uuid.uuid4().hex))[1]


_NUMBERS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_KEPT: dict[int, tuple[Any, str]] = {}
_ITSELF = "#object-"
_PLAIN = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def is_any_set(names: tuple[str, ...]) -> bool:
    """Tell whether one of these variables of the environment is set."""
    return any(values_of(names))


def values_of(names: tuple[str, ...]) -> Iterable[Any]:
    """Return the values of these variables of the environment, as they are held there; None for those not set."""
    # A variable that is not set costs an exception where it is asked for by name, and a hit asks for several.
    held = getattr(os.environ, "_data", None)
    return map(os.environ.get, names) if held is None else map(held.get, _encoded(names))


@lru_cache(maxsize=1024)
def _encoded(names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple([os.environ.encodekey(name) for name in names])
