"""Slices agree with evaluations of their own, buy nothing more, and say which of them got worse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.gating.gate import Outcome, gate
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, run
from tests.page import unpacked
from tests.reports.made_up import report

__all__ = ["program"]


def questions(count: int = 12) -> list[dspy.Example]:
    """Different questions of three topics, in two languages."""
    return [
        dspy.Example(
            question=f"question {at} ?", answer="yes", topic=f"topic {at % 3}", language="de" if at % 2 else "en"
        ).with_inputs("question")
        for at in range(count)
    ]


def found(one: cachectl.EvalReport) -> list[Any]:
    """All that its answers come to."""
    return [one.score, one.standard_error, one.interval, one.n, one.failures, one.table, one.summary()]


def sliced(scores: Sequence[float], slices: Sequence[str], name: str = "made-up") -> cachectl.EvalReport:
    """A made-up report whose questions are in these slices."""
    made = report(scores, name=name)
    for question, its in zip(made.questions, slices, strict=True):
        object.__setattr__(question, "slices", (its,))
    return made


def test_a_slice_is_an_evaluation_of_its_own_to_the_digit(program: dspy.Module, endpoint: Endpoint) -> None:
    """Those questions alone, with the same draws; slices buy nothing, and neither do the separate evaluations."""
    devset = questions()
    whole = run(program, devset, repeats=2, slices="topic")
    assert 24 == endpoint.requests
    assert ["topic 0", "topic 1", "topic 2"] == list(whole.slices)
    for at, (name, one) in enumerate(whole.slices.items()):
        alone = run(program, devset[at::3], repeats=2, run_id=whole.run_id, predictions=False)
        assert found(alone) == found(one), name
    again = run(program, devset, repeats=2, slices=["topic", "language"])
    assert [f"topic=topic {at}" for at in range(3)] == [name for name in again.slices if "topic" in name]
    assert {"language=de": 6, "language=en": 6} == {
        name: one.n for name, one in again.slices.items() if "language" in name
    }
    assert 24 == endpoint.requests


def test_a_function_may_name_several_or_none(program: dspy.Module) -> None:
    """A question is in as many slices as it says, once in each; secrets in a name are none any more."""
    key = "sk-proj-" + "q8ZxV3nT7pLw2RkY" * 3

    def names(example: dspy.Example) -> Any:
        return {"topic 0": ["even", "even", 3], "topic 1": None, "topic 2": key}[example.topic]

    made = run(program, questions(6), slices=names)
    assert {"3": 2, "even": 2} == {name: one.n for name, one in made.slices.items() if name in {"3", "even"}}
    assert [("3", "even"), ()] == [one.slices for one in made.questions[:2]]
    assert 3 == len(made.slices)
    assert key not in json.dumps(made.as_dict())


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        ("subject", "example 0 has no field 'subject' to take its slice from"),
        (lambda example: example.subject, "slices raised AttributeError for example 0"),
        (3, "slices is the name of a field, several names, or a function of an example, not 3"),
        ([], "slices is the name of a field"),
    ],
)
def test_slices_that_cannot_be_told_cost_nothing(
    program: dspy.Module, endpoint: Endpoint, slices: Any, says: str
) -> None:
    """It says which example, before anything is asked."""
    with pytest.raises(cachectl.ConfigurationError, match=says):
        run(program, questions(2), slices=slices)
    others = [dspy.Example(question="another ?", answer="yes").with_inputs("question")]
    with pytest.raises(cachectl.ConfigurationError, match="example 0 has no field 'topic'"):
        run(program, questions(2), slices="topic", holdout=others)
    assert 0 == endpoint.requests


def test_slices_are_the_same_however_it_is_evaluated(program: dspy.Module) -> None:
    """In shards that are merged, in random order, and on a pool."""
    devset = questions()
    options: dict[str, Any] = {"slices": "topic", "run_id": "one", "predictions": False}
    wanted = {name: found(one) for name, one in run(program, devset, **options).slices.items()}
    parts = [run(program, devset, shard=(part, 2), **options) for part in range(2)]
    with ThreadPoolExecutor(2) as pool:
        others = [
            cachectl.EvalReport.merge(parts),
            run(program, devset, order="random", **options),
            run(program, devset, executor=pool, shards=3, **options),
        ]
    for other in others:
        assert wanted == {name: found(one) for name, one in other.slices.items()}


def test_a_comparison_says_which_slices_got_worse() -> None:
    """Each as a comparison of its questions alone, with p-values that allow for all of them (Holm)."""
    slices = ["hard"] * 40 + ["easy"] * 40 + ["small"] * 4
    before = sliced([1.0] * 40 + [0.0, 1.0] * 20 + [1.0] * 4, slices, "before")
    after = sliced([0.0] * 20 + [1.0] * 20 + [1.0, 1.0] * 20 + [0.0] * 4, slices, "after")
    compared = before.compare(after)
    assert {"hard": "WORSE", "easy": "BETTER", "small": "INCONCLUSIVE"} == {
        name: one.verdict.value for name, one in compared.slices.items()
    }
    for name, one in compared.slices.items():
        alone = before.slices[name].compare(after.slices[name], smallest_difference=0.05)
        assert (alone.result, 3) == (one.result, one.compared_with)
        assert alone.p_value <= one.adjusted_p_value
    assert compared.slices["easy"].p_value < compared.slices["easy"].adjusted_p_value
    said = str(compared)
    assert "Slices, the worst first" in said
    order = [line.split()[0] for line in said.partition("Slices,")[2].splitlines() if line.split()[:1]]
    assert ["small", "hard", "easy"] == [name for name in order if name in slices]
    assert all(len(line) <= 80 for line in said.splitlines())
    assert ["hard", "easy", "small"] == list(compared.as_dict()["slices"])


def test_a_gate_says_which_slices_got_worse() -> None:
    """It passes by the whole, and says where that hides a loss."""
    slices = ["many"] * 400 + ["few"] * 20
    before = sliced([1.0, 0.0] * 200 + [1.0] * 20, slices, "before")
    after = sliced([1.0, 0.0] * 200 + [0.0] * 12 + [1.0] * 8, slices, "after")
    found = gate(before, after, not_worse_by=0.1)
    assert Outcome.PASSED is found.outcome
    assert "It got worse in the slice 'few': -0.60" in found.details()
    assert "the slice 'few'" in found.as_markdown()


def test_the_side_that_has_slices_tells_them() -> None:
    """A baseline that was made without them needs no evaluation anew; questions of one side alone are in none."""
    slices = ["a"] * 6 + ["b"] * 6
    plain, told = report([1.0] * 10, name="before"), sliced([0.0] * 12, slices, "after")
    assert {"a": 6, "b": 4} == {name: one.result.n for name, one in plain.compare(told).slices.items()}
    assert {"a": 6, "b": 4} == {name: one.result.n for name, one in told.compare(plain).slices.items()}
    assert {} == plain.compare(report([0.0] * 10)).slices


def test_slices_are_in_the_file_on_the_page_and_on_the_screen(program: dspy.Module, tmp_path: Path) -> None:
    """What is saved and loaded has them, and so has the page that the command makes of it, which filters by them."""
    made = run(program, questions(), slices="topic")
    saved = made.save(tmp_path / "report.json")
    assert {name: one.summary() for name, one in made.slices.items()} == json.loads(saved.read_text())["slices"]
    loaded = cachectl.EvalReport.load(saved)
    assert {name: found(one) for name, one in made.slices.items()} == {
        name: found(one) for name, one in loaded.slices.items()
    }
    assert 0 == command("report", str(saved), "-o", str(tmp_path / "page.html")).returncode
    page = unpacked.content((tmp_path / "page.html").read_bytes())
    rows = [(one["name"], one["n"], one["score"]) for one in page["scores"][1:]]
    assert [(one.name, 4, one.score) for one in made.slices.values()] == rows
    assert [["topic 0"], ["topic 1"], ["topic 2"]] == [one["slices"] for one in page["questions"][:3]]
    for text in (str(loaded), loaded.details()):
        assert all(name in text for name in made.slices)
        assert all(len(line) <= 80 for line in text.splitlines())


def test_many_slices_leave_room_on_a_screen() -> None:
    """The lowest are shown, and how many there are beside them; all are in the details."""
    made = sliced([at / 30 for at in range(30)], [f"a topic of some length {at:02}" for at in range(30)])
    assert "and 22 more" in str(made)
    assert "length 07" in str(made)
    assert "length 08" not in str(made)
    assert "length 29" in made.details()
