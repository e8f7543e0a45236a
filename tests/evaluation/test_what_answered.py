"""What a report says of the answers behind it: which models gave them, and which of them are one draw."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm
from dspy_cachectl.manage.kept_reports import reports_in
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, program, questions, run

__all__ = ["program"]


def always(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
    """A metric that asks nobody."""
    return 1.0


def test_the_models_are_those_that_answered(endpoint: Endpoint, lm: MakeLM, program: dspy.Module) -> None:
    """Predictors with LMs of their own: the report names these and their temperatures, and not what is configured."""

    class Two(dspy.Module):
        """Asks two models."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = dspy.Predict("question -> draft"), dspy.Predict("draft -> answer")

        def forward(self, question: str) -> Any:
            """Draft, then answer."""
            return self.second(draft=str(self.first(question=question).draft))

    asking = Two()
    asking.first.set_lm(lm("openai/drafts", temperature=0.9))
    asking.second.set_lm(lm("openai/answers", temperature=0.8))
    dspy.configure(lm=lm("openai/nobody", temperature=0.1))
    report = run(asking, questions(3), metric=always, predictions=False)
    asked = {request["body"]["model"] for request in endpoint.log()}
    assert asked == {"drafts", "answers"}
    found = {(one.model, one.temperature, one.lent, one.calls) for one in report.provenance.models}
    assert found == {("openai/drafts", 0.9, False, 3), ("openai/answers", 0.8, False, 3)}
    assert "openai/drafts" in str(report)
    assert "(3 calls)" in str(report)
    assert "nobody" not in str(report)
    assert "0.1" not in str(report).split("temperature")[1].splitlines()[0]


def test_loaded_answers_tell_what_answered_them(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """Predictors with LMs of their own: a rerun that loads all, or some, names the same models, each with its calls."""

    class Two(dspy.Module):
        """Two predictors, one LM each."""

        def __init__(self) -> None:
            self.draft, self.answer = dspy.Predict("question -> draft"), dspy.Predict("question, draft -> answer")
            self.draft.set_lm(lm("openai/drafts", temperature=0.9, seed=7))
            self.answer.set_lm(lm("openai/answers"))

        def forward(self, question: str) -> Any:
            """Answer by a draft."""
            return self.answer(question=question, draft=self.draft(question=question).draft)

    dspy.configure(lm=lm("openai/nobody", temperature=0.1))
    first, whole = (run(Two(), questions(3), metric=always, predictions=tmp_path) for _ in range(2))
    asked = endpoint.requests
    part = run(Two(), questions(4), metric=always, predictions=tmp_path)
    assert (6, 2) == (asked, endpoint.requests - asked)

    def models(report: cachectl.EvalReport) -> set[Any]:
        return {(one.model, one.temperature, one.lent, one.calls) for one in report.provenance.models}

    assert models(first) == models(whole) == {("openai/drafts", 0.9, False, 3), ("openai/answers", 1.0, True, 3)}
    assert models(part) == {("openai/drafts", 0.9, False, 4), ("openai/answers", 1.0, True, 4)}
    assert (7,) == first.provenance.seeds == whole.provenance.seeds == part.provenance.seeds
    assert "openai/nobody" not in str(whole)
    assert [] == [one for one in first.compare(whole).warnings if "differ:" in one]


@pytest.mark.parametrize("in_sight", [False, True])
def test_calls_out_of_sight_claim_nothing(
    endpoint: Endpoint, lm: MakeLM, program: dspy.Module, tmp_path: Path, in_sight: bool
) -> None:
    """A program that asks in a bare thread pool: how many of the draws are distinct is unknown, and said first."""
    pool = ThreadPoolExecutor(2)

    class Hidden(dspy.Module):
        """Asks where no phase is seen."""

        def forward(self, question: str) -> Any:
            """Answer from another thread, after a call of its own that is seen, or none."""
            if in_sight:
                lm("openai/m")(f"{question} again")
            return pool.submit(lambda: dspy.Prediction(answer=lm("openai/m")(question)[0])).result()

    for predictions in ("computed", "loaded"):  # the doubt is kept with the answers
        report = run(Hidden(), questions(4), metric=always, repeats=3, predictions=tmp_path)
        assert report.provenance.predictions == predictions
        assert report.distinct.distinct is None
        assert "distinct draws unknown" in str(report)
        assert "bare thread pool" in " ".join(str(report).split())[:250]
        assert report.summary()["distinct_draws"] is None
        assert math.isnan(report.flip_rate + report.consistency + report.pass_at_k(3) + report.pass_hat_k(3))
        assert report.pass_at_k(1) == 1.0
        assert report.variance.within is None
        assert "pass@3 –" in report.details()


def test_a_judge_out_of_sight_puts_no_answer_in_doubt(endpoint: Endpoint, lm: MakeLM, program: dspy.Module) -> None:
    """A metric that asks its own LM in a bare thread pool, while an answer is being made."""
    pool, judge, held = ThreadPoolExecutor(1), lm("openai/judge"), itertools.count(1)
    endpoint.hold("question 2")

    def judged(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        pool.submit(judge, f"judge {prediction.answer}").result()
        if next(held) == 3:
            endpoint.release()
        return 1.0

    report = run(program, questions(4), metric=judged, predictions=False, num_threads=4)
    assert report.provenance.counters["stray"] == 4
    assert (4, "") == (report.distinct.distinct, report.distinct.sentence)


IN_BODY = {"extra_body": {"options": {"num_ctx": 9, "seed": 42}}}
SEEDED: dict[str, dict[str, Any]] = {
    "option": {"seed": 42},
    "body": {"extra_body": {"seed": 42}},
    "deep in the body": IN_BODY,
    "none beside the body's": {"seed": None, **IN_BODY},
    "by another name": {"extra_body": {"random_seed": 42}},
}


SOME = {
    ("option", "lm", 1),
    ("option", "lm", 3),
    ("deep in the body", "config", 3),
    ("none beside the body's", "call", 3),
}
WAYS = [
    pytest.param(*way, marks=[] if way in SOME else pytest.mark.exhaustive)
    for way in itertools.product(SEEDED, ["lm", "config", "call"], [1, 3])
]


@pytest.mark.parametrize(("how", "where", "repeats"), WAYS)
def test_a_seed_is_named(
    endpoint: Endpoint, lm: MakeLM, program: dspy.Module, how: str, where: str, repeats: int
) -> None:
    """Repeats with a seed may be one draw each: the report names the seed, and claims no number of distinct draws."""
    options = SEEDED[how]
    dspy.configure(lm=lm(**options) if where == "lm" else lm())
    of_config = dspy.Predict("question -> answer", **options)
    asking: dict[str, Any] = {
        "lm": program,
        "config": of_config,
        "call": lambda question: program(question=question, config=options),
    }
    report = run(asking[where], questions(4), repeats=repeats, predictions=False)
    assert all("42" in str(request["body"]) for request in endpoint.log())
    assert report.provenance.seeds == (42,)
    assert (report.distinct.distinct is None) is (repeats > 1)
    assert ("seed 42" in str(report)) is (repeats > 1)


def test_answers_of_a_proxy_are_counted_over_the_whole_report(
    endpoint: Endpoint, lm: MakeLM, program: dspy.Module
) -> None:
    """A proxy that answers each question alike whoever asks: as many distinct draws as it has answers."""
    endpoint.configure(fixed_id=True)
    report = run(program, questions(5), metric=always, repeats=4, predictions=False)
    assert endpoint.requests == 20
    assert report.distinct.distinct == 5
    assert "15 of 20 repeats are replays" in str(report)


def test_the_order_in_which_calls_end_is_no_part_of_a_draw(endpoint: Endpoint, lm: MakeLM, program: Any) -> None:
    """Two calls in parallel behind such a proxy: one draw a question, in whatever order they end."""
    endpoint.configure(fixed_id=True)

    class Parallel(dspy.Module):
        """Asks two questions at once."""

        def forward(self, question: str) -> Any:
            """Answer both."""
            asked = [(program, dspy.Example(question=f"{question} {part}").with_inputs("question")) for part in "ab"]
            parts = dspy.Parallel(num_threads=2, disable_progress_bar=True)(asked)
            return dspy.Prediction(answer="".join(str(part.answer) for part in parts))

    report = run(Parallel(), questions(5), metric=always, repeats=4, predictions=False)
    assert report.distinct.distinct == 5
    assert len(report.draw_ids) == 10


def test_two_programs_that_share_a_call_share_its_draw(endpoint: Endpoint, lm: MakeLM, program: Any) -> None:
    """In one run, a program and one that adds a call to it: the answers that both rest on are counted as shared."""

    class Longer(dspy.Module):
        """The program, and one call more."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.more = program, dspy.Predict("answer -> summary")

        def forward(self, question: str) -> Any:
            """Answer, and sum up."""
            found = self.first(question=question)
            self.more(answer=str(found.answer))
            return found

    with cachectl.phase("eval"):
        short = run(program, questions(3), metric=always, predictions=False, name="short")
        long = run(Longer(), questions(3), metric=always, predictions=False, name="long")
    assert endpoint.requests == 6
    assert short.compare(long).shared_draws == 3


def test_another_models_answers_are_counted_said_and_not_kept_as_the_asked_ones(
    endpoint: Endpoint, lm: MakeLM, program: Any
) -> None:
    """A server that answers some questions as small: listed with its count, resumed, and asked again by the next."""
    dspy.configure(lm=lm("openai/big"))
    asked = questions(6)
    endpoint.configure(answers_as={str(example.question): "small" for example in asked[:2]})
    first = run(program, asked, metric=always, run_id="r")
    assert {(one.model, one.answered_by, one.is_other, one.calls) for one in first.provenance.models} == {
        ("openai/big", "big", False, 4),
        ("openai/big", "small", True, 2),
    }
    assert "answered by small (2 calls)" in str(first)
    said = " ".join(str(first).split())
    assert "openai/big was answered by another model than was asked in 2 of 6 calls: small (2 calls). The score" in said
    assert "The score is not of one model" in said
    assert first.provenance.unsaved == 2
    endpoint.configure(answers_as={})
    with endpoint.counting() as seen:
        again = run(program, asked, metric=always, run_id="r")
        of_small = run(program, asked[:2], metric=always, run_id="r", predictions=False)
    assert seen.requests == 0
    assert "asked: small (2 calls). All these answers are that model's" in " ".join(str(of_small).split())
    assert "not of one model" not in str(of_small)
    assert any(one.answered_by == "small" for one in again.provenance.models)
    with endpoint.counting() as seen:
        later = run(program, asked, metric=always, run_id="later")
    assert seen.requests == 6
    assert {one.answered_by for one in later.provenance.models} == {"big"}


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_a_fallback_is_named_with_where_it_answered(
    endpoint: Endpoint, lm: MakeLM, program: Any, temperature: float | None
) -> None:
    """Big is down for some questions: the row of what LiteLLM asked in its place is that model's, and its address."""
    own = {} if temperature is None else {"temperature": temperature}
    with Endpoint() as other:
        small = {"model": "openai/small", "api_base": other.url, "api_key": "k", **own}
        dspy.configure(lm=lm("openai/big", fallbacks=[small], num_retries=0))
        endpoint.fail("status", status=500, match="question 1 ?")
        some = run(program, questions(3), metric=always, predictions=False)
        endpoint.fail("status", status=500)
        every = run(program, questions(3), metric=always, predictions=False)
        assert [temperature or 1.0] * 4 == [request["body"]["temperature"] for request in other.log()]
        where = cachectl.LM("openai/small", api_base=other.url)
    expected = ("openai/small", endpoint_of_lm(where), temperature or 1.0, temperature is None, "openai/big", True)
    found = {
        (one.model, one.endpoint, one.temperature, one.lent, one.instead_of, one.is_other): one.calls
        for one in some.provenance.models
    }
    assert found.pop(expected) == 1
    assert [("openai/big", 2)] == [(model, calls) for (model, *_), calls in found.items()]
    said = " ".join(str(some).split())
    assert (
        "openai/big was answered by another model than was asked in 1 of 3 calls: small (1 call). The score is" in said
    )
    assert f"openai/small @ {expected[1]}, in place of openai/big (1 call)" in said
    assert ("openai/small", expected[1]) == (every.provenance.model, every.provenance.endpoint)
    said = " ".join(str(every).split())
    assert "asked: small (3 calls). All these answers are that model's" in said


def test_the_judges_calls_are_told_apart(endpoint: Endpoint, lm: MakeLM, program: dspy.Module, tmp_path: Path) -> None:
    """What the metric asked, where and at which temperature, with its calls: beside the program's, and kept."""
    judge = lm("openai/judge", temperature=0.3)

    def judged(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        judge(f"judge {prediction.answer}")
        judge(f"once more {prediction.answer}")
        return 1.0

    report = run(program, questions(4), metric=judged, predictions=tmp_path)
    asked = Counter(request["body"]["model"] for request in endpoint.log())
    assert asked["judge"] == 8
    assert {("openai/judge", endpoint.url, 0.3, 8)} == {
        (one.model, one.endpoint, one.temperature, one.calls) for one in report.provenance.judges
    }
    assert "openai/judge" not in {one.model for one in report.provenance.models}
    assert f"judge openai/judge @ {endpoint.url}, temperature 0.3 (8 calls)" in " ".join(str(report).split())
    report.save(tmp_path / "report.json")
    assert cachectl.EvalReport.load(tmp_path / "report.json").provenance.judges == report.provenance.judges
    again, more = (run(program, questions(count), metric=judged, predictions=tmp_path) for count in (4, 6))
    assert (again.provenance.judges, [12]) == (report.provenance.judges, [one.calls for one in more.provenance.judges])
    (snapshot,) = reports_in([str(again.path)], tmp_path)
    assert snapshot.provenance.judges == report.provenance.judges


def test_a_function_that_embeds_answers_here_at_no_temperature(
    endpoint: Endpoint, lm: MakeLM, program: dspy.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    """LiteLLM is not asked where it is served: it would print that it does not know."""

    def lengths(texts: list[str]) -> list[list[float]]:
        return [[float(len(text))] for text in texts]

    class Searching(dspy.Module):
        """Embeds the question before it asks."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.ask = cachectl.Embedder(lengths), program

        def forward(self, question: str) -> Any:
            """Answer."""
            self.embed([question])
            return self.ask(question=question)

    dspy.configure(lm=lm("openai/m", temperature=0.7))
    report = run(Searching(), questions(3), metric=always)
    assert {("openai/m", 0.7), ("lengths", None)} == {(one.model, one.temperature) for one in report.provenance.models}
    assert 0.7 == report.provenance.temperature
    said = " ".join(str(report).split())
    assert "lengths @ this process (3 calls)" in said
    assert "temperature 0.7, as the program asks (3 calls) LM calls" in said
    assert "Provider List" not in capfd.readouterr().out
