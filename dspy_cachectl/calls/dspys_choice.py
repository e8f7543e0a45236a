"""What the user said to DSPy's own cache, with `dspy.configure_cache()`, and what it means for our store.

It holds where no setting of ours says anything else: who keeps nothing on disk with DSPy must not find prompts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dspy
from dspy.clients.cache import Cache
from dspy.utils.caching import default_cache_dir

from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.config import MEMORY, Settings, each_of, written_settings
from dspy_cachectl.context.process import Place, state
from dspy_cachectl.stores import Store, open_stores

NOWHERE = ""
"""The location of a store that keeps nothing."""

_FOLDER = "dspy_cachectl"


def place_of(configured: Settings) -> Place:
    """Return how the store is opened: as the settings say, and where they say nothing, as DSPy's own cache was told."""
    place = configured.store, configured.memory_bytes, configured.disk_bytes
    said = _said()
    if said is None or state.overrules_dspy:
        return place
    written = {where[0] for where in written_settings()}
    location, memory_bytes, disk_bytes = place
    has_memory = said.enable_memory_cache or "memory_bytes" in written
    if "store" in written:
        if not said.enable_disk_cache and location != MEMORY:
            named = scrub(", ".join(each_of(location)))
            state.say_once(
                "overruled",
                f"dspy.configure_cache() keeps nothing on disk, but a store is configured, and holds: {named}. To "
                'keep nothing on disk, set store = "memory://"; to say that it is meant, call cachectl.install()',
            )
    elif not said.enable_disk_cache:
        location = MEMORY if has_memory and memory_bytes else NOWHERE
    else:
        location = _beside(said, each_of(location)[0])
        disk_bytes = disk_bytes if "disk_bytes" in written else _limit(said, disk_bytes)
    return location, memory_bytes if has_memory or location == MEMORY else 0, disk_bytes


def open_place(place: Place) -> Sequence[Store]:
    """Return the stores of a place, nearest first."""
    location, memory_bytes, disk_bytes = place
    return [] if location == NOWHERE else open_stores(location, memory_bytes=memory_bytes, disk_bytes=disk_bytes)


def keeps_off_disk() -> bool:
    """Tell whether DSPy's own cache was told to keep nothing on disk, and nobody has overruled that."""
    said = _said()
    return said is not None and not said.enable_disk_cache and not state.overrules_dspy


def _said() -> Any:
    found = vars(dspy).get("cache")
    found = found if type(found) is Cache else state.dspys_cache
    return found if type(found) is Cache else None


def _beside(said: Any, location: str) -> str:
    """Return a folder in the one that DSPy was told to use, where that is another than it uses by itself."""
    folder = said.disk_cache_dir
    usual = {Path(one).absolute() for one in (default_cache_dir(), dspy.clients.DISK_CACHE_DIR)}
    if folder is None or Path(folder).absolute() in usual:
        return location
    beside = str(Path(folder).absolute() / _FOLDER)
    state.say_once(
        "beside",
        f"answers are kept in {beside}, since dspy.configure_cache() names that folder. Commands find them with "
        "--store, or where the setting store names it",
    )
    return beside


def _limit(said: Any, usual: int) -> int:
    """Return how much DSPy's cache was told to keep on disk, in bytes."""
    shards = getattr(said.disk_cache, "_shards", ())
    limit = sum(shard.size_limit for shard in shards)
    return int(limit) if 0 < limit != dspy.clients.DISK_CACHE_LIMIT else usual
