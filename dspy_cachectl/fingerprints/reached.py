"""Which LMs a program or a metric reaches: found by the walk that makes fingerprints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspy_cachectl.fingerprints.code import Walk
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm

Asked = tuple[str, str | None]
"""A model's name, and the identity of its endpoint."""


def only_judges_ask(program: Any, metric: Any) -> frozenset[Asked]:
    """Return the models that a metric reaches, and the program does not: nor is DSPy set to them."""
    import dspy

    of_program, of_metric = _Reaching(), _Reaching()
    for value in (program, dspy.settings.lm):
        of_program.digest(value)
    of_metric.digest(metric)
    return frozenset(of_metric.found - of_program.found)


class _Reaching(Walk):
    """The walk that makes fingerprints, which notes the LMs on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[Asked] = set()

    def _lm(self, lm: Any) -> Iterator[str]:
        self.found.add((str(getattr(lm, "model", None)), endpoint_of_lm(lm)))
        yield from super()._lm(lm)
