"""A call that would go beyond a budget does not reach the provider."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Budget, BudgetExceededError, Policy
from tests.budgets.support import ASKING, ask_in_coroutines, ask_in_threads, exceeding
from tests.endpoint import Endpoint
from tests.limits import SOON

LMs = Callable[..., Any]


IN_FULL = pytest.mark.exhaustive
MOST_OF_ONE = 250
"""How many tokens a question of `ASKING` may come to, with an answer of 50, a token for each byte of what is sent."""


@pytest.fixture(
    params=["governed", "plain", pytest.param("uncached", marks=IN_FULL), pytest.param("litellm", marks=IN_FULL)]
)
def any_lm(request: pytest.FixtureRequest, lm: LMs, plain_lm: LMs) -> Any:
    """An LM of each kind that obeys a budget."""
    kinds = {
        "governed": lm,
        "plain": plain_lm,
        "uncached": lambda: plain_lm(cache=False),
        "litellm": lambda: lm(engine="litellm"),
    }
    return kinds[request.param]()


@pytest.mark.parametrize("by", ASKING)
def test_requests_stop(by: str, any_lm: Any, endpoint: Endpoint) -> None:
    """Of 60 questions a budget of 25 requests buys 25, and the phase ends with what was not made."""
    with exceeding(Budget(requests=25)) as seen:
        assert ASKING[by](any_lm, 60) == 35
    assert endpoint.requests == 25
    assert (seen.error.refused, seen.error.spent["requests"], seen.error.over) == (35, 25, {})
    assert "35 calls were not made, for the budget of phase 'compile'" in str(seen.error)


def test_hits_are_served_when_it_is_spent(lm: LMs, endpoint: Endpoint) -> None:
    """What is stored serves on, and a larger budget buys only the rest."""
    with exceeding(Budget(requests=2)):
        assert ask_in_threads(lm(), 3, 1) == 1
        assert lm()("question 0") == lm()("question 0")
    with cachectl.phase("compile", budget=Budget(requests=1)):
        assert ask_in_threads(lm(), 3, 1) == 0
    assert endpoint.requests == 3


def test_what_is_sent_once_more_counts(lm: LMs, endpoint: Endpoint) -> None:
    """Each arrival counts, and a call that fails for want of another ends as one that was not made."""
    endpoint.fail(status=500, retry_after=0)
    with exceeding(Budget(requests=3)) as seen:
        lm(num_retries=5)("anything")
    assert "3 of the requests arrived and failed" in str(seen.error)
    assert endpoint.requests == 3


@pytest.mark.parametrize("by", ASKING)
def test_no_more_arrive_than_allowed_among_failures(by: str, any_lm: Any, endpoint: Endpoint) -> None:
    """With a tenth of the answers 500 or 429 no more than the budget arrives, and all of it does."""
    for skip in range(5, 100, 10):
        endpoint.fail(status=429 if skip % 20 == 5 else 500, retry_after=0, skip=skip, times=1)
    with exceeding(Budget(requests=70)):
        ASKING[by](any_lm, 120)
    assert endpoint.requests == 70


@pytest.mark.exhaustive
def test_a_thousand_coroutines(lm: LMs, endpoint: Endpoint) -> None:
    """A thousand coroutines at once get 300 answers of a budget of 300 requests."""
    with exceeding(Budget(requests=300)):
        assert ask_in_coroutines(lm(), 1000) == 700
    assert endpoint.requests == 300


@pytest.mark.parametrize("by", ASKING)
@pytest.mark.parametrize("engine", ["auto", pytest.param("litellm", marks=IN_FULL)])
def test_cost_is_never_exceeded(by: str, engine: str, lm: LMs, endpoint: Endpoint) -> None:
    """With price and `max_tokens` the cost stays within, and who does not fit beside the others waits for them."""
    asked = lm("openai/gpt-4o-mini", engine=engine, max_tokens=100)
    limit = 2.5 * 100 * 0.6e-6  # room for two at their most, so that others have to wait, and for many as they are
    with exceeding(Budget(cost=limit)) as seen:
        ASKING[by](asked, 400)
    assert seen.run.stats.cost_spent == pytest.approx(seen.error.spent["cost"])
    assert limit - 100e-6 < seen.run.stats.cost_spent <= limit
    assert seen.run.stats.requests == endpoint.requests


@pytest.mark.parametrize("by", ASKING)
def test_tokens(by: str, lm: LMs, endpoint: Endpoint) -> None:
    """Tokens are limited by what is read and written, and used as far as another call may fit."""
    with exceeding(Budget(tokens=1000)) as seen:
        ASKING[by](lm(max_tokens=50), 400)
    assert seen.run.stats.tokens_spent == seen.error.spent["tokens"] <= 1000
    used = sum(request["usage"]["total_tokens"] for request in endpoint.log())
    assert 1000 - MOST_OF_ONE < used <= 1000


@pytest.mark.parametrize("by", ASKING)
def test_time(by: str, lm: LMs, endpoint: Endpoint) -> None:
    """Time is limited by the clock: what is in the air when it is over ends, and nothing is sent any more."""
    endpoint.hold()
    with exceeding(Budget(seconds=3600)) as seen:
        assert seen.run.budget is not None
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(cachectl.carry(ASKING[by]), lm(), 8)
            assert endpoint.wait_for(8)
            seen.run.budget.began -= 3600  # as if an hour had passed
            endpoint.release()
            assert sent.result() == 0
        assert ASKING[by](lm(temperature=0.5), 20) == 20
    assert "seconds" in str(seen.error)
    assert endpoint.requests == 8


@pytest.mark.parametrize("by", ASKING)
@pytest.mark.parametrize("kind", ["requests", *(pytest.param(kind, marks=IN_FULL) for kind in ("tokens", "cost"))])
def test_a_role_has_its_own(by: str, kind: str, lm: LMs, endpoint: Endpoint) -> None:
    """A budget of a role, of whatever kind, stops that role, and the others go on within the budget of all."""
    model = "openai/gpt-4o-mini"
    allowed = {"requests": 2, "tokens": 2 * MOST_OF_ONE, "cost": 2 * (200 * 0.15e-6 + 50 * 0.6e-6)}[kind]
    judges = Budget(**{kind: allowed})
    with exceeding(Budget(requests=1000, roles={"judge": judges})) as seen:
        refused = ASKING[by](lm(model, role="judge", max_tokens=50), 100)
        assert 0 < refused < 100
        assert ASKING[by](lm(model, role="generator", temperature=0.5), 5) == 0
    assert endpoint.requests == 100 - refused + 5
    assert seen.error.refused == refused
    assert seen.run.budget is not None
    spent = seen.run.budget.roles["judge"].spent[kind]
    assert allowed / 2 < spent <= allowed
    assert "role 'judge' in phase 'compile'" in str(seen.error)


@pytest.mark.parametrize("by", ASKING)
def test_what_is_refused_waits_for_no_rate_limit(by: str, lm: LMs, endpoint: Endpoint) -> None:
    """Where a budget is spent a call is refused at once, and takes nobody's turn."""
    with exceeding(Budget(requests=1), requests_per_minute=0.5) as seen:  # the second would go after two minutes
        assert ASKING[by](lm(), 1) == 0
        asking = threading.Thread(target=cachectl.carry(ASKING[by]), args=(lm(temperature=0.5), 3), daemon=True)
        asking.start()
        asking.join(SOON)
        assert not asking.is_alive()
    assert endpoint.requests == 1
    assert seen.error.refused == 3


def test_an_outer_budget_holds_within(lm: LMs, endpoint: Endpoint) -> None:
    """What is spent in an inner phase is of the outer one's budget too, and the outer one says so at its end."""
    with exceeding(Budget(requests=3)) as seen, cachectl.phase("eval", budget=Budget(requests=100)):
        assert ask_in_threads(lm(), 5, 1) == 2
    assert endpoint.requests == 3
    assert "phase 'compile'" in str(seen.error)


def test_it_is_not_a_score(lm: LMs, endpoint: Endpoint) -> None:
    """`dspy.Evaluate` makes a score of what a call raises; at the end of the phase it is raised all the same."""
    devset = [dspy.Example(question=str(number), answer="a").with_inputs("question") for number in range(6)]
    with dspy.context(lm=lm()), exceeding(Budget(requests=4), "eval") as seen:
        evaluator = dspy.Evaluate(devset=devset, metric=lambda *_: 1.0, num_threads=2, max_errors=100)
        evaluator(dspy.Predict("question -> answer"))
    assert endpoint.requests == 4
    assert seen.error.refused >= 2


def test_embeddings_count(endpoint: Endpoint) -> None:
    """An embedder's requests are of the budget; it has to have room for those that its client sends by itself."""
    embed = dspy.Embedder("openai/text-embedding-3-small", api_base=endpoint.url, api_key="sk-test", caching=False)
    with exceeding(Budget(requests=4)):
        for number in range(6):
            embed([f"text {number}"])
    assert endpoint.requests == 2


def test_a_stream_counts(lm: LMs, endpoint: Endpoint) -> None:
    """A streamed answer is a request of the budget, and its tokens are."""
    program = dspy.streamify(dspy.Predict("question -> answer"))

    async def ask_all() -> None:
        for number in range(3):
            async for _ in program(question=f"question {number}"):
                pass

    with dspy.context(lm=lm()), exceeding(Budget(requests=2)) as seen:
        asyncio.run(ask_all())
    assert endpoint.requests == 2
    assert seen.error.spent["tokens"] > 0


def test_who_is_not_sure_is_named(lm: LMs, endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """A model without a price is named and counts as free; a strict budget refuses it, unless a price is given."""
    with caplog.at_level(logging.WARNING), cachectl.phase("compile", budget=Budget(cost=1.0)):
        lm()("one")
    assert "price is not known" in caplog.text
    with exceeding(Budget(cost=1.0, strict=True)):
        lm()("two")
    priced = Budget(cost=1.0, strict=True, prices={"openai/test*": (1.0, 2.0)})
    with cachectl.phase("compile", budget=priced) as run:
        lm()("three")
    assert run.budget is not None
    assert run.budget.spent["cost"] > 0
    assert endpoint.requests == 2


def test_half_and_four_fifths_are_said(lm: LMs, caplog: pytest.LogCaptureFixture) -> None:
    """At 50 and at 80 % it is said, once each."""
    with caplog.at_level(logging.WARNING), cachectl.phase("compile", budget=Budget(requests=10)):
        ask_in_threads(lm(), 10, 1)
    said = [record.getMessage() for record in caplog.records if "budget" in record.getMessage()]
    assert [text[:4] for text in said] == ["50 %", "80 %"]


def test_a_replay_misses_within_a_budget_too(lm: LMs, endpoint: Endpoint) -> None:
    """A replay within a budget ends as a replay does."""
    with pytest.raises(cachectl.CacheMissError), cachectl.phase("eval", Policy.REPLAY, budget=Budget(requests=0)):
        lm()("anything")
    assert endpoint.requests == 0


def test_it_is_named_before_it_is_asked(lm: LMs, endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """The LM that DSPy is set to is named at the beginning of the phase, where its price is not known."""
    dspy.configure(lm=lm())
    with caplog.at_level(logging.WARNING), cachectl.phase("compile", budget=Budget(cost=1.0)):
        assert "'openai/test-model'" in caplog.text
        assert "price is not known" in caplog.text
    caplog.clear()
    dspy.configure(lm=lm("openai/gpt-4o-mini"))
    with cachectl.phase("compile", budget=Budget(cost=1.0)):
        assert "price" not in caplog.text
    assert endpoint.requests == 0


def test_an_lm_that_answers_by_itself(lm: LMs, caplog: pytest.LogCaptureFixture) -> None:
    """One with a `forward` of its own is named, counted, and refused where the budget is strict."""

    class Own(dspy.LM):  # type: ignore[misc]
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            return super().forward(prompt=prompt, messages=messages, **kwargs)

    own = Own("openai/test-model", api_base=lm().kwargs["api_base"], api_key="sk-test")
    with caplog.at_level(logging.WARNING), exceeding(Budget(requests=2)):
        assert ask_in_threads(own, 4, 1) == 2
    assert "runs its own forward()" in caplog.text
    with exceeding(Budget(requests=9, strict=True)) as seen:
        own("anything")
    assert "strict" in str(seen.error.__cause__)


def test_fallbacks_count(lm: LMs, endpoint: Endpoint) -> None:
    """What LiteLLM asks in place of a model that fails is a request too, and there has to be room for it."""
    endpoint.fail(status=500, times=1)
    asked = lm(engine="litellm", fallbacks=["openai/another-model"], num_retries=0)
    with exceeding(Budget(requests=4)) as seen:
        ask_in_threads(asked, 6, 1)
    assert endpoint.requests == 3
    assert seen.error.spent["requests"] == 3


def test_who_is_given_up_may_have_cost(lm: LMs, endpoint: Endpoint) -> None:
    """A request of which nobody knows what it came to counts as much as it may have; a refused one costs nothing."""
    asked = lm("openai/gpt-4o-mini", max_tokens=100, num_retries=0, timeout=1)
    with cachectl.phase("compile", budget=Budget(cost=1.0)) as run:
        endpoint.fail(status=500, times=1)
        with pytest.raises(dspy.LMError):
            asked("one")
        assert run.budget is not None
        assert run.budget.spent["cost"] == 0
        endpoint.fail("hang", times=1)
        with pytest.raises(dspy.LMError):
            asked("two")
        assert run.budget.spent["cost"] >= 100 * 0.6e-6


def test_without_a_limit_of_its_own_an_answer_is_guessed(lm: LMs) -> None:
    """Without `max_tokens` the cost goes over by no more than what was in the air, and the error says by how much."""
    asked = lm("openai/gpt-4o-mini")
    with cachectl.phase("eval") as run:
        asked("a question")
    one = run.stats.cost_spent
    with exceeding(Budget(cost=25 * one)) as seen:
        ask_in_threads(asked, 60, 4)
    assert seen.run.stats.cost_spent <= (25 + 4) * one
    assert seen.error.over.get("cost", 0.0) <= 4 * one


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_of_several_answers_is_made_where_all_fit(
    lm: LMs, plain_lm: LMs, endpoint: Endpoint, plain: bool, is_async: bool
) -> None:
    """Each is a request by itself: of 5 at once, 13 requests allow two calls, and no part of a third is bought."""
    asked, made = (plain_lm if plain else lm)(n=5, temperature=1.0), []
    with exceeding(Budget(requests=13)):
        for number in range(4):
            with contextlib.suppress(BudgetExceededError):
                text = f"question {number}"
                made.append(asyncio.run(asked.acall(text)) if is_async else asked(text))
    assert (10, [5, 5]) == (endpoint.requests, [len(answers) for answers in made])
