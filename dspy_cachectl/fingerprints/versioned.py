"""What embeds, with a version that the user gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_cachectl.fingerprints.kinds import name_of


class VersionedName(str):
    """A model's name, with a version of it: DSPy hands its cache the name and nothing else."""

    __slots__ = ("version",)
    version: str

    def __new__(cls, name: str, version: str) -> VersionedName:
        """Return the name."""
        made = super().__new__(cls, name)
        made.version = version
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # str has but one
        return str(self), self.version


class VersionedFunction:
    """A function that embeds, with a version of it.

    Attributes:
        function: The function.
        version: Its version.
        identity: What it is called in full.
    """

    def __init__(self, function: Callable[..., Any], version: str) -> None:
        self.function = function
        self.version = version
        self.identity = name_of(function)
        self.__name__ = getattr(function, "__name__", self.identity.rpartition(".")[2])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> VersionedFunction:
        # DSPy copies what it asks its cache, which would be all the weights, and their locks.
        return self
