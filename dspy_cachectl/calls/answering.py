"""Which model answered a call, and what follows: where its answer is filed, and who is served it.

What LiteLLM got from one of its `fallbacks` is filed as that model's own. Where a server answers as another model by
itself, the answer stays with its run, and is served to nobody else: to call one model's answer another's is worse than
to pay again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import orjson

from dspy_cachectl.accounting.ledger import SERVED
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.calls.call import Asked, Call
from dspy_cachectl.calls.opening import identify
from dspy_cachectl.config import settings
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import STARTED, state
from dspy_cachectl.drift.history import noted
from dspy_cachectl.drift.states import Met
from dspy_cachectl.entries import records
from dspy_cachectl.entries.answers import AnswerFacts
from dspy_cachectl.entries.draws import UncacheableError
from dspy_cachectl.entries.model_names import is_asked_model
from dspy_cachectl.entries.records import Origin, encode
from dspy_cachectl.errors import DriftError, StoreError
from dspy_cachectl.fingerprints.endpoints import endpoint_of
from dspy_cachectl.fingerprints.engines import is_own_engine

_FALLBACKS, _BY_LENGTH = "fallbacks", "context_window_fallback_dict"


def is_by_another(asked: str, origin: Origin) -> bool:
    """Tell whether another model answered than one that was asked, as far as the provider says so."""
    if is_asked_model(asked, origin.answered_by) or is_own_engine(origin.endpoint):
        return False
    return not settings().names_alike(asked, origin.answered_by)


def why_not_served(call: Call, origin: Origin) -> str:
    """Say why a stored answer is not this call's; nothing where it is. What a run or a cassette holds is its own."""
    decision = call.asked.decision
    if decision.from_run or decision.raises or call.asked.ruling.cassette is not None:
        return ""
    if not is_by_another(origin.model, origin):
        return ""
    return f"the stored answer is {' + '.join(origin.answered_by)}'s, and {call.asked.model} is asked"


def why_too_old(call: Call, origin: Origin) -> str:
    """Say why a stored answer is too old to be served; nothing where it is not."""
    max_age = call.asked.policy.max_age
    if max_age is not None and age_of(origin.created) > max_age:
        if math.isinf(age_of(origin.created)):
            return f"the stored answer is of a time that lies ahead, so it may be older than max_age={max_age:g} s"
        return f"the stored answer is older than max_age={max_age:g} s"
    if (
        settings().force_recompute
        and call.asked.ruling.cassette is None
        and not call.asked.decision.raises
        and (origin.created < STARTED or math.isinf(age_of(origin.created)))
    ):
        return "the stored answer is older than this process, which recomputes everything"
    return ""


def say_who_answered(call: Call, origin: Origin) -> None:
    """Count and say once that another model answered than was asked, or another than before in this run."""
    if not origin.answered_by:
        return
    model = call.asked.model
    is_others = is_by_another(model, origin)
    if is_others:
        names = " + ".join(origin.answered_by)
        call.tally.by_other_models += 1
        state.say_once(
            f"other-model:{call.asked.endpoint}:{model}:{names}",
            f"{model!r} was asked, and {names!r} answered. The answer counts as that model's: it stays with its run, "
            "or is filed under the fallback that gave it, and is not reused as the other's. If the two are one "
            f'model, say so: configure(answers_as="{model}={names}"), or answers_as in [tool.dspy_cachectl]',
        )
    facts, run = call.answered.facts, call.asked.ruling.run
    if run is None or (is_others and facts is not None and asked_in_its_place(call.asked, facts) is not None):
        return  # one of its fallbacks answered, as the program asked for
    asked, said = (model, call.asked.endpoint), (origin.answered_by, origin.system_fingerprints)
    if run.states.first.get(asked) == said:
        return  # as nearly always
    met = run.states.met(asked, *said)
    if met.differs:
        _note_drift(call, run, met)
    if met.is_new and not is_others:
        _note_in_store(call, run, met, origin)


def _note_drift(call: Call, run: PhaseRun, met: Met) -> None:
    """Count and say once that a model answers in another state than at first in a passage, and refuse it if need be."""
    call.tally.drifted += 1
    model, first, state_now = call.asked.model, str(met.first), str(met.state)
    state.say_once(
        f"drift:{run.context.token}:{model}:{state_now}",
        f"within one run, {model!r} was answered by {state_now} and by {first} before: its numbers may not be of one "
        "model",
    )
    if call.asked.policy.on_drift == "raise" and run.drift is None:
        run.drift = DriftError(model, run.name, first, state_now)


def _note_in_store(call: Call, run: PhaseRun, met: Met, origin: Origin) -> None:
    """Let the store remember in which state a model answers, and say once that it is new to it. A process does so once.

    A cassette is of one time, and knows of no other.
    """
    asked = call.asked.model, call.asked.endpoint
    if state.cache is None or call.asked.ruling.cassette is not None or not state.is_news((*asked, met.state)):
        return
    try:
        before = noted(state.cache.tiers.register(), asked, met.state, origin.created)
    except StoreError as error:
        # In the words of any other write that failed: it is said once.
        state.say_once(
            f"fault:write:{type(error).__name__}",
            f"a write of the store failed, and the program goes on without it: {error}",
        )
        return
    if before is None or met.differs or call.answered.outcome in SERVED:
        return
    run.states.followed(asked, met.state, before)
    state.say_once(
        f"drift:store:{asked}:{met.state}",
        f"{asked[0]!r} is answered by {met.state} now, and in this store it was by {before}: a model may have changed "
        "behind its name",
    )


def asked_in_its_place(asked: Asked, facts: AnswerFacts) -> tuple[Asked, dict[str, Any]] | None:
    """Return what LiteLLM asked in place of a call, where one of its fallbacks answered, and with which options."""
    sent = asked.sent
    if sent is None or facts.fallback == 0:
        return None
    entry = _entry_that_answered(asked.model, list(_entries(asked.model, sent)), facts)
    if entry is None:
        return None
    options = {name: value for name, value in {**sent, **entry}.items() if name not in {_FALLBACKS, _BY_LENGTH}}
    instead = replace(
        asked,
        model=entry["model"],
        endpoint=endpoint_of(entry["model"], options),
        version=None,
        temperature=options.get("temperature"),
    )
    return instead, options


def fallback_asked(asked: Asked, facts: AnswerFacts) -> Asked | None:
    """Return likewise what an answer is filed under; None where it stays what was asked."""
    found = None if asked.ruling.cassette is not None else asked_in_its_place(asked, facts)
    if found is None:
        return None
    try:
        identify(*found, by_litellm=True)
    except UncacheableError:
        return None
    return found[0]


def asked_in_the_end(asked: Asked, facts: AnswerFacts) -> Asked:
    """Return what an answer answers: what was asked, or what LiteLLM asked in its place."""
    instead = fallback_asked(asked, facts)
    if instead is None:
        return asked
    why = f"{instead.model} answered it in its place, as one of its fallbacks, and the answer is stored as that model's"
    state.note_why_not_stored(asked.key.request, why)
    return instead


def filed(origin: Origin, asked: Asked, value: Any) -> tuple[Origin, Any, bytes]:
    """Return an entry's origin, answer and description, for what was asked in the end."""
    of_asked = {
        "model": asked.model,
        "endpoint": asked.endpoint,
        "rollout_id": asked.key.rollout_id,
        "ordinal": asked.key.ordinal,
        "temperature": asked.temperature,
    }
    if not of_asked.items() <= vars(origin).items():
        lent = origin.lent and asked.temperature == origin.temperature
        origin = replace(origin, **of_asked, lent=lent)
    return origin, value, asked.description()


def encoded(call: Call, value: Any, asked: Asked) -> bytes:
    """Return the entry that holds a call's answer, for what was asked in the end."""
    assert call.answered.origin is not None  # noqa: S101 - for the type checker
    return encode(*filed(call.answered.origin, asked, value))


def adopted(imported: Origin, asked: Asked, answer: bytes, *, tagged: bool) -> tuple[Origin, bytes]:
    """Return where an answer out of DSPy's own cache comes from, as that of a call, and the entry of it."""
    origin = replace(
        imported, kind=asked.kind.value, model=asked.model, role=asked.role, rollout_id=asked.program_rollout_id
    )
    description = orjson.loads(asked.description())
    return origin, records.put_together(asdict(origin), answer, tagged=tagged, request=description)


def _entries(model: str, sent: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what LiteLLM asks where a model fails, in its order."""
    listed = sent.get(_FALLBACKS) or getattr(sys.modules.get("litellm"), "model_fallbacks", None) or []
    for one in listed if isinstance(listed, (list, tuple)) else []:
        yield {"model": model, **one} if isinstance(one, Mapping) else {"model": str(one)}
    longer = sent.get(_BY_LENGTH)
    if isinstance(longer, Mapping) and model in longer:
        yield {"model": str(longer[model])}


def _entry_that_answered(model: str, entries: list[dict[str, Any]], facts: AnswerFacts) -> dict[str, Any] | None:
    if facts.fallback is not None:
        return entries[facts.fallback - 1] if facts.fallback <= len(entries) else None
    # A stream does not say which of them it was, but which model answers.
    if not facts.answered_by or is_asked_model(model, facts.answered_by):
        return None
    return next((entry for entry in entries if is_asked_model(entry["model"], facts.answered_by)), None)


def say_is_secret(call: Call) -> None:
    """Say that an answer stays in memory: it is served as it was bought, or not at all."""
    state.note_why_not_stored(
        call.asked.key.request, "it was bought in this process, and not written down: a secret is in it"
    )
    state.say_once(
        f"secret:{call.asked.model}",
        f"an answer of {call.asked.model!r} holds a secret: a key, or a value that this process knows as one. It is "
        "kept in memory only, and another process buys it again",
    )
