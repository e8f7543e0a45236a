"""From when on the next may go, among all who use a server, by its own clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_cachectl.stores.redis.client import Script

_TAG = "0"
_KEPT = 24 * 3600 * 1000

_TAKE = Script(
    f"""
local told = redis.call('TIME')
local now = told[1] + told[2] / 1000000
local at = now
for i = 2, #ARGV, 2 do
  local free = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0')
  if free > at and free - now < tonumber(ARGV[1]) then at = free end
end
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.6f', at + tonumber(ARGV[i + 1])))
end
redis.call('PEXPIRE', KEYS[1], {_KEPT})
return string.format('%.6f', at - now)
"""
)
"""Take the next time that is free for all names. The utmost wait in seconds; names, each with how long it takes."""

_PUT_OFF = Script(
    """
for i = 1, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
)
"""Let the next go later. Names, each with by how many seconds."""


def take(store: Any, claims: Mapping[str, float], utmost: float) -> float:
    """Return in how many seconds the next time is that is free for all names, which is taken.

    Args:
        store: The store.
        claims: How long each name is not free from then on, in seconds.
        utmost: From how many seconds on a time is not believed.

    Raises:
        StoreUnavailableError: If the server does not say.
    """
    said = [part for name, seconds in claims.items() for part in (name, repr(seconds))]
    return float(store.client.run("write", _TAG, (_TAKE, _key(store), repr(utmost), *said)))


def put_off(store: Any, claims: Mapping[str, float]) -> None:
    """Let the next go later, by so many seconds for each name.

    Raises:
        StoreUnavailableError: If the server does not say that it does.
    """
    said = [part for name, seconds in claims.items() for part in (name, repr(seconds))]
    store.client.run("write", _TAG, (_PUT_OFF, _key(store), *said))


def _key(store: Any) -> bytes:
    key: bytes = store.names.base(_TAG) + b"rates"
    return key
