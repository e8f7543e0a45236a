"""What is replaced in DSPy while the managed cache is in place, because no setting of DSPy's does it.

- Its question of the cache carries the call that asks it, so that the cache need not guess whose question it is.
- What a call is made with is looked at for secrets, so that none of them is written down by anybody.
- Where there are budgets, each request asks them before it is sent (see `budgets.sending`).
- What makes a call without asking the cache is refused in a replay. A call with caching off, or of an LM that runs its
  own `forward`, never reaches `dspy.cache`; every such call of DSPy goes through one function that chooses the engine,
  after the cache and before any provider. Embedders with caching off have functions of their own.
- What its cache holds is decoded once, and copied for each hit.
- Messages that a key was made of are not searched for what cannot be sent.
- Where an equal call's answer was stored first, the program is given that one.
- Embeddings are asked for text by text (see `vectors`).
- What goes wrong around a call without failing it is noted: an answer that an adapter cannot parse, a schema that
  cannot be made, a request that is sent once more.
- A stored answer is sent to a streamed program in pieces (see `streams`).
- A request waits until its rate limits let it go (see `limits.hooks`): each that is sent, retries too.
- Its executor starts slow questions a second time, which is no draw of its own, and looks at all of them after each
  answer, which takes a time in proportion to the square of their number; and evaluations in several threads take one
  another's progress bars away (see `stragglers`).
- SIMBA scores its programs question by question: where there is a budget, the best of them is known (see `best`).
- A module's call is a unit (see `units`), and evaluations and compiles are heard of (see `watching`).

Nothing of this is on the stack while a program runs: a program may read its stack, and ask with what it reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from copy import copy
from types import FunctionType
from typing import Any

import dspy
from dspy.adapters import json_adapter
from dspy.clients import embedding, execution
from dspy.clients.call_result import CACHE_FORMAT, CallResult
from dspy.clients.execution import PreparedCall
from dspy.teleprompt import simba
from dspy.teleprompt.teleprompt import Teleprompter
from dspy.utils import parallelizer
from dspy.utils.exceptions import AdapterParseError

from dspy_cachectl.accounting.troubles import Mishap
from dspy_cachectl.boundary.held import HELD
from dspy_cachectl.budgets.hooks import embedding_within, engine_within
from dspy_cachectl.budgets.sending import Guard, refusal_in
from dspy_cachectl.calls.account import Counted
from dspy_cachectl.calls.adapter import dspys_request
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.call import CALL, Call, current_call
from dspy_cachectl.calls.opening import open_plain_lm_call, open_uncached_call
from dspy_cachectl.calls.vectors import by_text, by_text_async
from dspy_cachectl.context.best import scoring_by_question
from dspy_cachectl.context.process import logger, state
from dspy_cachectl.context.ruling import budgets_here, phase_here
from dspy_cachectl.context.stragglers import if_seen, in_parts, starting_once, with_bars_apart
from dspy_cachectl.context.units import naming_units
from dspy_cachectl.context.watching import Watched
from dspy_cachectl.limits.hooks import Here, embedding_paced, embedding_paced_async, paced, paced_async
from dspy_cachectl.limits.pacing import Pacer, pacer_of
from dspy_cachectl.limits.rates import Rate, joined, rates_of
from dspy_cachectl.policy import Kind
from dspy_cachectl.streams.sending import in_pieces, in_pieces_async

Original = Any


def apply() -> None:
    """Put the replacements in place. Does nothing where they are."""
    for home in (dspy.Evaluate, Teleprompter):
        if (home, "callbacks") not in state.replaced:
            state.replaced[home, "callbacks"] = None
            home.callbacks = Watched()
    for (home, name), replacing in _REPLACEMENTS.items():
        original = getattr(home, name, None)
        if original is None:
            logger.warning("this DSPy has no %s.%s: what rests on it is not done", home.__name__, name)
        elif (home, name) not in state.replaced:
            state.replaced[home, name] = original
            setattr(home, name, replacing(original))


def undo() -> None:
    """Give DSPy its functions back."""
    while state.replaced:
        (home, name), original = state.replaced.popitem()
        if original is None:
            delattr(home, name)
        else:
            setattr(home, name, original)


def _with_its_call(original: Original) -> Original:
    """Around what makes DSPy's question of its cache: it asks once to look up, and once more to store."""

    def key(prepared: Any, lm: Any, asynchronous: bool) -> dict[str, Any]:
        request: dict[str, Any] = original(prepared, lm, asynchronous)
        if not isinstance(vars(dspy).get("cache"), ManagedCache):
            return request
        request[CALL] = _call_of(prepared, lm, lambda: request)
        return request

    return key


def _call_of(prepared: Any, lm: Any, request: Callable[[], Mapping[str, Any]]) -> Call:
    """Return the call that DSPy has prepared. `request` makes what DSPy asks its cache."""
    known = vars(prepared)
    if CALL not in known:
        known[CALL] = _awaited(lm) or open_plain_lm_call(lm, prepared, request)
    call: Call = known[CALL]
    return call


def _awaited(lm: Any) -> Call | None:
    """Return the call of a governed LM whose question of the cache this is."""
    call = current_call()
    if call is None or call.awaited_from is not lm:
        return None
    # Only the first question of this LM is its own: an engine may ask the same LM again by `forward`.
    call.awaited_from = None
    return call


def _serving(original: Original) -> Original:
    """In the place of what asks DSPy's cache and makes a result of what it finds: that is copied, where it can be."""

    def cached(lm: Any, prepared: Any, asynchronous: bool) -> Any:
        call = current_call()
        if call is not None and call.at_hand is not None and call.awaited_from is lm and prepared.cache:
            call.awaited_from = None
            return call.serve_at_hand().result(lm, prepared.kwargs, lambda: prepared.legacy)
        cache = vars(dspy).get("cache")
        if not (prepared.cache and isinstance(cache, ManagedCache)):
            return original(lm, prepared, asynchronous)
        call = _call_of(prepared, lm, lambda: dspys_request(prepared, lm, asynchronous))
        found = cache.find(call, lambda: (prepared.key(lm, asynchronous), execution.IGNORED_CACHE_KEYS))
        return None if found is None else found.result(lm, prepared.kwargs, lambda: prepared.legacy)

    return cached


def _sparing_the_known(original: Original) -> Original:
    """Around the search for texts that cannot be sent: what a key was made of can be, since it was written as JSON."""
    # It calls itself for each part, by a name under which this stands from now on.
    itself = dict(original.__globals__)
    search = itself[original.__name__] = FunctionType(original.__code__, itself, original.__name__)

    def check(value: Any, where: str) -> None:
        call = current_call()
        if call is None or call.key is None or call.messages is not value:
            search(value, where)

    return check


def _handing_over(original: Original) -> Original:
    """Around what stores an answer: where an equal call's was stored first, that is what the program is given."""

    def store(lm: Any, prepared: Any, result: Any, asynchronous: bool) -> None:
        original(lm, prepared, result, asynchronous)
        call: Call | None = vars(prepared).get(CALL)
        if call is None or call.answered.instead is None:
            return
        record = call.answered.instead
        is_native = isinstance(record, dict) and record.get("_dspy_format") == CACHE_FORMAT
        first = CallResult.load(record) if is_native else CallResult.legacy(lm, record, kwargs=prepared.legacy)
        # What was used and paid stays, and so does that it was no hit.
        for said in ("responses", "outputs", "raw", "response_model"):
            setattr(result, said, getattr(first, said))

    return store


def _refused_in_replay(original: Original) -> Original:
    # The embedders' coroutine function is refused before it makes its coroutine.
    def refused(subject: Any, *args: Any, **kwargs: Any) -> Any:
        _learn_secrets(subject, args, kwargs)
        ruling = phase_here()
        if ruling.replays(getattr(subject, "role", None)):
            _refuse(subject)
        elif ruling.run is not None and ruling.run.drift is not None:
            raise copy(ruling.run.drift)
        elif ruling.cassette is not None and not _asks_cache(args, kwargs):
            state.say_once(
                f"unrecorded:{subject}",
                f"a call of {getattr(subject, 'model', subject)!r} is not recorded in {ruling.cassette.name}, and will "
                "be refused in its replay: it does not use DSPy's cache (cache=False, or an LM with its own forward). "
                "Use cachectl.LM or wrap(lm), which are recorded either way",
            )
        if ruling.run is not None and ruling.run.waves is not None and args and isinstance(args[0], PreparedCall):
            engine = ruling.run.waves.engine(subject, *args, lambda: original(subject, *args, **kwargs))
            if engine is not None:
                return engine
        return original(subject, *args, **kwargs)

    return refused


def _learn_secrets(subject: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Know the secrets that a call is made with by their values, before there is an answer, or an error, to write."""
    for options in (getattr(subject, "kwargs", None), getattr(args[0], "kwargs", None) if args else None, kwargs):
        if isinstance(options, Mapping):
            HELD.learn(options)


def _asks_cache(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    call = current_call()
    if call is not None:
        return call.asked.cached
    prepared = args[0] if args else None
    return bool(getattr(prepared, "cache", kwargs.get("caching", True)))


def _refuse(subject: Any) -> None:
    if callable(subject) and not hasattr(subject, "model"):
        return  # an embedder's own function: the user's code, not a provider
    reason = "the call does not use DSPy's cache (cache=False, or an LM with its own forward)"
    call = current_call()
    if call is not None and call.answered.outcome is None:
        raise call.miss(reason)
    kind = Kind.PLAIN_LM if hasattr(subject, "model") else Kind.EMBEDDING
    refused = open_uncached_call(kind, str(getattr(subject, "model", subject)), getattr(subject, "role", None))
    with Counted(refused):
        raise refused.miss(reason)


def _rates(lm: Any, engine: Any) -> tuple[Rate, ...]:
    """Return what limits the request that is about to be sent; nothing where an engine has its answer already.

    Raises:
        BudgetExceededError: If there is a limit, and a budget that would refuse the request when its turn has come.
    """
    if getattr(engine, "has_answer", False):
        return ()
    found = _limits_of(lm)
    if found and isinstance(engine, Guard):
        engine.check()
    return found


def _limits_of(lm: Any) -> tuple[Rate, ...]:
    of_phase = phase_here().context.rates
    requests, tokens = getattr(lm, "requests_per_minute", None), getattr(lm, "tokens_per_minute", None)
    if requests is None and tokens is None:
        return of_phase
    call = current_call()
    endpoint = None if call is None else call.asked.endpoint
    return joined(of_phase, rates_of(f"model {lm.model} {endpoint or ''}", requests, tokens))


def _pacer() -> Pacer:
    cache = vars(dspy).get("cache")
    return pacer_of(cache.tiers if isinstance(cache, ManagedCache) else None, state.say_once)


def _note_wait(seconds: float) -> None:
    """Take what was waited here off the time that the provider takes."""
    call = current_call()
    if call is not None and call.sent_at is not None:
        call.sent_at += seconds


_HERE = Here(_rates, _pacer, _note_wait)


def _note(what: Mishap) -> None:
    """Tell the phase that rules here that something went wrong, in the thread in which it did."""
    run = phase_here().run
    if run is not None and run.on_mishap is not None:
        run.on_mishap(what)


def _noting_unparsed(original: Callable[..., None]) -> Callable[..., None]:
    """Around the making of an `AdapterParseError`: an adapter makes one for an answer that it cannot parse."""

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        _note(Mishap.UNPARSED)

    return __init__


def _noting_retries(original: Callable[..., bool]) -> Callable[..., bool]:
    """Around DSPy's question whether a failed request is sent once more."""

    @functools.wraps(original)
    def retryable(state: Any, error: Exception, *args: Any, **kwargs: Any) -> bool:
        if (refusal := refusal_in(error)) is not None:
            raise refusal  # DSPy takes it for an error of the engine, and that for one of the model
        again = original(state, error, *args, **kwargs)
        if again:
            _note(Mishap.RETRY)
        return again

    return retryable


class _NotingJsonMode:
    """The logger of the module of DSPy's `JSONAdapter`, which warns of nothing but that it could not make a schema."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def warning(self, *args: Any, stacklevel: int = 1, **kwargs: Any) -> None:
        """Note it, and warn as before."""
        _note(Mishap.JSON_MODE)
        self._logger.warning(*args, stacklevel=stacklevel + 1, **kwargs)


_REPLACEMENTS: Mapping[tuple[Any, str], Callable[[Original], Original]] = {
    (PreparedCall, "key"): _with_its_call,
    (execution, "_check_encodable"): _sparing_the_known,
    (execution, "_cached"): lambda original: in_pieces(_serving(original)),
    (execution, "_store"): _handing_over,
    (execution, "_engine"): lambda original: _refused_in_replay(engine_within(original, budgets_here)),
    (embedding, "_cached_compute_embeddings"): by_text,
    (embedding, "_cached_acompute_embeddings"): by_text_async,
    (embedding, "_compute_embeddings"): lambda original: _refused_in_replay(
        embedding_paced(embedding_within(original, budgets_here), _HERE)
    ),
    (embedding, "_acompute_embeddings"): lambda original: _refused_in_replay(
        embedding_paced_async(embedding_within(original, budgets_here), _HERE)
    ),
    (parallelizer, "ThreadPoolExecutor"): starting_once,
    (parallelizer, "wait"): in_parts,
    (parallelizer, "tqdm"): with_bars_apart,
    (parallelizer.ParallelExecutor, "_report_progress"): if_seen,
    (execution, "_attempt"): lambda original: paced(original, _HERE),
    (execution, "_aattempt"): lambda original: paced_async(original, _HERE),
    (type(dspy.settings), "context"): naming_units,
    (execution, "_retryable"): _noting_retries,
    (execution, "aexecute"): in_pieces_async,
    (AdapterParseError, "__init__"): _noting_unparsed,
    (simba, "wrap_program"): scoring_by_question,
    (json_adapter, "logger"): _NotingJsonMode,
}
