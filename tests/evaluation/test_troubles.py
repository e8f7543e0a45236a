"""What a report says of parse failures, fall-backs, truncated answers and retries, against what the endpoint did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, questions, run
from tests.evaluation.test_what_answered import always

Counts = dict[str, dict[str, int]]


@pytest.fixture
def ask(lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Evaluate with the endpoint's LM, in one thread, so that the endpoint's faults strike in the order of the data."""
    monkeypatch.chdir(tmp_path)
    dspy.configure(lm=lm(max_tokens=100))

    def evaluate(program: Any, devset: list[dspy.Example], metric: Any = always, **options: Any) -> cachectl.EvalReport:
        return run(program, devset, metric=metric, **{"num_threads": 1, **options})

    return evaluate


class Drafting(dspy.Module):
    """Drafts, and answers from the draft."""

    def __init__(self) -> None:
        super().__init__()
        self.draft, self.answer = dspy.ChainOfThought("question -> draft"), dspy.Predict("draft, question -> answer")

    def forward(self, question: str) -> Any:
        """Ask both."""
        return self.answer(draft=str(self.draft(question=question).draft), question=question)

    async def aforward(self, question: str) -> Any:
        """Ask both."""
        drafted = await self.draft.acall(question=question)
        return await self.answer.acall(draft=str(drafted.draft), question=question)


def counts(report: cachectl.EvalReport) -> Counts:
    """How often each thing happened, by predictor."""
    found: Counts = {}
    for one in report.troubles:
        found.setdefault(one.predictor, {})[one.kind] = one.count
    return found


def where(report: cachectl.EvalReport, predictor: str, kind: str) -> list[str]:
    """The questions in which it happened."""
    (found,) = (one for one in report.troubles if (one.predictor, one.kind) == (predictor, kind))
    return [happened.preview for happened in found.where]


def struck(endpoint: Endpoint, kind: str) -> int:
    """How many requests the endpoint answered with a fault of a kind."""
    return sum((request["fault"] or "").startswith(kind) for request in endpoint.log())


def test_a_program_without_trouble_says_nothing(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """Nothing went wrong: no row in the text, and empty lists in the data."""
    report = ask(Drafting(), questions(3))
    assert (6, ()) == (endpoint.requests, report.troubles)
    assert report.as_dict()["troubles"] == []
    assert "Trouble" not in str(report)


def strike(endpoint: Endpoint) -> None:
    """Bad text, truncated answers and errors to be retried, each for one predictor and some of six questions."""
    endpoint.fail("garbage", match="question 1 ?", times=1)
    endpoint.fail("length", match="question 3 ?", times=1)
    endpoint.fail("status", status=503, retry_after=0, match="question 4 ?", times=2)
    endpoint.fail("status", status=503, retry_after=0, match="question 2 ?", skip=1, times=1)
    endpoint.fail("length", match="question 5 ?", skip=1, times=1)


STRUCK = {
    "draft.predict": {"unparsed": 1, "fall_backs": 1, "truncated": 1, "retries": 2},
    "answer": {"truncated": 1, "retries": 1},
}


@pytest.mark.parametrize("threads", [1, 4])
def test_each_predictor_has_its_own_counts_and_questions(
    endpoint: Endpoint, ask: Callable[..., Any], threads: int
) -> None:
    """What the endpoint did wrong is counted for the predictor that it did it to, with the questions."""
    strike(endpoint)
    report = ask(Drafting(), questions(6), num_threads=threads)
    assert struck(endpoint, "") - 12 == 1 + 3  # a fall-back and three retries
    assert counts(report) == STRUCK
    assert where(report, "draft.predict", "unparsed") == ["question 1 ?"]
    assert where(report, "draft.predict", "truncated") == ["question 3 ?"]
    assert where(report, "draft.predict", "retries") == ["question 4 ?"]
    assert where(report, "answer", "retries") == ["question 2 ?"]
    assert where(report, "answer", "truncated") == ["question 5 ?"]
    text = str(report)
    assert "1 answer not parsed (“question 1 ?”)" in " ".join(text.split())
    assert "2 requests sent once more (“question 4 ?”)" in " ".join(text.split())


def test_a_resumed_run_meets_what_is_in_its_answers(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """Served from the store, a truncated answer is truncated and a bad one is bad; nothing is sent once more."""
    strike(endpoint)
    first = ask(Drafting(), questions(6), predictions=False)
    endpoint.reset_counts()
    again = ask(Drafting(), questions(6), predictions=False, run_id=first.run_id)
    assert endpoint.requests == 0
    without = {name: {kind: n for kind, n in of.items() if kind != "retries"} for name, of in STRUCK.items()}
    assert counts(again) == without


def test_loaded_predictions_tell_what_they_were_made_with(
    endpoint: Endpoint, ask: Callable[..., Any], tmp_path: Path
) -> None:
    """Kept predictions make no call, and tell of those that they are made of; so does a report that was saved."""
    strike(endpoint)
    first = ask(Drafting(), questions(6))
    endpoint.reset_counts()
    again = ask(Drafting(), questions(6))
    assert (0, "loaded") == (endpoint.requests, again.provenance.predictions)
    assert first.troubles == again.troubles
    assert counts(again) == STRUCK
    saved = cachectl.EvalReport.load(again.save(tmp_path / "report.json"))
    assert saved.troubles == again.troubles
    assert json.loads((tmp_path / "report.json").read_text())["troubles"] == again.as_dict()["troubles"]
    assert sum(bool(row.troubles) for row in first.rows()) == 5


def test_an_answer_that_failed_keeps_its_counts(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """Neither adapter can parse what comes: two failures to parse, one fall-back, and a failed answer."""
    endpoint.fail("garbage", match="question 1 ?")
    report = ask(Drafting(), questions(3), max_errors=9)
    assert (1, 2) == (report.failures, struck(endpoint, "garbage"))
    assert counts(report) == {"draft.predict": {"unparsed": 2, "fall_backs": 1}}


def test_empty_answers_are_not_parsed(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """An adapter refuses an answer without any text before it parses."""
    endpoint.fail("empty", match="question 0 ?", times=1)
    report = ask(dspy.Predict("question -> answer"), questions(2))
    assert counts(report) == {"self": {"unparsed": 1, "fall_backs": 1}}


def test_retries_that_do_not_help(endpoint: Endpoint, ask: Callable[..., Any], lm: MakeLM) -> None:
    """Two retries are allowed and made, and two when it is asked again; then the failure is the program's."""
    dspy.configure(lm=lm(num_retries=2))
    endpoint.fail("status", status=503, retry_after=0, match="question 1 ?")
    report = ask(dspy.Predict("question -> answer"), questions(2), max_errors=9)
    assert (7, 1) == (endpoint.requests, report.failures)
    assert counts(report) == {"self": {"retries": 4}}


def test_asynchronous_programs(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """A program whose predictors are awaited."""

    class Awaiting(dspy.Module):
        """Runs another's coroutine."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = Drafting()

        def forward(self, question: str) -> Any:
            """Wait for it."""
            return asyncio.run(self.inner.acall(question=question))

    strike(endpoint)
    report = ask(Awaiting(), questions(6))
    assert counts(report) == {f"inner.{name}": of for name, of in STRUCK.items()}


def test_calls_side_by_side_in_one_question(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """Two predictors asked at once, of which one is answered badly: the other falls back to nothing."""

    class AtOnce(dspy.Module):
        """Asks two predictors in parallel."""

        def __init__(self) -> None:
            super().__init__()
            self.good, self.bad = dspy.Predict("question -> right"), dspy.Predict("question -> wrong")

        def forward(self, question: str) -> Any:
            """Ask both at once, several times."""
            asked = dspy.Example(question=question).with_inputs("question")
            pairs = [(predictor, asked) for _ in range(3) for predictor in (self.good, self.bad)]
            dspy.Parallel(num_threads=4, disable_progress_bar=True, max_errors=99)(pairs)
            return dspy.Prediction(answer="yes")

    endpoint.fail("garbage", match="`wrong`")
    endpoint.fail("garbage", match="[[ ## wrong ## ]]")
    report = ask(AtOnce(), questions(2))
    found = counts(report)
    assert found.keys() == {"bad"}
    assert found["bad"]["unparsed"] == struck(endpoint, "garbage") == 2 * found["bad"]["fall_backs"]


def test_a_judge_is_not_the_program(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """What goes wrong around the calls of a metric is no trouble of the program's."""
    judge = dspy.Predict("question, answer -> verdict: bool")

    def judged(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        """Ask the judge."""
        return float(bool(judge(question="judge this", answer=prediction.answer).verdict))

    endpoint.fail("garbage", match="judge this", times=1)
    endpoint.fail("length", match="judge this")
    report = ask(dspy.Predict("question -> answer"), questions(2), metric=judged)
    assert struck(endpoint, "garbage") == 1
    assert report.troubles == ()


@pytest.mark.parametrize("adapter", [dspy.JSONAdapter, dspy.XMLAdapter])
def test_other_adapters(endpoint: Endpoint, ask: Callable[..., Any], adapter: Any) -> None:
    """JSONAdapter has nothing to fall back to; XMLAdapter falls back as ChatAdapter does."""
    endpoint.fail("garbage", match="question 1 ?", times=1)
    with dspy.context(adapter=adapter()):
        report = ask(dspy.Predict("question -> answer"), questions(2), max_errors=9)
    falls_back = adapter is dspy.XMLAdapter
    assert counts(report)["self"]["unparsed"] >= 1
    assert counts(report)["self"].get("fall_backs", 0) == endpoint.requests - 2
    assert bool(counts(report)["self"].get("fall_backs")) is falls_back


def test_an_adapter_that_reports_anothers_error(endpoint: Endpoint, ask: Callable[..., Any], lm: MakeLM) -> None:
    """TwoStepAdapter says of the extraction's error what that has said: two bad answers, and not three."""
    endpoint.fail("garbage", path="chat", skip=1)
    with dspy.context(adapter=dspy.TwoStepAdapter(lm("openai/extracting"))):
        report = ask(dspy.Predict("question -> answer"), questions(1), max_errors=9)
    assert struck(endpoint, "garbage") == 2
    assert counts(report) == {"self": {"unparsed": 2, "fall_backs": 1}}


class Word:
    """What has no form in JSON."""

    def __str__(self) -> str:
        return "word"


class Odd(Enum):
    """An output that can be described and parsed, and of which no schema can be made."""

    YES = Word()


def test_json_without_a_schema(endpoint: Endpoint, ask: Callable[..., Any], lm: MakeLM) -> None:
    """JSONAdapter cannot make a schema of the outputs, and asks for any JSON: each such call is counted."""
    dspy.configure(lm=lm("openai/gpt-4o-mini"))
    endpoint.configure(answers={"question": ['{"answer": "YES"}']})

    class Typed(dspy.Signature):
        """Answer."""

        question: str = dspy.InputField()
        answer: Odd = dspy.OutputField()

    with dspy.context(adapter=dspy.JSONAdapter()):
        report = ask(dspy.Predict(Typed), questions(3))
    assert [request["body"]["response_format"] for request in endpoint.log()] == [{"type": "json_object"}] * 3
    assert counts(report) == {"self": {"json_modes": 3}}


@pytest.mark.parametrize("native", [True, False])
def test_truncated_where_nothing_is_cached(
    endpoint: Endpoint, ask: Callable[..., Any], lm: MakeLM, native: bool
) -> None:
    """With caching off an answer is in no store, and its end is known all the same, from either engine of DSPy."""
    dspy.configure(lm=lm(cache=False, engine="lm15" if native else "litellm"))
    endpoint.fail("length", match="question 1 ?", times=1)
    report = ask(dspy.Predict("question -> answer"), questions(2), predictions=False)
    assert counts(report) == {"self": {"truncated": 1}}


def test_nothing_of_it_is_in_a_traceback(endpoint: Endpoint, ask: Callable[..., Any]) -> None:
    """The error of an adapter that a program catches has come through DSPy's code alone."""
    seen: list[str] = []

    class Catching(dspy.Module):
        """Looks at where an error came from."""

        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            """Catch it."""
            try:
                return self.ask(question=question)
            except dspy.utils.exceptions.AdapterParseError as error:
                traceback: Any = error.__traceback__
                while traceback is not None:
                    seen.append(traceback.tb_frame.f_code.co_filename)
                    traceback = traceback.tb_next
                return dspy.Prediction(answer="no")

    endpoint.fail("garbage")
    assert counts(ask(Catching(), questions(1))) == {"ask": {"unparsed": 2, "fall_backs": 1}}
    assert seen
    assert not [name for name in seen if "dspy_cachectl" in name]
