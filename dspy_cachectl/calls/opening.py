"""Opening a call: what the policy decides for it, which draw it is, and what it is sent with.

A governed LM opens its own calls. A call of a plain `dspy.LM` is opened when DSPy makes the question for its cache of
it, that of an embedder when the cache is asked, since nothing earlier sees them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from dspy_cachectl.calls import adapter
from dspy_cachectl.calls.call import NO_KEY, Asked, Call, current_call
from dspy_cachectl.context.elsewhere import note_refusal
from dspy_cachectl.context.open_cassette import EACH_A_DRAW, UNCACHED_RUN, OpenCassette
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import Ruling, phase_here
from dspy_cachectl.entries import draws
from dspy_cachectl.entries.asked import is_litellms
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.canonical import UnstableError
from dspy_cachectl.fingerprints.code import code_fingerprint
from dspy_cachectl.fingerprints.endpoints import HERE, UNNAMED, endpoint_of
from dspy_cachectl.fingerprints.engines import (
    client_options,
    is_own_engine,
    is_told_by_being_itself,
    sent_by_litellm,
    with_engine,
)
from dspy_cachectl.fingerprints.versioned import VersionedFunction
from dspy_cachectl.policy import Kind

_NO_SETTINGS = ("rollout_id", "temperature")
"""Options of a call that are no settings of DSPy's, which takes any."""


def open_lm_call(
    lm: Any, prompt: Any, messages: Any, kwargs: dict[str, Any], *, asynchronous: bool
) -> tuple[Call, Any, dict[str, Any]]:
    """Decide what is done for a call of a governed LM.

    Args:
        lm: The LM, with `role`, `endpoint` and `version`.
        prompt: As in `dspy.LM.__call__`; likewise the next two.
        messages: The messages, or None.
        kwargs: The call's options.
        asynchronous: Whether it is `acall`.

    Returns:
        The call, and the prompt and options to go on with: with the rollout id and the temperature of its draw.
    """
    _say_what_settings_do_not_do()
    ruling = _ruling_here()
    managed = adapter.is_managed(lm, asynchronous=asynchronous)
    if ruling.cassette is not None and managed:
        ruling, kwargs = _in_cassette(ruling, ruling.cassette, lm, kwargs)
    typed = adapter.typed_request(prompt, kwargs)
    given = kwargs.get("temperature", lm.kwargs.get("temperature")) if typed is None else typed.config.temperature
    policy = ruling.context.policy_for(lm.role)
    decision = ruling.decide(policy, Kind.LM, lm.model, given)
    if decision.raises and managed:
        # With caching off DSPy would not ask the cache, which is what stops a replay from calling.
        kwargs = {**kwargs, "cache": True}
    lent = decision.lent_temperature
    if lent is not None:
        prompt, kwargs = _with_temperature(prompt, kwargs, lent)
    options = {**lm.kwargs, **kwargs}

    def by_litellm() -> bool:
        return sent_by_litellm(lm, prompt, messages, kwargs)

    endpoint = _endpoint(lm, options, ruling, by_litellm)
    asked = Asked(
        kind=Kind.LM,
        model=lm.model,
        ruling=ruling,
        policy=policy,
        decision=decision,
        role=lm.role,
        endpoint=endpoint,
        version=lm.version,
        temperature=given if lent is None else lent,
        program_rollout_id=kwargs.get("rollout_id", lm.kwargs.get("rollout_id")),
        cached=adapter.asks_cache(lm, kwargs, managed=managed),
    )
    # The lent temperature is in the request already, the rollout id not yet: it is made from what is asked.
    request = adapter.request_of(lm, prompt, messages, kwargs, options, asynchronous=asynchronous)
    _identify_if_possible(asked, request, by_litellm=is_litellms(options) and by_litellm())
    call = Call(asked, parent=current_call())
    call.tally.temperatures_lent += lent is not None
    if messages is not None:
        kwargs = {**kwargs, "messages": messages}
    if managed and asked.key.rollout_id is not None:
        # With the call and not in `lm.kwargs`, to whose rollout id BestOfN and SIMBA add numbers.
        kwargs = {**kwargs, "rollout_id": asked.key.rollout_id}
    if ruling.context.bypass_proxy and decision.from_run:
        kwargs = _bypassing(lm, kwargs, typed=typed is not None, managed=managed)
    return call, prompt, kwargs


def _identify_if_possible(asked: Asked, request: Mapping[str, Any], *, by_litellm: bool) -> None:
    try:
        identify(asked, request, by_litellm=by_litellm)
    except draws.UncacheableError:
        asked.key = NO_KEY  # Without a canonical form there is no key: the call goes through, counted as uncacheable.


def _endpoint(lm: Any, options: Mapping[str, Any], ruling: Ruling, by_litellm: Callable[[], bool]) -> str | None:
    """Return the identity of where a governed LM is served."""
    engine = getattr(lm, "_engine_spec", None)
    endpoint: str | None = lm.endpoint or endpoint_of(
        lm.model, options, engine, providers=getattr(lm, "_providers", ()), by_litellm=by_litellm
    )
    _say_of_engine(endpoint)
    # A name that the user gave holds on every machine; an address, or the number of a DummyLM, does not.
    if ruling.cassette is not None and (lm.endpoint is None or lm.endpoint.startswith(UNNAMED)):
        return ruling.cassette.endpoint(lm.model, endpoint)
    return endpoint


def _say_of_engine(endpoint: str | None) -> None:
    """Say once of an engine that nothing tells from others but being this object."""
    if is_own_engine(endpoint) and is_told_by_being_itself(str(endpoint)):
        name = str(endpoint).partition(":")[2].partition("#")[0]
        state.say_once(
            f"engine:{name}",
            f"an engine {name} cannot be told from another by its attributes: what it answers is served to this very "
            "object only, and to none in another process. Give it dump_state() and load_state(), as DSPy saves it, or "
            "the LM a name: cachectl.LM(..., endpoint=...)",
        )


def _ruling_here() -> Ruling:
    ruling = phase_here()
    if ruling.refused:
        note_refusal(ruling.context.process, ruling.context.token)
        raise ConfigurationError(ruling.refused)
    return ruling


def _say_what_settings_do_not_do() -> None:
    """Say of options that people set for all calls at once that DSPy hands its settings to no LM."""
    found = {name: value for name in _NO_SETTINGS if (value := dspy.settings.get(name)) is not None}
    if found:
        said = ", ".join(f"{name}={value!r}" for name, value in found.items())
        state.say_once(
            "no-setting",
            f"{said}, set with dspy.context() or dspy.configure(), reaches no LM: DSPy hands none a rollout_id or a "
            f"temperature of its settings. Write program(..., config=dict({said})), or lm.copy({said}); or open a "
            'phase that draws every answer afresh, as phase("eval") does',
        )


def say_what_is_shared(call: Call) -> None:
    """Say once that a plain LM's equal calls share a draw in a phase that draws afresh."""
    asked = call.asked
    draws_afresh = asked.decision.from_run and not asked.decision.raises and asked.ruling.cassette is None
    if draws_afresh and asked.kind is Kind.PLAIN_LM:
        state.say_once(
            "plain",
            f"{asked.model!r} is a plain dspy.LM in the fresh phase {asked.ruling.context.name!r}: it is fresh, but "
            "equal calls within the run share one draw, and no temperature is lent. Use cachectl.LM or wrap(lm)",
        )


def open_plain_call(
    request: Mapping[str, Any], *, lm: Any = None, options: Mapping[str, Any] | None = None, prepared: Any = None
) -> Call:
    """Decide what is done for a call of which there is only DSPy's question: of a plain LM, or of an embedder.

    Args:
        request: What DSPy asks its cache.
        lm: The plain LM, where it is known.
        options: The LM's options and the call's, with the address that DSPy leaves out of a typed request.
        prepared: The call as DSPy has prepared it, of a plain LM.
    """
    kind, shared = adapter.cache_request(request if lm is None else _of_lm(request, lm))
    if kind is Kind.PLAIN_LM:
        _say_what_settings_do_not_do()
    ruling = _ruling_here()
    policy = ruling.context.policy
    if kind is Kind.EMBEDDING and not policy.replays:
        # DSPy's retriever embeds in a thread of its own; what does not vary puts no result in doubt.
        ruling = ruling._replace(stray_of=())
    model = adapter.model_of(shared)

    def by_litellm() -> bool:
        return kind is Kind.EMBEDDING or (lm is not None and sent_by_litellm(lm, prepared=prepared))

    given, is_local = options or shared, kind is Kind.EMBEDDING and callable(shared.get("model"))
    engine, providers = getattr(lm, "_engine_spec", None), getattr(lm, "_providers", ())
    endpoint = HERE if is_local else endpoint_of(model, given, engine, providers=providers, by_litellm=by_litellm)
    _say_of_engine(endpoint)
    if ruling.cassette is not None:
        ruling.cassette.clean.learn(options or request)
        endpoint = ruling.cassette.endpoint(model, endpoint)
    asked = Asked(
        kind=kind,
        model=model,
        ruling=ruling,
        policy=policy,
        decision=ruling.decide(policy, kind, model),
        endpoint=endpoint,
        version=getattr(shared.get("model"), "version", None) if kind is Kind.EMBEDDING else None,
        temperature=shared.get("temperature"),
        program_rollout_id=shared.get("rollout_id"),
        local=is_local,
    )
    try:
        if asked.local:
            # A function of the user's is told from others by its version or all that it rests on, or is not cached.
            shared["model"] = _identity_of(shared["model"], model)
        identify(asked, shared, by_litellm=is_litellms(given) and by_litellm())
    except (draws.UncacheableError, UnstableError) as error:
        if asked.local:
            state.say_once(
                f"embedder:{model}",
                f"what {model!r} embeds is computed each time, and not kept: {error}. Give it a version, which you "
                "change when it changes: cachectl.Embedder(function, version=...)",
            )
    return Call(asked, parent=current_call())


def _of_lm(request: Mapping[str, Any], lm: Any) -> dict[str, Any]:
    sent = client_options(lm) if adapter.is_typed(request) else {}
    return with_engine({**sent, "model": lm.model, **request}, lm)


def _identity_of(function: Any, name: str) -> str:
    if isinstance(function, VersionedFunction):
        return f"{function.identity}#versioned"
    return f"{name}#{code_fingerprint(function, exact=True)}"


def open_uncached_call(kind: Kind, model: str, role: str | None) -> Call:
    """Decide what is done for a call that never reaches the cache, and of which no more is known."""
    ruling = _ruling_here()
    policy = ruling.context.policy_for(role)
    return Call(Asked(kind, model, ruling, policy, ruling.decide(policy, kind, model), role=role, cached=False))


def identify(asked: Asked, request: Mapping[str, Any], *, by_litellm: bool) -> None:
    """Say what is asked, and which answer that stands for."""
    cleaned = draws.clean_request(request, by_litellm=by_litellm)
    own, ruling = asked.program_rollout_id, asked.ruling
    is_lms = asked.kind is Kind.LM
    asked.key = draws.key_of(
        cleaned,
        endpoint=asked.endpoint,
        version=asked.version,
        scope=asked.policy.scope,
        program_rollout_id=own,
        run_id=asked.run_id,
        # Two askings of a plain LM or an embedder cannot be told from DSPy asking twice: they share a draw.
        unit=ruling.context.unit if is_lms else None,
        ordinal=(lambda request: ruling.next_ordinal(request, own)) if is_lms else None,
    )
    asked.request, asked.sent = cleaned, request


def _in_cassette(
    ruling: Ruling, cassette: OpenCassette, lm: Any, kwargs: dict[str, Any]
) -> tuple[Ruling, dict[str, Any]]:
    """Record a call, or serve it, also where its caching is off: then each call is a draw of its own."""
    cassette.clean.learn({**lm.kwargs, **kwargs})
    if not (kwargs.get("cache", lm.cache) or ruling.context.policy_for(lm.role).fresh):
        context = dataclasses.replace(ruling.context, policy=EACH_A_DRAW, roles=(), run_id=UNCACHED_RUN)
        ruling = ruling._replace(context=context)
    return ruling, {**kwargs, "cache": True}


def _with_temperature(prompt: Any, kwargs: dict[str, Any], temperature: float) -> tuple[Any, dict[str, Any]]:
    request = adapter.typed_request(prompt, kwargs)
    if request is None:
        return prompt, {**kwargs, "temperature": temperature}
    request = dataclasses.replace(request, config=dataclasses.replace(request.config, temperature=temperature))
    if isinstance(prompt, dspy.lm15.Request):
        return request, kwargs
    return prompt, {**kwargs, "request": request}


def _bypassing(lm: Any, kwargs: dict[str, Any], *, typed: bool, managed: bool) -> dict[str, Any]:
    engine = getattr(lm, "_engine_spec", None)
    if managed and not typed and isinstance(engine, str) and engine != "lm15":
        body = kwargs.get("extra_body", lm.kwargs.get("extra_body")) or {}
        return {**kwargs, "extra_body": {**body, "cache": {**(body.get("cache") or {}), "no-cache": True}}}
    state.say_once(
        f"bypass:{lm.model}",
        f"bypass_proxy has no effect on {lm.model!r}: a typed Request, DSPy's native engine by name and an engine of "
        "one's own cannot carry it. Ask with messages, through engine='auto' or 'litellm'",
    )
    return kwargs
