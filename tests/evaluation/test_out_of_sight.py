"""What a report claims where no LM call was seen: nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, program, questions, run
from tests.evaluation.test_what_answered import always

__all__ = ["program"]


def _by_client(url: str, question: str) -> str:
    """Ask the provider around DSPy."""
    import openai

    asked = openai.OpenAI(base_url=url, api_key="k").chat.completions.create(
        model="raw", messages=[{"role": "user", "content": question}]
    )
    return str(asked.choices[0].message.content)


def _in_a_child(url: str, question: str) -> str:
    """Ask in a forked process."""
    import multiprocessing

    asking = multiprocessing.get_context("fork")
    queue = asking.SimpleQueue()
    child = asking.Process(target=lambda: queue.put(_by_client(url, question)))
    child.start()
    answer = str(queue.get())
    child.join()
    return answer


def _by_a_rule(url: str, question: str) -> str:
    """Ask nobody."""
    return question


WAYS = [pytest.param(_in_a_child, marks=pytest.mark.exhaustive), _by_client, _by_a_rule]


@pytest.mark.parametrize("ask", WAYS)
def test_a_program_whose_calls_nobody_sees(
    endpoint: Endpoint, lm: MakeLM, program: Any, ask: Callable[..., str]
) -> None:
    """No model, no temperature, no draws and nothing of repeats is claimed; one line says why, kept or not."""
    dspy.configure(lm=lm("openai/nobody", temperature=0.1))

    def asking(question: str) -> Any:
        return dspy.Prediction(answer=ask(endpoint.url, question))

    made, again = (run(asking, questions(3), metric=always, repeats=2) for _ in range(2))
    assert endpoint.requests == (0 if ask is _by_a_rule else 6)
    for report in (made, again):
        provenance = report.provenance
        assert (provenance.model, provenance.temperature, provenance.temperature_lent) == (None, None, None)
        assert report.distinct.distinct is None
        assert report.distinct.said == ("No LM call was seen to answer: how many draws are distinct is not known.",)
        assert math.isnan(report.flip_rate + report.consistency + report.pass_at_k(2))
        shown = " ".join(str(report).split())
        assert "openai/nobody" not in shown
        assert "Caveats - No LM call was seen to answer" in shown
        assert "model not known: no LM call was seen to answer temperature not known" in shown
    seen = run(dspy.Predict("question -> answer"), questions(3), metric=always, name="seen")
    assert not [one for one in made.compare(seen).warnings if "differ:" in one]


@pytest.mark.parametrize("repeats", [1, 2])
def test_failures_are_no_draws(endpoint: Endpoint, program: Any, repeats: int) -> None:
    """A program that fails before it asks: of all answers, or of some, only those that an LM gave are draws."""

    def fails(question: str) -> Any:
        raise KeyError(question)

    def fails_at_times(question: str) -> Any:
        return fails(question) if "question 0" in question else program(question=question)

    none = run(fails, questions(3), metric=always, repeats=repeats, predictions=False, max_errors=100)
    assert (0, 3 * repeats, 0.0) == (none.distinct.distinct, none.distinct.asked, none.distinct.effective)
    assert "" == none.distinct.sentence
    assert repeats == 1 or math.isnan(none.flip_rate + none.consistency)
    some = run(fails_at_times, questions(3), metric=always, repeats=repeats, predictions=False, max_errors=100)
    assert 2 * repeats == some.distinct.distinct == endpoint.requests
    assert (repeats, "replays" in some.distinct.sentence) == (some.distinct.effective, False)


def test_an_answer_without_an_lm_beside_a_provider_that_is_down(endpoint: Endpoint, lm: MakeLM, program: Any) -> None:
    """A program that answers by itself where all its calls failed: nothing is claimed of models and draws."""
    endpoint.fail("status", status=500)
    asking = lm("openai/down", num_retries=0)

    def answer(question: str) -> Any:
        with pytest.raises(Exception, match="500"):
            asking(question)
        return dspy.Prediction(answer="yes")

    report = run(answer, questions(2), metric=always, predictions=False)
    assert (None, None) == (report.distinct.distinct, report.provenance.model)
    assert "no LM call was seen to answer" in str(report)


def test_calls_of_a_phase_that_rules_everywhere_are_seen(endpoint: Endpoint, lm: MakeLM, program: Any) -> None:
    """Which answers they are of is not known, but who answered is."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2)

    def asking(question: str) -> Any:
        return dspy.Prediction(answer=pool.submit(lm("openai/aside"), question).result()[0])

    with cachectl.phase("eval", everywhere=True, bypass_proxy=True):
        report = run(asking, questions(2), metric=always, repeats=2, predictions=False)
    assert [("openai/aside", 4)] == [(one.model, one.calls) for one in report.provenance.models]
    assert report.provenance.counters["requests"] == endpoint.requests == 4
    assert all(request["body"]["cache"] == {"no-cache": True} for request in endpoint.log())
    assert report.distinct.distinct is None
    assert "bare thread pool" in report.distinct.sentence


def test_a_judge_that_is_asked_in_a_bare_pool_is_said(endpoint: Endpoint, lm: MakeLM, program: Any) -> None:
    """What it costs cannot be told from what others ask, so it is in no sum, and the caveats begin with that."""
    judge = lm("openai/judge")

    def metric(example: Any, prediction: Any) -> float:
        with ThreadPoolExecutor(1) as pool:
            return float(bool(pool.submit(judge, f"{example.question} {prediction.answer}?").result()))

    report = run(program, questions(3), metric)
    assert endpoint.requests == 6
    assert report.provenance.counters["requests"] == 3
    assert "Caveats - 3 calls of the program, the metric or others came from a bare thread pool" in " ".join(
        str(report).split()
    )
