"""What a program holds that says nothing by its attributes: tables, and what asks a retriever."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.evaluation.kept_predictions import key_of
from dspy_cachectl.fingerprints.programs import program_fingerprint
from tests.calls.support import MakeLM, exact, examples, qa
from tests.endpoint import Endpoint
from tests.fingerprints.sources import made

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


PROGRAM = """
{before}
class P(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        {held}
    def forward(self, question):
        {run}
        return self.ask(question=question)
program = P()
"""
_CLASS = "@dataclasses.dataclass\nclass C:\n    lm: object"
_LM, _ASK = "dspy.LM('openai/' + V)", "dspy.Predict(dspy.Signature('q -> a', V))"
HELD = {
    "lm: two containers": ("", f"self.x = {{'a': [{_LM}]}}", ""),
    "lm: set": ("", f"self.x = {{{_LM}}}", ""),
    "lm: deque": ("", f"self.x = collections.deque([{_LM}])", ""),
    "lm: dataclass": (_CLASS, f"self.x = C({_LM})", ""),
    "lm: partial": ("", f"self.x = functools.partial({_LM}, 'hi')", ""),
    "predictor: dataclass": (_CLASS, f"self.x = C({_ASK})", ""),
    "predictor: set": ("", f"self.x = {{{_ASK}}}", ""),
    "value: deque": ("", "self.x = collections.deque([V])", ""),
    "value: getter": ("", "self.x = operator.attrgetter(V)", ""),
    "global": ("C = collections.namedtuple('C', 'k')(V)", "", "C.k"),
    "import": ("", "", "from helpers import score"),
    "adapter": (f"dspy.configure(adapter=dspy.TwoStepAdapter({_LM}))", "", ""),
    "adapter's attribute": ("a = dspy.ChatAdapter()\na.held = [V]\ndspy.configure(adapter=a)", "", ""),
    "rm": ("class R:\n    def __init__(s): s.v = V\ndspy.configure(rm=R())", "", "dspy.settings.rm"),
    "own lm": ("class L(dspy.LM): pass\nl = L('openai/a')\nl.persona = V\ndspy.configure(lm=l)", "", ""),
    "validator": (
        "class A(pydantic.BaseModel):\n    v: str\n    @pydantic.field_validator('v')\n"
        "    def f(cls, x): return x + V\n"
        "class S(dspy.Signature):\n    q: str = dspy.InputField()\n    a: list[A] = dspy.OutputField()",
        "self.x = dspy.Predict(S)",
        "",
    ),
}


def _key(source: str, value: str, monkeypatch: pytest.MonkeyPatch) -> str:
    dspy.configure(lm=dspy.LM("openai/main"), adapter=None, rm=None)
    program = made(source, value, monkeypatch).program
    return key_of(program, 1.0, "", ()).hash


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name.endswith("dataclass") else pytest.mark.exhaustive) for name in HELD],
)
def test_what_a_program_rests_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMs and predictors at any depth, values of every kind, the adapter, the retriever, the types of its fields."""
    before, held, run = HELD[name]
    source = PROGRAM.format(before=before, held=held, run=run)
    one, again, other = (_key(source, value, monkeypatch) for value in ("'a'", "'a'", "'b'"))
    assert one == again
    assert one != other


def test_an_lm_in_an_object_is_the_programs(endpoint: Endpoint, lm: MakeLM, tmp_path: Any) -> None:
    """A program whose only LM is there is evaluated, asks that, and is computed again where it is another."""

    @dataclasses.dataclass
    class Held:
        lm: Any

    class Asking(dspy.Module):  # type: ignore[misc]
        def __init__(self, held: Any) -> None:
            super().__init__()
            self.held = held

        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=self.held.lm(question)[0])

    options = {"predictions": str(tmp_path / "kept"), "display_progress": False}
    for model in ("one", "one", "two"):
        report = cachectl.evaluate(Asking(Held(lm(f"openai/{model}"))), examples(2), exact, **options)
        assert [f"openai/{model}"] == [asked.model for asked in report.provenance.models]
    assert ["one", "one", "two", "two"] == [request["body"]["model"] for request in endpoint.log()]
