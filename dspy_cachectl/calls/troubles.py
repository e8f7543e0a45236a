"""Hearing of what goes wrong around a call: by what DSPy makes or asks at that moment, and never by standing around it.

Nothing of this is on the stack while a program runs, and it costs nothing where nothing goes wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from dspy_cachectl.accounting.troubles import Mishap
from dspy_cachectl.context.ruling import phase_here


def note(what: Mishap) -> None:
    """Tell the phase that rules here that something went wrong, in the thread in which it did."""
    run = phase_here().run
    if run is not None and run.on_mishap is not None:
        run.on_mishap(what)


def noting_unparsed(original: Callable[..., None]) -> Callable[..., None]:
    """Around the making of an `AdapterParseError`: an adapter makes one for an answer that it cannot parse."""

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        note(Mishap.UNPARSED)

    return __init__


def noting_retries(original: Callable[..., bool]) -> Callable[..., bool]:
    """Around DSPy's question whether a failed request is sent once more."""

    @functools.wraps(original)
    def retryable(*args: Any, **kwargs: Any) -> bool:
        again = original(*args, **kwargs)
        if again:
            note(Mishap.RETRY)
        return again

    return retryable


class NotingJsonMode:
    """The logger of the module of DSPy's `JSONAdapter`, which warns of nothing but that it could not make a schema."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def warning(self, *args: Any, stacklevel: int = 1, **kwargs: Any) -> None:
        """Note it, and warn as before."""
        note(Mishap.JSON_MODE)
        self._logger.warning(*args, stacklevel=stacklevel + 1, **kwargs)
