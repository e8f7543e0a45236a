"""What a program holds that says nothing by its attributes: tables, and what asks a retriever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.programs import program_fingerprint
from tests.calls.support import MakeLM, exact, examples, qa
from tests.endpoint import Endpoint

pandas = pytest.importorskip("pandas")


class Holding(dspy.Module):  # type: ignore[misc]
    """Holds something, and asks."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held
        self.ask = qa()

    def forward(self, question: str) -> Any:
        return self.ask(question=question)


def frame(**columns: Any) -> Any:
    return pandas.DataFrame(columns)


TABLES: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: frame(a=[1, 2]), lambda: frame(a=[1, 3])),
    (lambda: frame(a=[1, 2]), lambda: frame(b=[1, 2])),
    (lambda: frame(a=[1, 2]), lambda: frame(a=[1.0, 2.0])),
    (lambda: frame(a=[1, 2]), lambda: frame(a=[2, 1])),
    (lambda: frame(a=["x", None]), lambda: frame(a=["x", "y"])),
    (lambda: frame(a=[[1], [2]]), lambda: frame(a=[[1], [3]])),
    (lambda: pandas.Series([1, 2]), lambda: pandas.Series([1, 3])),
    (lambda: pandas.Series([1, 2], index=["a", "b"]), lambda: pandas.Series([1, 2], index=["a", "c"])),
    (lambda: {"deep": [frame(a=[1])]}, lambda: {"deep": [frame(a=[2])]}),
]


@pytest.mark.parametrize(("one", "other"), TABLES)
def test_tables(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    """Another cell, name, kind, order or index is another program; an equal table is the same."""
    first, again, changed = (program_fingerprint(Holding(make())).hash for make in (one, one, other))
    assert first == again != changed


class Retriever:
    """A retriever of somebody's own."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, query: str, k: int) -> list[str]:
        return [f"{self.name} {number}" for number in range(k)]


def test_what_asks_a_retriever(endpoint: Endpoint, lm: MakeLM, tmp_path: Any) -> None:
    """It is the same in each process, though it has a random part; another retriever in the settings is another."""
    dspy.configure(lm=lm(), rm=Retriever("old"))
    options = {"predictions": str(tmp_path / "kept"), "display_progress": False}
    for _ in range(2):
        cachectl.evaluate(Holding(dspy.Retrieve(k=2)), examples(2), exact, **options)
    assert 2 == endpoint.requests
    for k, name in ((2, "new"), (3, "new")):
        dspy.configure(rm=Retriever(name))
        cachectl.evaluate(Holding(dspy.Retrieve(k=k)), examples(2), exact, **options)
    assert 6 == endpoint.requests
