"""Putting the managed cache in the place of `dspy.cache`, and DSPy's own back."""

from __future__ import annotations

import os
from collections.abc import Sequence

import dspy
from dspy.clients.cache import Cache

from dspy_cachectl.accounting.usage import Usage
from dspy_cachectl.budget import Budget
from dspy_cachectl.budgets import sharing
from dspy_cachectl.budgets.opened import EVERYWHERE, OpenBudget
from dspy_cachectl.budgets.sharing import OfStore
from dspy_cachectl.calls import patches
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.dspys_choice import open_place, place_of
from dspy_cachectl.config import (
    MEMORY,
    configure,
    each_of,
    is_shared,
    on_change,
    reload,
    settings,
    shared_of,
    written_settings,
)
from dspy_cachectl.context.process import Place, state
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.stores import Store, open_stores
from dspy_cachectl.stores.reader import FolderReader
from dspy_cachectl.stores.registers.base import IN_MEMORY, Register


def install(
    store: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Sequence[Store] | None = None,
) -> ManagedCache:
    """Make a `ManagedCache` the cache of DSPy, from now on and in every thread.

    `LM`, `wrap` and `phase` do this by themselves with the configured store, where DSPy's own cache is in place.

    Args:
        store: A folder's path, `memory://`, or a shared store's address; several of these, or stores, nearest first.
            None: the configured one, whatever DSPy's own cache was told with `dspy.configure_cache()`.

    Returns:
        The cache that is now `dspy.cache`.

    Raises:
        ConfigurationError: If the store is of a kind that is not known.
    """
    chosen = settings()
    if store is None or (isinstance(store, str) and not store.strip()):
        with state.installing:
            state.overrules_dspy = True
            return _install_configured()
    named = (store,) if isinstance(store, (str, os.PathLike)) else tuple(store)
    locations = tuple(os.fspath(one) for one in named if isinstance(one, (str, os.PathLike)))
    stores = [one for one in named if not isinstance(one, (str, os.PathLike))]
    if locations and stores:
        raise ConfigurationError("name locations, or give stores; not both at once")
    if locations:
        stores = open_stores(locations, memory_bytes=chosen.memory_bytes, disk_bytes=chosen.disk_bytes)
    with state.installing:
        # A store of the user's own stays, whatever is configured later.
        state.opened_with = None
        return _put(ManagedCache(stores))


def uninstall() -> None:
    """Give DSPy its own cache back. Entries stay where they are. Does nothing where none is installed."""
    with state.installing:
        if state.cache is None:
            return
        with dspy._cache_lock:  # noqa: SLF001 - the lock that DSPy's own lazy build holds
            if vars(dspy).get("cache") is state.cache:
                if state.dspys_cache is None:
                    del dspy.cache  # DSPy builds its own at the next use
                else:
                    dspy.cache = state.dspys_cache
        # What was counted is written through the tiers, so before they close.
        _stop_counting()
        state.cache.tiers.close()
        state.in_memory.clear()
        state.cache, state.dspys_cache, state.overrules_dspy = None, None, False
        patches.undo()
        EVERYWHERE.clear()


def installed() -> ManagedCache | None:
    """Return the managed cache if it is in place, or None."""
    cache = vars(dspy).get("cache")
    return cache if isinstance(cache, ManagedCache) else None


def ensure_installed() -> ManagedCache | None:
    """Put the managed cache in place, unless another package's cache is. Return it, or None.

    Notices a `dspy.configure_cache()` that threw it out, and says so.
    """
    with state.installing:
        found = vars(dspy).get("cache")
        if isinstance(found, ManagedCache):
            is_current = state.opened_with is None or state.opened_with == place_of(settings())
            return found if is_current else _install_configured()
        if found is not None and type(found) is not Cache:
            state.say_once(
                "foreign",
                f"dspy.cache is a {type(found).__name__} of another package, and stays: no phase rules what it serves. "
                "cachectl.install() replaces it",
            )
            return None
        if state.cache is None or (state.opened_with is not None and state.opened_with != place_of(settings())):
            return _install_configured()
        state.say_once(
            "replaced",
            "dspy.configure_cache() had replaced the managed cache; it is put back. To change where entries live, use "
            "cachectl.install(store=...) or cachectl.configure(store=...)",
        )
        return _put(state.cache)


def _install_configured() -> ManagedCache:
    """Put the configured store in place, and close the one that was configured before. Memory alone is never lost."""
    with state.installing:
        place = place_of(settings())
        cache = state.in_memory.get(place)
        if cache is None:
            cache = ManagedCache(open_place(place))
        if place[0] == MEMORY:
            # A block that configures another store gives this one back with all that was bought for it.
            state.in_memory[place] = cache
        before = state.cache if state.opened_with not in {None, place} else None
        state.opened_with = place
        _put(cache)
        if before is not None:
            before.tiers.close()  # a call that is still on its way opens it again
        return cache


class Withheld(str):
    """The address of a shared store without the credentials in it: whoever uses it has them from its own settings."""

    __slots__ = ()


def place_to_hand_over() -> Place | None:
    """Return how the store in use is opened, for another process, without a credential.

    Raises:
        ConfigurationError: If its address has a password, which only this process knows.
    """
    if state.opened_with is None:
        return None
    locations, memory_bytes, disk_bytes = state.opened_with
    named = tuple(map(_withheld, each_of(locations)))
    if any(isinstance(one, Withheld) for one in named):
        said = written_settings().get(("store",))
        if said is None or said.origin.kind == "call":
            raise ConfigurationError(
                "the store's address has a password, which is not sent to other processes: set DSPY_CACHECTL_STORE to "
                "it, here and where the workers run, in place of configure(store=...)"
            )
    return named[0] if isinstance(locations, str) else named, memory_bytes, disk_bytes


def _withheld(location: str) -> str:
    if not is_shared(location):
        return location
    found = shared_of(location)
    is_secret = any("password" in options for options in (found.options, found.sentinel_options))
    return Withheld(found.shown) if is_secret else location


def _as_here(place: Place) -> Place:
    """Return a place with its passwords, as this process's own settings have them."""
    own = {shared_of(one).shown: one for one in each_of(settings().store) if is_shared(one)}

    def known(location: str) -> str:
        if not isinstance(location, Withheld):
            return location
        if location not in own:
            raise ConfigurationError(
                f"the settings here name no store {str(location)!r}, whose password is not sent: set "
                "DSPY_CACHECTL_STORE where the workers run"
            )
        return own[location]

    locations, memory_bytes, disk_bytes = place
    named = known(locations) if isinstance(locations, str) else tuple(map(known, locations))
    return named, memory_bytes, disk_bytes


def open_like_parent(place: Place | None) -> str:
    """Put the cache in place in a worker, with the store that the process that started it uses. Say why not, or "".

    Args:
        place: How that opened its store; None for one of the user's own.
    """
    try:
        if ensure_installed() is None:
            return "dspy.cache is another package's here; call cachectl.install() in each worker"
        if state.opened_with is None:
            return ""
        if place is None:
            return "its store was given to cachectl.install(), and is not known here; call that in each worker, too"
        place = _as_here(place)
        if state.opened_with != place:
            configure(store=place[0], memory_bytes=place[1], disk_bytes=place[2])
            ensure_installed()
    except ConfigurationError as error:
        return str(error)
    if place[0] == MEMORY:
        state.say_once(
            "memory-of-worker",
            "the store is in memory: what is bought in this worker reaches neither other processes nor a later passage "
            'of the run. Name a folder, with configure(store="...")',
        )
    return ""


def _follow_settings() -> None:
    """Let the store be the configured one from the next call on, where it is ours to choose."""
    with state.installing:
        if installed() is not None and state.opened_with is not None:
            ensure_installed()
        _open_budget_of_all()


on_change(_follow_settings)


def _say_what_is_newer(stores: Sequence[Store]) -> None:
    for store in stores:
        if isinstance(store, FolderReader) and store.is_of_newer_version():
            state.say_once(
                f"newer:{store.path}",
                f"the store {store.path} is of a newer dspy-cachectl, and is left as it is: its answers are not "
                "served, and what is bought is not kept. Upgrade dspy-cachectl, or name another store",
            )


def _put(cache: ManagedCache) -> ManagedCache:
    _say_what_is_newer(cache.tiers.stores)
    with dspy._cache_lock:  # noqa: SLF001 - the lock that DSPy's own lazy build holds
        found = vars(dspy).get("cache")
        if not isinstance(found, ManagedCache):
            state.dspys_cache = found
        dspy.cache = cache
    if state.cache is not cache:
        _stop_counting()
        state.usage = Usage(cache.tiers, on_fault=cache.note_fault)
    state.cache, state.was_installed = cache, True
    patches.apply()
    _open_budget_of_all()
    return cache


def _stop_counting() -> None:
    usage, state.usage = state.usage, None
    if usage is not None:
        usage.flush()


def reset() -> None:
    """Put everything back as at the start of the process: for tests."""
    uninstall()
    reload()
    state.reset()


def open_budget(budget: Budget, whose: str) -> OpenBudget:
    """Open a budget: one with a name where the store in use keeps it, for all who share that.

    Args:
        budget: What it allows.
        whose: Whose it is, as people would say it.
    """
    if budget.name is None:
        return OpenBudget(budget, whose)
    register = _register()
    if not register.is_shared:
        state.say_once(
            f"budget:{budget.name}",
            f"the budget {budget.name!r} is counted in {register.place}: the store is in memory, and nobody shares it",
        )
        return OpenBudget(budget, f"{whose} ({budget.name})", register=IN_MEMORY, record=f"budget:{budget.name}")
    return OpenBudget(budget, f"{whose} ({budget.name})", register=OfStore(), record=f"budget:{budget.name}")


def _open_budget_of_all() -> None:
    """Have the budget of the settings in force, and the same one as long as they say the same."""
    text = settings().budget
    if [one.said for one in EVERYWHERE] != [text][: bool(text)]:
        EVERYWHERE.clear()
        if text and installed() is not None:
            opened = open_budget(Budget.read(text), "this process")
            opened.said = text
            EVERYWHERE.append(opened)


def _register() -> Register:
    cache = installed()
    if cache is None:
        return IN_MEMORY
    register: Register = cache.tiers.register()
    return register


sharing.of_store = _register
