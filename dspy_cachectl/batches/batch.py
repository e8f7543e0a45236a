"""How batches are waited for, as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from dspy_cachectl.config.checks import shown
from dspy_cachectl.errors import ConfigurationError

_GROWTH = 1.5


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How an evaluation in batches waits for them: `evaluate(..., batch=Batch(wait=False))`.

    Attributes:
        wait: Whether to wait until a batch is done, which takes up to a day. Without, the evaluation ends with a
            `BatchPendingError` where one is not done yet; the same evaluation, run again, goes on with it.
        interval: Seconds until it is looked whether one is done, for the first time. They grow by half each time.
        longest_interval: Seconds up to which they grow.
        attempts: How often an answer is asked for that a batch has not got, because of a fault that may pass, before
            its question counts as failed.

    Raises:
        ConfigurationError: If one of them cannot be used.
    """

    wait: bool = True
    interval: float = 30.0
    longest_interval: float = 900.0
    attempts: int = 3

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not _RULES[one.name][0](value):
                raise ConfigurationError(f"{one.name} of a Batch {_RULES[one.name][1]}, not {shown(value)}")

    def after(self, interval: float) -> float:
        """Return how long to wait after one has waited for so long, in seconds."""
        return min(interval * _GROWTH, max(self.interval, self.longest_interval))


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


_SECONDS = (_is_seconds, "is a number of seconds above 0")
_RULES: dict[str, tuple[Any, str]] = {
    "wait": (lambda value: isinstance(value, bool), "is True or False"),
    "interval": _SECONDS,
    "longest_interval": _SECONDS,
    "attempts": (lambda value: type(value) is int and value >= 1, "is a whole number, and 1 at least"),
}


def batch_of(given: bool | Batch) -> Batch | None:
    """Return how to wait, or None where nothing goes by batches."""
    return (Batch() if given else None) if isinstance(given, bool) else given
