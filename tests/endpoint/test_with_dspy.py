"""DSPy itself against the endpoint: every way of calling an LM, and every optimizer, ends well."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from typing import Any, Literal

import dspy
import pytest
from pydantic import BaseModel

from tests.endpoint import Endpoint

ENGINES = ("auto", "litellm")
MakeLM = Callable[..., Any]

QUESTIONS = {f"What is the capital number {at}?": f"city{at}" for at in range(16)}
EXAMPLES = [dspy.Example(question=key, answer=value).with_inputs("question") for key, value in QUESTIONS.items()]


class Part(BaseModel):
    """A nested output."""

    name: str
    sizes: list[int]
    note: str | None


class Everything(dspy.Signature):
    """Fill all fields."""

    question: str = dspy.InputField()
    count: int = dspy.OutputField()
    sure: bool = dspy.OutputField()
    share: float = dspy.OutputField()
    label: Literal["yes sir", "no"] = dspy.OutputField()
    parts: list[Part] = dspy.OutputField()
    table: dict[str, int] = dspy.OutputField()
    answer: str = dspy.OutputField()


def no_fallbacks(endpoint: Endpoint) -> bool:
    """Whether ChatAdapter never had to ask again through JSONAdapter."""
    return not [prompt for prompt in endpoint.counts() if "Respond with a JSON object" in prompt]


def exact(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    return float(example.answer == prediction.answer)


def exact_with_feedback(gold: Any, prediction: Any, trace: Any, name: Any, name_trace: Any) -> dspy.Prediction:
    return dspy.Prediction(score=exact(gold, prediction), feedback=f"It is {gold.answer}.")


@pytest.mark.parametrize("engine", ENGINES)
class TestCalls:
    """Both of DSPy's engines reach every API."""

    def test_chat_is_called_once_and_then_cached(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """A call is one request; the same call again is none."""
        lm = plain_lm(engine=engine)
        assert lm("hello") == lm("hello")
        assert endpoint.counts() == {"hello": 1}
        assert endpoint.log()[0]["headers"]["authorization"] == "Bearer sk-test-secret"

    def test_rollouts_draw_differently(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """Another rollout id is another draw."""
        lm = plain_lm(engine=engine, temperature=1.0)
        assert len({lm("hello", rollout_id=at)[0] for at in range(3)}) == 3
        assert endpoint.requests == 3

    def test_n(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """`n=3` gives three different answers."""
        assert len(set(plain_lm(engine=engine, temperature=1.0)("hello", n=3))) == 3

    async def test_async(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """Asynchronous calls overlap; without a cache each is a draw of its own."""
        lm = plain_lm(engine=engine, temperature=1.0, cache=False)
        answers = await asyncio.gather(*(lm.acall("hello") for _ in range(4)))
        assert len({answer[0] for answer in answers}) == 4

    def test_text(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """Text completions serve a program too."""
        lm = plain_lm("text-completion-openai/test-model", engine=engine, model_type="text")
        with dspy.context(lm=lm):
            assert "draw-" in dspy.Predict("question -> answer")(question="Q?").answer
        assert endpoint.state["paths"] == {"/v1/completions": 1}

    def test_responses(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """The Responses API serves a program too."""
        if engine == "litellm" and importlib.util.find_spec("mcp") is None:
            pytest.skip("LiteLLM's Responses API needs the package mcp")
        lm = plain_lm(engine=engine, model_type="responses")
        with dspy.context(lm=lm):
            assert "draw-" in dspy.Predict("question -> answer")(question="Q?").answer
        assert endpoint.state["paths"] == {"/v1/responses": 1}

    @pytest.mark.parametrize("model_type", ["chat", "responses"])
    async def test_streaming(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str, model_type: str) -> None:
        """A streamed program yields pieces of its answer, and then the prediction."""
        if engine == "litellm" and model_type == "responses":
            pytest.skip("DSPy streams the Responses API through its own client only")
        endpoint.configure(answers={"Q?": ["one two three four five six seven eight nine ten"]})
        program = dspy.streamify(
            dspy.Predict("question -> answer"),
            stream_listeners=[dspy.streaming.StreamListener(signature_field_name="answer")],
        )
        with dspy.context(lm=plain_lm(engine=engine, model_type=model_type)):
            seen = [item async for item in program(question="Q?")]
        pieces = [item.chunk for item in seen if isinstance(item, dspy.streaming.StreamResponse)]
        assert len(pieces) > 1
        assert seen[-1].answer == "".join(pieces).strip()
        assert endpoint.requests == 1

    def test_usage(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """DSPy's history has the tokens the endpoint counted."""
        lm = plain_lm(engine=engine)
        endpoint.configure(answers={"": ["one two three"]})
        lm("hello there")
        usage = lm.history[-1]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 3)

    @pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
    def test_typed_outputs(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str, adapter: Any) -> None:
        """Values of every type parse at the first attempt."""
        with dspy.context(lm=plain_lm(engine=engine), adapter=adapter):
            assert isinstance(dspy.Predict(Everything)(question="Q?").parts[0], Part)
        assert endpoint.requests == 1

    @pytest.mark.parametrize("status", [429, 500])
    def test_retries_are_counted(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str, status: int) -> None:
        """A fault that passes costs one request more, and no draw."""
        endpoint.fail(status=status, retry_after=0, times=1)
        endpoint.configure(answers={"": ["first", "second"]})
        assert plain_lm(engine=engine)("hello") == ["first"]
        assert endpoint.counts() == {"hello": 2}

    def test_refusals_are_not_retried(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """A wrong key fails at once."""
        endpoint.fail(status=401)
        with pytest.raises(dspy.utils.exceptions.LMError):
            plain_lm(engine=engine)("hello")
        assert endpoint.requests == 1

    @pytest.mark.parametrize("kind", ["empty", "garbage"])
    def test_unparsable_text(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str, kind: str) -> None:
        """A text that nothing parses fails in both adapters."""
        endpoint.fail(kind)
        with (
            dspy.context(lm=plain_lm(engine=engine)),
            pytest.raises(dspy.utils.exceptions.AdapterParseError),
        ):
            dspy.Predict("question -> answer")(question="Q?")


def test_native_tools(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """A model that takes tools gets to call one, with arguments of the right types."""

    class Ask(dspy.Signature):
        """Answer with the tools."""

        question: str = dspy.InputField()
        tools: list[dspy.Tool] = dspy.InputField()
        calls: dspy.ToolCalls = dspy.OutputField()

    def weather(city: str, days: int = 1) -> str:
        """Tell the weather."""
        return f"sunny in {city} for {days}"

    endpoint.configure(call_tools=True)
    adapter = dspy.ChatAdapter(use_native_function_calling=True)
    with dspy.context(lm=plain_lm("openai/gpt-4o-mini"), adapter=adapter):
        calls = dspy.Predict(Ask)(question="Rain?", tools=[dspy.Tool(weather)]).calls.tool_calls
    assert [call.name for call in calls] == ["weather"]
    assert isinstance(calls[0].args["days"], int)


def test_embedder(endpoint: Endpoint) -> None:
    """`dspy.Embedder` gets one vector per text, the same for the same text."""
    embedder = dspy.Embedder("openai/test-embedding", api_base=endpoint.url, api_key="sk-test-secret", caching=False)
    first, second = embedder(["a b", "c"]), embedder(["c"])
    assert first.shape == (2, 16)
    assert first[1].tolist() == second[0].tolist()
    assert endpoint.requests == 2


def test_react_calls_a_tool_and_finishes(endpoint: Endpoint, plain_lm: MakeLM) -> None:
    """A ReAct program makes three calls: one tool, the finish, the answer."""

    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    with dspy.context(lm=plain_lm()):
        trajectory = dspy.ReAct("question -> answer", tools=[weather])(question="Rain?").trajectory
    assert [trajectory["tool_name_0"], trajectory["tool_name_1"]] == ["weather", "finish"]
    assert trajectory["observation_0"].startswith("sunny in ")
    assert endpoint.requests == 3


@pytest.mark.parametrize("module", [dspy.BestOfN, dspy.Refine])
def test_sampling_modules(endpoint: Endpoint, plain_lm: MakeLM, module: Any) -> None:
    """BestOfN and Refine get N different answers; Refine also asks for advice in between."""
    answers: list[str] = []

    def never_enough(arguments: dict[str, Any], prediction: dspy.Prediction) -> float:
        answers.append(prediction.answer)
        return 0.0

    with dspy.context(lm=plain_lm(temperature=1.0)):
        module(dspy.Predict("question -> answer"), N=3, reward_fn=never_enough, threshold=1.0)(question="Q?")
    assert len(set(answers)) == 3
    assert (3 if module is dspy.BestOfN else 5) == endpoint.requests
    assert no_fallbacks(endpoint)


def random_search() -> Any:
    return dspy.BootstrapFewShotWithRandomSearch(
        metric=exact, max_bootstrapped_demos=1, max_labeled_demos=1, num_candidate_programs=1, num_threads=2
    )


def mipro() -> Any:
    return dspy.MIPROv2(metric=exact, auto="light", num_threads=2)


def copro() -> Any:
    return dspy.COPRO(metric=exact, breadth=2, depth=1)


def simba() -> Any:
    return dspy.SIMBA(metric=exact, bsize=4, num_candidates=2, max_steps=1, num_threads=2)


def gepa() -> Any:
    return dspy.GEPA(metric=exact_with_feedback, reflection_lm=dspy.settings.lm, max_metric_calls=30, num_threads=2)


def infer_rules() -> Any:
    return dspy.InferRules(
        metric=exact, num_candidates=1, num_rules=2, num_threads=2, max_bootstrapped_demos=1, max_labeled_demos=1
    )


@pytest.mark.parametrize("make", [random_search, mipro, copro, simba, gepa, infer_rules])
def test_optimizers(endpoint: Endpoint, plain_lm: MakeLM, make: Callable[[], Any]) -> None:
    """Every optimizer of DSPy compiles a program, and no answer fails to parse."""
    endpoint.configure(gold=QUESTIONS, accuracy=0.6)
    with dspy.context(lm=plain_lm(temperature=1.0)):
        options = {"valset": EXAMPLES[8:]} if make not in (copro, simba) else {}
        if make is copro:
            options = {"eval_kwargs": {"num_threads": 2, "display_progress": False}}
        student = dspy.ChainOfThought("question -> answer")
        compiled = make().compile(student, trainset=EXAMPLES[:8], **options)
        assert compiled(question="What else?").answer
    assert no_fallbacks(endpoint)
