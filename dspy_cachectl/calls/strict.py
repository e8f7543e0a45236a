"""What keeps a replay from calling, where DSPy does not ask its cache.

A call with caching off, or of an LM that runs its own `forward`, never reaches `dspy.cache`. Every such call of
DSPy goes through one function that chooses the engine, after the cache and before any provider, so that is where
it is refused. Embedders with caching off have a function of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy.clients import embedding, execution

from dspy_cachectl.calls.call import Call, counted, current_call
from dspy_cachectl.context.process import logger, state
from dspy_cachectl.context.ruling import Ruling, phase_here
from dspy_cachectl.policy import Facts, Kind, decide

_GUARDED = ((execution, "_engine"), (embedding, "_compute_embeddings"), (embedding, "_acompute_embeddings"))
_ORIGINALS: dict[tuple[Any, str], Callable[..., Any]] = {}


def guard() -> None:
    """Put the guards in place. Does nothing where they are."""
    for module, name in _GUARDED:
        original = getattr(module, name, None)
        if original is None:
            logger.warning("this DSPy has no %s.%s: a replay cannot stop calls with caching off", module.__name__, name)
        elif (module, name) not in _ORIGINALS:
            _ORIGINALS[module, name] = original
            setattr(module, name, _refusing(original))


def unguard() -> None:
    """Give DSPy its functions back."""
    for (module, name), original in _ORIGINALS.items():
        setattr(module, name, original)
    _ORIGINALS.clear()


def _refusing(original: Callable[..., Any]) -> Callable[..., Any]:
    # The embedders' coroutine function is guarded before it makes its coroutine.
    def guarded(subject: Any, *args: Any, **kwargs: Any) -> Any:
        ruling = phase_here()
        if ruling.replays(getattr(subject, "role", None)):
            _refuse(subject, ruling)
        elif ruling.cassette is not None and not _asks_cache(args, kwargs):
            state.say_once(
                f"unrecorded:{subject}",
                f"a call of {getattr(subject, 'model', subject)!r} is not recorded in {ruling.cassette.name}, and will "
                "be refused in its replay: it does not use DSPy's cache (cache=False, or an LM with its own forward). "
                "Use cachectl.LM or wrap(lm), which are recorded either way",
            )
        return original(subject, *args, **kwargs)

    return guarded


def _asks_cache(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    call = current_call()
    if call is not None:
        return call.cached
    prepared = args[0] if args else None
    return bool(getattr(prepared, "cache", kwargs.get("caching", True)))


def _refuse(subject: Any, ruling: Ruling) -> None:
    if callable(subject) and not hasattr(subject, "model"):
        return  # an embedder's own function: the user's code, not a provider
    reason = "the call does not use DSPy's cache (cache=False, or an LM with its own forward)"
    call = current_call()
    if call is not None and call.outcome is None:
        raise call.miss(reason)
    kind = Kind.PLAIN_LM if hasattr(subject, "model") else Kind.EMBEDDING
    model = str(getattr(subject, "model", subject))
    role = getattr(subject, "role", None)
    refused = Call(
        kind=kind,
        model=model,
        role=role,
        endpoint=None,
        ruling=ruling,
        policy=ruling.context.policy_for(role),
        decision=decide(ruling.context.policy_for(role), Facts(kind, model=model)),
        request=None,
        fingerprint=None,
        key=None,
    )
    with counted(refused):
        raise refused.miss(reason)
