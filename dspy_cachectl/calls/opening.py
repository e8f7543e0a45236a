"""Opening a call: what the policy decides for it, which draw it is, and what it is sent with.

The LM opens its own calls. A call of a plain `dspy.LM` or an embedder is opened by the cache, which is all that
sees it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import dspy

from dspy_cachectl.calls import adapter
from dspy_cachectl.calls.call import Call, current_call
from dspy_cachectl.context.open_cassette import EACH_A_DRAW, UNCACHED_RUN
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import Ruling, phase_here
from dspy_cachectl.entries import draws
from dspy_cachectl.fingerprints.canonical import UnstableError
from dspy_cachectl.fingerprints.code import code_fingerprint
from dspy_cachectl.fingerprints.endpoints import UNNAMED, endpoint_of
from dspy_cachectl.policy import Decision, Facts, Kind, Policy, decide


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
    ruling = phase_here()
    managed = adapter.is_managed(lm, asynchronous=asynchronous)
    if ruling.cassette is not None and managed:
        ruling, kwargs = _in_cassette(ruling, lm, kwargs)
    policy = ruling.context.policy_for(lm.role)
    typed = adapter.is_typed(prompt, kwargs)
    asked = (prompt if isinstance(prompt, dspy.lm15.Request) else kwargs["request"]).config if typed else None
    temperature = kwargs.get("temperature", lm.kwargs.get("temperature")) if asked is None else asked.temperature
    facts = Facts(Kind.LM, temperature=temperature, model=lm.model, has_run=ruling.context.run_id is not None)
    decision = _decided(ruling, policy, facts)
    if decision.raises and managed:
        kwargs = {**kwargs, "cache": True}
    if decision.lent_temperature is not None:
        temperature = decision.lent_temperature
        prompt, kwargs = _with_temperature(prompt, kwargs, temperature)
    endpoint = lm.endpoint or endpoint_of(lm.model, {**lm.kwargs, **kwargs}, getattr(lm, "_engine_spec", None))
    if ruling.cassette is not None and (lm.endpoint is None or lm.endpoint.startswith(UNNAMED)):
        endpoint = ruling.cassette.endpoint(lm.model, endpoint)
    call = Call(
        kind=Kind.LM,
        model=lm.model,
        role=lm.role,
        endpoint=endpoint,
        ruling=ruling,
        policy=policy,
        decision=decision,
        request=None,
        fingerprint=None,
        key=None,
        version=lm.version,
        temperature=temperature,
        cached=adapter.asks_cache(lm, kwargs, managed=managed),
        parent=current_call(),
    )
    call.tally.temperatures_lent += decision.lent_temperature is not None
    own = kwargs.get("rollout_id", lm.kwargs.get("rollout_id"))
    with contextlib.suppress(draws.UncacheableError):
        # Without a canonical form there is no key: the call goes through, counted as uncacheable.
        request = draws.clean_request(adapter.request_of(lm, prompt, messages, kwargs, asynchronous=asynchronous))
        call.fingerprint = draws.fingerprint(request, endpoint=endpoint, version=lm.version)
        call.own, call.rollout_id = own, _rollout(call, own)
        call.key = draws.cache_key(call.fingerprint, rollout_id=call.rollout_id, scope=policy.scope)
        call.asked = draws.cache_key(call.fingerprint, rollout_id=own, scope=policy.scope)
        call.request = request
    if managed and call.rollout_id is not None:
        kwargs = {**kwargs, "rollout_id": call.rollout_id}
    if ruling.context.bypass_proxy and decision.from_run:
        kwargs = _bypassing(lm, kwargs, typed=typed, managed=managed)
    return call, prompt, kwargs


def open_plain_call(request: Mapping[str, Any]) -> Call:
    """Decide what is done for a call that only the cache sees: of a plain `dspy.LM`, or of an embedder."""
    kind, shared = adapter.cache_request(request)
    ruling = phase_here()
    policy = ruling.context.policy
    if kind is Kind.EMBEDDING and not policy.replays:
        # DSPy's retriever embeds in a thread of its own; what does not vary puts no result in doubt.
        ruling = dataclasses.replace(ruling, stray_of=())
    model = adapter.model_of(shared)
    decision = _decided(ruling, policy, Facts(kind, model=model, has_run=ruling.context.run_id is not None))
    endpoint = request[adapter.ENDPOINT] if adapter.ENDPOINT in request else endpoint_of(model, shared)
    if ruling.cassette is not None:
        ruling.cassette.clean.learn(request)
        endpoint = ruling.cassette.endpoint(model, endpoint)
    call = Call(
        kind=kind,
        model=model,
        role=None,
        endpoint=endpoint,
        ruling=ruling,
        policy=policy,
        decision=decision,
        request=None,
        fingerprint=None,
        key=None,
        temperature=shared.get("temperature"),
        local=kind is Kind.EMBEDDING and callable(shared.get("model")),
    )
    with contextlib.suppress(draws.UncacheableError, UnstableError):
        cleaned = draws.clean_request(shared)
        if call.local:
            # A function of the user's is told from others by all that it rests on, or is not cached.
            cleaned["model"] = f"{model}#{code_fingerprint(shared['model'], exact=True)}"
        call.fingerprint = draws.fingerprint(cleaned, endpoint=call.endpoint)
        own = call.own = shared.get("rollout_id")
        # Only the cache sees this call, so it cannot tell two askings of a request apart: they share a draw.
        call.rollout_id = (
            draws.rollout_id(call.run_id, own=own, request=call.fingerprint) if call.run_id is not None else own
        )
        call.key = draws.cache_key(call.fingerprint, rollout_id=call.rollout_id, scope=policy.scope)
        call.asked = draws.cache_key(call.fingerprint, rollout_id=own, scope=policy.scope)
        call.request = cleaned
    return call


def _decided(ruling: Ruling, policy: Policy, facts: Facts) -> Decision:
    decision = decide(policy, facts)
    return decision if ruling.cassette is None else ruling.cassette.decide(decision)


def _in_cassette(ruling: Ruling, lm: Any, kwargs: dict[str, Any]) -> tuple[Ruling, dict[str, Any]]:
    """Record a call, or serve it, also where its caching is off: then each call is a draw of its own."""
    cassette = ruling.cassette
    assert cassette is not None  # noqa: S101 - for the type checker
    cassette.clean.learn({**lm.kwargs, **kwargs})
    if kwargs.get("cache", lm.cache) or ruling.context.policy_for(lm.role).fresh:
        return ruling, {**kwargs, "cache": True}
    context = dataclasses.replace(ruling.context, policy=EACH_A_DRAW, roles=(), run_id=UNCACHED_RUN)
    return dataclasses.replace(ruling, context=context), {**kwargs, "cache": True}


def _rollout(call: Call, own: Any) -> Any:
    run_id, fingerprint = call.run_id, call.fingerprint
    if run_id is None or fingerprint is None:
        return own
    run, unit = call.run, call.ruling.context.unit
    if call.cassette is not None and run_id == UNCACHED_RUN:
        # Not of the passage through a phase: the next one must not be served these draws.
        call.ordinal = call.cassette.ordinals.next(unit=unit, own=own, request=fingerprint)
    else:
        call.ordinal = 0 if run is None else run.ordinals.next(unit=unit, own=own, request=fingerprint)
    return draws.rollout_id(run_id, own=own, unit=unit, request=fingerprint, ordinal=call.ordinal)


def _with_temperature(prompt: Any, kwargs: dict[str, Any], temperature: float) -> tuple[Any, dict[str, Any]]:
    request = prompt if isinstance(prompt, dspy.lm15.Request) else kwargs.get("request")
    if request is None:
        return prompt, {**kwargs, "temperature": temperature}
    request = dataclasses.replace(request, config=dataclasses.replace(request.config, temperature=temperature))
    if isinstance(prompt, dspy.lm15.Request):
        return request, kwargs
    return prompt, {**kwargs, "request": request}


def _bypassing(lm: Any, kwargs: dict[str, Any], *, typed: bool, managed: bool) -> dict[str, Any]:
    engine = getattr(lm, "_engine_spec", None)
    if managed and not typed and isinstance(engine, str) and engine != "lm15":
        return {**kwargs, "extra_body": _without_proxy_cache(kwargs.get("extra_body", lm.kwargs.get("extra_body")))}
    state.say_once(
        f"bypass:{lm.model}",
        f"bypass_proxy has no effect on {lm.model!r}: a typed Request, DSPy's native engine by name and an engine of "
        "one's own cannot carry it. Ask with messages, through engine='auto' or 'litellm'",
    )
    return kwargs


def _without_proxy_cache(extra_body: Any) -> dict[str, Any]:
    body = dict(extra_body or {})
    return {**body, "cache": {**(body.get("cache") or {}), "no-cache": True}}
