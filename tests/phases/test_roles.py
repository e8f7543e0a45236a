"""One phase, several policies: what an LM is for decides which one holds for it."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from dspy_cachectl.accounting.ledger import Row
from tests.calls.support import MakeLM, assert_counted, evaluate, examples
from tests.endpoint import Endpoint

MODEL = "openai/test-model"


class Judged(dspy.Module):
    """Writes an answer, then has it judged."""

    def __init__(self, generator: Any, judge: Any) -> None:
        super().__init__()
        self.write = dspy.Predict("question -> answer")
        self.judge = dspy.Predict("candidate -> verdict")
        self.write.set_lm(generator)
        self.judge.set_lm(judge)

    def forward(self, question: str) -> dspy.Prediction:
        answer = self.write(question=question).answer
        return dspy.Prediction(answer=answer, verdict=self.judge(candidate=answer).verdict)


@pytest.fixture
def program(endpoint: Endpoint, lm: MakeLM) -> Judged:
    """Each question is answered with red, red, blue, round and round."""
    endpoint.configure(answers={"capital number": ["red", "red", "blue"]})
    return Judged(lm(temperature=1.0, role="generator"), lm(temperature=1.0, role="judge"))


def asked(endpoint: Endpoint) -> tuple[int, int]:
    """Requests of the generator and of the judge."""
    generated = sum(count for prompt, count in endpoint.counts().items() if "capital number" in prompt)
    return generated, endpoint.requests - generated


def test_judge_is_asked_once_for_the_same_answer(endpoint: Endpoint, program: Judged) -> None:
    """With the judge on REUSE, the generator answers 12 times afresh, and the judge sees red and blue once each."""
    with cachectl.phase("eval", roles={"judge": Policy.REUSE}) as run:
        evaluate(program, examples(4, 3), threads=4)
    assert asked(endpoint) == (12, 2)
    assert_counted(run.stats.by[Row("eval", "generator", MODEL)], fresh=12, requests=12)
    judge = run.stats.by[Row("eval", "judge", MODEL)]
    assert (judge.requests, judge.fresh, judge.reused + judge.coalesced) == (2, 2, 10)


def test_judge_keeps_its_verdicts_between_runs(endpoint: Endpoint, program: Judged) -> None:
    """Another run draws the generator afresh; the judge was paid before."""
    for _ in range(2):
        with cachectl.phase("eval", roles={"judge": Policy.REUSE}):
            evaluate(program, examples(4, 3), threads=4)
    assert asked(endpoint) == (24, 2)


def test_without_roles_the_judge_is_fresh_too(endpoint: Endpoint, program: Judged) -> None:
    """In a fresh phase without roles, every verdict is a draw."""
    with cachectl.phase("eval"):
        evaluate(program, examples(4, 3), threads=4)
    assert asked(endpoint) == (12, 12)


def test_resumed_with_roles(endpoint: Endpoint, program: Judged) -> None:
    """A run with roles is resumed for nothing."""
    for _ in range(2):
        with cachectl.phase("eval", run_id="judged", roles={"judge": Policy.REUSE}) as run:
            evaluate(program, examples(4, 3), threads=4)
    assert asked(endpoint) == (12, 2)
    assert run.stats.requests == 0


def test_fresh_judge_in_a_compile(endpoint: Endpoint, program: Judged) -> None:
    """The other way round: in `compile`, a judge on FRESH is drawn anew, and the generator is served."""
    for _ in range(2):
        with cachectl.phase("compile", roles={"judge": Policy.FRESH}) as run:
            evaluate(program, examples(4), threads=2)
    assert asked(endpoint) == (4, 8)
    assert run.run_id is not None


def test_replayed_generator(endpoint: Endpoint, program: Judged) -> None:
    """A role may be replayed while the rest is bought; its misses are raised at the end."""
    with cachectl.phase("compile"):
        evaluate(program, examples(2), threads=2)
    with (
        pytest.raises(cachectl.ReplayIncompleteError) as ending,
        cachectl.phase("compile", roles={"generator": Policy.REPLAY}),
    ):
        evaluate(program, examples(4), threads=2)
    assert ending.value.count == 2
    assert asked(endpoint) == (2, 1)


def test_replayed_generator_in_a_fresh_phase(endpoint: Endpoint, program: Judged) -> None:
    """A recorded run's answers can be judged afresh: the generator replays the run, the judge draws."""
    with cachectl.phase("eval", run_id="recorded"):
        evaluate(program, examples(4), threads=2)
    with cachectl.phase(
        "eval", run_id="recorded", roles={"generator": Policy.REPLAY}, scope={"judged": "again"}
    ) as run:
        evaluate(program, examples(4), threads=2)
    assert asked(endpoint) == (4, 8)
    assert_counted(run.stats.by[Row("eval", "generator", MODEL)], replayed=4)


def test_roles_from_configuration(endpoint: Endpoint, program: Judged) -> None:
    """A role's policy may be configured for a phase once for all."""
    with cachectl.configure(phases={"eval": {"roles": {"judge": "REUSE"}}}), cachectl.phase("eval"):
        evaluate(program, examples(4, 3), threads=4)
    assert asked(endpoint) == (12, 2)


def test_role_survives_copies(endpoint: Endpoint, program: Judged) -> None:
    """The role goes along when an optimizer copies the program or its LMs."""
    copied = program.deepcopy()
    copied.judge.set_lm(copied.judge.lm.copy(temperature=0.9))
    with cachectl.phase("eval", roles={"judge": Policy.REUSE}):
        evaluate(copied, examples(4, 3), threads=4)
    assert asked(endpoint) == (12, 2)


def test_wrapped_lms_have_roles(endpoint: Endpoint, program: Judged, plain_lm: MakeLM) -> None:
    """wrap(lm, role=...) names the role of an LM that one already has."""
    program.judge.set_lm(cachectl.wrap(plain_lm(temperature=1.0), role="judge"))
    with cachectl.phase("eval", roles={"judge": Policy.REUSE}):
        evaluate(program, examples(4, 3), threads=4)
    assert asked(endpoint) == (12, 2)
