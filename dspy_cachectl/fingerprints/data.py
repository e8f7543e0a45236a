"""Which question a prediction answers: examples by what they ask, whatever their place in the data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints import canonical


@dataclass(frozen=True)
class Question:
    """One question of a data set.

    Attributes:
        example_key: The hash of what is asked. The order of a dictionary in it counts, which is asked in that order.
        label_key: The hash of everything else in the example: what is expected.
        occurrence: 0 for the first question with these inputs in the data set, 1 for the second, ...; in the order of
            their labels, so that a data set in another order has the same questions.
    """

    example_key: str
    label_key: str
    occurrence: int = 0

    def unit(self, repeat: int) -> str:
        """Return the name of what is drawn for it in one repeat."""
        return f"{self.example_key}#{self.occurrence}/{repeat}"


def questions_of(examples: Iterable[Any]) -> list[Question]:
    """Return the questions of a data set, in its order.

    Raises:
        ConfigurationError: If there are none, or one of them has no inputs; the message says which.
    """
    found: list[Question] = []
    equals: defaultdict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        which = f"example {index}"
        inputs, labels = _split(example, which)
        question = Question(_digest(inputs, which, in_order=True), _digest(labels, which))
        equals[question.example_key].append(index)
        found.append(question)
    if not found:
        raise ConfigurationError("the data set is empty: give at least one example")
    for places in equals.values():
        by_label = sorted(places, key=lambda place: found[place].label_key)
        for occurrence, index in enumerate(by_label[1:], start=1):
            found[index] = replace(found[index], occurrence=occurrence)
    return found


def hash_of_questions(questions: Sequence[Question]) -> str:
    """Hash a data set: inputs and labels, how often each occurs, and not their order."""
    return canonical.digest(sorted([question.example_key, question.label_key] for question in questions))


def _digest(fields: dict[str, Any], which: str, *, in_order: bool = False) -> str:
    try:
        return canonical.digest(fields, in_order=in_order)
    except canonical.UnstableError as error:
        field = error.path.split(".")[0].split("[")[0]
        raise ConfigurationError(
            f"{which} cannot be told from others: its field {field!r} holds a {error.kind} (at {error.path}), which "
            "has no stable form. Use plain data, a dataclass or a pydantic object there"
        ) from error


def _split(example: Any, which: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import dspy

    if not isinstance(example, dspy.Example):
        raise ConfigurationError(
            f"{which} is a {type(example).__name__}: make it a dspy.Example(...).with_inputs(...) that names its inputs"
        )
    try:
        # Fields of DSPy's own, such as the random id that its loaders give, are no part of a question.
        inputs = dict(example.inputs().items())
    except ValueError as error:
        raise ConfigurationError(
            f"{which} does not say which of its fields are inputs: call .with_inputs('question', ...) on it"
        ) from error
    if not inputs:
        raise ConfigurationError(
            f"{which} has none of the inputs that with_inputs() names; its fields are {sorted(example.keys())}"
        )
    return inputs, {name: value for name, value in example.items() if name not in inputs}
