"""Under which names of predictors a report counts what went wrong: the program's own, wherever they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

from dspy_cachectl.accounting.troubles import Trouble
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, questions
from tests.evaluation.test_troubles import Drafting, ask, counts

__all__ = ["ask"]


def test_one_predictor_called_often_in_one_question(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """Each call counts for the one predictor, whichever of two modules holds it; the program's own retry is a call."""
    shared = dspy.Predict("question -> answer")

    class Holder(dspy.Module):
        """Holds the shared predictor."""

        def __init__(self) -> None:
            super().__init__()
            self.ask = shared

        def forward(self, question: str) -> Any:
            """Ask it, and once more where that failed."""
            try:
                return self.ask(question=question)
            except dspy.utils.exceptions.AdapterParseError:
                return self.ask(question=question, config={"stop": ["never"]})

    class Both(dspy.Module):
        """Asks two holders of one predictor."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Holder(), Holder()

        def forward(self, question: str) -> Any:
            """Ask both."""
            self.one(question=question)
            return self.two(question=question)

    endpoint.fail("garbage", times=3)
    report = ask(Both(), questions(1))
    # Chat and JSON of the first call, then chat of the second, whose JSON is answered; then the other module.
    assert endpoint.requests == 5
    assert counts(report) == {"one.ask": {"unparsed": 3, "fall_backs": 2}}


@pytest.mark.parametrize("kind", [dspy.BestOfN, dspy.Refine])
def test_copies_are_named_as_what_they_copy(endpoint: Endpoint, ask: Callable[..., Any], kind: Any) -> None:
    """The modules that BestOfN and Refine call are copies, each attempt another."""

    class Choosing(dspy.Module):
        """The best of two attempts, and a predictor like that within."""

        def __init__(self) -> None:
            super().__init__()
            self.alike = dspy.ChainOfThought("question -> draft")
            self.best = kind(Drafting(), N=2, reward_fn=lambda args, prediction: 0.0, threshold=1.0)

        def forward(self, question: str) -> Any:
            """Choose."""
            return self.best(question=question)

    program = Choosing()
    names = [name for name, _ in program.named_predictors()]
    assert "best.module.draft.predict" in names
    endpoint.fail("length", match="question 1 ?", times=1)
    endpoint.fail("garbage", match="question 0 ?", skip=1, times=1)
    report = ask(program, questions(2))
    found = counts(report)
    assert found["best.module.draft.predict"] == {"truncated": 1}
    assert found["best.module.answer"] == {"unparsed": 1, "fall_backs": 1}


def test_an_agents_predictors_and_its_tools(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """A tool of a ReAct agent that asks a predictor of its own."""
    inside = dspy.Predict("topic -> finding")

    class Agent(dspy.Module):
        """An agent whose tool asks."""

        def __init__(self) -> None:
            super().__init__()
            self.find = inside

            def look_up(topic: str) -> str:
                """Look something up."""
                return str(inside(topic="everything").finding)

            self.agent = dspy.ReAct("question -> answer", tools=[look_up], max_iters=2)

        def forward(self, question: str) -> Any:
            """Let it act."""
            return self.agent(question=question)

    endpoint.fail("length", match="everything", times=1)
    endpoint.fail("status", status=503, retry_after=0, match="question 0 ?", times=1)
    report = ask(Agent(), questions(1))
    assert counts(report) == {"find": {"truncated": 1}, "agent.react": {"retries": 1}}


def test_predictors_that_are_made_at_call_time(endpoint: Endpoint, ask: Callable[..., Any], lm: MakeLM) -> None:
    """One that becomes an attribute has its name, one that does not its signature, and an LM alone has none."""

    class Making(dspy.Module):
        """Makes its predictors as it goes."""

        def forward(self, question: str) -> Any:
            """Make three, and ask an LM without any."""
            self.later = dspy.ChainOfThought("question -> a")
            self.later(question=question)
            dspy.Predict("question -> b")(question=question)
            lm("openai/other")(f"alone: {question}")
            return dspy.Prediction(answer="yes")

    endpoint.fail("length")
    report = ask(Making(), questions(2))
    assert counts(report) == {
        "later.predict": {"truncated": 2},
        "question -> b": {"truncated": 2},
        "(no predictor)": {"truncated": 2},
    }


def test_a_program_that_is_a_function(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """What is no module names no predictors: they go by their signatures."""
    answering = dspy.ChainOfThought("question -> answer")

    def program(question: str) -> Any:
        """Answer."""
        return answering(question=question)

    endpoint.fail("garbage", match="question 1 ?", times=1)
    report = ask(program, questions(2))
    assert counts(report) == {"question -> reasoning, answer": {"unparsed": 1, "fall_backs": 1}}


def test_what_is_listed_has_a_limit(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """Of many questions the first are named, of many predictors those with most; all are counted."""

    class Many(dspy.Module):
        """Asks with another signature each time."""

        def forward(self, question: str, number: int) -> Any:
            """Ask."""
            name = f"a{number}" if number < 60 else "same"
            dspy.Predict(f"question -> {name}")(question=question)
            return dspy.Prediction(answer="yes")

    endpoint.fail("length")
    devset = [
        dspy.Example(question=f"question {number} ?", number=number).with_inputs("question", "number")
        for number in range(90)
    ]
    report = ask(Many(), devset, num_threads=4)
    assert sum(one.count for one in report.troubles) == 90 == endpoint.requests
    assert len(report.troubles) == 51
    first, last = report.troubles[0], report.troubles[-1]
    assert ("question -> same", 30, 30, 20) == (first.predictor, first.count, first.questions, len(first.where))
    assert ("(others)", 11) == (last.predictor, last.count)
    assert "and 28 more" in str(report)
    assert "41 more predictors" in str(report)


def test_a_name_holds_no_secret() -> None:
    """A predictor is called as the user's code calls it, whatever that is."""
    assert "sk-proj" not in Trouble("question -> sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78").predictor
