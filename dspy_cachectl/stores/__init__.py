"""Where entries live: bytes and labels, and no meaning.

The names here are for everybody; `disk`, `reader` and `listing` are imported from their modules, since they take longer
to load. `database` is one small SQLite file for an outbox, a journal and the like, `liveness` tells whether the process
that holds something lives, and `leases` which of several processes asks for something. `redis` is a store in a server,
which processes and machines share. It knows only `errors` and `boundary`, and of `config` which folder or server is
meant.
"""

from __future__ import annotations

from dspy_cachectl.config import Stores, each_of, folder_of, is_shared
from dspy_cachectl.stores.base import DSPY_KIND, RUN_KIND, KnowingStore, Label, Store, dspy_key
from dspy_cachectl.stores.memory import MemoryStore

__all__ = [
    "DSPY_KIND",
    "RUN_KIND",
    "KnowingStore",
    "Label",
    "MemoryStore",
    "Store",
    "dspy_key",
    "open_stores",
]


def open_stores(location: Stores, *, memory_bytes: int, disk_bytes: int) -> list[Store]:
    """Return the stores that a location names, nearest first. Nothing is opened before its first use.

    Args:
        location: A folder's path, `memory://`, or the address of a shared store (see `config.shared_of`); or several,
            the nearest first.
        memory_bytes: The budget of the memory in front, in bytes; 0 for none.
        disk_bytes: The size at which the folder's oldest entries are removed, in bytes.

    Raises:
        ConfigurationError: If the location is of a kind that is not known.
        MissingExtraError: If it needs a package that is not installed.
    """
    behind = [store for one in each_of(location) for store in _behind_memory(one, disk_bytes)]
    return [*([MemoryStore(memory_bytes)] if memory_bytes or not behind else []), *behind]


def _behind_memory(location: str, disk_bytes: int) -> list[Store]:
    if is_shared(location):
        from dspy_cachectl.stores.redis.store import RedisStore

        return [RedisStore(location)]
    folder = folder_of(location)
    if folder is None:
        return []
    from dspy_cachectl.stores.disk import DiskStore

    return [DiskStore(folder, max_bytes=disk_bytes)]
