"""Something between us and the model that caches by itself is noticed, and can be asked not to."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.engines import OwnEngine
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, qa
from tests.endpoint import Endpoint

ENGINES = ["auto", "litellm"]
NO_CACHE = {"no-cache": True}


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return len([record for record in caplog.records if record.name == "dspy_cachectl" and words in record.message])


@pytest.mark.parametrize("engine", ENGINES)
class TestNoticed:
    """A proxy that answers an identical request with the identical response."""

    def test_draws_that_are_not_distinct(
        self, endpoint: Endpoint, lm: MakeLM, engine: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Fifteen draws of five questions come back as five responses: ten are not distinct, which is said once."""
        endpoint.configure(fixed_id=True)
        dspy.configure(lm=lm(temperature=1.0, engine=engine))
        with cachectl.phase("eval") as run:
            evaluate(qa(), examples(5, 3), threads=2)
        assert_counted(run.stats, fresh=5, repeated=10, not_distinct=10)
        assert run.stats.draws == 5
        assert endpoint.requests == 15
        assert said(caplog, "are not distinct") == 1
        assert "10 not distinct" in repr(run.stats)

    def test_between_runs(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """A second run that is answered with the first one's responses has no draw of its own."""
        endpoint.configure(fixed_id=True)
        asked = lm(temperature=1.0, engine=engine)
        for expected in (0, 1):
            with cachectl.phase("eval") as run:
                asked("hello")
            assert_counted(run.stats, fresh=1 - expected, repeated=expected, not_distinct=expected)

    def test_after_resuming(self, endpoint: Endpoint, lm: MakeLM, engine: str, child: Any) -> None:
        """Another process that resumes a run and goes on drawing knows the responses it was served."""
        endpoint.configure(fixed_id=True)
        child(f"""
            import os
            import dspy_cachectl as cachectl

            url = os.environ["ENDPOINT_URL"]
            lm = cachectl.LM("openai/test-model", api_base=url, api_key="k", temperature=1.0, engine={engine!r})
            with cachectl.phase("eval", run_id="proxied"):
                lm("hello")
        """)
        asked = lm(temperature=1.0, engine=engine)
        with cachectl.phase("eval", run_id="proxied") as run:
            asked("hello")
            asked("hello")
        assert_counted(run.stats, resumed=1, repeated=1, not_distinct=1)

    def test_an_honest_endpoint(
        self, endpoint: Endpoint, lm: MakeLM, engine: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Equal texts with ids of their own are distinct draws; so is one response served again."""
        endpoint.configure(answers={"": ["always the same"]})
        asked = lm(temperature=1.0, engine=engine)
        for _ in range(2):
            with cachectl.phase("eval", run_id="honest") as run:
                for _ in range(3):
                    asked("hello")
            assert (run.stats.draws, run.stats.not_distinct) == (3, 0)
        with cachectl.phase("check", Policy.REPLAY, run_id="honest") as run:
            asked("hello")
        assert run.stats.not_distinct == 0
        assert said(caplog, "not distinct") == 0


def sent(endpoint: Endpoint) -> list[Any]:
    """What each request told the proxy of its cache."""
    return [request["body"].get("cache") for request in endpoint.log()]


class TestBypassed:
    """`phase(..., bypass_proxy=True)`: a LiteLLM proxy is asked not to answer from its cache."""

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("asynchronous", [False, True])
    async def test_said_with_every_draw(self, endpoint: Endpoint, lm: MakeLM, engine: str, asynchronous: bool) -> None:
        """Every fresh draw carries it, and nothing else does."""
        asked = lm(temperature=1.0, engine=engine)

        async def ask() -> Any:
            return await asked.acall("hello") if asynchronous else asked("hello")

        with cachectl.phase("eval", bypass_proxy=True):
            await ask()
            await ask()
        with cachectl.phase("eval"):
            await ask()
        with cachectl.phase("compile", bypass_proxy=True):
            await ask()
        assert [NO_CACHE, NO_CACHE, None, None] == sent(endpoint)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_no_part_of_the_question(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """A run drawn with it is resumed without it, and the other way round."""
        asked = lm(temperature=1.0, engine=engine)
        for bypass in (True, False, True):
            with cachectl.phase("eval", run_id="bypassed", bypass_proxy=bypass):
                asked("hello")
        assert endpoint.requests == 1

    def test_the_programs_own_body_stays(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """What the program sends in `extra_body` goes along."""
        asked = lm(temperature=1.0, engine="litellm", extra_body={"top_k": 5, "cache": {"ttl": 9}})
        with cachectl.phase("eval", bypass_proxy=True):
            asked("hello")
            asked("hello", extra_body={"top_k": 6})
        assert [{"ttl": 9, **NO_CACHE}, NO_CACHE] == sent(endpoint)
        assert [5, 6] == [request["body"]["top_k"] for request in endpoint.log()]
        assert asked.kwargs["extra_body"] == {"top_k": 5, "cache": {"ttl": 9}}

    @pytest.mark.parametrize("engine", ENGINES)
    def test_programs_and_streams(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """It reaches the provider from a program's calls as well."""
        dspy.configure(lm=lm(engine=engine))
        with cachectl.phase("eval", bypass_proxy=True):
            evaluate(qa(), examples(2, 2), threads=2)
        assert [NO_CACHE] * 4 == sent(endpoint)

    @pytest.mark.parametrize("how", ["typed", "native", "own engine"])
    def test_where_it_cannot_be_said(
        self, endpoint: Endpoint, lm: MakeLM, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What cannot carry it is asked as ever, and that is said once."""
        asked = {
            "typed": lm,
            "native": lambda: lm(engine="lm15"),
            "own engine": lambda: lm("own/model", engine=OwnEngine(endpoint.url), api_base=None, api_key=None),
        }[how]()
        request = dspy.lm15.Request(model=asked.model, messages=(dspy.lm15.Message.user("hello"),))
        with cachectl.phase("eval", bypass_proxy=True) as run:
            for _ in range(2):
                asked(request if how == "typed" else "hello")
        assert [None, None] == sent(endpoint)
        assert_counted(run.stats, fresh=2)
        assert said(caplog, "bypass_proxy has no effect") == 1
