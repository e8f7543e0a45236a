"""Where a model is served: two servers with one model name are two models.

LiteLLM is asked for the address that a call goes to, and what it is asked with: the options, its own settings, and the
variables of the environment that it reads for the provider.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from dspy_cachectl.boundary.secret_names import KNOWN_HEADERS
from dspy_cachectl.boundary.secrets import hashed, without_known
from dspy_cachectl.entries.draws import clean_endpoint
from dspy_cachectl.fingerprints import engines
from dspy_cachectl.fingerprints.engines import engine_identity, is_any_set, leads_to_litellm, values_of

UNNAMED = "dummy:"
"""How the endpoint of an LM begins that has none but has to be told from others of its name."""

_OPENAIS = "https://api.openai.com/v1"
_STEMS = {
    "ai21": ("AI21",),
    "bedrock": ("BEDROCK", "AWS_BEDROCK"),
    "huggingface": ("HUGGINGFACE", "HF"),
    "meta_llama": ("LLAMA",),
    "vertex_ai": ("VERTEXAI", "VERTEX"),
    "volcengine": ("VOLCENGINE", "ARK"),
}
_BY_ITSELF = {
    "azure": ("AZURE_OPENAI_ENDPOINT",),
    "bedrock": ("AWS_BEDROCK_RUNTIME_ENDPOINT",),
    "cloudflare": ("CLOUDFLARE_ACCOUNT_ID",),
    "databricks": ("DATABRICKS_HOST",),
    "datarobot": ("DATAROBOT_ENDPOINT",),
    "gradient_ai": ("GRADIENT_AI_AGENT_ENDPOINT",),
    "lm_studio": ("LM_STUDIO_API_BASE",),
    "snowflake": ("SNOWFLAKE_ACCOUNT_ID",),
    "watsonx": ("WATSONX_URL", "WX_URL", "WML_URL"),
}
"""Variables with an address that are not called after their provider in one of the usual ways."""

_WHOSE = {
    "azure": ("AZURE_API_VERSION",),
    "bedrock": ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "openai": ("OPENAI_ORGANIZATION", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    "sagemaker": ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "vertex_ai": ("VERTEXAI_PROJECT", "VERTEXAI_LOCATION", "VERTEX_PROJECT", "VERTEX_LOCATION"),
    "watsonx": ("WATSONX_PROJECT_ID", "WX_PROJECT_ID", "PROJECT_ID", "WATSONX_REGION", "WX_REGION"),
}
"""Variables that say on whose behalf or in which region a model is asked."""

_SETTINGS = ("organization", "api_version", "vertex_project", "vertex_location")
"""Settings of LiteLLM that say so."""

_PROXY = "USE_LITELLM_PROXY"

_PROXIES = ("LITELLM_PROXY_API_BASE",)
_ALL_SETTINGS = (*_SETTINGS, "api_base", "headers", "use_litellm_proxy", "credential_list", "custom_provider_map")
_NOTHING = types.SimpleNamespace()

HERE = "this process"
"""Where a function of the user's answers."""

Values = tuple[tuple[str, str], ...]


def endpoint_of(
    model: str,
    options: Mapping[str, Any],
    engine: Any = None,
    *,
    providers: Any = (),
    by_litellm: Callable[[], bool] | None = None,
) -> str | None:
    """Return the identity of the endpoint that a call goes to; None for the provider's own.

    Args:
        model: The model's name, whose prefix names the provider.
        options: The call's options, the LM's own included.
        engine: A custom engine, which owns its connection, or the name of one of DSPy's.
        providers: The providers that an LM knows by `dspy.lm15.register_provider`.
        by_litellm: Tells whether LiteLLM sends the call; DSPy's native engine reads no variable and no setting. Asked
            where something rests on it. None: it does.
    """
    if engine is not None and not isinstance(engine, str):
        return engine_identity(engine)
    given = _given(options)
    declared = engines.declared(model, providers)
    if declared is not None:
        return f"{clean_endpoint(given or declared[0]) or ''} [declared={declared[1]}]".strip()
    address, whose = _around(model, options, given)
    if (address != given or whose) and (
        engine == "lm15" or not (by_litellm is None or leads_to_litellm(model) or by_litellm())
    ):
        address, whose = given, ()
    where = clean_endpoint(address)
    if where == _OPENAIS and _provider(model, None) in _LIKE_OPENAI:
        where = None
    if not whose:
        return where
    said = " ".join(f"{name}={value}" for name, value in whose)
    return f"{where or ''} [{said}]".strip()


def endpoint_of_lm(lm: Any) -> str | None:
    """Return where an LM is served: under the user's name for it, or as `endpoint_of` says."""
    model = str(getattr(lm, "model", None) or type(lm).__name__)
    named: str | None = getattr(lm, "endpoint", None)
    options, engine = getattr(lm, "kwargs", None) or {}, getattr(lm, "_engine_spec", None)
    return named or endpoint_of(model, options, engine, providers=getattr(lm, "_providers", ()))


def _given(options: Mapping[str, Any]) -> str | None:
    one, other = options.get("api_base"), options.get("base_url")
    # Which of the two it is depends on who sends the call.
    return f"{one} {other}" if one and other and one != other else (str(one or other) if one or other else None)


_OPENAIS_MODELS = ("gpt-", "o1", "o3", "o4", "chatgpt-", "ft:", "text-embedding-", "davinci-", "babbage-")
_LIKE_OPENAI = frozenset({"openai", "text-completion-openai", "custom_openai"})


def _around(model: str, options: Mapping[str, Any], given: str | None) -> tuple[str | None, Values]:
    """Return the address that LiteLLM uses, and on whose behalf it asks where the surroundings say so."""
    provider = options.get("custom_llm_provider")
    named_provider = provider if isinstance(provider, str) else None
    addresses, others = _variables(model, named_provider)
    found = _set(others)
    whose = tuple([one for one in found if one[0] != _PROXY]) if found else found
    litellm = sys.modules.get("litellm")
    everywhere = getattr(litellm, "api_base", None)
    is_proxied = whose != found and os.environ[_PROXY].strip().lower() == "true"
    if litellm is not None or is_proxied:
        whose += _settings(litellm, options, named_provider or model.partition("/")[0], is_proxied=is_proxied)
    if given and not everywhere:
        return given, whose
    named = () if given else _set(addresses)
    if not (named or everywhere):
        return given, whose
    return _resolved(model, provider, given, str(everywhere) if everywhere else None, named), whose


def surroundings(model: str, provider: Any) -> tuple[Any, ...]:
    """Return all that decides where a call goes, and on whose behalf, beside its options and who sends it.

    Where that is as it was, the call goes where it went.

    Args:
        model: The model's name.
        provider: The provider that the call names, if it does.
    """
    names = _all_variables(model, provider if isinstance(provider, str) else None)
    said = vars(sys.modules.get("litellm", _NOTHING))
    return (*values_of(names), *map(said.get, _ALL_SETTINGS))


@lru_cache(maxsize=1024)
def _all_variables(model: str, provider: str | None) -> tuple[str, ...]:
    named = (name for names in _variables(model, provider) for name in names)
    return tuple(dict.fromkeys((*named, *engines.variables_of(model), *_PROXIES)))


def _settings(litellm: Any, options: Mapping[str, Any], provider: str, *, is_proxied: bool) -> Values:
    """Return what LiteLLM's own settings say of where a call goes, and on whose behalf.

    It may be another thread's to import it at this moment, or nobody's yet: what it has not is as it is by default.
    """
    found = [(name, str(value)) for name in _SETTINGS if (value := getattr(litellm, name, None))]
    if getattr(litellm, "headers", None) and not options.get("headers"):
        headers = {str(name).lower(): value for name, value in litellm.headers.items()}
        said = sorted((name, value) for name, value in headers.items() if name not in KNOWN_HEADERS)
        found += [("headers", hashed(repr(said)))] if said else []
    if is_proxied or getattr(litellm, "use_litellm_proxy", False):
        address = None if _given(options) else os.environ.get("LITELLM_PROXY_API_BASE")
        found.append(("proxy", clean_endpoint(address) or "yes"))
    if name := options.get("litellm_credential_name"):
        listed = getattr(litellm, "credential_list", None) or ()
        held = [one.credential_values for one in listed if one.credential_name == name]
        found += [("credential", hashed(repr(sorted(without_known(one).items())))) for one in held]
    if custom := getattr(litellm, "custom_provider_map", None):
        handlers = [one["custom_handler"] for one in custom if one["provider"] == provider]
        found += [("handler", engine_identity(handler)) for handler in handlers]
    return tuple(found)


def _set(names: tuple[str, ...]) -> Values:
    """Return those variables that are set, with their values."""
    if not is_any_set(names):
        return ()
    return tuple([(name, value) for name in names if (value := os.environ.get(name))])


@lru_cache(maxsize=1024)
def _resolved(model: str, provider: Any, given: str | None, everywhere: str | None, named: Values) -> str | None:
    """Return the address of a call, as LiteLLM resolves it.

    Args:
        model: The model's name.
        provider: The provider that the call names, if it does.
        given: The address that the call is given, if any.
        everywhere: LiteLLM's setting.
        named: The variables with addresses that are set.
    """
    family = _family(_provider(model, provider))
    if everywhere and family == "ollama":
        return everywhere
    if given:
        return given
    values = list(dict.fromkeys(value for _, value in named))
    found = _litellms_own(model, provider)
    if found in values or (found is None and everywhere):
        return everywhere if found is None else found
    if everywhere:
        return f"{found} {everywhere}"
    if family in _LIKE_OPENAI or len(values) == 1:
        return values[0]
    return " ".join(values)  # told apart by all of them


def _litellms_own(model: str, provider: str | None) -> str | None:
    import litellm

    try:
        found: str | None = litellm.get_llm_provider(model, custom_llm_provider=provider)[3]
    except litellm.BadRequestError:
        return None  # it knows no such provider, and the call will say so
    return found


@lru_cache(maxsize=1024)
def _provider(model: str, provider: str | None) -> str:
    """Return the provider of a model as LiteLLM names it."""
    first, slash, _ = model.partition("/")
    if provider or slash or first.startswith(_OPENAIS_MODELS):
        return provider or (first if slash else "openai")
    # Only here, since to import it takes seconds, and DSPy does without it where it can.
    import litellm

    try:
        return str(litellm.get_llm_provider(model)[1])
    except litellm.BadRequestError:
        return "openai"


def _family(provider: str) -> str:
    name = provider.removeprefix("text-completion-").removesuffix("_chat").removesuffix("_text")
    return {"sagemaker_chat": "sagemaker", "custom_openai": "openai"}.get(name, name)


@lru_cache(maxsize=1024)
def _variables(model: str, provider: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the variables that are read for a model: those with its address, and those that say on whose behalf."""
    named = _provider(model, provider)
    family = _family(named)
    if family == "openai":
        return ("OPENAI_BASE_URL", "OPENAI_API_BASE"), (_PROXY, *_WHOSE["openai"])
    prefix = model.partition("/")[0]
    stems = [*_STEMS.get(family, ()), *(_stem(name) for name in (named, family, family.removesuffix("_ai"), prefix))]
    usual = [f"{stem}_{what}" for stem in stems for what in ("API_BASE", "BASE_URL")]
    names = [*usual, *_BY_ITSELF.get(family, ()), *_declared(named)]
    return tuple(dict.fromkeys(names)), (_PROXY, *_WHOSE.get(family, ()))


def _stem(name: str) -> str:
    return name.upper().replace("-", "_")


def _declared(provider: str) -> tuple[str, ...]:
    """Return the variable with the address of a provider that LiteLLM has no code for, but a description."""
    name = _descriptions().get(provider, {}).get("api_base_env")
    return (str(name),) if name else ()


@lru_cache(maxsize=1)
def _descriptions() -> dict[str, Any]:
    home = importlib.util.find_spec("litellm")
    if home is None or home.origin is None:
        return {}
    described = Path(home.origin).parent / "llms" / "openai_like" / "providers.json"
    return orjson.loads(described.read_bytes()) if described.is_file() else {}
