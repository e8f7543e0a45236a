"""What obeys the phase: `LM` and `Embedder`, drop-ins for DSPy's, and `wrap()` for an LM one already has.

Only `__call__` and `acall` are overridden, undecorated: DSPy's callbacks then fire once and see the draw's
rollout id. `forward` and `aforward` are never defined, which would switch DSPy's cache, retries and engines off.
Locks, connections and counters never live on an LM: DSPy copies it.
"""

from __future__ import annotations

import copyreg
import uuid
from collections.abc import Callable
from pydoc import locate
from typing import Any, TypeVar

import dspy
from dspy.clients.base_lm import LM_CLASS_STATE_KEY
from dspy.utils.dummies import DummyLM

from dspy_cachectl.boundary.secrets import readable_name
from dspy_cachectl.calls import adapter, at_hand
from dspy_cachectl.calls.account import Counted
from dspy_cachectl.calls.adapter import check_options
from dspy_cachectl.calls.call import Answered, Asking, Call, current_call
from dspy_cachectl.calls.flight import Flights, frames_of_others, turn_of
from dspy_cachectl.calls.installation import ensure_installed, installed
from dspy_cachectl.calls.known import note_unstored
from dspy_cachectl.calls.opening import open_lm_call
from dspy_cachectl.calls.saving import as_variables, held_in_environment, names_in, with_names
from dspy_cachectl.calls.vectors import IntoArray, as_array, becomes_array
from dspy_cachectl.context.process import state
from dspy_cachectl.entries.answers import AnswerFacts, noted
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.endpoints import UNNAMED
from dspy_cachectl.fingerprints.versioned import VersionedFunction, VersionedName
from dspy_cachectl.limits.rates import checked

M = TypeVar("M")

_FLIGHTS: Flights[Answered] = Flights()
"""The calls in the air."""


class Governed:
    """What a governed LM adds to a `dspy.BaseLM`: it asks the phase before it asks DSPy.

    Attributes:
        role: What the LM is for inside a program; phases may treat roles differently.
        endpoint: A stable name for where the model is served. It takes the place of the address in the key.
        version: A name for the model's version; part of the key.
        requests_per_minute: How many requests it may send a minute; None for any number. No part of a key.
        tokens_per_minute: How many tokens it may send and receive; likewise.
    """

    role: str | None = None
    endpoint: str | None = None
    version: str | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Answer as `dspy.LM` does, under the policy of the phase."""
        # Before DSPy's own `__call__`: its callbacks, its history and its cache then see the draw that is asked for.
        call, prompt, kwargs = open_lm_call(self, prompt, messages, kwargs, asynchronous=False)
        parent: Any = super()
        try:
            with Counted(call):
                goes_alone = _goes_alone(call)
                if call.at_hand is not None and at_hand.goes_by_itself(self, parent, call):
                    notes_itself = type(self).update_history is not Governed.update_history
                    return at_hand.served(self, parent, call, prompt, kwargs, notes_itself=notes_itself)
                if messages is not None:
                    kwargs = {**kwargs, "messages": messages}
                if goes_alone:
                    with Asking(call, self):
                        return _answered(call, self, parent.__call__(prompt, **kwargs))

                def ask(handed: Answered | None) -> Any:
                    with Asking(call, self, handed):
                        return _answered(call, self, parent.__call__(prompt, **kwargs))

                # Who waits for another's answer waits out here: in DSPy's call callbacks are open, and retries run.
                return _FLIGHTS.run(call.key or "", ask, lambda: call.shared, turn_of(call, installed()))
        except Exception as error:  # noqa: BLE001 - it goes on
            raise error.with_traceback(frames_of_others(error))  # noqa: B904 - it is the same one

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Answer as `dspy.LM.acall` does, under the policy of the phase."""
        call, prompt, kwargs = open_lm_call(self, prompt, messages, kwargs, asynchronous=True)
        parent: Any = super()
        try:
            with Counted(call):
                goes_alone = _goes_alone(call, on_loop=True)
                if call.at_hand is not None and at_hand.goes_by_itself(self, parent, call):
                    notes_itself = type(self).update_history is not Governed.update_history
                    return at_hand.served(self, parent, call, prompt, kwargs, notes_itself=notes_itself)
                if messages is not None:
                    kwargs = {**kwargs, "messages": messages}
                if goes_alone:
                    with Asking(call, self):
                        if call.at_hand is not None and adapter.answers_at_once(self, parent, prompt, kwargs):
                            # DSPy's way to an answer that waits for nothing, instead of two turns in other threads.
                            return _answered(call, self, parent.__call__(prompt, **kwargs))
                        return _answered(call, self, await parent.acall(prompt, **kwargs))

                async def ask(handed: Answered | None) -> Any:
                    with Asking(call, self, handed):
                        return _answered(call, self, await parent.acall(prompt, **kwargs))

                turn = turn_of(call, installed(), by_thread=False)
                return await _FLIGHTS.run_async(call.key or "", ask, lambda: call.shared, turn)
        except Exception as error:  # noqa: BLE001 - it goes on
            raise error.with_traceback(frames_of_others(error))  # noqa: B904 - it is the same one

    def copy(self, **kwargs: Any) -> Any:
        """Return a copy with other options, as DSPy does.

        Raises:
            ConfigurationError: If an option is misspelt.
        """
        check_options(type(self), {name: value for name, value in kwargs.items() if not hasattr(self, name)})
        return super().copy(**kwargs)  # type: ignore[misc]

    def update_history(self, entry: dict[str, Any]) -> None:
        """Note in the history how a call was answered, beside what DSPy notes."""
        call = current_call()
        if call is not None and isinstance(entry, dict):
            if call.answered.outcome is None:
                call.buy(noted(entry))
                note_unstored(call, None if (cache := installed()) is None else cache.tiers)
            entry["cachectl"] = call.noted()
        super().update_history(entry)  # type: ignore[misc]

    def dump_state(self) -> dict[str, Any]:
        """Return the state under DSPy's own class, so that programs load where this package is not installed."""
        dumped: dict[str, Any] = super().dump_state()  # type: ignore[misc]
        ours = _ungoverned(type(self))
        dumped[LM_CLASS_STATE_KEY] = f"{ours.__module__}.{ours.__qualname__}"
        return with_names(self, dumped)

    @classmethod
    def load_state(cls, state: dict[str, Any], *, allow_custom_lm_class: bool = False) -> Any:
        """Return the LM of a state, as DSPy does, with the role, endpoint and version that it was saved with."""
        own, names = names_in(state)
        loaded = super().load_state(own, allow_custom_lm_class=allow_custom_lm_class)  # type: ignore[misc]
        _name(loaded, **(names or {}))
        return loaded

    def __setstate__(self, found: dict[str, Any]) -> None:
        _install_at_arrival()
        (getattr(super(), "__setstate__", None) or self.__dict__.update)(found)

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind = _ungoverned(type(self))
        if type(self) is not _CLASSES.get(kind):
            # A subclass is somebody's own, and pickled as such.
            return super().__reduce_ex__(protocol)
        getstate = getattr(self, "__getstate__", None)  # every object has it from Python 3.11 on
        state = self.__dict__ if getstate is None else getstate()
        if held_in_environment(self.model, self.kwargs):  # type: ignore[attr-defined]
            state = {**state, "kwargs": as_variables(self.model, self.kwargs)}  # type: ignore[attr-defined]
        return _REBUILD, (kind,), state


class LM(Governed, dspy.LM):  # type: ignore[misc]
    """A `dspy.LM` that obeys the phase.

    Args:
        model: The model, as for `dspy.LM`.
        *args: Further arguments of `dspy.LM`.
        role: What the LM is for inside a program (`"generator"`, `"judge"`, ...).
        endpoint: A stable name for where the model is served, in place of its address.
        version: A name for the model's version: a changed one does not serve the other's answers.
        requests_per_minute: How many requests may be sent to the model a minute, by all processes that share the
            store, retries included. What is served from the store waits for nothing.
        tokens_per_minute: How many tokens may be sent to it and received from it, likewise.
        **kwargs: Options of `dspy.LM`.

    Raises:
        ConfigurationError: If an option is misspelt, a name is empty, or a limit is no number above 0.
    """

    def __init__(
        self,
        model: str,
        *args: Any,
        role: str | None = None,
        endpoint: str | None = None,
        version: str | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_options(LM, kwargs)
        super().__init__(model, *args, **kwargs)
        _name(self, role=role, endpoint=endpoint, version=version)
        _limit(self, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
        ensure_installed()


class Embedder(dspy.Embedder):  # type: ignore[misc]
    """A `dspy.Embedder` that obeys the phase, for a hosted model or for a function of one's own.

    A function is told from others by all that it rests on: its source, its defaults, what it closes over. Where that
    cannot be seen, as with a method of an object of a package that holds weights, it is computed each time, unless it
    has a version.

    Args:
        model: As for `dspy.Embedder`: a model's name, or a function of a list of texts.
        batch_size: As for `dspy.Embedder`; likewise the next one.
        caching: Whether vectors are kept and served.
        version: A name for the model's version. What it embeds is served as long as the name and the function's own are
            the same, whatever else changes: change it with the weights.
        **kwargs: Options of `dspy.Embedder`.

    Raises:
        ConfigurationError: If the version is no text, or an empty one, or an option is misspelt.
    """

    def __init__(
        self,
        model: str | Callable[..., Any],
        batch_size: int = 200,
        caching: bool = True,
        *,
        version: str | None = None,
        **kwargs: Any,
    ) -> None:
        named: Any = version
        if named is not None and not (isinstance(named, str) and named.strip()):
            raise ConfigurationError(f"version is a text that is not empty, not {version!r}")
        if version is not None:
            model = VersionedName(model, version) if isinstance(model, str) else VersionedFunction(model, version)
        check_options(Embedder, kwargs)
        super().__init__(model, batch_size, caching, **kwargs)
        ensure_installed()

    def _preprocess(self, *args: Any, **kwargs: Any) -> Any:
        """Do as DSPy does, and say whether only DSPy sees the vectors, which makes an array of them."""
        batches, *others = super()._preprocess(*args, **kwargs)
        if installed() is not None and becomes_array(Embedder, self):
            batches = [IntoArray(batch) for batch in batches]
        return (batches, *others)

    def _postprocess(self, embeddings_list: Any, is_single_input: bool) -> Any:
        """Do as DSPy does."""
        made = as_array(embeddings_list, is_single=is_single_input)
        return super()._postprocess(embeddings_list, is_single_input) if made is None else made


def wrap(
    lm: M,
    *,
    role: str | None = None,
    endpoint: str | None = None,
    version: str | None = None,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> M:
    """Return a copy of an LM that obeys the phase. The LM itself is left as it is.

    The copy is an instance of the LM's own class. An LM with its own `forward` is not cached by DSPy: its calls
    are counted, and refused in a replay, but never served; a warning says so.

    Args:
        lm: Any `dspy.BaseLM`: a `dspy.LM`, a `DummyLM`, somebody's subclass.
        role: As for `LM`; likewise the next two. None keeps what a governed LM has.
        endpoint: See `LM`.
        version: See `LM`.
        requests_per_minute: See `LM`; likewise the next one.
        tokens_per_minute: See `LM`.

    Raises:
        ConfigurationError: If it is no `dspy.BaseLM`, or its class cannot be extended.
    """
    if not isinstance(lm, dspy.BaseLM):
        raise ConfigurationError(
            f"wrap() takes a dspy.BaseLM, not a {type(lm).__name__}; to make an LM, use cachectl.LM"
        )
    wrapped: Any = lm.copy()
    if not isinstance(lm, Governed):
        try:
            wrapped.__class__ = _governed_class(type(lm))
        except TypeError as error:
            raise ConfigurationError(
                f"{type(lm).__name__} cannot be wrapped: {error}. Derive it from dspy.LM"
            ) from error
    if isinstance(wrapped, DummyLM) and wrapped.endpoint is None:
        # Two of them with different answers have the same name, and DSPy leaves them out of its cache.
        wrapped._cache_responses = True  # noqa: SLF001
        endpoint = endpoint or f"{UNNAMED}{uuid.uuid4().hex}"
    given = {"role": role, "endpoint": endpoint, "version": version}
    _name(wrapped, **{name: value for name, value in given.items() if value is not None})
    _limit(wrapped, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
    if not adapter.is_managed(wrapped, asynchronous=False):
        state.say_once(
            f"legacy:{type(lm).__module__}.{type(lm).__qualname__}",
            f"{type(lm).__name__} answers through its own forward(), which DSPy does not cache: its calls are counted "
            "and refused in a replay, but not served, stored or resumed. Give dspy.LM an engine instead to change that",
        )
    ensure_installed()
    governed: M = wrapped
    return governed


_CLASSES: dict[type, type] = {dspy.LM: LM}
"""The governed class of each class of LMs."""


def _governed_class(kind: type) -> type:
    if kind in _CLASSES:
        return _CLASSES[kind]
    made = type(kind.__name__, (Governed, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    made.__qualname__ = kind.__qualname__
    return _CLASSES.setdefault(kind, made)


def _ungoverned(kind: type) -> type:
    return next(cls for cls in kind.__mro__ if not issubclass(cls, Governed))


def _rebuild(kind: type) -> Any:
    _install_at_arrival()
    return object.__new__(_governed_class(kind))


def _install_at_arrival() -> None:
    """Put the cache in place where an LM arrives in a process that had none; not where it was taken out again."""
    if not state.was_installed:
        ensure_installed()


class _PickledAs:
    """A function that is pickled as a call that finds it, or something else where this package is not installed.

    A program that DSPy saves whole is a pickle of its LMs too, and has to load everywhere: governed where this package
    is, and as DSPy's own LMs where it is not.
    """

    def __init__(self, function: Any, *found_by: Any) -> None:
        self._function, self._found_by = function, found_by

    def __call__(self, kind: type) -> Any:
        return self._function(kind)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._found_by[0], self._found_by[1:]


# `locate` gives None where there is no such module, which has no such attribute.
_HOME = _PickledAs(None, locate, __name__)
_REBUILD = _PickledAs(_rebuild, getattr, _HOME, _rebuild.__name__, copyreg.__newobj__)  # type: ignore[attr-defined]


def _name(lm: Any, **names: Any) -> None:
    for what, name in names.items():
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise ConfigurationError(f"{what} is a text that is not empty, not {name!r}")
        setattr(lm, what, name and readable_name(name))


def _limit(lm: Any, **limits: float | None) -> None:
    for what, limit in limits.items():
        if limit is not None:
            checked(what, limit)
            setattr(lm, what, limit)


def _goes_alone(call: Call, *, on_loop: bool = False) -> bool:
    """Tell whether a call goes ahead by itself: its answer is at hand, or it shares none."""
    cache = installed()
    if cache is None or cache.find_at_hand(call, on_loop=on_loop) or not call.coalesces:
        return True
    return call.asked.ruling.cassette is None and not cache.tiers.stores  # who keeps nothing shares nothing


def _answered(call: Call, lm: Any, result: Any) -> Any:
    if call.asked.alike is not None:
        call.asked.alike.made_by = type(lm)
    if call.answered.outcome is None:
        call.buy(AnswerFacts())
    cassette = call.asked.ruling.cassette
    if cassette is not None and call.asked.decision.stores:
        # The calls that follow from it ask what they will ask in a replay.
        return cassette.clean.outputs(result)
    return result
