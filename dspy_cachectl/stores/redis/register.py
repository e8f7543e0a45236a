"""Records for all who use a server: each is put in the place of the very one that was read, or it is read again.

Whoever loses a race is told by the server what was there instead, so it takes one more command and no waiting.
"""

from __future__ import annotations

import threading

import orjson

from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.redis import layout
from dspy_cachectl.stores.redis.client import Client
from dspy_cachectl.stores.redis.commands import Script
from dspy_cachectl.stores.redis.layout import Names
from dspy_cachectl.stores.registers.base import Change, Record
from dspy_cachectl.stores.registers.file import read

_LASTS = 90 * 24 * 3600 * 1000
"""After how many milliseconds without a change a record is forgotten."""
_MOST_TRIES = 200

SWAP = Script(
    """
local there = redis.call('GET', KEYS[1]) or ''
if there ~= ARGV[1] then return there end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""
)
"""Put a record in the place of another. What is there, what comes, milliseconds. Returns what is there instead."""


class RedisRegister:
    """Records in a server. Thread-safe; the threads of a process take turns, and processes race.

    Args:
        client: The way to the server.
        names: The names of the store's keys.
    """

    is_shared = True

    def __init__(self, client: Client, names: Names) -> None:
        self._client, self._names = client, names
        self._lock = free_after_fork(threading.Lock())
        self._seen: dict[str, bytes] = {}

    @property
    def place(self) -> str:
        """Where the records are."""
        return f"{self._client.address.shown}, for all who use it"

    def change(self, name: str, change: Change) -> Record:
        """Put what a function makes of a record in its place; see `Register`."""
        key, tag = self._names.record(name), layout.tag_of(name)
        with self._lock:
            for _ in range(_MOST_TRIES):
                there = self._seen.get(name, b"")
                changed = change(read(there, name, self.place))
                new = orjson.dumps(changed)
                # What others read in between must be the very bytes, so one that changes nothing is sent as well.
                instead = self._client.run("write", tag, (SWAP, key, there, new, _LASTS))
                if instead is None:
                    self._seen[name] = new
                    return changed
                self._seen[name] = instead
        raise StoreUnavailableError(f"the record {name!r} in {self.place} changes too fast to be changed from here")
