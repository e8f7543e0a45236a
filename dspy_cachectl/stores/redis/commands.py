"""What a server is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Script:
    """What the server runs as one step.

    Attributes:
        text: The Lua. Its one key is in the slot of all that it uses.
        returns: Tells whether it may have returned something.
    """

    text: str
    returns: Callable[[Any], bool] = lambda _: True

    @cached_property
    def digest(self) -> str:
        """By which the server knows it again."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class NoReplyError(Exception):
    """What came is no reply to what was asked."""

    def __str__(self) -> str:
        return "it replies something else than what it was asked"


Command = tuple[Any, ...]
"""`("GET", key)`, or `(script, key, argument, ...)`."""
