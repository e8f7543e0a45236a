"""A fresh evaluation draws every answer, and resuming it draws none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, gold, qa
from tests.endpoint import Endpoint

QUESTIONS, COPIES, REPEATS = 30, 5, 3
DEVSET = examples(QUESTIONS, COPIES)

Grade = Callable[[str | None], tuple[float, cachectl.PhaseRun]]


@pytest.fixture(autouse=True)
def graded(endpoint: Endpoint) -> None:
    """The endpoint is right in six of ten draws."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=0.6)


@pytest.mark.parametrize("threads", [8, pytest.param(32, marks=pytest.mark.exhaustive)])
def test_every_prediction_is_a_draw(endpoint: Endpoint, lm: MakeLM, threads: int) -> None:
    """150 examples, 30 of them different, evaluated 3 times: 450 requests; each again with its run id: none."""
    dspy.configure(lm=lm(temperature=1.0))
    scores = {}
    for _ in range(REPEATS):
        with cachectl.phase("eval") as run:
            scores[run.run_id] = evaluate(qa(), DEVSET, threads=threads)
        assert_counted(run.stats, fresh=150, requests=150, not_distinct=0, temperatures_lent=0)
    assert endpoint.requests == 450
    assert set(endpoint.counts().values()) == {COPIES * REPEATS}
    assert len(set(scores.values())) > 1

    for run_id, score in scores.items():
        with cachectl.phase("eval", run_id=run_id) as run:
            assert evaluate(qa(), DEVSET, threads=threads) == score
        assert_counted(run.stats, resumed=150, requests=0)
    assert endpoint.requests == 450


def test_another_number_of_threads_resumes_the_same_draws(endpoint: Endpoint, lm: MakeLM) -> None:
    """A run drawn at 16 threads is resumed at 1: which thread asked first is no part of a draw."""
    dspy.configure(lm=lm(temperature=1.0))
    with cachectl.phase("eval", run_id="baseline"):
        score = evaluate(qa(), DEVSET, threads=16)
    with cachectl.phase("eval", run_id="baseline"):
        assert evaluate(qa(), DEVSET, threads=1) == score
    assert endpoint.requests == 150


def test_resumed_in_another_process(endpoint: Endpoint, lm: MakeLM, child: Callable[..., object]) -> None:
    """A run id given to another process resumes the run there."""
    dspy.configure(lm=lm(temperature=1.0))
    with cachectl.phase("eval", run_id="baseline"):
        score = evaluate(qa(), DEVSET[:60], threads=8)

    again = child("""
        import json, os, dspy
        import dspy_cachectl as cachectl
        from tests.calls.support import evaluate, examples, qa

        dspy.configure(lm=cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], temperature=1.0))
        with cachectl.phase("eval", run_id="baseline") as run:
            score = evaluate(qa(), examples(30, 2), threads=4)
        print(json.dumps({"score": score, "resumed": run.stats.resumed}))
    """)
    assert again.data == {"score": score, "resumed": 60}
    assert endpoint.requests == 60


def test_more_copies_buy_only_what_is_missing(endpoint: Endpoint, lm: MakeLM) -> None:
    """Going from 3 copies of each question to 5 buys the other two."""
    dspy.configure(lm=lm(temperature=1.0))
    with cachectl.phase("eval", run_id="growing"):
        evaluate(qa(), examples(10, 3))
    with cachectl.phase("eval", run_id="growing") as run:
        evaluate(qa(), examples(10, 5))
    assert_counted(run.stats, resumed=30, fresh=20)
    assert endpoint.requests == 50


def test_temperature_is_lent_where_it_is_missing(endpoint: Endpoint, lm: MakeLM) -> None:
    """An LM without a temperature is evaluated at 1.0, in this phase only, and the stats say so."""
    dspy.configure(lm=lm())
    with cachectl.phase("eval") as run:
        evaluate(qa(), examples(3, 4))
    assert_counted(run.stats, fresh=12, temperatures_lent=12)
    assert {request["body"]["temperature"] for request in endpoint.log()} == {1.0}
    assert len(endpoint.counts()) == 3

    qa()(question="Outside?")
    assert "temperature" not in endpoint.log()[-1]["body"]
    assert dspy.settings.lm.kwargs.get("temperature") is None


def test_a_phase_may_lend_another_temperature(endpoint: Endpoint, lm: MakeLM) -> None:
    """phase("eval", temperature=0.7) lends 0.7; what the program asked for itself is left alone."""
    with cachectl.phase("eval", temperature=0.7):
        with dspy.context(lm=lm()):
            qa()(question="lent?")
        with dspy.context(lm=lm(temperature=0.3)):
            qa()(question="own?")
        with dspy.context(lm=lm("openai/gpt-5-mini", temperature=None, max_tokens=None)):
            qa()(question="reasoning?")
    assert [0.7, 0.3, None] == [request["body"].get("temperature") for request in endpoint.log()]


def test_auto_phase_does_the_same(endpoint: Endpoint, lm: MakeLM) -> None:
    """With AutoPhase, each Evaluate is a fresh run without a `with`, and its run id resumes it."""
    auto = cachectl.AutoPhase()
    dspy.configure(lm=lm(temperature=1.0), callbacks=[auto])
    scores = [evaluate(qa(), DEVSET, threads=8) for _ in range(2)]
    assert endpoint.requests == 300
    assert ["eval", "eval"] == [run.name for run in auto.runs]
    assert [150, 150] == [run.stats.fresh for run in auto.runs]
    assert [[score] for score in scores] == [[one.score for one in run.evaluations] for run in auto.runs]

    for run, score in zip(auto.runs[:2], scores, strict=True):
        with cachectl.phase("eval", run_id=run.run_id):
            assert evaluate(qa(), DEVSET, threads=8) == score
    assert endpoint.requests == 300


def test_auto_phase_keeps_an_optimizers_evaluations_in_compile(endpoint: Endpoint, lm: MakeLM) -> None:
    """With AutoPhase, an Evaluate inside a compile is served from the cache; the one after it is fresh."""
    auto = cachectl.AutoPhase()
    dspy.configure(lm=lm(temperature=1.0), callbacks=[auto])

    def optimize() -> dspy.Module:
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            metric=lambda example, prediction, trace=None: True,
            max_bootstrapped_demos=1,
            num_candidate_programs=1,
            num_threads=2,
        )
        return optimizer.compile(qa(), trainset=examples(4), valset=examples(8))

    optimize()
    with endpoint.counting() as again:
        compiled = optimize()
    assert again.requests == 0
    assert {"compile"} == {run.name for run in auto.runs}
    assert dspy.settings.get("cachectl") is None

    with endpoint.counting() as seen:
        evaluate(compiled, examples(8), threads=2)
        evaluate(compiled, examples(8), threads=2)
    assert seen.requests == 16
    assert ["eval", "eval"] == [run.name for run in auto.runs[-2:]]


def test_explicit_phase_wins_over_auto_phase(endpoint: Endpoint, lm: MakeLM) -> None:
    """AutoPhase stays out of a phase that was opened by hand."""
    auto = cachectl.AutoPhase()
    dspy.configure(lm=lm(temperature=1.0), callbacks=[auto])
    with cachectl.phase("compile") as run:
        for _ in range(2):
            evaluate(qa(), examples(5))
    assert_counted(run.stats, fresh=5, reused=5)
    assert endpoint.requests == 5
    assert auto.runs == []


def test_plain_dspy_repeats_itself(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """What this package is for: DSPy alone asks far less than 450 times, and reports one score again and again."""
    dspy.configure(lm=plain_lm(temperature=1.0))
    scores = [evaluate(qa(), DEVSET, threads=8) for _ in range(REPEATS)]
    assert QUESTIONS <= endpoint.requests < 150
    assert scores[1] == scores[2]


def test_equal_examples_keep_their_draws_together(endpoint: Endpoint, lm: MakeLM) -> None:
    """A program that asks one thing several times gives each copy of a question the same draws when resumed."""

    class Vote(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = qa()

        def forward(self, question: str) -> dspy.Prediction:
            answers = [self.answer(question=question).answer for _ in range(3)]
            return dspy.Prediction(answer=max(sorted(set(answers)), key=answers.count), answers=answers)

    def run(threads: int) -> list[list[str]]:
        evaluation = dspy.Evaluate(devset=examples(4, 6), metric=lambda *_: 1.0, num_threads=threads)
        return sorted(prediction.answers for _, prediction, _ in evaluation(Vote()).results)

    dspy.configure(lm=lm(temperature=1.0))
    with cachectl.phase("eval", run_id="votes"):
        votes = run(threads=8)
    for threads in (1, 4):
        with cachectl.phase("eval", run_id="votes") as resumed:
            assert votes == run(threads=threads)
        assert_counted(resumed.stats, resumed=72)
    assert len({answer for answers in votes for answer in answers}) > 12
    assert endpoint.requests == 72


def test_resumed_without_evaluate(endpoint: Endpoint, lm: MakeLM) -> None:
    """A run drawn by Evaluate is resumed by a loop, a batch or awaited calls: what asks is no part of a draw."""
    dspy.configure(lm=lm(temperature=1.0))
    with cachectl.phase("eval", run_id="baseline"):
        evaluate(qa(), examples(3, 2))

    async def awaited() -> list[str]:
        found = await asyncio.gather(*(qa().acall(**one.inputs()) for one in examples(3, 2)))
        return sorted(prediction.answer for prediction in found)

    with cachectl.phase("eval", run_id="baseline"):
        looped = sorted(qa()(**one.inputs()).answer for one in examples(3, 2))
    with cachectl.phase("eval", run_id="baseline"):
        batched = sorted(one.answer for one in qa().batch(examples(3, 2), num_threads=2, disable_progress_bar=True))
    with cachectl.phase("eval", run_id="baseline"):
        assert looped == batched == asyncio.run(awaited())
    assert endpoint.requests == 6
