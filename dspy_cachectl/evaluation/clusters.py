"""Which questions belong together, and which are looked at apart, as a user says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dspy

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.reports.apart.slices import names_in, names_of
from dspy_cachectl.statistics.scores import is_missing

Slices = str | Sequence[str] | Callable[[dspy.Example], Any]
"""What questions are sliced by: a field, several fields, or a function of an example."""


def slices_of_questions(given: Slices | None, devset: Sequence[dspy.Example]) -> Sequence[tuple[str, ...]] | None:
    """Return the slices that each question is in, by name; see `evaluate`.

    Raises:
        ConfigurationError: If an example lacks a field, or the function raises.
    """
    if given is None:
        return None
    return [_slices_of(given, number, example) for number, example in enumerate(devset)]


def _slices_of(given: Slices, number: int, example: dspy.Example) -> tuple[str, ...]:
    if callable(given):
        try:
            return names_in(given(example))
        except Exception as error:
            raise ConfigurationError(
                f"slices raised {type(error).__name__} for example {number}: {error}. It is called with each example, "
                "and returns the name of its slice, several in a list, or None"
            ) from error
    fields = [given] if isinstance(given, str) else list(given)
    missing = [field for field in fields if field not in example]
    if missing:
        raise ConfigurationError(
            f"example {number} has no field {missing[0]!r} to take its slice from; where some have none, give a "
            "function: slices=lambda example: example.get(...)"
        )
    return names_of(fields, example)


def clusters_of(given: Any, devset: Sequence[dspy.Example], questions: Sequence[Question]) -> Sequence[Any] | None:
    """Return the cluster of each question; see `evaluate`.

    Raises:
        ConfigurationError: If a question has none, or two equal ones are in different clusters.
    """
    if given is None:
        return None
    if isinstance(given, str):
        missing = [number for number, example in enumerate(devset) if given not in example]
        if missing:
            raise ConfigurationError(f"example {missing[0]} has no field {given!r} to take its cluster from")
        groups = [example[given] for example in devset]
    else:
        groups = [given(example) for example in devset] if callable(given) else list(given)
    if len(groups) != len(devset):
        raise ConfigurationError(f"there are {len(devset)} questions and {len(groups)} cluster ids; give one each")
    without = [number for number, group in enumerate(groups) if is_missing(group)]
    if without:
        raise ConfigurationError(f"example {without[0]} has no cluster id; a question that stands alone gets its own")
    first: dict[str, int] = {}
    for number, question in enumerate(questions):
        same = first.setdefault(question.example_key, number)
        if str(groups[same]) != str(groups[number]):
            raise ConfigurationError(
                f"examples {same} and {number} ask the same question and are in the clusters {groups[same]!r} and "
                f"{groups[number]!r}; equal questions are not independent, so give them one"
            )
    return groups
