"""Leases among all who use a server: a key that expires where it is not renewed.

Of two that have one, since the server lost it or a holder was stopped, both store with `put_first`: so the answer that
came first stays, and a lease needs no number by which the store would know the older. Who has lost one is told so.
"""

from __future__ import annotations

import uuid
from functools import cached_property

from dspy_cachectl.stores import leases
from dspy_cachectl.stores.leases import Holder, LostLeaseError
from dspy_cachectl.stores.redis import layout
from dspy_cachectl.stores.redis.client import Client
from dspy_cachectl.stores.redis.commands import Script
from dspy_cachectl.stores.redis.layout import Names

_NAME = 32

TAKE = Script(
    """
local held = redis.call('GET', KEYS[1])
if held then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
""",
    lambda said: isinstance(said, bytes) and (not said or len(said) > _NAME),
)
"""Take a lease. Holder, milliseconds. Returns who has it, or nothing where it is taken."""

RENEW = Script(
    """
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1
"""
)
"""Renew a lease, or give it back, where it is one's own. Holder, beat, milliseconds or 0. Returns whether it was: what
was given back is not renewed by a command that comes late, and one that failed leaves no lease that nobody can end."""


class RedisLease:
    """A lease of a name. See `Lease`.

    Args:
        client: The way to the server.
        names: The names of the store's keys.
        name: The name.
    """

    def __init__(self, client: Client, names: Names, name: str) -> None:
        self._client, self._names, self._name = client, names, name
        self._beat = 0
        self._is_held = self._may_be_held = False

    # Most are never taken, since what they are for is there.
    @cached_property
    def _key(self) -> bytes:
        return self._names.lease(self._name)

    @cached_property
    def _holder(self) -> bytes:
        return uuid.uuid4().hex.encode()

    def take(self) -> Holder | None:
        """Take it, if nobody has it."""
        self._may_be_held = True  # where there is no reply
        said = self._client.run("write", layout.tag_of(self._name), (TAKE, self._key, self._said, _milliseconds()))
        self._is_held = self._may_be_held = not said
        return Holder(said[:_NAME], said[_NAME:]) if said else None

    def renew(self) -> None:
        """Say that this process lives."""
        self._beat += 1
        self._end_or_renew(_milliseconds())

    def give_back(self) -> None:
        """Let others have it."""
        if self._may_be_held:
            self._may_be_held = False
            self._end_or_renew(0)

    def _end_or_renew(self, milliseconds: int) -> None:
        command = (RENEW, self._key, self._holder, b"%d" % self._beat, milliseconds)
        if not self._client.run("write", layout.tag_of(self._name), command) and self._is_held:
            raise LostLeaseError(
                f"a lease in {self._client.address.shown} was lost before its answer came: another process may have "
                "asked as well, and what was stored first stays"
            )

    @property
    def _said(self) -> bytes:
        return self._holder + b"%d" % self._beat


def _milliseconds() -> int:
    return int(leases.LASTS * 1000)
