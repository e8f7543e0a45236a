"""Putting the managed cache in the place of `dspy.cache`, and DSPy's own back."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import dspy
from dspy.clients.cache import Cache

from dspy_cachectl.accounting import runs
from dspy_cachectl.accounting.usage import Usage
from dspy_cachectl.calls import patches
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.config import Settings, reload, settings
from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.entries import records
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.policy import Policy
from dspy_cachectl.stores import Store, open_stores


@dataclass
class _Installation:
    """What is in place. Strictly private."""

    lock: threading.RLock
    cache: ManagedCache | None = None
    opened_with: Settings | None = None
    before: Cache | None = None


_installed = _Installation(threading.RLock())


def install(store: str | os.PathLike[str] | Sequence[Store] | None = None) -> ManagedCache:
    """Make a `ManagedCache` the cache of DSPy, from now on and in every thread.

    `LM`, `wrap` and `phase` do this by themselves with the configured store, where DSPy's own cache is in place.

    Args:
        store: A folder's path, `memory://`, or stores, nearest first. None: the configured one.

    Returns:
        The cache that is now `dspy.cache`.

    Raises:
        ConfigurationError: If the store is of a kind that is not known.
    """
    chosen = settings()
    if store is None or isinstance(store, (str, os.PathLike)):
        location = chosen.store if store is None else os.fspath(store)
        stores = open_stores(location, memory_bytes=chosen.memory_bytes, disk_bytes=chosen.disk_bytes)
    else:
        stores = list(store)
    with _installed.lock:
        _put(ManagedCache(stores))
        # A store of the user's own stays, whatever is configured later.
        _installed.opened_with = chosen if store is None else None
        assert _installed.cache is not None  # noqa: S101 - for the type checker
        return _installed.cache


def uninstall() -> None:
    """Give DSPy its own cache back. Entries stay where they are. Does nothing where none is installed."""
    with _installed.lock:
        if _installed.cache is None:
            return
        with dspy._cache_lock:  # noqa: SLF001 - the lock that DSPy's own lazy build holds
            if vars(dspy).get("cache") is _installed.cache:
                if _installed.before is None:
                    del dspy.cache  # DSPy builds its own at the next use
                else:
                    dspy.cache = _installed.before
        _stop_counting()
        _installed.cache.tiers.close()
        _installed.cache, _installed.before = None, None
        patches.undo()


def installed() -> ManagedCache | None:
    """Return the managed cache if it is in place, or None."""
    cache = vars(dspy).get("cache")
    return cache if isinstance(cache, ManagedCache) else None


def ensure_installed() -> ManagedCache | None:
    """Put the managed cache in place, unless another package's cache is. Return it, or None.

    Notices a `dspy.configure_cache()` that threw it out, and says so.
    """
    with _installed.lock:
        found = vars(dspy).get("cache")
        if isinstance(found, ManagedCache):
            is_current = _installed.opened_with is None or _installed.opened_with == settings()
            return found if is_current else install()
        if found is not None and type(found) is not Cache:
            return None
        if _installed.cache is None:
            return install()
        state.say_once(
            "replaced",
            "dspy.configure_cache() had replaced the managed cache; it is put back. To change where entries live, use "
            "cachectl.install(store=...) or cachectl.configure(store=...)",
        )
        _put(_installed.cache)
        return _installed.cache


def _put(cache: ManagedCache) -> None:
    with dspy._cache_lock:  # noqa: SLF001 - the lock that DSPy's own lazy build holds
        found = vars(dspy).get("cache")
        if not isinstance(found, ManagedCache):
            _installed.before = found
        dspy.cache = cache
    if _installed.cache is not cache:
        _stop_counting()
        state.usage = Usage(cache.tiers, on_fault=cache.note_fault)
    _installed.cache = cache
    patches.apply()


def _stop_counting() -> None:
    usage, state.usage = state.usage, None
    if usage is not None:
        usage.flush(ended=True)


def prepare(context: PhaseContext) -> PhaseContext:
    """Before a phase opens: the cache is in place, a fresh run is described, a replayed one is looked up."""
    cache = ensure_installed()
    if cache is None:
        if any(policy != Policy.REUSE for policy in context.policies):
            raise ConfigurationError(
                f"phase {context.name!r} needs the managed cache, and dspy.cache is a {type(dspy.cache).__name__} of "
                "another package; call cachectl.install() to replace it"
            )
        return context
    if context.run_id is None or context.cassette_token:
        return context  # a cassette knows its runs
    drawn_at = _run_temperature(cache, context.run_id)
    policy = context.policy
    if policy.replays and policy.temperature is None:
        return replace(context, policy=replace(policy, temperature=drawn_at))
    if _is_described(context):
        if drawn_at is not None and drawn_at != policy.temperature:
            state.say_once(
                f"run-temperature:{context.run_id}",
                f"run {context.run_id!r} was drawn with the temperature {drawn_at:g} lent, and now "
                f"{policy.temperature!r} is: its stored draws do not answer these calls",
            )
        runs.note_opening(
            cache.tiers,
            context.run_id,
            phase=context.name,
            policy=policy.name,
            temperature=policy.temperature,
            token=context.token,
        )
    return context


def finish(run: PhaseRun, error: BaseException | None) -> None:
    """At the end of a phase: its run is complete if nothing failed, and the statistics of use are kept."""
    cache = installed()
    context = run.context
    if cache is not None and error is None and context.run_id is not None and _is_described(context):
        runs.note_end(cache.tiers, context.run_id, token=context.token, tally=run.stats)
    if state.usage is not None:
        state.usage.flush()


def _is_described(context: PhaseContext) -> bool:
    return context.policy.fresh and context.policy.stores and not context.cassette_token


def _run_temperature(cache: ManagedCache, run_id: str) -> float | None:
    """Return the temperature that a run's draws were lent; None where none was, or the run is not known."""
    data = cache.tiers.get(runs.run_key(run_id))
    if data is None:
        return None
    try:
        return records.decode_origin(data).temperature
    except StoreError as error:
        state.say_once(f"run:{run_id}", f"the description of run {run_id!r} cannot be read: {error}")
        return None


def reset() -> None:
    """Put everything back as at the start of the process: for tests."""
    uninstall()
    reload()
    state.reset()
