"""Whether the LM that DSPy is set to has a part in a program's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.reached import lm_of_settings
from tests.calls.support import MakeLM, exact, examples, gold, qa
from tests.endpoint import Endpoint


def ask_anew(question: str) -> Any:
    """Makes a module as it runs."""
    return dspy.ChainOfThought("question -> answer")(question=question)


class Holds(dspy.Module):  # type: ignore[misc]
    """Asks by what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = qa()

    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer=self.ask(question=question).answer)


class Makes(Holds):
    """Makes a module as it runs."""

    def forward(self, question: str) -> Any:
        return dspy.Predict("question -> answer")(question=self.ask(question=question).answer)


class MakesByHelper(Holds):
    """Calls a helper that makes one."""

    def forward(self, question: str) -> Any:
        return ask_anew(self.ask(question=question).answer)


class Looks(Holds):
    """Asks what DSPy is set to."""

    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer=dspy.settings.lm(question)[0])


class Plain:
    """No module, but holds one."""

    def __init__(self) -> None:
        self.ask = qa()


class HoldsWithin(Holds):
    """Holds a module in an object of its own, where DSPy does not look."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = Plain()


class HoldsCompiled(Holds):
    """Holds a compiled module as well, to which DSPy gives no LM any more."""

    def __init__(self) -> None:
        super().__init__()
        self.done = Holds()
        self.done._compiled = True


@pytest.mark.parametrize(
    "make", [Holds, qa, lambda: dspy.ChainOfThought("question -> answer"), lambda: dspy.ReAct("question -> answer", [])]
)
def test_with_lms_of_its_own(make: Any) -> None:
    """Where each part has its own, that of the settings has no part in it; where one has none, it has."""
    program, own, other = make(), dspy.LM("openai/own"), dspy.LM("openai/other")
    dspy.configure(lm=other)
    assert lm_of_settings(program) is other
    program.set_lm(own)
    assert lm_of_settings(program) is None


@pytest.mark.parametrize(
    "make",
    [
        *(Makes, MakesByHelper, Looks, HoldsWithin, HoldsCompiled),
        *(lambda: dspy.Refine(qa(), 2, lambda *_: 1.0, 1.0), lambda: ask_anew),
    ],
)
def test_where_the_settings_may_be_asked(make: Any) -> None:
    """Code that makes modules as it runs, or looks at the settings, may ask it; so may what has no LM, and a function.

    A compiled module within keeps what it has, and may have none.
    """
    program, other = make(), dspy.LM("openai/other")
    dspy.configure(lm=other)
    if isinstance(program, dspy.Module):
        program.set_lm(dspy.LM("openai/own"))
    assert lm_of_settings(program) is other


def judged(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    """Scores by whichever LM DSPy is set to."""
    dspy.Predict("answer -> verdict")(answer=prediction.answer)
    return exact(example, prediction)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.9}])
def test_another_judge_buys_no_answer_of_the_program(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, options: dict[str, Any]
) -> None:
    """A judge in the settings is another: the program's answers, of its own LM, stay, and are named as that one's."""
    endpoint.configure(gold=gold(5), accuracy=0.5)
    program = qa()
    program.set_lm(lm("openai/own", **options))
    reports = []
    for judge in ("openai/judge1", "openai/judge2"):
        dspy.configure(lm=lm(judge))
        kept = str(tmp_path / "kept")
        reports.append(cachectl.evaluate(program, examples(5), judged, predictions=kept, display_progress=False))

    asked = [request["body"]["model"] for request in endpoint.log()]
    assert [5, 5, 5] == [asked.count(model) for model in ("own", "judge1", "judge2")]
    assert {"openai/own"} == {one.model for report in reports for one in report.provenance.models}
    for report in reports:
        (named,) = (line for line in str(report).splitlines() if line.startswith("model "))
        assert "openai/own" in named
        assert "judge" not in named
    assert {"openai-own"} == {path.name.split("_")[0] for path in (tmp_path / "kept").glob("[!.]*_*")}
    shared = "the two share 5 draws"
    warnings = [warning.split(":")[0] for warning in reports[0].compare(reports[1]).warnings]
    assert [shared, "the two were scored with different metrics; rescore one of them"] == sorted(warnings)


def test_the_same_lm_as_the_programs_own_buys_nothing(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """Who carries an LM decides nothing; what it is told does."""
    endpoint.configure(gold=gold(5), accuracy=0.5)
    program = qa()

    def bought() -> int:
        before = endpoint.requests
        kept = str(tmp_path / "kept")
        cachectl.evaluate(program, examples(5), exact, predictions=kept, display_progress=False)
        return endpoint.requests - before

    dspy.configure(lm=lm("openai/own"))
    assert 5 == bought()
    program.set_lm(lm("openai/own"))
    assert 0 == bought()
    program.set_lm(lm("openai/own", max_tokens=7))
    assert 5 == bought()
