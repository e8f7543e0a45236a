"""A program that samples gets as many distinct draws as it asks for, in every phase."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.teleprompt.simba_utils import prepare_models_for_resampling

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, assert_counted, qa
from tests.endpoint import Endpoint

PHASES = ["compile", "eval"]


def again(phase: str) -> dict[str, str]:
    """The options under which a phase is served what it bought before."""
    return {"run_id": "sampling"} if phase == "eval" else {}


def sampled(module: Any, program: dspy.Module, answers: list[str]) -> Any:
    """BestOfN or Refine with N=3 and a reward that is never enough; what it saw is appended to `answers`."""

    def never_enough(arguments: dict[str, Any], prediction: dspy.Prediction) -> float:
        answers.append(prediction.answer)
        return 0.0

    return module(program, N=3, reward_fn=never_enough, threshold=1.0)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("module", "requests"), [(dspy.BestOfN, 3), (dspy.Refine, 5)])
class TestSamplingModules:
    """BestOfN and Refine; Refine also asks for advice twice."""

    def test_three_draws(self, endpoint: Endpoint, lm: MakeLM, phase: str, module: Any, requests: int) -> None:
        """N=3 are three different answers, each a request of its own.

        Asked again, `compile` serves the same three and `eval` draws three more; the same run again is served them.
        """
        dspy.configure(lm=lm(temperature=1.0))
        passages, served = (2, "resumed") if phase == "eval" else (1, "reused")
        answers: list[str] = []
        for fresh in (passages * requests, 0):
            with cachectl.phase(phase, **again(phase)) as run:
                for _ in range(2):
                    sampled(module, qa(), answers)(question="Q?")
            assert_counted(run.stats, fresh=fresh, not_distinct=0, **{served: 2 * requests - fresh})
        assert answers[:6] == answers[6:]
        assert 3 * passages == len(set(answers))
        assert passages * requests == endpoint.requests

    def test_inside_a_program(self, endpoint: Endpoint, lm: MakeLM, phase: str, module: Any, requests: int) -> None:
        """Deep inside a program, and around a program of several modules, it is the same."""

        class Inner(dspy.Module):
            def __init__(self) -> None:
                super().__init__()
                self.answer = qa()

            def forward(self, question: str) -> dspy.Prediction:
                return self.answer(question=question)

        class Outer(dspy.Module):
            def __init__(self) -> None:
                super().__init__()
                self.best = sampled(module, Inner(), answers)

            def forward(self, question: str) -> dspy.Prediction:
                return self.best(question=question)

        answers: list[str] = []
        dspy.configure(lm=lm(temperature=1.0))
        with cachectl.phase(phase):
            Outer().deepcopy()(question="Q?")
        assert len(set(answers)) == 3
        assert requests == endpoint.requests

    def test_the_programs_own_lm(self, endpoint: Endpoint, lm: MakeLM, phase: str, module: Any, requests: int) -> None:
        """An LM set on the program, with a rollout id of its own, is sampled from there on."""
        program = qa()
        program.set_lm(lm(temperature=0.5, rollout_id=7))
        answers: list[str] = []
        with dspy.context(lm=lm(temperature=1.0)), cachectl.phase(phase):
            sampled(module, program, answers)(question="Q?")
        assert len(set(answers)) == 3
        assert requests == endpoint.requests
        assert {1.0} == {request["body"]["temperature"] for request in endpoint.log()}


@pytest.mark.parametrize("phase", PHASES)
class TestRetries:
    """A program asks again because it did not like the answer."""

    def test_other_adapter_after_a_parse_failure(self, endpoint: Endpoint, lm: MakeLM, phase: str) -> None:
        """ChatAdapter's fallback to JSON is a request of its own, and its answer is used."""
        endpoint.fail("garbage", times=1)
        dspy.configure(lm=lm(temperature=1.0))
        with cachectl.phase(phase) as run:
            assert "draw-" in qa()(question="Q?").answer
        assert endpoint.requests == 2
        assert_counted(run.stats, fresh=2)

    def test_users_retry_with_rollout_ids(self, endpoint: Endpoint, lm: MakeLM, phase: str) -> None:
        """A retry with a rollout id of its own is a new draw, and is served when it is asked again."""
        dspy.configure(lm=lm())

        def tries() -> list[str]:
            return [qa()(question="Q?", config={"rollout_id": at, "temperature": 1.0}).answer for at in (1, 2, "three")]

        with cachectl.phase(phase) as run:
            first = tries()
        assert len(set(first)) == 3
        assert endpoint.requests == 3
        assert_counted(run.stats, fresh=3, temperatures_lent=0)

        with cachectl.phase(phase, **({"run_id": run.run_id} if run.run_id else {})):
            assert tries() == first
        assert endpoint.requests == 3

    def test_identical_retry(self, endpoint: Endpoint, lm: MakeLM, phase: str) -> None:
        """The very same call again is a new draw in `eval`, and the same answer in `compile`."""
        dspy.configure(lm=lm(temperature=1.0))
        with cachectl.phase(phase):
            answers = {qa()(question="Q?").answer for _ in range(3)}
        assert (3 if phase == "eval" else 1) == len(answers) == endpoint.requests

    def test_retry_after_both_adapters_failed(self, endpoint: Endpoint, lm: MakeLM, phase: str) -> None:
        """In `eval`, an identical retry after an answer that nothing parses is a new draw; elsewhere it sticks."""
        endpoint.fail("garbage", times=2)
        dspy.configure(lm=lm(temperature=1.0))
        with cachectl.phase(phase):
            with pytest.raises(dspy.utils.exceptions.AdapterParseError):
                qa()(question="Q?")
            if phase == "eval":
                assert "draw-" in qa()(question="Q?").answer
                assert endpoint.requests == 3
            else:
                with pytest.raises(dspy.utils.exceptions.AdapterParseError):
                    qa()(question="Q?")
                assert "draw-" in qa()(question="Q?", config={"rollout_id": 1, "temperature": 1.0}).answer
                assert endpoint.requests == 3


def _copied(lm: Any) -> list[Any]:
    return [lm, *(lm.copy(rollout_id=at) for at in (1, 2))]


def _resampled(lm: Any) -> list[Any]:
    program = qa()
    program.set_lm(lm)
    return prepare_models_for_resampling(program, 3)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("copies", [_copied, _resampled])
def test_copies_of_an_lm(endpoint: Endpoint, lm: MakeLM, phase: str, copies: Callable[[Any], list[Any]]) -> None:
    """Copies with rollout ids, made by hand or by SIMBA, draw apart; a copy of a copy is the same LM."""
    with cachectl.phase(phase, **again(phase)):
        answers = [one("hello")[0] for one in copies(lm(temperature=1.0))]
    assert len(set(answers)) == 3

    with cachectl.phase(phase, **again(phase)):
        copied = [copy.deepcopy(one).copy()("hello")[0] for one in copies(lm(temperature=1.0))]
    assert answers == copied
    assert endpoint.requests == 3


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", ["positional", "keyword", "async"])
def test_typed_requests(endpoint: Endpoint, lm: MakeLM, phase: str, how: str) -> None:
    """A `dspy.lm15.Request` through copies of the LM, or with a rollout id of its own, draws apart."""
    base = lm(temperature=1.0)
    request = dspy.lm15.Request(
        model=base.model,
        messages=(dspy.lm15.Message.user("hello"),),
        config=dspy.lm15.Config(temperature=1.0),
    )

    def ask(one: Any, **options: Any) -> str:
        if how == "async":
            return asyncio.run(one.acall(request, **options)).text
        return (one(request, **options) if how == "positional" else one(request=request, **options)).text

    def draws() -> list[str]:
        return [
            *(ask(base.copy(rollout_id=at)) for at in range(3)),
            *(ask(base, rollout_id=at) for at in (3, 4)),
        ]

    with cachectl.phase(phase, **again(phase)) as run:
        answers = draws()
    assert len(set(answers)) == 5
    assert endpoint.requests == 5
    assert_counted(run.stats, fresh=5)

    with cachectl.phase(phase, **again(phase)):
        assert answers == draws()
    assert endpoint.requests == 5


def test_temperature_of_a_typed_request(endpoint: Endpoint, lm: MakeLM) -> None:
    """A typed request without a temperature is lent one on its way, and is not changed itself."""
    asked = lm()
    requests = [
        dspy.lm15.Request(
            model=asked.model,
            messages=(dspy.lm15.Message.user("hello"),),
            config=dspy.lm15.Config(temperature=temperature),
        )
        for temperature in (None, 0.3)
    ]
    with cachectl.phase("eval") as run:
        for request in requests:
            asked(request)
    assert [1.0, 0.3] == [request["body"]["temperature"] for request in endpoint.log()]
    assert [None, 0.3] == [request.config.temperature for request in requests]
    assert run.stats.temperatures_lent == 1


@pytest.mark.parametrize("engine", ["auto", "litellm"])
@pytest.mark.parametrize("phase", PHASES)
def test_several_at_once(endpoint: Endpoint, lm: MakeLM, phase: str, engine: str) -> None:
    """n=3 are three different answers; they are one entry, and served together."""
    asker = lm(temperature=1.0, engine=engine)
    with cachectl.phase(phase, **again(phase)) as run:
        answers = asker("hello", n=3)
    assert len(set(answers)) == 3
    assert endpoint.requests == run.stats.requests
    with endpoint.counting() as seen, cachectl.phase(phase, **again(phase)):
        assert asker("hello", n=3) == answers
    assert seen.requests == 0


def test_a_program_asks_for_several(endpoint: Endpoint, lm: MakeLM) -> None:
    """Predict(n=3) sets its own temperature of 0.7; a fresh phase does not change it."""
    dspy.configure(lm=lm())
    with cachectl.phase("eval") as run:
        completions = dspy.Predict("question -> answer", n=3)(question="Q?").completions.answer
    assert len(set(completions)) == 3
    assert {0.7} == {request["body"]["temperature"] for request in endpoint.log()}
    assert run.stats.temperatures_lent == 0


def test_rollout_ids_stay_out_of_the_lm(endpoint: Endpoint, lm: MakeLM) -> None:
    """A fresh phase writes nothing into the LM, and no rollout id reaches the provider."""
    asker = lm(temperature=0.0)
    before = dict(asker.kwargs)
    with cachectl.phase("eval") as run:
        asker("hello")
    assert before == asker.kwargs
    assert "rollout_id" not in endpoint.log()[-1]["body"]
    assert isinstance(asker.history[-1]["kwargs"]["rollout_id"], int)
    assert run.run_id == asker.history[-1]["cachectl"]["run_id"]
