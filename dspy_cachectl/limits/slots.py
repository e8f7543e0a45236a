"""Who goes when: for each name the time from which on the next may go, for all who share a register."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

from dspy_cachectl.stores.registers.base import Record, Register

_RECORD = "rates"
_LONGEST, _MOST = 3600.0, 1000
"""Nobody waits for more seconds, and for more others, than these: a time that is farther away is of a wrong clock."""

Claims = Mapping[str, float]
"""For how many seconds somebody who goes keeps others from going, by name."""


def take(register: Register, claims: Claims) -> float:
    """Take the next time that is free for all names. Return in how many seconds it is.

    Raises:
        StoreError: If the register cannot be used.
    """
    found = [0.0, 0.0]
    utmost = max(_LONGEST, _MOST * max(claims.values(), default=0.0))

    def change(record: Record) -> Record:
        now = time.time()
        record = _still_to_come(record, now)
        free = [float(record.get(_hashed(name), now)) for name in claims]
        at = max([now, *(one for one in free if one - now < utmost)])
        found[:] = now, at
        return {**record, **{_hashed(name): at + seconds for name, seconds in claims.items()}}

    register.change(_RECORD, change)
    return found[1] - found[0]


def put_off(register: Register, claims: Claims) -> None:
    """Let the next go so much later, or sooner where it is less than 0, for each name.

    Raises:
        StoreError: If the register cannot be used.
    """

    def change(record: Record) -> Record:
        now = time.time()
        for name, seconds in claims.items():
            record[_hashed(name)] = float(record.get(_hashed(name), now)) + seconds
        return _still_to_come(record, now)

    register.change(_RECORD, change)


def _still_to_come(record: Record, now: float) -> Record:
    return {name: at for name, at in record.items() if at > now}


def _hashed(name: str) -> str:
    """Return a name as it is written down: of a store that is encrypted nobody reads which models it asks."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20]
