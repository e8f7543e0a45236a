"""Opening a call: what the policy decides for it, which draw it is, and what it is sent with.

A governed LM opens its own calls. A call of a plain `dspy.LM` is opened when DSPy makes the question for its cache of
it, that of an embedder when the cache is asked, since nothing earlier sees them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from dspy_cachectl.calls import adapter, alike
from dspy_cachectl.calls.call import NO_KEY, Asked, Call, current_call
from dspy_cachectl.context import carried
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
        The call with its messages, and the prompt and options to go on with: those have the rollout id and the
        temperature of its draw.
    """
    _say_what_settings_do_not_do()
    ruling = ruling_here()
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
    # By position, since names take longer than all else that is done here.
    asked = Asked(
        Kind.LM,
        lm.model,
        ruling,
        policy,
        decision,
        lm.role,
        None,
        lm.version,
        given if lent is None else lent,
        kwargs.get("rollout_id", lm.kwargs.get("rollout_id")),
        # The lent temperature is in it already, the rollout id not yet: that is made from what is asked.
        functools.partial(adapter.request_of, lm, prompt, messages, kwargs, asynchronous=asynchronous),
    )
    asked.cached = adapter.asks_cache(lm, kwargs, managed=managed)
    _settle(
        asked,
        lm,
        kwargs,
        named=lm.endpoint,
        messages=(messages or [{"role": "user", "content": prompt}]) if typed is None else None,
        by_litellm=functools.partial(sent_by_litellm, lm, prompt, messages, kwargs),
    )
    call = Call(asked, current_call())
    if lent is not None:
        call.tally.temperatures_lent += 1
    call.messages = messages
    if managed and asked.key.rollout_id is not None:
        # With the call and not in `lm.kwargs`, to whose rollout id BestOfN and SIMBA add numbers.
        kwargs = {**kwargs, "rollout_id": asked.key.rollout_id}
    if ruling.context.bypass_proxy and decision.from_run:
        kwargs = _bypassing(lm, kwargs, typed=typed is not None, managed=managed)
    return call, prompt, kwargs


def _settle(
    asked: Asked,
    lm: Any,
    kwargs: Mapping[str, Any],
    *,
    named: str | None,
    messages: Any,
    by_litellm: Callable[[], bool],
) -> None:
    """Say where a call of an LM goes, and which answer it stands for.

    Args:
        asked: What is asked.
        lm: The LM.
        kwargs: The options of the call.
        named: The user's name for where it is served, or None.
        messages: What is asked in the end, or None where that is no list of messages.
        by_litellm: Tells whether LiteLLM sends it, which takes a while.
    """
    is_alone = messages is None or asked.ruling.cassette is not None
    name = None if is_alone else alike.name_of(lm, kwargs, asked.kind, asked.version, named)
    known = None if name is None else alike.known(name)
    try:
        if known is not None:
            asked.alike, asked.endpoint = known, known.endpoint
            asked.key = _key(asked, known.around.fingerprint(messages))
            return
        options = {**lm.kwargs, **kwargs}
        sending = alike.Sending(lm, options, by_litellm)
        asked.endpoint = _endpoint(lm, options, asked.ruling, named, sending)
        matters = is_litellms(options)
        identify(asked, asked.sent or {}, by_litellm=matters and sending())
        if name is not None and not (matters or sending.was_asked):
            alike.know(name, asked.request or {}, asked.endpoint, asked.version)
    except draws.UncacheableError:
        # Without a canonical form there is no key: the call goes through, counted as uncacheable.
        asked.key, asked.request, asked.sent = NO_KEY, None, None


def _endpoint(
    lm: Any, options: Mapping[str, Any], ruling: Ruling, named: str | None, by_litellm: Callable[[], bool]
) -> str | None:
    """Return the identity of where an LM is served."""
    engine = getattr(lm, "_engine_spec", None)
    endpoint: str | None = named or endpoint_of(
        lm.model, options, engine, providers=getattr(lm, "_providers", ()), by_litellm=by_litellm
    )
    _say_of_engine(endpoint)
    # A name that the user gave holds on every machine; an address, or the number of a DummyLM, does not.
    if ruling.cassette is not None and (named is None or named.startswith(UNNAMED)):
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


def ruling_here() -> Ruling:
    """Return what rules a call that is made here.

    Raises:
        ConfigurationError: If none is made here.
    """
    ruling = phase_here()
    if ruling.refused:
        note_refusal(ruling.context.process, ruling.context.token)
        raise ConfigurationError(ruling.refused)
    return ruling


def _say_what_settings_do_not_do() -> None:
    """Say of options that people set for all calls at once that DSPy hands its settings to no LM."""
    rollout_id, temperature = carried.found("rollout_id"), carried.found("temperature")
    if rollout_id is not None or temperature is not None:
        found = {"rollout_id": rollout_id, "temperature": temperature}
        said = ", ".join(f"{name}={value!r}" for name, value in found.items() if value is not None)
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


def open_plain_lm_call(lm: Any, prepared: Any, request: Callable[[], Mapping[str, Any]]) -> Call:
    """Decide what is done for a call of a plain LM.

    Args:
        lm: The LM.
        prepared: The call as DSPy has prepared it.
        request: Makes what DSPy asks its cache.
    """
    _say_what_settings_do_not_do()
    ruling = ruling_here()
    policy, options = ruling.context.policy, {**lm.kwargs, **prepared.kwargs}
    # A typed request says itself what else is asked.
    is_typed, own = prepared.request is not None, prepared.kwargs if prepared.request is not None else options
    if ruling.cassette is not None:
        ruling.cassette.clean.learn(options)
    asked = Asked(
        kind=Kind.PLAIN_LM,
        model=lm.model,
        ruling=ruling,
        policy=policy,
        decision=ruling.decide(policy, Kind.PLAIN_LM, lm.model),
        temperature=own.get("temperature"),
        program_rollout_id=own.get("rollout_id"),
        making=lambda: _of_lm(adapter.cache_request(request())[1], lm),
    )
    _settle(
        asked,
        lm,
        prepared.kwargs,
        named=None,
        messages=None if is_typed else prepared.legacy["messages"],
        by_litellm=functools.partial(sent_by_litellm, lm, prepared=prepared),
    )
    return Call(asked, current_call())


def open_plain_call(request: Mapping[str, Any]) -> Call:
    """Decide what is done for a call of which there is only DSPy's question: of an embedder, or another reader's.

    Args:
        request: What DSPy asks its cache.
    """
    return open_shared_call(*adapter.cache_request(request))


def open_shared_call(kind: Kind, shared: dict[str, Any]) -> Call:
    """Decide what is done for a call likewise.

    Args:
        kind: What it asks for.
        shared: What DSPy asks its cache, in the form that sync and async share.
    """
    ruling = ruling_here()
    policy = ruling.context.policy
    if kind is Kind.EMBEDDING and ruling.stray_of and not policy.replays:
        # DSPy's retriever embeds in a thread of its own; what does not vary puts no result in doubt.
        ruling = ruling._replace(stray_of=())
    model, is_embedders = adapter.model_of(shared), kind is Kind.EMBEDDING
    if ruling.cassette is not None:
        ruling.cassette.clean.learn(shared)
    asked = Asked(
        kind=kind,
        model=model,
        ruling=ruling,
        policy=policy,
        decision=ruling.decide(policy, kind, model),
        version=getattr(shared.get("model"), "version", None) if is_embedders else None,
        temperature=shared.get("temperature"),
        program_rollout_id=shared.get("rollout_id"),
        local=is_embedders and callable(shared.get("model")),
    )
    try:
        _settle_plain(asked, shared)
    except (draws.UncacheableError, UnstableError) as error:
        if asked.local:
            state.say_once(
                f"embedder:{model}",
                f"what {model!r} embeds is computed each time, and not kept: {error}. Give it a version, which you "
                "change when it changes: cachectl.Embedder(function, version=...)",
            )
    call = Call(asked, parent=current_call())
    call.takes_records = True
    return call


def _settle_plain(asked: Asked, shared: dict[str, Any]) -> None:
    """Say where a call goes of which there is only DSPy's question, and which answer it stands for."""
    is_embedders, cassette = asked.kind is Kind.EMBEDDING, asked.ruling.cassette
    is_alone = not is_embedders or asked.local or cassette is not None
    name = None if is_alone else alike.name_of_embedding(shared, asked.version)
    known = None if name is None else alike.known(name)
    if known is not None:
        asked.endpoint = known.endpoint
        asked.key = _key(asked, known.around.fingerprint(shared[alike.TEXTS]))
        asked.alike, asked.sent = known, shared
        return
    asked.endpoint = HERE if asked.local else endpoint_of(asked.model, shared, by_litellm=lambda: is_embedders)
    if cassette is not None:
        asked.endpoint = cassette.endpoint(asked.model, asked.endpoint)
    if asked.local:
        # A function of the user's is told from others by its version or all that it rests on, or is not cached.
        shared["model"] = _identity_of(shared["model"], asked.model)
    identify(asked, shared, by_litellm=is_embedders and is_litellms(shared))
    if name is not None:
        alike.know(name, asked.request or {}, asked.endpoint, asked.version, but=alike.TEXTS)


def _of_lm(request: Mapping[str, Any], lm: Any) -> dict[str, Any]:
    sent = client_options(lm) if adapter.is_typed(request) else {}
    return with_engine({**sent, "model": lm.model, **request}, lm)


def _identity_of(function: Any, name: str) -> str:
    if isinstance(function, VersionedFunction):
        return f"{function.identity}#versioned"
    return f"{name}#{code_fingerprint(function, exact=True)}"


def open_uncached_call(kind: Kind, model: str, role: str | None) -> Call:
    """Decide what is done for a call that never reaches the cache, and of which no more is known."""
    ruling = ruling_here()
    policy = ruling.context.policy_for(role)
    return Call(Asked(kind, model, ruling, policy, ruling.decide(policy, kind, model), role=role, cached=False))


def identify(asked: Asked, request: Mapping[str, Any], *, by_litellm: bool) -> None:
    """Say what is asked, and which answer that stands for."""
    cleaned = draws.clean_request(request, by_litellm=by_litellm)
    if asked.ruling.cassette is not None:
        cleaned = asked.ruling.cassette.portable(cleaned)
    asked.key = _key(asked, draws.fingerprint(cleaned, endpoint=asked.endpoint, version=asked.version))
    asked.request, asked.sent = cleaned, request


def _key(asked: Asked, fingerprint: str) -> draws.Key:
    own, ruling = asked.program_rollout_id, asked.ruling
    if own is None and not asked.policy.scope and asked.run_id is None:
        return draws.Key(fingerprint, fingerprint, fingerprint)
    is_numbered = asked.kind is Kind.LM or asked.kind is Kind.TOOL
    return draws.key_within(
        fingerprint,
        scope=asked.policy.scope,
        program_rollout_id=own,
        run_id=asked.run_id,
        # Two askings of a plain LM or an embedder cannot be told from DSPy asking twice: they share a draw.
        unit=ruling.context.draws_of if is_numbered else None,
        ordinal=(lambda request: ruling.next_ordinal(request, own)) if is_numbered else None,
    )


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
