"""What DSPy makes of a call: the request that it will look up, and whether it will look it up at all.

DSPy 3.4 sends every call through `BaseLM.__call__` or `acall`, then `clients.execution`, which asks `dspy.cache`
before it chooses an engine. DSPy 3.5 routes its adapters through `generate` and `agenerate`. What of DSPy is replaced
is in `patches`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import dspy
import pydantic
from dspy.clients.execution import PreparedCall, prepare
from dspy.clients.legacy_requests import _strict_json_schema
from dspy.utils.dummies import DummyLM

from dspy_cachectl.boundary.meant import meant
from dspy_cachectl.context.process import state
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.engines import client_options, with_engine
from dspy_cachectl.policy import Kind
from dspy_cachectl.streams.sending import is_streamed

_COMPLETIONS = {"chat": "completion", "text": "text_completion", "responses": "responses_completion"}
_EMBEDDINGS = "dspy.clients.embedding."

dspys_request = PreparedCall.key
"""What DSPy asks its cache for a prepared call, by itself (see `patches`)."""


def typed_request(prompt: Any, kwargs: Mapping[str, Any]) -> dspy.lm15.Request | None:
    """Return the `dspy.lm15.Request` that a call carries, or None."""
    return prompt if isinstance(prompt, dspy.lm15.Request) else kwargs.get("request")


def request_of(
    lm: dspy.BaseLM,
    prompt: Any,
    messages: Any,
    kwargs: Mapping[str, Any],
    *,
    asynchronous: bool,
) -> dict[str, Any]:
    """Return the request that DSPy will look up for a call, in the form that sync and async share.

    Args:
        lm: The LM.
        prompt: As in `dspy.LM.__call__`; likewise the next two.
        messages: See there.
        kwargs: See there.
        asynchronous: Whether it is `acall`.
    """
    if typed_request(prompt, kwargs) is not None:
        prepared = prepare(lm, prompt, messages, dict(kwargs), asynchronous=asynchronous)
        # What the LM's own options add is sent with a request that is whole without them.
        typed = {**client_options(lm), "model": lm.model, **_shared_form(dspys_request(prepared, lm, asynchronous))}
        return with_engine(typed, lm)
    request = {
        "_fn_identifier": f"dspy.clients.lm.litellm_{_COMPLETIONS.get(lm.model_type, lm.model_type)}",
        "model": lm.model,
        "messages": messages or [{"role": "user", "content": prompt}],
        **lm.kwargs,
        **kwargs,
    }
    if getattr(lm, "use_developer_role", False):
        request["use_developer_role"] = True
    return with_engine(_with_format(request), lm)


def is_typed(request: Mapping[str, Any]) -> bool:
    """Tell whether what DSPy asks its cache is of a `dspy.lm15.Request`."""
    return str(request.get("_fn_identifier", "")).startswith("dspy.clients.lm15.")


def _with_format(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request with the schema of its answer as it is sent: a class of pydantic's is one.

    The API of responses has it in another form, in which nobody else gives it.
    """
    given = request.get("response_format")
    if (
        given is None
        or "responses" in request["_fn_identifier"]
        or not (isinstance(given, type) and issubclass(given, pydantic.BaseModel))
    ):
        return request
    core = given.__dict__.get("__pydantic_core_schema__")  # another one after `model_rebuild()`
    known = _FORMATS.get(given)
    if known is None or known[0] is not core:
        schema = _strict_json_schema(given.model_json_schema())
        known = (
            core,
            {
                "type": "json_schema",
                "json_schema": {"name": given.__name__, "schema": schema, "strict": True},
            },
        )
        _FORMATS[given] = known
    return {**request, "response_format": known[1]}


_FORMATS: WeakKeyDictionary[type, tuple[Any, dict[str, Any]]] = WeakKeyDictionary()


def cache_request(request: Mapping[str, Any]) -> tuple[Kind, dict[str, Any]]:
    """Return what a request in DSPy's cache asks for, and the request in the form that sync and async share."""
    shared = _shared_form(request)
    name = str(shared.get("_fn_identifier", ""))
    if name.startswith(_EMBEDDINGS):
        # `request_cache` knows arguments by their position only.
        for position, argument in enumerate(("model", "batch_inputs")):
            if f"positional_arg_{position}" in shared:
                shared[argument] = shared.pop(f"positional_arg_{position}")
        return Kind.EMBEDDING, shared
    if name.startswith(("dspy.clients.lm.", "dspy.clients.lm15.")):
        return Kind.PLAIN_LM, shared
    return Kind.FUNCTION, shared


def embedders_request(model: Any, texts: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `cache_request` makes of what DSPy would ask its cache for the vectors of texts."""
    name = f"{_EMBEDDINGS}_cached_compute_embeddings"
    return _with_format({**options, "_fn_identifier": name, "model": model, "batch_inputs": texts})


def model_of(request: Mapping[str, Any]) -> str:
    """Return the name of the model that a request in DSPy's cache is for."""
    model, typed = request.get("model"), request.get("request")
    if isinstance(model, str):
        return model
    if isinstance(typed, dict):
        return str(typed.get("model", "?"))
    return str(getattr(model, "__name__", "(custom)"))


def _shared_form(request: Mapping[str, Any]) -> dict[str, Any]:
    name = str(request.get("_fn_identifier", ""))
    shared = (
        name.replace(".alitellm_", ".litellm_")
        .replace("._cached_acompute_", "._cached_compute_")
        .removesuffix(".async")
    )
    return _with_format({**request, "_fn_identifier": shared})


def is_managed(lm: dspy.BaseLM, *, asynchronous: bool) -> bool:
    """Tell whether DSPy runs an LM's calls itself; a legacy `forward` LM runs its own, without the cache."""
    # DSPy's `prepare` says the same, but only with the whole call, which is not decided yet. A test holds one to the
    # other.
    if not hasattr(lm, "_engine_spec"):
        return False
    if isinstance(lm, DummyLM):
        return _is_as_in(DummyLM, "forward", lm) and not (asynchronous and not _is_as_in(DummyLM, "aforward", lm))
    return not isinstance(lm, dspy.LM) or _is_as_in(dspy.LM, "aforward" if asynchronous else "forward", lm)


def _is_as_in(base: type, name: str, lm: dspy.BaseLM) -> bool:
    return getattr(type(lm), name) is getattr(base, name) and name not in vars(lm)


def asks_cache(lm: dspy.BaseLM, kwargs: Mapping[str, Any], *, managed: bool) -> bool:
    """Tell whether DSPy will ask its cache for a call of an LM that is, or is not, `is_managed`."""
    return bool(managed and kwargs.get("cache", lm.cache) and getattr(lm, "_cache_responses", True))


def answers_at_once(lm: Any, parent: Any, prompt: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call of a coroutine whose answer is at hand is DSPy's own code, which reads no file for it."""
    is_dspys = (
        getattr(parent.acall, "__func__", None) is dspy.BaseLM.acall
        and getattr(parent.__call__, "__func__", None) is dspy.BaseLM.__call__
        and is_managed(lm, asynchronous=False)
    )
    # A typed request may name files, of which DSPy makes a copy first.
    return is_dspys and not is_streamed() and not typed_request(prompt, kwargs)


_OF_REQUESTS = """
    api_base api_key api_version base_url extra_body extra_headers frequency_penalty headers logit_bias logprobs
    max_completion_tokens max_new_tokens max_tokens min_new_tokens min_tokens n parallel_tool_calls presence_penalty
    reasoning_effort response_format rollout_id seed stop temperature timeout tool_choice tools top_a top_k top_logprobs
    top_p user
"""
"""What is often asked of a provider beside what DSPy names itself."""
_OURS = {"role", "endpoint", "version"}
_MISSPELT, _LIKE_ONE = 0.85, 0.75


def check_options(kind: type, given: Mapping[str, Any]) -> None:
    """Refuse an option that is nearly a known one, which would only be sent; say it once where it may be meant so.

    Raises:
        ConfigurationError: If there is one.
    """
    known = _known_options(kind)
    for name, value in given.items():
        near = [] if name in known else meant(name, known, cutoff=_LIKE_ONE)
        if not near or (_is_of_litellm(name) and not (near[0] in _OURS and isinstance(value, str))):
            continue  # LiteLLM's `roles` is a table
        said = f"{kind.__name__} has no option {name!r}"
        if sorted(name) != sorted(near[0]) and not meant(name, near, cutoff=_MISSPELT):
            state.say_once(f"option:{name}", f"{said}, so it goes to the provider as it is: did you mean {near[0]!r}?")
            continue
        raise ConfigurationError(
            f"{said}: did you mean {near[0]!r}? What a provider itself takes under such a name goes into "
            f"extra_body={{{name!r}: ...}}"
        )


@functools.lru_cache(maxsize=64)
def _known_options(kind: type) -> frozenset[str]:
    makers = (vars(one)["__init__"] for one in kind.__mro__ if "__init__" in vars(one) and one is not object)
    return frozenset(name for maker in makers for name in inspect.signature(maker).parameters) | set(
        _OF_REQUESTS.split()
    )


def _is_of_litellm(name: str) -> bool:
    from litellm.constants import OPENAI_CHAT_COMPLETION_PARAMS
    from litellm.types.utils import all_litellm_params

    return name in OPENAI_CHAT_COMPLETION_PARAMS or name in all_litellm_params
