"""Which calls share an entry, and which never do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.engines import OwnAsyncEngine, OwnEngine
from tests.calls.support import MakeLM, assert_counted, qa
from tests.endpoint import Endpoint

ENGINES = ["auto", "litellm"]


@pytest.fixture(scope="module")
def other_process() -> Iterator[Endpoint]:
    """A second server for the same model name; its answers differ."""
    with Endpoint(seed=1) as running:
        yield running


@pytest.fixture
def other(other_process: Endpoint) -> Endpoint:
    other_process.reset()
    return other_process


def typed(lm: Any) -> dspy.lm15.Request:
    return dspy.lm15.Request(model=lm.model, messages=(dspy.lm15.Message.user("hello"),))


ASKED: dict[str, Callable[[Any], Any]] = {
    "call": lambda lm: lm("hello"),
    "acall": lambda lm: asyncio.run(lm.acall("hello")),
    "messages": lambda lm: lm(messages=[{"role": "user", "content": "hello"}]),
    "asyncify": lambda lm: asyncio.run(dspy.asyncify(lm)("hello")),
}
PROGRAMS: dict[str, Callable[[], Any]] = {
    "call": lambda: qa()(question="Q?"),
    "acall": lambda: asyncio.run(qa().acall(question="Q?")),
    "syncify": lambda: dspy.syncify(qa())(question="Q?"),
    "thread": lambda: dspy.Parallel(num_threads=2, disable_progress_bar=True)([(qa(), {"question": "Q?"})] * 2)[0],
}


class TestShared:
    """One question, asked in several ways."""

    @pytest.mark.filterwarnings("ignore:Passing OpenAI-style message")
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("plain", [False, True])
    def test_sync_and_async(self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, engine: str, plain: bool) -> None:
        """However an LM is asked, it is one request and one entry, in memory or not."""
        cachectl.install()
        asked = (plain_lm if plain else lm)(engine=engine)
        answers = set()
        for ask in (*ASKED.values(), *reversed(ASKED.values())):
            answers.add(tuple(ask(asked)))
            dspy.cache.reset_memory_cache()
        assert len(answers) == 1
        assert endpoint.requests == 1

    @pytest.mark.parametrize("plain", [False, True])
    def test_programs(self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, plain: bool) -> None:
        """A program called, awaited, syncified or run in threads is one request."""
        dspy.configure(lm=(plain_lm if plain else lm)())
        with cachectl.phase("compile"):
            answers = {ask().answer for ask in (*PROGRAMS.values(), *reversed(PROGRAMS.values()))}
        assert len(answers) == 1
        assert endpoint.requests == 1

    def test_a_fresh_run_is_resumed_the_other_way(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Draws bought by sync calls are resumed by async ones, each to its own."""
        asked = lm(temperature=1.0)
        with cachectl.phase("eval", run_id="shared"):
            drawn = [asked("hello") for _ in range(3)]
        with cachectl.phase("eval", run_id="shared") as run:
            assert drawn == [asyncio.run(asked.acall("hello")) for _ in range(3)]
        assert endpoint.requests == 3
        assert_counted(run.stats, resumed=3)

    @pytest.mark.parametrize("plain", [False, True])
    def test_typed_requests(self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, plain: bool) -> None:
        """A typed request is one entry, sync and async."""
        cachectl.install()
        asked = (plain_lm if plain else lm)()
        assert asked(typed(asked)).text == asyncio.run(asked.acall(typed(asked))).text
        assert endpoint.requests == 1

    def test_ours_and_plain(self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> None:
        """A plain LM and ours, wrapped or not, are the same model."""
        lms = [lm(), plain_lm(), cachectl.wrap(plain_lm())]
        assert len({tuple(one("hello")) for one in lms}) == 1
        assert len({one(typed(one)).text for one in lms}) == 1
        assert endpoint.requests == 2

    def test_what_is_no_part_of_the_question(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Keys, headers with secrets, retries, time-outs and a slash do not ask anything else."""
        lm()("hello")
        lm(api_key="sk-another")("hello")
        lm(num_retries=7, timeout=9.0)("hello")
        lm(api_base=f"{endpoint.url}/")("hello")
        lm(headers={"Authorization": "Bearer another"})("hello", temperature=None)
        assert endpoint.requests == 1


def twins(make: MakeLM, one: Endpoint, other: Endpoint, **options: Any) -> list[Any]:
    return [make(api_base=each.url, **options) for each in (one, other)]


class TestApart:
    """One model name at two addresses is two models."""

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("how", ["call", "acall", "typed", "program"])
    @pytest.mark.parametrize("plain", [False, True])
    def test_two_endpoints(
        self, endpoint: Endpoint, other: Endpoint, lm: MakeLM, plain_lm: MakeLM, plain: bool, how: str, engine: str
    ) -> None:
        """Two LMs that differ only in `api_base` never share, asked in any way."""
        cachectl.install()
        lms = twins(plain_lm if plain else lm, endpoint, other, engine=engine)

        def ask(one: Any) -> Any:
            if how == "typed":
                return one(typed(one)).text
            if how == "program":
                with dspy.context(lm=one):
                    return qa()(question="Q?").answer
            return ASKED[how](one)[0]

        answers = [ask(one) for one in lms * 2]
        assert answers[:2] == answers[2:]
        assert answers[0] != answers[1]
        assert (endpoint.requests, other.requests) == (1, 1)

    @pytest.mark.parametrize("plain", [False, True])
    def test_two_engines(self, endpoint: Endpoint, other: Endpoint, lm: MakeLM, plain_lm: MakeLM, plain: bool) -> None:
        """Two LMs whose custom engines say where they lead never share."""
        cachectl.install()

        class Engine(OwnEngine):
            def dump_state(self) -> dict[str, Any]:
                return {"url": self.url}

        lms = [
            (plain_lm if plain else lm)(
                "own/model", engine=Engine(one.url), async_engine=OwnAsyncEngine(one.url), api_base=None, api_key=None
            )
            for one in (endpoint, other)
        ]
        for _ in range(2):
            answers = {one("hello")[0] for one in lms} | {asyncio.run(one.acall("hello"))[0] for one in lms}
            assert len(answers) == 2
        assert (endpoint.requests, other.requests) == (1, 1)

    @pytest.mark.parametrize("variable", ["OPENAI_API_BASE", "OPENAI_BASE_URL"])
    @pytest.mark.parametrize("plain", [False, True])
    def test_address_from_the_environment(
        self,
        endpoint: Endpoint,
        other: Endpoint,
        lm: MakeLM,
        plain_lm: MakeLM,
        plain: bool,
        variable: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The environment may say where a model is; another address is another model there too."""
        cachectl.install()
        for _ in range(2):
            for one in (endpoint, other):
                monkeypatch.setenv(variable, one.url)
                (plain_lm if plain else lm)(api_base=None, engine="litellm")("hello")
        assert (endpoint.requests, other.requests) == (1, 1)

    def test_address_in_the_call(self, endpoint: Endpoint, other: Endpoint, lm: MakeLM) -> None:
        """An address given with the call counts, over the LM's own."""
        asked = lm()
        for _ in range(2):
            asked("hello")
            asked("hello", api_base=other.url)
        assert (endpoint.requests, other.requests) == (1, 1)

    def test_in_a_fresh_run(self, endpoint: Endpoint, other: Endpoint, lm: MakeLM) -> None:
        """One run over two endpoints keeps their draws apart."""
        for _ in range(2):
            with cachectl.phase("eval", run_id="two"):
                for one in twins(lm, endpoint, other, temperature=1.0):
                    one("hello")
                    one("hello")
        assert (endpoint.requests, other.requests) == (2, 2)

    def test_names_take_the_place_of_addresses(self, endpoint: Endpoint, other: Endpoint, lm: MakeLM) -> None:
        """One name at two addresses is one model; two names at one address are two."""
        first, second = twins(lm, endpoint, other, endpoint="cluster")
        assert first("hello") == second("hello")
        assert (endpoint.requests, other.requests) == (1, 0)
        lm(endpoint="another")("hello")
        assert (endpoint.requests, other.requests) == (2, 0)

    def test_versions(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Another version does not serve this one's answers."""
        for _ in range(2):
            for version in (None, "1", "2"):
                lm(version=version)("hello")
        assert endpoint.requests == 3

    def test_what_asks_something_else(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Another model, temperature, limit, message, order of messages or scope is another question."""
        turns = dspy.lm15.Message.user("hello"), dspy.lm15.Message.assistant("hello")
        lm()("hello")
        lm("openai/other-model")("hello")
        lm()("hello", temperature=0.5)
        lm()("hello", max_tokens=7)
        lm()("hello ")
        for messages in (turns, turns[::-1]):
            lm()(dspy.lm15.Request(model="openai/test-model", messages=messages))
        lm(model_type="responses")("hello")
        with cachectl.phase("compile", scope={"tenant": "a"}):
            lm()("hello")
        assert endpoint.requests == 9
