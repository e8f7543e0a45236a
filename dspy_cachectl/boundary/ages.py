"""How old something is, by clocks that may be wrong."""

from __future__ import annotations

import math
import time

ASTRAY = 60.0
"""How far the clocks of two machines may be apart, in seconds: what is noted later than that from now lies ahead."""


def age_of(then: float, *, now: float | None = None) -> float:
    """Return how many seconds ago something was; infinity where that lies ahead, or is no time at all.

    A clock was wrong when it was noted, or is now. Where an age is asked for, what may be of any age is too old.
    """
    age = (time.time() if now is None else now) - then
    return max(age, 0.0) if age >= -ASTRAY else math.inf
