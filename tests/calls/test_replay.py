"""A replay serves what was recorded, and says at its end what it could not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, gold, qa, question
from tests.endpoint import Endpoint


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def swallow_a_miss(lm: Any, then: BaseException) -> None:
    """What a program may do that catches everything, and fails later."""
    with pytest.raises(cachectl.CacheMissError):
        lm("hello")
    raise then


class TestServed:
    """What was recorded comes back, without a request."""

    def test_a_recorded_program(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """An agent, an evaluation and an embedding recorded under REUSE replay with the same results."""
        pytest.importorskip("numpy")
        embedder = dspy.Embedder("openai/test-embedding", api_base=endpoint.url, api_key="sk-test")
        dspy.configure(lm=lm(temperature=1.0))
        endpoint.configure(gold=gold(6), accuracy=0.5)

        def program() -> list[Any]:
            agent = dspy.ReAct("question -> answer", tools=[weather])
            best = dspy.BestOfN(qa(), N=2, reward_fn=lambda *_: 0.0, threshold=1.0)
            return [
                agent(question="Rain?").answer,
                best(question="Best?").answer,
                asyncio.run(qa().acall(question="Async?")).answer,
                evaluate(qa(), examples(6)),
                embedder(["a", "b"]).tolist(),
            ]

        with cachectl.phase("compile"):
            recorded = program()
        bought = endpoint.requests
        with cachectl.phase("check", Policy.REPLAY) as run:
            assert program() == recorded
        assert bought == endpoint.requests
        assert_counted(run.stats, replayed=run.stats.calls, requests=0, stray=0)

    @pytest.mark.parametrize("where", ["lm", "call", "config"])
    def test_a_program_without_cache(self, endpoint: Endpoint, lm: MakeLM, where: str) -> None:
        """What was recorded with the cache on is served to a program that turned it off."""
        dspy.configure(lm=lm())
        with cachectl.phase("compile"):
            recorded = qa()(question="Q?").answer
            called = dspy.settings.lm("hello")
        dspy.configure(lm=lm(cache=where != "lm"))
        with cachectl.phase("check", Policy.REPLAY) as run:
            config = {"cache": False} if where == "config" else {}
            assert recorded == qa()(question="Q?", config=config).answer
            assert called == dspy.settings.lm("hello", **({"cache": False} if where == "call" else {}))
        assert endpoint.requests == 2
        assert_counted(run.stats, replayed=2)

    def test_a_plain_lm(self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> None:
        """A plain `dspy.LM` and ours share what was recorded outside runs."""
        with cachectl.phase("compile"):
            recorded = [lm()("one"), plain_lm()("two")]
        with cachectl.phase("check", Policy.REPLAY) as run:
            assert recorded == [plain_lm()("one"), lm()("two")]
        assert endpoint.requests == 2
        assert_counted(run.stats, replayed=2)

    @pytest.mark.parametrize("temperature", [None, 1.0, 0.0])
    def test_a_named_run(self, endpoint: Endpoint, lm: MakeLM, temperature: float | None) -> None:
        """A replay of a run serves exactly its draws, lent temperature and all."""
        endpoint.configure(gold=gold(10), accuracy=0.5)
        dspy.configure(lm=lm(temperature=temperature))
        with cachectl.phase("eval", run_id="recorded"):
            score = evaluate(qa(), examples(10, 3), threads=4)
            answers = [qa()(question="Again?").answer for _ in range(3)]
        with cachectl.phase("check", Policy.REPLAY, run_id="recorded") as run:
            assert evaluate(qa(), examples(10, 3), threads=2) == score
            assert answers == [qa()(question="Again?").answer for _ in range(3)]
        assert endpoint.requests == 33
        assert_counted(run.stats, replayed=33)

    def test_one_draw_more_than_recorded(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A run of three draws has no fourth one."""
        drawn: list[Any] = []
        with cachectl.phase("eval", run_id="recorded"):
            recorded = [lm()("hello") for _ in range(3)]
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.phase("check", Policy.REPLAY, run_id="recorded"):
            drawn.extend(lm()("hello") for _ in range(4))
        assert drawn == recorded
        assert endpoint.requests == 3
        assert any(line.startswith("draw:") for line in miss.value.differences)

    def test_a_run_is_no_recording_of_the_plain_call(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Without its id, a run's draws are not served."""
        with cachectl.phase("eval", run_id="recorded"):
            lm()("hello")
        with pytest.raises(cachectl.CacheMissError), cachectl.phase("check", Policy.REPLAY):
            lm()("hello")
        assert endpoint.requests == 1


class TestEnding:
    """Misses come back at the end, where the user is looking."""

    def test_swallowed_by_evaluate(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Evaluate scores a miss 0.0; the end of the phase counts the misses, and shows the nearest entry."""
        dspy.configure(lm=lm(temperature=0.5))
        with cachectl.phase("compile"):
            evaluate(qa(), examples(3))
        with (
            pytest.raises(cachectl.ReplayIncompleteError) as ending,
            cachectl.phase("check", Policy.REPLAY) as run,
        ):
            assert evaluate(qa(), examples(5)) == 0.0
        assert ending.value.count == 2
        assert_counted(run.stats, replayed=3, missed=2)
        for miss in ending.value.misses:
            assert miss.nearest is not None
            assert miss.nearest in str(ending.value)
            assert len(miss.differences) == 1
            assert miss.differences[0].startswith("message 1 (user): after 'the capital number': asked ")
        asked = {miss.differences[0].split("asked ")[1].split(",")[0] for miss in ending.value.misses}
        assert {"'003?'", "'004?'"} == asked
        assert endpoint.requests == 3

    def test_swallowed_by_an_agent(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """ReAct turns a tool's miss into an observation; the end of the phase raises it all the same."""
        inner = lm(role="inner")

        def research(city: str) -> str:
            """Ask another model."""
            return inner(f"about {city}", temperature=temperature)[0]

        def play() -> Any:
            try:
                return dspy.ReAct("question -> answer", tools=[research], max_iters=1)(question="Q?")
            except cachectl.CacheMissError:
                return None

        dspy.configure(lm=lm())
        temperature = 0.1
        with cachectl.phase("compile"):
            play()
        temperature = 0.2
        with pytest.raises(cachectl.ReplayIncompleteError) as ending, cachectl.phase("check", Policy.REPLAY) as run:
            play()
        assert run.stats.replayed >= 1
        assert ["temperature: asked 0.2, stored 0.1"] == list(ending.value.misses[0].differences)

    def test_what_differs(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """The error names what differs from the nearest entry: model, endpoint, version, options, words."""
        with cachectl.phase("compile"):
            lm(temperature=0.5, endpoint="here", version="1")("What is the capital of France?")
            lm(temperature=0.5, endpoint="here", version="1")("Something else entirely")
        changes = {
            "model: ": lm("openai/other-model", temperature=0.5, endpoint="here", version="1"),
            "endpoint: asked 'there', stored 'here'": lm(temperature=0.5, endpoint="there", version="1"),
            "version: asked '2', stored '1'": lm(temperature=0.5, endpoint="here", version="2"),
            "temperature: asked 0.7, stored 0.5": lm(temperature=0.7, endpoint="here", version="1"),
            "draw: asked for rollout 3": lm(temperature=0.5, endpoint="here", version="1", rollout_id=3),
        }
        for expected, asked in changes.items():
            with pytest.raises(cachectl.CacheMissError) as miss, cachectl.phase("check", Policy.REPLAY):
                asked("What is the capital of France?")
            assert [line[: len(expected)] for line in miss.value.differences] == [expected]
            assert miss.value.model in str(miss.value)
            assert "'check'" in str(miss.value)
        same = lm(temperature=0.5, endpoint="here", version="1")
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.phase("check", Policy.REPLAY):
            same("What is the capital of Spain?")
        assert miss.value.differences == ("message 0 (user): after 'the capital of': asked 'Spain?', stored 'France?'",)
        assert endpoint.requests == 2

    def test_a_miss_that_nobody_swallowed(self, lm: MakeLM) -> None:
        """A miss that reaches the end by itself is not replaced."""
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.phase("check", Policy.REPLAY):
            lm()("hello")
        assert miss.value.__cause__ is None

    def test_another_error_of_the_program(self, lm: MakeLM) -> None:
        """An error that a swallowed miss may have led to is the cause of what is raised."""
        with pytest.raises(cachectl.ReplayIncompleteError) as ending, cachectl.phase("check", Policy.REPLAY):
            swallow_a_miss(lm(), then=ValueError("led astray"))
        assert isinstance(ending.value.__cause__, ValueError)

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_interruptions(self, lm: MakeLM, interruption: type[BaseException]) -> None:
        """What interrupts the program goes through, misses or not."""
        with pytest.raises(interruption), cachectl.phase("check", Policy.REPLAY) as run:
            swallow_a_miss(lm(), then=interruption())
        assert run.closed
        assert run.stats.missed == 1

    def test_misses_of_a_bare_thread(
        self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A thread that the phase did not reach makes no request; its calls are counted and said once."""
        with cachectl.phase("compile"):
            recorded = lm()(question(0))
        lms = [lm(), plain_lm(), plain_lm(cache=False)]

        def asked(one: Any) -> str:
            with pytest.raises(cachectl.CacheMissError):
                one("never asked")
            return lms[0](question(0))[0]

        with (
            pytest.raises(cachectl.ReplayIncompleteError) as ending,
            cachectl.phase("check", Policy.REPLAY) as run,
            ThreadPoolExecutor() as pool,
        ):
            assert recorded * 3 == list(pool.map(asked, lms))
        assert ending.value.count == 3
        assert endpoint.requests == 1
        assert_counted(run.stats, missed=3, replayed=3, stray=6)
        assert len([line for line in caplog.messages if "carries no phase" in line]) == 1

    def test_a_decorated_coroutine(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A decorated coroutine function raises at its end too."""

        @cachectl.phase("check", Policy.REPLAY)
        async def program() -> str:
            results = await asyncio.gather(lm().acall("one"), lm().acall("two"), return_exceptions=True)
            return f"{len(results)} results"

        with pytest.raises(cachectl.ReplayIncompleteError) as ending:
            asyncio.run(program())
        assert ending.value.count == 2
        assert endpoint.requests == 0
