"""Pickled LMs that load everywhere: governed where this package is installed, and DSPy's own where it is not.

A program that DSPy saves whole is a pickle of its LMs too. What is pickled names this package only in a look-up that
may find nothing.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any


class Remake:
    """Makes an empty LM of a class; unpickled without this package, it makes one of the class itself.

    Args:
        make: A function of a module here, from an LM's class to an empty governed LM.
    """

    def __init__(self, make: Callable[[type], Any]) -> None:
        self._make = make

    def __call__(self, kind: type) -> Any:
        """Return an empty LM."""
        return self._make(kind)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (_Home(self._make.__module__), self._make.__name__, copyreg.__newobj__)  # type: ignore[attr-defined]


class _Home:
    """A module of this package; unpickled without the package, it is None. Strictly private."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        from pydoc import locate

        return locate, (self._name,)


def state_of(lm: Any) -> Any:
    """Return what of an object is pickled."""
    getstate = getattr(lm, "__getstate__", None)  # every object has it from Python 3.11 on
    return lm.__dict__ if getstate is None else getstate()
