"""A plain `dspy.LM` obeys the phase too, as far as the cache alone can make it."""

from __future__ import annotations

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, qa
from tests.endpoint import Endpoint


def test_fresh_but_collapsed(endpoint: Endpoint, plain_lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
    """Each run asks afresh; equal calls within it collapse, are counted, and that is said once."""
    dspy.configure(lm=plain_lm(temperature=1.0))
    for _ in range(2):
        with cachectl.phase("eval") as run:
            evaluate(qa(), examples(5, 3), threads=1)
        assert_counted(run.stats, fresh=5, collapsed=10, requests=5, temperatures_lent=0)
        assert (run.stats.draws, run.stats.served) == (5, 10)
    assert endpoint.requests == 10
    assert len([line for line in caplog.messages if "is a plain dspy.LM" in line]) == 1
    assert "10 collapsed" in repr(run.stats)


def test_resumed(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """A resumed run serves each draw once as resumed, and again as collapsed."""
    dspy.configure(lm=plain_lm(temperature=1.0))
    with cachectl.phase("eval", run_id="plain"):
        score = evaluate(qa(), examples(5, 3), threads=1)
    with cachectl.phase("eval", run_id="plain") as run:
        assert evaluate(qa(), examples(5, 3), threads=1) == score
    assert_counted(run.stats, resumed=5, collapsed=10)
    assert endpoint.requests == 5


def test_programs_own_sampling(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """BestOfN's rollout ids keep its draws apart in a fresh run."""
    dspy.configure(lm=plain_lm(temperature=1.0))
    answers: list[str] = []

    def never_enough(arguments: object, prediction: dspy.Prediction) -> float:
        answers.append(prediction.answer)
        return 0.0

    for _ in range(2):
        with cachectl.phase("eval"):
            dspy.BestOfN(qa(), N=3, reward_fn=never_enough, threshold=1.0)(question="Q?")
    assert len(set(answers)) == 6 == endpoint.requests


async def test_sync_and_async_collapse(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """In a fresh run too, `acall` and a call are the same draw."""
    asked = plain_lm(temperature=1.0)
    with cachectl.phase("eval") as run:
        assert asked("hello") == await asked.acall("hello")
    assert_counted(run.stats, fresh=1, collapsed=1)
    assert endpoint.requests == 1


def test_no_temperature_is_lent(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """What is sent is what the program asked for."""
    with cachectl.phase("eval"):
        plain_lm()("hello")
    assert "temperature" not in endpoint.log()[-1]["body"]


def test_outside_and_compile(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """Elsewhere it is served as by DSPy's own cache."""
    cachectl.install()
    asked = plain_lm()
    asked("hello")
    with cachectl.phase("compile") as run:
        asked("hello")
        asked("other")
    assert_counted(run.stats, reused=1, fresh=1, collapsed=0)
    assert endpoint.requests == 2


@pytest.mark.parametrize(("policy", "requests"), [(Policy.REFRESH, 3), (Policy.OFF, 3), (Policy.REUSE, 1)])
def test_other_policies(endpoint: Endpoint, plain_lm: MakeLM, policy: Policy, requests: int) -> None:
    """REFRESH and OFF ask each time; REFRESH leaves the newest answer behind, OFF the oldest."""
    cachectl.install()
    asked = plain_lm(temperature=1.0)
    answers = [asked("hello")]
    with cachectl.phase("again", policy) as run:
        answers += [asked("hello") for _ in range(2)]
    assert requests == endpoint.requests
    assert run.stats.requests == requests - 1
    assert asked("hello") == (answers[-1] if policy is Policy.REFRESH else answers[0])


def test_wrapping_it_helps(endpoint: Endpoint, plain_lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
    """wrap(lm) gives the same LM a draw for every call, and a temperature."""
    dspy.configure(lm=cachectl.wrap(plain_lm()))
    with cachectl.phase("eval") as run:
        evaluate(qa(), examples(5, 3), threads=2)
    assert_counted(run.stats, fresh=15, temperatures_lent=15)
    assert endpoint.requests == 15
    assert [] == [record.message for record in caplog.records if record.name == "dspy_cachectl"]


def test_plain_inside_ours(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> None:
    """A program may mix them; each is counted for itself."""
    ours, plain = lm("openai/ours", temperature=1.0), plain_lm("openai/plain", temperature=1.0)
    with cachectl.phase("eval") as run:
        for _ in range(3):
            ours("hello")
            plain("hello")
    assert {"openai/ours": 3, "openai/plain": 1} == {row.model: tally.requests for row, tally in run.stats.by.items()}
    assert_counted(run.stats, fresh=4, collapsed=2)
    assert endpoint.requests == 4
