"""Looking at all that is in a shared store, and mending its lists. It takes a walk through all keys of the server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dspy_cachectl.stores.redis import layout, scripts
from dspy_cachectl.stores.redis.commands import Command
from dspy_cachectl.stores.redis.listing import batches
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.rows import Rows

_AT_ONCE = 50


def every_entry(store: RedisStore) -> Iterator[tuple[str, bytes]]:
    """Yield all entries, as `layout.unpack` takes them, by their keys; those that are stored meanwhile may be left out.

    Raises:
        StoreUnavailableError: If the store cannot be read.
    """
    seen: set[bytes] = set()
    for names in store.client.scan(store.names.pattern("e:")):
        new = [name for name in dict.fromkeys(names) if name not in seen]
        seen.update(new)
        for some in batches(new, _AT_ONCE):
            values = store.client.many("read", [("GET", name) for name in some], seconds=store.patience)
            yield from ((store.names.key_in(name), data) for name, data in zip(some, values, strict=True) if data)


def list_anew(store: RedisStore, keys: Sequence[str]) -> int:
    """Put entries into the list of their label where they are not. Return how many were not.

    Raises:
        StoreUnavailableError: If the store cannot be written.
    """
    commands: list[Command] = [
        (scripts.LIST, store.names.entry(key), store.names.base(layout.tag_of(key)), layout.member_of(key))
        for key in keys
    ]
    return sum(sum(store.client.many("write", some, seconds=store.patience)) for some in batches(commands, _AT_ONCE))


def sweep(store: RedisStore) -> int:
    """Take out of the lists what is gone. Return how many that were.

    Raises:
        StoreUnavailableError: If the store cannot be written.
    """
    places = store.lists.places(Rows(lambda _: True))
    return store.lists.forget([place for place, size in store.lists.sizes(places) if size is None])


def set_aside(store: RedisStore, key: str) -> None:
    """Give an entry another name, under which nobody looks; it expires as it would have.

    Raises:
        StoreUnavailableError: If the store cannot be written.
    """
    tag = layout.tag_of(key)
    name = store.names.entry(key)
    store.client.run("write", tag, ("RENAME", name, name.replace(b":e:", b":q:", 1)))
