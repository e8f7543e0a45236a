"""What decides what code does changes its fingerprint, wherever it is held; what it keeps count in does not."""

from __future__ import annotations

import contextvars
import dataclasses
import decimal
import sys
import types
from collections.abc import Callable
from typing import Any

import dspy
import numpy as np
import pytest

from dspy_cachectl.fingerprints.reached import metric_fingerprint

SOURCE = """
import contextvars, dataclasses, decimal, types
import dspy, numpy
import rules.inner

class Grader:
    lenient = False
    other = None
    def __init__(self, limit, lm=None):
        self.limit, self._hidden, self.lm, self.calls, self.seen, self._known = limit, limit, lm, 0, [], {}
    def grade(self, text):
        self.calls += 1
        self._note(text)
        return len(text) > self.limit
    def _note(self, text):
        self.seen.append(text)
        self._known[text] = True
    def set_limit(self, limit):
        self.limit = limit
    __call__ = grade

@dataclasses.dataclass
class Limits:
    low: float = 0.5

grader, words, allowed, weights = Grader(1), ["a"], {"a"}, {"a": 1.0}
limits, table, exact = Limits(), numpy.zeros(2), decimal.Decimal(1)
space = types.SimpleNamespace(judge=dspy.LM("openai/a"))
current = contextvars.ContextVar("current", default=1)
scorers, graders = {"len": len}, [Grader(1)]
tally, counts = [], {"calls": 0}

def filter(text):
    return 1

def by_object(text): return grader.grade(text)
def by_call(text): return grader(text)
def by_list(text): return text in words
def by_set(text): return text in allowed
def by_dict(text): return weights[text]
def by_dataclass(text): return limits.low
def by_array(text): return table[0]
def by_decimal(text): return exact
def by_namespace(text): return space.judge(text)
def by_context(text): return current.get()
def by_table(text): return scorers["len"](text)
def by_objects(text): return graders[0].grade(text)
def by_submodule(text): return rules.inner.score(text)
def by_name_of_a_builtin(text): return filter(text)
def by_attribute(text): return by_attribute.judge(text)
def by_class(text): return Grader.other(text)
by_attribute.judge = dspy.LM("openai/a")

def counting(text):
    tally.append(text)
    counts["calls"] += 1
    counting.calls = 1
    return 1.0

def make(held):
    return lambda text: held.grade(text)

by_closure = make(grader)
whole = Grader(1)
"""
INNER = "def score(text):\n    return {}\n"


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user's, and one within a package of the user's."""
    made = {}
    for name, source in (("rules", ""), ("rules.inner", INNER.format(1)), ("reaching", SOURCE)):
        monkeypatch.setitem(sys.modules, name, module := types.ModuleType(name))
        module.__file__ = f"/nowhere/{name}.py"
        made[name] = module
        if name == "rules.inner":
            made["rules"].inner = module
        _run(module, source)
    return made["reaching"]


def _run(module: Any, source: str) -> None:
    """Run source as `linecache` knows it, as that of a notebook's cells is known."""
    import linecache

    name = f"<{module.__name__} {len(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), vars(module))


def _set(name: str, attribute: str, value: Any) -> Callable[[Any], None]:
    return lambda space: setattr(getattr(space, name), attribute, value)


def _grade_otherwise(space: Any) -> None:
    _run(space, SOURCE.replace("> self.limit", ">= self.limit"))


@pytest.mark.parametrize(
    ("metric", "change"),
    [
        ("by_object", lambda space: space.grader.set_limit(2)),
        ("by_object", _set("grader", "_hidden", 2)),
        ("by_object", _set("grader", "lm", dspy.LM("openai/b"))),
        ("by_object", _set("Grader", "lenient", True)),
        ("by_object", _grade_otherwise),
        ("by_call", _set("grader", "limit", 2)),
        ("by_list", lambda space: space.words.append("b")),
        ("by_set", lambda space: space.allowed.add("b")),
        ("by_dict", lambda space: space.weights.update(a=2.0)),
        ("by_dataclass", _set("limits", "low", 0.9)),
        ("by_array", lambda space: space.table.__setitem__(0, 1.0)),
        ("by_decimal", lambda space: setattr(space, "exact", decimal.Decimal(2))),
        ("by_namespace", lambda space: setattr(space.space, "judge", dspy.LM("openai/b"))),
        ("by_context", lambda space: setattr(space, "current", contextvars.ContextVar("current", default=2))),
        ("by_table", lambda space: space.scorers.update(len=max)),
        ("by_objects", lambda space: setattr(space.graders[0], "limit", 2)),
        ("by_submodule", lambda _: _run(sys.modules["rules.inner"], INNER.format(22))),
        ("by_name_of_a_builtin", lambda space: _run(space, "def filter(text):\n    return 222\n")),
        ("by_attribute", lambda space: setattr(space.by_attribute, "judge", dspy.LM("openai/b"))),
        ("by_class", _set("Grader", "other", dspy.LM("openai/b"))),
        ("by_closure", _set("grader", "limit", 2)),
        ("whole", _set("whole", "limit", 2)),
        ("whole", _set("whole", "_hidden", 2)),
    ],
)
def test_what_decides_is_seen(space: Any, metric: str, change: Callable[[Any], None]) -> None:
    """In objects of the user's, their classes, containers, submodules, context variables, attributes of functions."""
    before = metric_fingerprint(getattr(space, metric))
    assert before == metric_fingerprint(getattr(space, metric))
    change(space)
    assert before != metric_fingerprint(getattr(space, metric))


@pytest.mark.parametrize("metric", ["counting", "by_object", "by_objects", "by_closure", "whole"])
def test_what_it_counts_in_is_not(space: Any, metric: str) -> None:
    """Lists, dictionaries and attributes that the code changes itself while it is used."""
    before = metric_fingerprint(getattr(space, metric))
    getattr(space, metric)("text")
    assert before == metric_fingerprint(getattr(space, metric))


def test_a_judge_without_an_lm_follows_the_settings() -> None:
    """It is asked with what is configured."""
    judge = dspy.Predict("answer -> verdict")

    def metric(example: Any, prediction: Any, trace: Any = None) -> Any:
        return judge(answer=prediction.answer).verdict

    found = []
    for lm, adapter in (("openai/a", None), ("openai/b", None), ("openai/b", dspy.JSONAdapter())):
        with dspy.context(lm=dspy.LM(lm), adapter=adapter):
            found.append(metric_fingerprint(metric))
    assert 3 == len(set(found))
    judge.set_lm(dspy.LM("openai/c"))
    with dspy.context(lm=dspy.LM("openai/a")):
        own = metric_fingerprint(metric)
    with dspy.context(lm=dspy.LM("openai/b")):
        assert own == metric_fingerprint(metric)


def test_arrays_and_fields_of_objects_are_values() -> None:
    """An object of the user's holds them as a module does."""

    @dataclasses.dataclass
    class Weighed:
        weights: Any

        def __call__(self, text: str) -> float:
            return float(self.weights[0])

    assert metric_fingerprint(Weighed(np.zeros(2))) != metric_fingerprint(Weighed(np.ones(2)))
