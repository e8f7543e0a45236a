"""What `evaluate()` takes, looked at before anything is paid for."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dspy_cachectl.config.other_names import ARGUMENTS
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.content import content_hash
from dspy_cachectl.statistics.quantiles import check_level

DependsOn = Sequence[str | os.PathLike[str]] | Mapping[str, Any]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def known_names(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer an argument that it has not with the one that is meant."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def takes(*args: P.args, **kwargs: P.kwargs) -> R:
        unknown = next((name for name in kwargs if name not in known), None)
        if unknown is None:
            return function(*args, **kwargs)
        what = f"{function.__name__}() has no argument {unknown!r}"
        if unknown in ARGUMENTS:
            name, takes = ARGUMENTS[unknown]
            raise ConfigurationError(f"{what}: write {name} ({takes})")
        near = get_close_matches(unknown, known, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigurationError(f"{what}: {guess}its arguments are: {', '.join(known)}")

    return takes


def listed(devset: Iterable[T]) -> list[T]:
    """Return the questions as a list, also of what can be read only once, such as a generator.

    Raises:
        ConfigurationError: They cannot be read one after the other.
    """
    if not isinstance(devset, Iterable):
        raise ConfigurationError(f"devset is a list of dspy.Example, not {devset!r:.100}")
    return list(devset)


def declared(depends_on: DependsOn) -> dict[str, Any]:
    """Return what predictions depend on that cannot be seen, as a part of their key; see `evaluate`.

    Raises:
        ConfigurationError: It is no list of files, nor a dictionary of plain values, or a file cannot be read.
    """
    if isinstance(depends_on, (str, bytes, os.PathLike)) or not isinstance(depends_on, (Sequence, Mapping)):
        raise ConfigurationError(f"depends_on is a list of files, or a dictionary of values, not {depends_on!r}")
    if isinstance(depends_on, Mapping):
        try:
            return {"depends_on": canonical.as_json(dict(depends_on))} if depends_on else {}
        except canonical.UnstableError as error:
            raise ConfigurationError(f"depends_on cannot be told from others: {error}") from error
    found = {}
    for path in map(Path, depends_on):
        if not path.exists():
            raise ConfigurationError(f"depends_on names {str(path)!r}, which is not there")
        found[path.name] = content_hash(path)
    return {"depends_on": found} if found else {}


def check_arguments(*, repeats: int, mlflow: Any, level: float, timeout: float | None, max_age: float | None) -> None:
    """Refuse what cannot be used; see `evaluate`.

    Raises:
        ConfigurationError: One of them cannot be used; the message says which.
    """
    if repeats < 1:
        raise ConfigurationError(f"repeats must be 1 or more, not {repeats!r}")
    if mlflow is not None and not isinstance(mlflow, (bool, str)):
        raise ConfigurationError(f"mlflow is True, False or the id of a run, not {mlflow!r}")
    if mlflow:
        from dspy_cachectl.tracking.log import check_destination

        check_destination()
    if timeout is not None and not (_is_number(timeout) and 0 < timeout < math.inf):
        raise ConfigurationError(f"timeout is a number of seconds above 0, or None, not {timeout!r}")
    if max_age is not None and not (_is_number(max_age) and max_age >= 0):
        raise ConfigurationError(f"max_age is a number of seconds that is not negative, or None, not {max_age!r}")
    check_level(level)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
