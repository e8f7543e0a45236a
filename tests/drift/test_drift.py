"""A provider that answers in another state, or as another version, is noticed, said, and refused where asked."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from dspy_cachectl.drift.history import noted
from dspy_cachectl.drift.states import State, States
from dspy_cachectl.stores.registers.base import MemoryRegister
from tests.calls.support import examples, gold, question
from tests.endpoint import Endpoint


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Path]:
    """Answers are kept in a folder of one's own."""
    cachectl.configure(store=str(tmp_path / "store"), predictions=str(tmp_path / "predictions"))
    yield tmp_path / "store"
    cachectl.uninstall()


def exact(example: Any, prediction: Any, trace: Any = None) -> float:
    """Whether the answer is the right one."""
    return float(example.answer == prediction.answer)


def evaluated(count: int, **options: Any) -> cachectl.EvalReport:
    """A report of so many questions, asked one after the other."""
    return cachectl.evaluate(dspy.Predict("question -> answer"), examples(count), exact, num_threads=1, **options)


@pytest.mark.parametrize("model_type", ["chat", pytest.param("text", marks=pytest.mark.exhaustive)])
def test_a_change_at_call_50_of_100_is_in_the_first_lines(
    endpoint: Endpoint, lm: Callable[..., Any], model_type: str
) -> None:
    """The report names both states right below its score, with how many calls each answered."""
    endpoint.configure(fingerprints={"1": "fp_old", "50": "fp_new"}, gold=gold(100), accuracy=1.0)
    name = "openai/test-model" if model_type == "chat" else "text-completion-openai/test-model"
    with dspy.context(lm=lm(name, model_type=model_type)):
        report = evaluated(100)
    first = " ".join(str(report).split("\n\n")[1].split())
    assert "was answered in 2 states of its servers" in first
    assert "test-model (fp_new) (51 calls), test-model (fp_old) (49 calls)" in first
    assert 51 == report.provenance.counters["drifted"]
    assert max(map(len, str(report).splitlines())) <= 80


def test_a_judge_that_changes_is_named_too(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """Apart from what it judges, within a report, by kept scores, and between two reports."""
    endpoint.configure(fingerprints={"1": "fp_old", "12": "fp_new"})
    rate = dspy.Predict("question, answer -> is_right: bool")
    rate.lm = lm("openai/judge-model")

    def judged(example: Any, prediction: Any) -> Any:
        """What the judge says."""
        return rate(question=example.question, answer=prediction.answer).is_right

    with dspy.context(lm=lm()):
        reports = [
            cachectl.evaluate(dspy.Predict("question -> answer"), examples(10), judged, num_threads=1, run_id="one")
            for _ in range(2)
        ]
        endpoint.configure(fingerprints={"1": "fp_other"})
        other = cachectl.evaluate(dspy.Predict("question -> answer"), examples(10), judged, num_threads=1, run_id="two")
    for report in reports:
        first = " ".join(str(report).split("\n\n")[1].split())
        assert "the judge openai/judge-model was answered in 2 states of its servers" in first
        assert "judge-model (fp_old) (5 calls), judge-model (fp_new) (5 calls)" in first
        assert "The score may not be of one judge" in first
    (said,) = [one for one in reports[0].compare(other).warnings if one.startswith("the judge openai/judge-model")]
    assert "may have changed behind its name" in said


def test_no_word_where_nothing_changes(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """One state, or none that is said, is no drift."""
    for fingerprints in ({"1": "fp_old"}, {}):
        endpoint.configure(fingerprints=fingerprints)
        with dspy.context(lm=lm(f"openai/model-{len(fingerprints)}")):
            report = evaluated(4)
        assert "system_fingerprint" not in str(report)
        assert 0 == report.provenance.counters.get("drifted", 0)


def test_it_is_refused_at_the_next_call_and_at_the_end(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """The answer that shows it reaches its caller; nothing is bought after it, and what is stored is served."""
    endpoint.configure(fingerprints={"1": "fp_old", "3": "fp_new"})
    asks = lm()
    answers = []

    def ask() -> None:
        answers.extend(asks(question(at)) for at in range(3))
        plain, uncached = dspy.LM(asks.model, **asks.kwargs), lm(cache=False)
        for again in (asks, plain, uncached, lambda text: asyncio.run(asks.acall(text))):
            with pytest.raises(cachectl.DriftError):
                again(question(4))
        assert answers[:2] == [asks(question(at)) for at in range(2)]

    with (
        pytest.raises(cachectl.DriftError, match=r"test-model \(fp_old\) answered first") as refused,
        cachectl.phase("compile", on_drift="raise") as run,
    ):
        ask()
    assert (3, 3) == (len(answers), endpoint.requests)
    assert (1, 3, 2) == (run.stats.drifted, run.stats.failed, run.stats.reused)
    assert ("openai/test-model", "compile") == (refused.value.model, refused.value.phase)
    with endpoint.counting() as seen, cachectl.phase("compile"):
        assert answers == [asks(question(at)) for at in range(3)]
    assert 0 == seen.requests


def test_an_evaluation_is_refused(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """`evaluate()` under such a policy asks for nothing after the change, and raises; what it had is kept."""
    endpoint.configure(fingerprints={"1": "fp_old", "5": "fp_new"}, gold=gold(10), accuracy=1.0)
    with dspy.context(lm=lm()):
        with (
            pytest.raises(cachectl.DriftError, match="fp_new"),
            cachectl.phase("eval", on_drift="raise", run_id="one"),
        ):
            evaluated(10, max_errors=1000)
        assert 5 == endpoint.requests
        with endpoint.counting() as seen, cachectl.phase("eval", run_id="one"):
            report = evaluated(10)
    assert 5 == seen.requests
    assert 1.0 == report.score


def test_an_error_of_the_program_goes_first(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """What the program raised is the cause of what the phase raises, and an interruption goes through."""
    endpoint.configure(fingerprints={"1": "fp_old", "2": "fp_new"})
    asks = lm()

    def run(error: BaseException) -> None:
        with cachectl.phase("eval", on_drift="raise"):
            asks("one")
            asks("two")
            raise error

    with pytest.raises(cachectl.DriftError) as refused:
        run(LookupError("mine"))
    assert isinstance(refused.value.__cause__, LookupError)
    endpoint.reset_counts()
    with pytest.raises(KeyboardInterrupt):
        run(KeyboardInterrupt())


def test_what_is_served_is_compared_with_what_is_bought(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """A stored answer of an old state and a bought one of a new state do not go unnoticed into one result."""
    endpoint.configure(fingerprints={"1": "fp_old", "2": "fp_new"})
    asks = lm()
    with cachectl.phase("compile"):
        asks("one")
    with cachectl.phase("compile") as run:
        asks("one")
        asks("two")
    assert 1 == run.stats.drifted


def test_a_new_state_is_told_from_those_that_the_store_knows(
    endpoint: Endpoint, lm: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A fresh run whose provider changed since the last one says so, once; an old state that comes back does not."""
    endpoint.configure(fingerprints={"1": "fp_old", "4": "fp_new", "7": "fp_old"})
    said = []
    for _ in range(4):
        cachectl.uninstall()  # as in a process of its own
        cachectl.install()
        with dspy.context(lm=lm()):
            said.append("by test-model (fp_old) before" in " ".join(str(evaluated(3, predictions=False)).split()))
    assert [False, True, False, False] == said
    assert 1 == caplog.text.count("and in this store it was by test-model (fp_old)")


def test_kept_predictions_of_another_state_show(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """A report that is made of loaded and of new answers says that their states differ; so does a comparison."""
    endpoint.configure(fingerprints={"1": "fp_old", "4": "fp_new"})
    with dspy.context(lm=lm()):
        before = evaluated(3)
        mixed = evaluated(6)
        afresh = evaluated(6, predictions=False)
    assert "(fp_new) (3 calls), test-model (fp_old) (3 calls)" in " ".join(str(mixed).split())
    assert "may have changed behind its name" in " ".join(str(before.compare(afresh)).split())
    assert "may have changed behind its name" not in " ".join(str(mixed.compare(afresh)).split())


def test_another_version_of_the_name_is_refused_too(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """A dated name that gives way to another date is a change, without any fingerprint."""
    dates = {"Q1?": "test-model-2026-01-01", "Q2?": "test-model-2026-05-01"}
    endpoint.configure(answers_as=dates)
    asks = lm()
    with pytest.raises(cachectl.DriftError, match="2026-05-01"), cachectl.phase("eval", on_drift="raise"):
        assert 2 == len([asks(text) for text in dates])


def test_the_error_survives_a_trip_between_processes() -> None:
    """It says the same when it was pickled."""
    error = cachectl.DriftError("m", "eval", "a (1)", "a (2)")
    assert (str(error), error.after) == (str(pickle.loads(pickle.dumps(error))), "a (2)")


@pytest.mark.parametrize("given", [None, True, "refuse"])
def test_a_wrong_word_is_refused(given: Any) -> None:
    """`on_drift` is one of two words."""
    with pytest.raises(cachectl.ConfigurationError, match="on_drift must be"):
        Policy(on_drift=given)


def test_it_can_be_set(endpoint: Endpoint, lm: Callable[..., Any]) -> None:
    """The settings may say it of a phase, and name a wrong word."""
    cachectl.configure(phases={"eval": {"on_drift": "raise"}})
    assert "raise" == cachectl.phase("eval").context.policy.on_drift
    with pytest.raises(cachectl.ConfigurationError, match=r"phases\.eval\.on_drift"):
        cachectl.configure(phases={"eval": {"on_drift": "stop"}})


def test_a_provider_that_says_another_state_each_time_is_bounded() -> None:
    """Of a thousand states the first are told apart, and the others together, of any length."""
    states = States()
    met = [states.met(("m", None), ("m",), (f"fp_{at}" * 100,)) for at in range(1000)]
    assert 20 == sum(one.is_new for one in met)
    assert 999 == sum(one.differs for one in met)
    assert len({one.state for one in met}) == 21
    assert max(len(str(one.state)) for one in met) < 200


@pytest.mark.parametrize("stored", [{"states": 3}, {"states": [3, ["a"], ["a", "b", "c"]]}, {"other": []}, {}])
def test_a_damaged_record_is_passed_over(stored: Any) -> None:
    """What the record of a model holds that is none is nobody's state."""
    register = MemoryRegister()
    register.change("drift:", lambda _: stored)
    assert noted(register, ("m", None), State("m", "fp"), 1.0) is None
    assert noted(register, ("m", None), State("m", "fp_2"), 2.0) == State("m", "fp")
