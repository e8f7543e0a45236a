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
from dspy_cachectl.context.here import Here, here
from dspy_cachectl.context.open_cassette import DRAWN, UNCACHED_RUN
from dspy_cachectl.context.process import state
from dspy_cachectl.entries import draws
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
    place = here()
    managed = adapter.is_managed(lm, asynchronous=asynchronous)
    if place.tape is not None and managed:
        place, kwargs = _on_tape(place, lm, kwargs)
    policy = place.context.policy_for(lm.role)
    typed = adapter.is_typed(prompt, kwargs)
    asked = (prompt if isinstance(prompt, dspy.lm15.Request) else kwargs["request"]).config if typed else None
    temperature = kwargs.get("temperature", lm.kwargs.get("temperature")) if asked is None else asked.temperature
    facts = Facts(Kind.LM, temperature=temperature, model=lm.model, has_run=place.context.run_id is not None)
    decision = _decided(place, policy, facts)
    if decision.raises and managed:
        kwargs = {**kwargs, "cache": True}
    if decision.lent_temperature is not None:
        temperature = decision.lent_temperature
        prompt, kwargs = _with_temperature(prompt, kwargs, temperature)
    endpoint = lm.endpoint or endpoint_of(lm.model, {**lm.kwargs, **kwargs}, getattr(lm, "_engine_spec", None))
    if place.tape is not None and (lm.endpoint is None or lm.endpoint.startswith(UNNAMED)):
        endpoint = place.tape.endpoint(lm.model, endpoint)
    call = Call(
        kind=Kind.LM,
        model=lm.model,
        role=lm.role,
        endpoint=endpoint,
        place=place,
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
    if place.context.bypass_proxy and decision.from_run:
        kwargs = _bypassing(lm, kwargs, typed=typed, managed=managed)
    return call, prompt, kwargs


def open_plain_call(request: Mapping[str, Any]) -> Call:
    """Decide what is done for a call that only the cache sees: of a plain `dspy.LM`, or of an embedder."""
    kind, shared = adapter.cache_request(request)
    place = here()
    policy = place.context.policy
    if kind is Kind.EMBEDDING and not policy.replays:
        # DSPy's retriever embeds in a thread of its own; what does not vary puts no result in doubt.
        place = dataclasses.replace(place, stray_of=())
    model = adapter.model_of(shared)
    decision = _decided(place, policy, Facts(kind, model=model, has_run=place.context.run_id is not None))
    endpoint = request[adapter.ENDPOINT] if adapter.ENDPOINT in request else endpoint_of(model, shared)
    if place.tape is not None:
        place.tape.clean.learn(request)
        endpoint = place.tape.endpoint(model, endpoint)
    call = Call(
        kind=kind,
        model=model,
        role=None,
        endpoint=endpoint,
        place=place,
        policy=policy,
        decision=decision,
        request=None,
        fingerprint=None,
        key=None,
        temperature=shared.get("temperature"),
        local=kind is Kind.EMBEDDING and callable(shared.get("model")),
    )
    with contextlib.suppress(draws.UncacheableError):
        cleaned = draws.clean_request(shared)
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


def _decided(place: Here, policy: Policy, facts: Facts) -> Decision:
    decision = decide(policy, facts)
    return decision if place.tape is None else place.tape.decide(decision)


def _on_tape(place: Here, lm: Any, kwargs: dict[str, Any]) -> tuple[Here, dict[str, Any]]:
    """Record a call, or serve it, also where its caching is off: then each call is a draw of its own."""
    tape = place.tape
    assert tape is not None  # noqa: S101 - for the type checker
    tape.clean.learn({**lm.kwargs, **kwargs})
    if kwargs.get("cache", lm.cache) or place.context.policy_for(lm.role).fresh:
        return place, {**kwargs, "cache": True}
    context = dataclasses.replace(place.context, policy=DRAWN, roles=(), run_id=UNCACHED_RUN)
    return dataclasses.replace(place, context=context), {**kwargs, "cache": True}


def _rollout(call: Call, own: Any) -> Any:
    run_id, print_ = call.run_id, call.fingerprint
    if run_id is None or print_ is None:
        return own
    run, unit = call.run, call.place.context.unit
    if call.tape is not None and run_id == UNCACHED_RUN:
        # Not of the passage through a phase: the next one must not be served these draws.
        call.ordinal = call.tape.ordinals.next(unit=unit, own=own, request=print_)
    else:
        call.ordinal = 0 if run is None else run.ordinals.next(unit=unit, own=own, request=print_)
    return draws.rollout_id(run_id, own=own, unit=unit, request=print_, ordinal=call.ordinal)


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
