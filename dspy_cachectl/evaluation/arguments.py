"""What `evaluate()` takes, looked at before anything is paid for."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dspy_cachectl.batches.batch import Batch
from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.secrets import readable_values
from dspy_cachectl.config.checks import shown
from dspy_cachectl.config.other_names import ARGUMENTS
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.content import content_hash
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.showing.stand_in import StandIn
from dspy_cachectl.statistics.quantiles import check_level

DependsOn = Iterable[str | os.PathLike[str]] | Mapping[str, Any]

ORDERS = ("given", "random")
"""In which order questions are asked."""

_READ_OFTEN = frozenset({"devset", "clusters", "depends_on", "lms", "holdout"})
"""What may be given as something that can be read once, such as a generator."""

Rule = tuple[Callable[[Any], bool], str]
"""Whether an argument is right, and what it has to be."""

PROGRAM: Rule = (
    lambda value: callable(value) and not isinstance(value, type),
    "is a dspy.Module, or something else that is called with an example's inputs, and no class",
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def known_names(function: Callable[P, R]) -> Callable[P, R]:
    """Let `evaluate` answer an argument that it has not, or that cannot be used, before anything is paid for."""
    return known_names_and({})(function)


def known_names_and(rules: Mapping[str, Rule]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function that takes what `evaluate` takes do the same, with rules for arguments of its own."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def takes(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in signature.parameters:
                    raise _unknown(f"{function.__name__}() has no argument {name!r}", name, list(signature.parameters))
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:  # which Python says better
                return function(*args, **kwargs)
            _check(bound.arguments, {**_RULES, **rules})
            for name in _READ_OFTEN & bound.arguments.keys():
                if isinstance(bound.arguments[name], Iterator):
                    bound.arguments[name] = list(bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return takes

    return decorate


def _unknown(what: str, name: str, known: list[str]) -> ConfigurationError:
    if name in ARGUMENTS:
        ours, takes = ARGUMENTS[name]
        return ConfigurationError(f"{what}: write {ours} ({takes})")
    guess = question(name, known)
    return ConfigurationError(f"{what}: {guess}{' ' if guess else ''}its arguments are: {', '.join(known)}")


def is_number(value: Any) -> bool:
    """Tell whether something is a number, and no yes or no."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any, least: int) -> bool:
    """Tell whether something is a whole number, and not below another."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def _is_shard(value: Any) -> bool:
    if not (isinstance(value, (tuple, list)) and len(value) == 2 and all(is_whole(one, 0) for one in value)):
        return False
    return int(value[0]) < int(value[1])


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_slices(value: Any) -> bool:
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    return value is None or callable(value) or (bool(names) and all(isinstance(one, str) and one for one in names))


_RULES: dict[str, Rule] = {
    "program": PROGRAM,
    "repeats": (lambda value: is_whole(value, 1), "must be 1 or more, and whole"),
    "run_id": (_is_text, "is the id of a run, or None"),
    "num_threads": (lambda value: value is None or is_whole(value, 0), "is a whole number, or None"),
    "clusters": (
        lambda value: value is None or callable(value) or isinstance(value, Iterable),
        "is the name of a field, a function of an example, or an id for each question",
    ),
    "slices": (_are_slices, "is the name of a field, several names, or a function of an example"),
    "baseline": (
        lambda value: value is None or isinstance(value, (EvalReport, StandIn)),
        "is a report of evaluate(), or None",
    ),
    "depends_on": (
        lambda value: isinstance(value, Iterable) and not isinstance(value, (str, bytes, os.PathLike)),
        "is a list of files, or a dictionary of values",
    ),
    "force_recompute": (lambda value: value is None or isinstance(value, bool), "is True, False or None"),
    "max_age": (
        lambda value: value is None or (is_number(value) and value >= 0),
        "is a number of seconds that is not negative, or None",
    ),
    "max_errors": (lambda value: value is None or is_whole(value, 0), "is a whole number, or None"),
    "timeout": (
        lambda value: value is None or (is_number(value) and 0 < value < math.inf),
        "is a number of seconds above 0, or None",
    ),
    "failure_score": (lambda value: isinstance(value, Real) and math.isfinite(value), "is a finite number"),
    "level": (is_number, "is a number between 0 and 1, such as 0.95"),
    "name": (_is_text, "is a text, or None"),
    "mlflow": (
        lambda value: value is None or isinstance(value, (bool, str)),
        "is True, False or the id of a run",
    ),
    "batch": (lambda value: isinstance(value, (bool, Batch)), "is True, False or a cachectl.Batch"),
    "order": (lambda value: value in ORDERS, 'is "given" or "random"'),
    "seed": (lambda value: is_whole(value, 0), "is a whole number that is not negative"),
    "until": (
        lambda value: value is None or (is_number(value) and 0 < value < math.inf),
        "is how wide the interval may be, in units of the score (say 0.1), or None",
    ),
    "shard": (
        lambda value: value is None or _is_shard(value),
        "is which of how many: (0, 4), (1, 4), (2, 4) and (3, 4) are four",
    ),
    "shards": (lambda value: value is None or is_whole(value, 1), "is how many parts there are to be, or None"),
}
"""What an argument of `evaluate` has to be; of the others their own parts tell."""


def _check(given: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    for name, (is_right, what) in rules.items():
        if name in given and not is_right(given[name]):
            raise ConfigurationError(f"{name} {what}, not {shown(given[name])}")
    if "level" in given:
        check_level(given["level"])
    _check_together(given)
    if given.get("mlflow"):
        from dspy_cachectl.tracking.log import check_destination

        check_destination()
        if given.get("shard") is not None:
            raise ConfigurationError("a shard is no evaluation to be logged: log_to_mlflow(EvalReport.merge(reports))")


def _check_together(given: Mapping[str, Any]) -> None:
    in_parts = [name for name in ("shard", "executor") if given.get(name) is not None]
    if in_parts and (given.get("until") is not None or given.get("order", "given") != "given"):
        raise ConfigurationError(f"{in_parts[0]} asks in the given order, and all: leave order and until out")
    if given.get("shard") is not None and given.get("executor") is not None:
        raise ConfigurationError("shard is evaluated here, and executor makes shards of its own: give one of them")
    if given.get("batch") and (given.get("until") is not None or given.get("executor") is not None):
        raise ConfigurationError("batch asks all questions at once, and from here: leave until and executor out")


def listed(devset: Iterable[T]) -> list[T]:
    """Return the questions as a list.

    Raises:
        ConfigurationError: They cannot be read one after the other.
    """
    if not isinstance(devset, Iterable):
        raise ConfigurationError(f"devset is a list of dspy.Example, not {shown(devset)}")
    return list(devset)


def declared(depends_on: DependsOn) -> dict[str, Any]:
    """Return what predictions depend on that cannot be seen, as a part of their key; see `evaluate`.

    Raises:
        ConfigurationError: It is no list of files, nor a dictionary of plain values, or a file cannot be read.
    """
    if isinstance(depends_on, Mapping):
        try:
            plain = canonical.as_json(dict(depends_on))
            return {"depends_on": readable_values(plain)} if depends_on else {}
        except canonical.UnstableError as error:
            raise ConfigurationError(f"depends_on cannot be told from others: {error}") from error
    found: dict[str, list[str]] = {}
    for named in depends_on:
        if not isinstance(named, (str, os.PathLike)):
            raise ConfigurationError(f"depends_on is a list of files, and holds {shown(named)}")
        path = Path(named)
        if not path.exists():
            raise ConfigurationError(f"depends_on names {str(path)!r}, which is not there")
        found.setdefault(path.name, []).append(content_hash(path))
    # Files of one name in several folders are several, in whatever order they are named.
    hashes = {name: sorted(several) if several[1:] else several[0] for name, several in found.items()}
    return {"depends_on": hashes} if hashes else {}
