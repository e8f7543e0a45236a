"""A program, or a metric, that evaluates: what it asks in each of its answers are draws of that answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint

pytest.importorskip("scipy")

MakeLM = Callable[..., Any]

OPTIONS: dict[str, Any] = {"display_progress": False}
INNER = [dspy.Example(question=f"colour {number}").with_inputs("question") for number in range(2)]
OUTER = [dspy.Example(question=f"which {number}").with_inputs("question") for number in range(3)]


def _length(_example: Any, prediction: Any, _trace: Any = None) -> float:
    return len(prediction.answer) % 2


class Evaluates(dspy.Module):  # type: ignore[misc]
    """Answers with the score of another program."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer=str(cachectl.evaluate(self.ask, INNER, _length, **OPTIONS).score))


def _judged(_example: Any, prediction: Any, _trace: Any = None) -> float:
    return cachectl.evaluate(Evaluates().ask, INNER, _length, **OPTIONS).score + len(prediction.answer) * 0


@pytest.mark.parametrize("evaluates", ["program", "metric", "program in a phase"])
def test_each_answer_has_draws_of_its_own(lm: MakeLM, endpoint: Endpoint, evaluates: str) -> None:
    """3 questions twice, with 2 in each: 12 draws; the same run again asks for nothing, and scores the same."""
    dspy.configure(lm=lm())
    asked = 12 + (6 if evaluates == "metric" else 0)

    def run(run_id: str | None = None) -> list[float]:
        program, metric = (
            (dspy.Predict("question -> answer"), _judged) if evaluates == "metric" else (Evaluates(), _length)
        )
        if evaluates != "program in a phase":
            report = cachectl.evaluate(program, OUTER, metric, repeats=2, run_id=run_id, predictions=False, **OPTIONS)
            runs.append(report.run_id or "")
            return [draw.score for question in report.questions for draw in question.draws]
        with cachectl.phase("eval", run_id=run_id) as opened:
            runs.append(opened.run_id or "")
            return [float(program(**one.inputs()).answer) for one in OUTER for _ in range(2)]

    runs: list[str] = []
    first = run()
    assert asked == endpoint.requests
    assert first == run(runs[0])
    assert asked == endpoint.requests


class OpensPhase(dspy.Module):  # type: ignore[misc]
    """Asks in a phase of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        with cachectl.phase(self.name), cachectl.phase(self.name):
            return self.ask(question=question)


@pytest.mark.parametrize(("name", "draws"), [("compile", 3), ("eval", 6)])
def test_phases_of_a_program_are_in_the_report(lm: MakeLM, endpoint: Endpoint, name: str, draws: int) -> None:
    """What a program asks in a phase of its own is counted, and known for what it is: reused answers are no draws."""
    dspy.configure(lm=lm(temperature=0.7))
    report = cachectl.evaluate(OpensPhase(name), OUTER, _length, repeats=2, predictions=False, **OPTIONS)
    counters = report.provenance.counters
    assert draws == endpoint.requests == counters["requests"]
    assert (6, draws) == (counters["calls"], report.distinct.distinct)
    assert [("openai/test-model", 0.7, 6)] == [
        (one.model, one.temperature, one.calls) for one in report.provenance.models
    ]


def test_phases_of_a_metric_are_its_judges(lm: MakeLM, endpoint: Endpoint) -> None:
    """What a metric asks in a phase of its own is counted apart from the program's."""
    dspy.configure(lm=lm())
    judge = OpensPhase("compile")
    judge.ask.lm = lm("openai/judge", temperature=0.2)

    def judged(_example: Any, prediction: Any, _trace: Any = None) -> float:
        return len(judge(question=prediction.answer).answer) % 2

    report = cachectl.evaluate(dspy.Predict("question -> answer"), OUTER, judged, predictions=False, **OPTIONS)
    assert 6 == endpoint.requests == report.provenance.counters["requests"]
    assert [["openai/test-model"], ["openai/judge"]] == [
        [one.model for one in of] for of in (report.provenance.models, report.provenance.judges)
    ]


def test_what_an_inner_evaluation_asks_is_of_the_answer(lm: MakeLM, endpoint: Endpoint) -> None:
    """Each answer of a program that evaluates has its draws, though its questions are the outer ones."""
    dspy.configure(lm=lm())
    report = cachectl.evaluate(Evaluates(), INNER, _length, repeats=2, predictions=False, **OPTIONS)
    assert 8 == endpoint.requests == report.provenance.counters["requests"]
    assert (4, [2] * 4) == (report.distinct.distinct, [draw.requests for draw in report.draws])


class Phases(dspy.Module):  # type: ignore[misc]
    """Asks twice in phases of its own, and once where it is told to."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        found = self.ask(question=question)
        for _ in range(2):
            with cachectl.phase("eval"):
                found = self.ask(question=question)
                if self.how == "one in another":
                    with cachectl.phase("compile"), cachectl.phase("eval", temperature=0.9):
                        found = self.ask(question=question)
        if self.how == "two at once":
            with cachectl.phase("eval"):
                asked = [(self.ask, {"question": f"{question} {side}"}) for side in ("left", "right")]
                found = dspy.Parallel(num_threads=2, disable_progress_bar=True)(asked)[0]
        return found


@pytest.mark.parametrize("around", ["evaluate", "evaluate in a phase", "dspy.Evaluate", "calls"])
@pytest.mark.parametrize(("how", "each"), [("plain", 3), ("one in another", 5), ("two at once", 5)])
def test_a_run_is_resumed_with_the_phases_in_its_answers(
    lm: MakeLM, endpoint: Endpoint, around: str, how: str, each: int
) -> None:
    """Each phase of an answer has draws of its own, and a resumed run buys none of them; another run buys them all."""
    dspy.configure(lm=lm())
    program = Phases(how)

    def run(run_id: str) -> None:
        if around == "evaluate":
            cachectl.evaluate(program, OUTER, _length, run_id=run_id, predictions=False, num_threads=2, **OPTIONS)
            return
        with cachectl.phase("eval", run_id=run_id):
            if around == "calls":
                [program(**one.inputs()) for one in OUTER]
            elif around == "dspy.Evaluate":
                dspy.Evaluate(devset=OUTER, metric=_length, num_threads=2, display_progress=False)(program)
            else:
                cachectl.evaluate(program, OUTER, _length, predictions=False, num_threads=2, **OPTIONS)

    for run_id, bought in [("one", 3), ("one", 3), ("other", 6)]:
        run(run_id)
        assert bought * each == endpoint.requests


def test_a_served_tool_leaves_no_gap_among_the_phases_of_an_answer(lm: MakeLM, endpoint: Endpoint) -> None:
    """What a tool asks in a phase of its own is not asked where its result is served, and the others are the same."""
    dspy.configure(lm=lm())
    ask = dspy.Predict("question -> answer")

    def look(topic: str) -> str:
        with cachectl.phase("eval"):
            return str(ask(question=f"about {topic}").answer)

    tool = cachectl.wrap(look)

    def program(question: str) -> Any:
        seen = tool(topic=question)
        with cachectl.phase("eval"):
            return ask(question=f"{question}, seen {seen}")

    for _ in range(2):
        cachectl.evaluate(program, OUTER, _length, run_id="one", predictions=False, **OPTIONS)
        assert 6 == endpoint.requests
