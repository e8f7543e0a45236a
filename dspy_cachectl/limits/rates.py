"""Rate limits as values: what an LM or a phase may ask a minute."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.errors import ConfigurationError

_MARGIN = 1.02
"""Calls go this much farther apart than the limit says: what is late on its way must not make a minute too full."""


@dataclass(frozen=True)
class Rate:
    """How much may be asked a minute.

    Attributes:
        name: What it is counted for: all limits of one name share what they count.
        requests: How many requests, or None.
        tokens: How many tokens, sent and received, or None.
    """

    name: str
    requests: float | None = None
    tokens: float | None = None

    def seconds_a_request(self) -> float:
        """Return how far apart two requests go, in seconds; 0 where they are not limited."""
        return 0.0 if self.requests is None else _MARGIN * 60.0 / self.requests

    def seconds_a_token(self) -> float:
        """Return how long a token takes, in seconds; 0 where they are not limited."""
        return 0.0 if self.tokens is None else _MARGIN * 60.0 / self.tokens


def rates_of(name: str, requests: Any, tokens: Any) -> tuple[Rate, ...]:
    """Return what somebody's two limits come to: one rate, or none.

    Args:
        name: What it is counted for.
        requests: Requests a minute, or None.
        tokens: Tokens a minute, or None.

    Raises:
        ConfigurationError: If one of them is no number above 0.
    """
    checked("requests_per_minute", requests)
    checked("tokens_per_minute", tokens)
    return () if requests is None and tokens is None else (Rate(name, requests, tokens),)


def checked(what: str, given: Any) -> None:
    """Refuse what is no limit.

    Raises:
        ConfigurationError: If it is no number above 0, and not None either.
    """
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < math.inf:
        raise ConfigurationError(f"{what} is a number above 0, or None for no limit, not {given!r}")


def joined(*rates: Iterable[Rate]) -> tuple[Rate, ...]:
    """Return all of some rates, each name once: what comes later counts."""
    return tuple({rate.name: rate for some in rates for rate in some}.values())
