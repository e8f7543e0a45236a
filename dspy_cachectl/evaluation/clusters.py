"""Which questions belong together, as a user says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.statistics.scores import is_missing


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
