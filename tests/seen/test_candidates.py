"""Programs that an optimizer chose by these very questions, and the questions that are held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.statistics.power import selection_bias
from tests.calls.support import exact, examples, gold
from tests.endpoint import Endpoint
from tests.phases.optimizers import OPTIMIZERS, TRAINSET, VALSET
from tests.statistics.simulate import in_full

MakeLM = Callable[..., cachectl.LM]
BY_QUESTIONS = {
    "BootstrapFewShotWithRandomSearch": VALSET,
    "MIPROv2": VALSET,
    "COPRO": TRAINSET,
    "SIMBA": TRAINSET,
    "GEPA": VALSET,
    "InferRules": VALSET,
}
"""What each optimizer chooses by. BootstrapFewShot makes one program, and chooses none."""
OTHERS = examples(20)[12:]


@pytest.fixture
def student(endpoint: Endpoint, lm: MakeLM) -> dspy.Module:
    """A program that answers some of the questions rightly, and an LM that knows six of ten."""
    endpoint.configure(gold=gold(20), accuracy=0.6)
    dspy.configure(lm=lm(temperature=1.0))
    return dspy.ChainOfThought("question -> answer")


def run(program: Any, devset: list[dspy.Example], **options: Any) -> cachectl.EvalReport:
    """Evaluate without a progress bar, and without keeping predictions."""
    return cachectl.evaluate(program, devset, exact, display_progress=False, predictions=False, **options)


def said(report: Any) -> str:
    """What a report says, in one line."""
    return " ".join(str(report).split())


QUICK = {"BootstrapFewShotWithRandomSearch", "SIMBA"}


@pytest.mark.parametrize("name", [one if one in QUICK else in_full(one) for one in BY_QUESTIONS])
def test_what_an_optimizer_chose_by_these_questions_is_warned_of(student: dspy.Module, name: str) -> None:
    """Whichever it is: with how many candidates there were, on how many of the questions, and how much that may be."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS[name](student)
    report = run(compiled, BY_QUESTIONS[name])
    selection = report.provenance.selection
    assert selection is not None
    assert (6, True) == (selection.questions, selection.is_chosen)
    assert selection.candidates >= 2 or name in {"SIMBA", "GEPA"}  # which may find nothing that is better
    if selection.candidates > 1:
        assert f"on 6 of these 6 questions, as the best of {selection.candidates} candidates" in said(report)
    assert run(compiled, OTHERS).provenance.selection is None


def test_the_candidates_are_those_that_were_scored(student: dspy.Module, tmp_path: Path) -> None:
    """The zero-shot program, the labeled one, the bootstrapped one and two more: five, once each; half of it asked."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS["BootstrapFewShotWithRandomSearch"](student)
    different = {str(one["program"].predict.demos) for one in compiled.candidate_programs}
    report = run(compiled, [*VALSET[:3], *OTHERS[:5]])
    assert report.provenance.selection is not None
    assert (len(different), 3) == (report.provenance.selection.candidates, report.provenance.selection.questions)
    bias = selection_bias(report.standard_error, len(different))
    assert f"up to about {bias:.2f}" in said(report)
    again = cachectl.EvalReport.load(report.save(tmp_path / "report.json"))
    assert report.provenance.selection == again.provenance.selection


def test_whoever_was_not_chosen_is_told_how_many_were_scored(student: dspy.Module) -> None:
    """The program as it was before is no best of many."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS["BootstrapFewShotWithRandomSearch"](student)
    assert compiled.predict.demos
    report = run(student, VALSET)
    assert "an optimizer chose" not in said(report)
    assert "scored before 5 candidates, on 6 of these while compiling" in said(report)


def test_other_candidates_tell_the_program_nothing(student: dspy.Module) -> None:
    """An optimizer leaves them with the program, with their demonstrations."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS["BootstrapFewShotWithRandomSearch"](student)
    others = [demo for one in compiled.candidate_programs for demo in one["program"].predict.demos]
    own = {demo.question for demo in compiled.predict.demos}
    assert own < {demo.question for demo in others}
    assert len(own) == len(run(compiled, TRAINSET).leaked)


def test_a_copy_of_the_chosen_one_is_chosen(student: dspy.Module) -> None:
    """Saved and loaded, or as a part of another program."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS["BootstrapFewShotWithRandomSearch"](student)
    loaded = dspy.ChainOfThought("question -> answer")
    loaded.load_state(compiled.dump_state())

    class Around(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inside = loaded

        def forward(self, question: str) -> Any:
            return self.inside(question=question)

    for program in (loaded, Around()):
        selection = run(program, VALSET).provenance.selection
        assert selection is not None
        assert selection.is_chosen


def test_a_comparison_says_whose_lead_it_is(student: dspy.Module) -> None:
    """Of a program that was chosen by these questions, against one that was not."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS["BootstrapFewShotWithRandomSearch"](student)
    found = run(student, VALSET, name="before").compare(run(compiled, VALSET, name="after"))
    assert any("an optimizer chose 'after' as the best of" in one for one in found.warnings)


def test_a_loop_by_hand_in_a_phase_that_compiles_counts(student: dspy.Module) -> None:
    """Three programs were scored, and nobody but who wrote the loop knows which was chosen; outside none is counted."""
    programs = [student.deepcopy() for _ in range(3)]
    for program, demo in zip(programs, OTHERS, strict=False):
        program.predict.demos = [demo]
    with cachectl.phase("compile"):
        for program in programs:
            dspy.Evaluate(devset=VALSET, metric=exact, display_progress=False)(program)
    dspy.Evaluate(devset=TRAINSET, metric=exact, display_progress=False)(programs[0])
    selection = run(programs[0], VALSET).provenance.selection
    assert selection is not None
    assert (3, 6, False) == (selection.candidates, selection.questions, selection.is_chosen)
    assert "3 candidates, on 6 of these while compiling" in said(run(student, VALSET))
    assert run(programs[0], TRAINSET).provenance.selection is None


def test_held_out_questions_are_asked_beside(student: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """With a score of their own, and how much the first is above it; asked once, and saved with the report."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS["BootstrapFewShotWithRandomSearch"](student)
    endpoint.reset_counts()
    report = run(compiled, VALSET, holdout=iter(OTHERS), run_id="r", repeats=2)
    assert report.holdout is not None
    assert 2 * (len(VALSET) + len(OTHERS)) == endpoint.requests
    assert (8, 2, None) == (report.holdout.n, report.holdout.repeats, report.holdout.provenance.selection)
    assert report is cachectl.last_report()
    alone = run(compiled, OTHERS, run_id="r-holdout", repeats=2)
    assert (alone.score, alone.draw_ids) == (report.holdout.score, report.holdout.draw_ids)
    assert "on 8 other questions" in said(report)
    assert "an optimizer chose" in said(report)
    assert "holdout=" not in said(report)
    assert report.holdout.score == report.as_dict()["holdout"]["score"]
    again = cachectl.EvalReport.load(report.save(tmp_path / "report.json"))
    assert report.holdout == again.holdout
    assert report.as_dict() == again.as_dict()
    assert said(report) == said(again)
    older = {name: one for name, one in report.as_dict().items() if name != "held_out"}
    (tmp_path / "report.json").write_text(json.dumps(older), encoding="utf-8")
    assert cachectl.EvalReport.load(tmp_path / "report.json").holdout is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"holdout": [*OTHERS, VALSET[0]]}, "1 of its 9 are in the devset too"),
        ({"holdout": OTHERS, "clusters": list(range(6))}, "asked whole"),
        ({"holdout": []}, "empty"),
        ({"holdout": 7}, "not 7"),
    ],
)
def test_what_is_no_holdout_is_refused(
    student: dspy.Module, endpoint: Endpoint, options: dict[str, Any], why: str
) -> None:
    """Before anything is paid for."""
    with pytest.raises(cachectl.ConfigurationError, match=why):
        run(student, VALSET, **options)
    assert 0 == endpoint.requests


def test_a_holdout_that_candidates_saw_is_refused(student: dspy.Module, endpoint: Endpoint) -> None:
    """With 0 requests."""
    with cachectl.phase("compile"):
        compiled = OPTIMIZERS["BootstrapFewShotWithRandomSearch"](student)
    endpoint.reset_counts()
    with pytest.raises(cachectl.ConfigurationError, match="6 of its 6 are what candidates saw"):
        run(compiled, OTHERS, holdout=VALSET)
    assert 0 == endpoint.requests
