"""Programs of every kind in batches: what is of one wave, what cannot be sent, and what is counted."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import dspy
import litellm
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.batches import notes
from tests.batches.support import QUICK, Three, length, questions, run
from tests.budgets.support import exceeding
from tests.endpoint import Endpoint

SIDES = ("left", "right", "middle")


def sizes(endpoint: Endpoint) -> list[int]:
    """How many lines each batch had."""
    return [len(batch["lines"]) for batch in endpoint.batches()]


class Sides(dspy.Module):
    """Three calls that do not need one another, then one that needs them all."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.join = dspy.Predict("question, side -> seen"), dspy.Predict("question, seen -> answer")

    def forward(self, question: str) -> Any:
        asked = [(self.look, {"question": question, "side": side}) for side in SIDES]
        seen = dspy.Parallel(num_threads=3, disable_progress_bar=True)(asked)
        return self.join(question=question, seen=" ".join(one.seen for one in seen))

    async def aforward(self, question: str) -> Any:
        seen = await asyncio.gather(*(self.look.acall(question=question, side=side) for side in SIDES))
        return await self.join.acall(question=question, seen=" ".join(one.seen for one in seen))


class Awaited(dspy.Module):
    """The same, awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = Sides()

    async def aforward(self, question: str) -> Any:
        return await self.sides.aforward(question=question)


@pytest.mark.parametrize("program", [Sides, Awaited])
def test_what_is_asked_at_once_is_of_one_wave(lm: Any, endpoint: Endpoint, program: Callable[[], Any]) -> None:
    """By threads, and by coroutines."""
    dspy.configure(lm=lm())
    report = run(program(), questions(3), predictions=False)
    assert ([9, 3], 0, 12) == (sizes(endpoint), endpoint.requests, report.provenance.counters["fresh"])


@pytest.mark.parametrize("plain", [False, True])
def test_a_judge_goes_by_batches_too(lm: Any, plain_lm: Any, endpoint: Endpoint, plain: bool) -> None:
    """After the program, and those of another model by themselves."""
    dspy.configure(lm=lm())
    judge = dspy.Predict("answer -> verdict")
    judge.lm = (plain_lm if plain else lm)("openai/judge-model", temperature=0.5)

    def judged(example: Any, prediction: Any, trace: Any = None) -> float:
        return length(example, dspy.Prediction(answer=judge(answer=prediction.answer).verdict))

    program = dspy.Predict("question -> answer")
    ordinary = run(program, questions(4), judged, batch=False, predictions=False, run_id="ordinary")
    endpoint.reset()
    report = run(program, questions(4), judged, predictions=False, run_id="by-batches")
    assert ([4, 4], 0, ordinary.score) == (sizes(endpoint), endpoint.requests, report.score)
    models = [{line["body"]["model"] for line in batch["lines"]} for batch in endpoint.batches()]
    assert [{"test-model"}, {"judge-model"}] == models
    for name in ("calls", "requests", "fresh", "resumed", "reused", "collapsed"):
        assert ordinary.provenance.counters[name] == report.provenance.counters[name]


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_what_is_asked_is_what_would_be_asked(lm: Any, endpoint: Endpoint, engine: str) -> None:
    """Options, schemas, tools and typed requests: the body of a line is that of the request, and so is the answer."""
    lm = lm(engine=engine, max_tokens=50, temperature=0.3, stop=["END"], top_p=0.5)
    dspy.configure(lm=lm)
    request = dspy.lm15.Request(
        model=lm.model,
        messages=(dspy.lm15.Message.user("typed"),),
        config=dspy.lm15.Config(temperature=0.2, max_tokens=9),
    )
    asking = dspy.Predict("question -> answer")

    def with_schema() -> Any:
        with dspy.context(adapter=dspy.JSONAdapter()):
            return asking(question="as a schema").answer

    ways: list[Callable[[], Any]] = [
        lambda: lm("as a prompt", n=1, extra_body={"seed": 3}),
        with_schema,
        lambda: lm("with logprobs", logprobs=True, timeout=60),
        lambda: lm(request).text,
    ]

    def program(question: str) -> Any:
        return dspy.Prediction(answer=str(ways[int(question.removeprefix("question "))]()))

    devset = questions(len(ways))
    ordinary = run(program, devset, batch=False, predictions=False, run_id="ordinary", num_threads=1)
    asked = [one["body"] for one in endpoint.log()]
    endpoint.reset()
    report = run(program, devset, predictions=False, run_id="by-batches", num_threads=1)
    (batch,) = endpoint.batches()
    sent = [line["body"] for line in batch["lines"]]
    assert sorted(map(_told, asked)) == sorted(map(_told, sent))
    assert [one.draws[0].output for one in ordinary.questions] == [one.draws[0].output for one in report.questions]


def _told(body: dict[str, Any]) -> str:
    """What a body asks; one engine has another name for a limit, and says how many answers it wants of one."""
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    rest = {name: value for name, value in body.items() if name not in {"max_completion_tokens", "max_tokens", "n"}}
    return json.dumps({**rest, "most": most}, sort_keys=True)


def test_an_answer_costs_what_batches_cost(lm: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the price is known, in whichever process it is served; and no price is made up."""
    price = {"input_cost_per_token": 2e-6, "output_cost_per_token": 4e-6, "litellm_provider": "openai", "mode": "chat"}
    batches = {"input_cost_per_token_batches": 1e-6, "output_cost_per_token_batches": 2e-6}
    monkeypatch.setitem(litellm.model_cost, "openai/priced", {**price, **batches})
    monkeypatch.setitem(litellm.model_cost, "openai/half-priced", price)
    litellm.get_model_info.cache_clear() if hasattr(litellm.get_model_info, "cache_clear") else None
    for engine, model in itertools.product(("lm15", "litellm"), ("openai/priced", "openai/half-priced")):
        dspy.configure(lm=lm(model, engine=engine))
        report = run(dspy.Predict("question -> answer"), questions(2), predictions=False)
        counters = report.provenance.counters
        spent = counters["prompt_tokens_spent"] * 1e-6 + counters["completion_tokens_spent"] * 2e-6
        expected = (pytest.approx(spent), 0) if model == "openai/priced" else (0.0, 2)
        assert expected == (counters["cost_spent"], counters["unpriced"])


def test_an_answer_that_is_not_stored_reaches_the_program(lm: Any, endpoint: Endpoint) -> None:
    """An empty one is served as it came, and not bought again; the program goes on as it would."""
    dspy.configure(lm=lm())
    endpoint.fail("content_filter", match="question 1")
    endpoint.fail("content_filter", path="/v1/batches", match="question 1")
    ordinary = run(Three(), questions(2), batch=False, predictions=False, run_id="ordinary")
    batches = run(Three(), questions(2), predictions=False, run_id="by-batches")
    assert [2, 2, 2] == sizes(endpoint)
    for name in ("calls", "requests", "fresh", "unstored"):
        assert ordinary.provenance.counters[name] == batches.provenance.counters[name]
    assert 3 == batches.provenance.counters["unstored"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"cache": False}, "its caching is off"),
        ({"model_type": "responses"}, "the API of responses"),
        ({"model": "anthropic/claude"}, "the provider anthropic is not among"),
    ],
)
def test_what_cannot_be_sent_is_said(lm: Any, endpoint: Endpoint, options: dict[str, Any], why: str) -> None:
    """Before anything is paid for."""
    dspy.configure(lm=lm(**options))
    with pytest.raises(cachectl.ConfigurationError, match=why):
        run(dspy.Predict("question -> answer"), questions(3))
    assert (0, []) == (endpoint.requests, endpoint.batches())


@pytest.mark.parametrize("wrong", [{"until": 0.1}, {"executor": object()}, {"batch": 3}, {"batch": "yes"}])
def test_what_does_not_go_together_is_said(lm: Any, endpoint: Endpoint, wrong: dict[str, Any]) -> None:
    """Before anything is sent."""
    dspy.configure(lm=lm())
    with pytest.raises(cachectl.ConfigurationError, match="batch"):
        run(dspy.Predict("question -> answer"), questions(2), **wrong)
    for name, value in {"wait": 1, "interval": 0, "longest_interval": "1", "attempts": 0}.items():
        with pytest.raises(cachectl.ConfigurationError, match=f"{name} of a Batch"):
            cachectl.Batch(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(cachectl.ConfigurationError, match="cassette"), cachectl.cassette("tape.jsonl"):
        run(dspy.Predict("question -> answer"), questions(2))
    assert [] == endpoint.batches()


def test_a_program_that_asks_otherwise_each_time_is_asked_at_once(lm: Any, endpoint: Endpoint) -> None:
    """Its first answers are of no use; the others go by batches."""
    dspy.configure(lm=lm())
    answer, times = dspy.Predict("question -> answer"), itertools.count()

    def program(question: str) -> Any:
        return answer(question=f"{question}, asked {next(times)}" if question == "question 1" else question)

    report = run(program, questions(3), predictions=False, num_threads=1)
    assert ([3], 1, 3) == (sizes(endpoint), endpoint.requests, report.provenance.counters["fresh"])


def test_what_is_kept_is_not_sent(lm: Any, endpoint: Endpoint) -> None:
    """A second evaluation sends nothing, further repeats send theirs, and several models are sent each."""
    dspy.configure(lm=lm())
    program = dspy.Predict("question -> answer")
    first = run(program, questions(3))
    again = run(program, questions(3))
    assert ([3], first.score, 3) == (sizes(endpoint), again.score, again.provenance.counters["loaded"])
    more = run(program, questions(3), repeats=3, order="random")
    assert ([3, 6], 9) == (sizes(endpoint), more.distinct.distinct)
    anew = run(program, questions(3), force_recompute=True)
    assert ([3, 6, 3], True) == (sizes(endpoint), anew.run_id != first.run_id)
    run(program, questions(3), lms=[lm("openai/one"), lm("openai/two")], predictions=False)
    assert ([3, 6, 3, 3, 3], 0) == (sizes(endpoint), endpoint.requests)


def test_rate_limits_are_none_of_a_batch(lm: Any, endpoint: Endpoint) -> None:
    """What a batch has answered is not sent again, so it waits for no limit."""
    dspy.configure(lm=lm(requests_per_minute=1))
    report = run(dspy.Predict("question -> answer"), questions(5), predictions=False, batch=QUICK)
    assert ([5], 5) == (sizes(endpoint), report.provenance.counters["fresh"])


def test_a_budget_allows_a_wave_or_none_of_it(lm: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is not sent; with a larger budget the rest is. It is charged what batches cost."""
    price = {"input_cost_per_token": 2e-6, "output_cost_per_token": 4e-6, "litellm_provider": "openai", "mode": "chat"}
    batches = {"input_cost_per_token_batches": 1e-6, "output_cost_per_token_batches": 2e-6}
    monkeypatch.setitem(litellm.model_cost, "openai/on-a-budget", {**price, **batches})
    dspy.configure(lm=lm("openai/on-a-budget", engine="litellm", max_tokens=100))
    with exceeding(cachectl.Budget(requests=10)), pytest.raises(cachectl.BudgetExceededError):
        run(Three(), questions(4))
    assert [4, 4] == sizes(endpoint)
    with cachectl.phase("compile", budget=cachectl.Budget(requests=4, cost=1.0)) as phase:
        run(Three(), questions(4))
    assert ([4, 4, 4], 0) == (sizes(endpoint), endpoint.requests)
    assert phase.budget is not None
    spent = phase.budget.spent
    used = [one["usage"] for one in endpoint.log()[8:]]
    cost = sum(one["prompt_tokens"] * 1e-6 + one["completion_tokens"] * 2e-6 for one in used)
    assert (4, pytest.approx(cost)) == (spent["requests"], spent["cost"])


def test_a_wrapped_tool_is_called_once(lm: Any, endpoint: Endpoint) -> None:
    """However often the program runs; what it returned is what the next call asks with."""
    dspy.configure(lm=lm())
    first, second, called = dspy.Predict("question -> plan"), dspy.Predict("plan, seen -> answer"), list[str]()

    def look(plan: str) -> str:
        called.append(plan)
        return f"seen as number {len(called)}"

    tool = cachectl.wrap(look)

    def program(question: str) -> Any:
        plan = first(question=question).plan
        return second(plan=plan, seen=tool(plan=plan))

    report = run(program, questions(3), predictions=False, num_threads=1)
    assert ([3, 3], 0, 3) == (sizes(endpoint), endpoint.requests, len(called))
    assert 6 == report.provenance.counters["requests"]


@pytest.mark.parametrize("repeats", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_an_evaluation_is_of_the_questions_that_its_budget_allows(lm: Any, endpoint: Endpoint, repeats: int) -> None:
    """In random order, those whose calls were all paid for; with a larger budget only the rest is sent."""
    dspy.configure(lm=lm())
    devset, program = questions(8), dspy.Predict("question -> answer")
    count = 5 + 8 * (repeats - 1)
    how: dict[str, Any] = {"budget": cachectl.Budget(requests=count), "predictions": False, "repeats": repeats}
    part = run(program, devset, **how)
    ordinary = run(program, devset, **how, batch=False, num_threads=1)
    assert ([count], count) == (sizes(endpoint), endpoint.requests)
    assert [one.question for one in ordinary.questions] == [one.question for one in part.questions]
    assert (8 * repeats - count, "budget") == (part.provenance.missing, part.provenance.stopping.by)
    whole = run(program, devset, predictions=False, repeats=repeats)
    assert ([count, 8 * repeats - count], whole.run_id) == (sizes(endpoint), part.run_id)
    assert notes.noted() == []


def test_a_budget_that_ends_between_waves(lm: Any, endpoint: Endpoint) -> None:
    """What is answered whole by then is reported; where nothing is, that is said, and nothing is bought twice."""
    dspy.configure(lm=lm())
    with pytest.raises(cachectl.BudgetExceededError):
        run(Three(), questions(4), budget=cachectl.Budget(requests=8))
    assert [4, 4] == sizes(endpoint)
    part = run(Three(), questions(4), budget=cachectl.Budget(requests=3))
    assert ([4, 4, 3], 3, 1) == (sizes(endpoint), len(part.questions), part.provenance.missing)
    whole = run(Three(), questions(4))
    assert ([4, 4, 3, 1], 0, 0) == (sizes(endpoint), whole.provenance.missing, endpoint.requests)


def test_a_job_that_comes_back_keeps_to_its_budget(lm: Any, endpoint: Endpoint) -> None:
    """By its name: what it has sent before counts, and is in the report."""
    dspy.configure(lm=lm())
    endpoint.configure(batch_looks=None)
    budget = cachectl.Budget(requests=5, name="job")
    how: dict[str, Any] = {"budget": budget, "predictions": False, "batch": cachectl.Batch(wait=False)}
    for _ in range(2):
        with pytest.raises(cachectl.BatchPendingError):
            run(dspy.Predict("question -> answer"), questions(8), **how)
    endpoint.finish_batches()
    part = run(dspy.Predict("question -> answer"), questions(8), **how)
    assert ([5], 5, 3, 0) == (sizes(endpoint), part.n, part.provenance.missing, endpoint.requests)
