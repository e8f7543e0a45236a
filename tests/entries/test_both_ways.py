"""A hit that is found at hand, and one that is looked up where DSPy asks its cache: nobody can tell them apart.

What goes the quick way is found before DSPy is asked, under a key that is made of what was seen before, and is neither
searched for texts nor looked up again. The long way is taken where any of that is out of the ordinary.
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import dspy
import pytest
from dspy.clients import base_lm, execution
from dspy.utils.callback import BaseCallback
from hypothesis import given, strategies as st

import dspy_cachectl as cachectl
from dspy_cachectl.calls import alike
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.opening import open_lm_call
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint
from tests.entries.test_decoded import KINDS, _seen, _spoil

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MESSAGES = [{"role": "user", "content": "Where?"}]
WAYS = ("quick", "long")


class Heard(BaseCallback):  # type: ignore[misc]
    """What a callback is told of LM calls."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.told.append(("start", copy.deepcopy(inputs)))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.told.append(("end", copy.deepcopy(outputs), exception))


def _only(way: str, patch: pytest.MonkeyPatch) -> None:
    """Let each hit go one way."""
    if way == "long":
        patch.setattr(ManagedCache, "find_at_hand", lambda *_, **__: False)
        patch.setattr(alike, "name_of", lambda *_: None)
        # DSPy searches what it is given for texts that cannot be sent.
        patch.setattr(alike, "_KNOWN", {})


def _counting(made: Counter[str], way: str, patch: pytest.MonkeyPatch) -> None:
    """Count how often DSPy makes a call ready."""
    prepare = execution.prepare

    def counted(*args: Any, **kwargs: Any) -> Any:
        made[way] += 1
        return prepare(*args, **kwargs)

    patch.setattr(execution, "prepare", counted)


def _told_of(ask: Callable[[], Any], lm: Any, hits: int) -> list[Any]:
    told = []
    for _ in range(hits):
        outputs = ask()
        told.append(_seen(lm, copy.deepcopy(outputs)))
        _spoil(outputs)
        _spoil(lm.history[-1]["response"])
    return told


FULL = pytest.mark.exhaustive
APIS = {"text API": "text", "API of responses": "responses"}


BESIDE: dict[str, dict[str, Any]] = {
    "reasoning": {"reasoning_content": "Because."},
    "citations": {"citations": [{"title": "A book", "url": "https://example.com"}]},
    "annotations": {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.com"}}]},
}
"""What an answer says beside its text."""

MORE = [*KINDS, *APIS, "citations", "annotations"]


@pytest.mark.parametrize("phase", ["compile", pytest.param("eval", marks=FULL)])
@pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=FULL)])
@pytest.mark.parametrize("engine", ["auto", "litellm"])
@pytest.mark.parametrize("kind", ["text", "tools", "reasoning", *(pytest.param(one, marks=FULL) for one in MORE)])
def test_both_ways_are_one(
    endpoint: Endpoint, lm: MakeLM, kind: str, engine: str, asynchronous: bool, phase: str
) -> None:
    """Outputs, history, usage and what callbacks are told are equal, and a spoilt answer spoils no other."""
    endpoint.configure(call_tools=kind == "tools", beside=BESIDE.get(kind, {}))
    asked = lm(engine=engine, model_type=APIS.get(kind, "chat"), **KINDS.get(kind, {}))

    def ask() -> Any:
        return asyncio.run(asked.acall(messages=MESSAGES)) if asynchronous else asked(messages=MESSAGES)

    run_id = None if phase == "compile" else "one"
    with cachectl.phase(phase, run_id=run_id):
        ask()
    bought = endpoint.requests
    found, made = {}, Counter[str]()
    for way in WAYS:
        with pytest.MonkeyPatch.context() as patch:
            _only(way, patch)
            _counting(made, way, patch)
            heard, told = Heard(), []
            # Where nobody listens, DSPy has made such a call once before it is left out.
            for at in range(6):
                asked.callbacks = [heard] if at % 2 else []
                with (
                    cachectl.phase(phase, run_id=run_id) as run,
                    dspy.track_usage() as use,
                ):
                    told += _told_of(ask, asked, 1)
                told += [run.stats.as_dict(), use.get_total_tokens()]
            found[way] = told, heard.told
    assert found["quick"] == found["long"]
    assert len(found["quick"][1]) == 6
    assert made["quick"] < made["long"] == 6
    assert bought == endpoint.requests


@pytest.mark.parametrize(
    "settings", [{}, {"max_history_size": 3}, {"max_history_size": 0}, {"disable_history": True}], ids=str
)
def test_histories(lm: MakeLM, settings: dict[str, Any]) -> None:
    """Each hit is noted in all histories in which DSPy notes it, and in no other."""
    predict, noted = dspy.Predict("question -> answer"), {}
    for way in WAYS:
        with pytest.MonkeyPatch.context() as patch:
            _only(way, patch)
            patch.setattr(base_lm, "GLOBAL_HISTORY", [])
            patch.setattr(base_lm, "MAX_HISTORY_SIZE", 4)
            asked = lm()
            with dspy.context(lm=asked, **settings), cachectl.phase("compile"):
                for question in ("Who?", "Where?", "Who?", "Who?", "Where?", "When?", "Who?"):
                    predict(question=question)
            histories = base_lm.GLOBAL_HISTORY, asked.history, predict.history
            noted[way] = [[one["messages"] for one in history] for history in histories]
            predict.history.clear()
    assert noted["quick"] == noted["long"]


_OPTIONS = st.dictionaries(
    st.sampled_from(["temperature", "max_tokens", "n", "stop", "tools", "rollout_id", "timeout", "cache", "user"]),
    st.sampled_from([None, 0, 1, 1.0, True, "1", [], ["1"], [1], {}, {"a": 1}, {"a": 1.0}, 2**70, b"1", float("nan")]),
    max_size=3,
)


@given(first=_OPTIONS, own=_OPTIONS, options=_OPTIONS)
def test_what_was_seen_before_makes_the_same_key(
    first: dict[str, Any], own: dict[str, Any], options: dict[str, Any]
) -> None:
    """Whatever was asked before, a call has the key, the endpoint and the description that it has by itself."""
    asked = cachectl.LM("openai/test-model", api_base="http://there/v1", api_key="sk-x", **own)

    def opened(kwargs: dict[str, Any], text: str) -> Any:
        call, _, _ = open_lm_call(asked, None, [{"role": "user", "content": text}], kwargs, asynchronous=False)
        return call.asked.key, call.asked.endpoint, call.asked.request, call.asked.temperature

    opened(first, "Who?")
    opened(options, "Who?")
    after = opened(options, "Where?")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "name_of", lambda *_: None)
        assert repr(opened(options, "Where?")) == repr(after)


def test_what_leads_elsewhere_is_seen(endpoint: Endpoint, lm: MakeLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment or the LM says after a hit counts for the next call."""
    asked = lm(engine="litellm")
    for _ in range(3):
        asked(messages=MESSAGES)
    assert endpoint.requests == 1
    monkeypatch.setenv("OPENAI_ORGANIZATION", "another")
    asked(messages=MESSAGES)
    asked.kwargs["stop"] = ["x"]
    asked(messages=MESSAGES)
    asked.kwargs["stop"].append("y")
    asked(messages=MESSAGES)
    asked(messages=MESSAGES)
    assert endpoint.requests == 4


def test_threads_while_it_is_replaced(endpoint: Endpoint, lm: MakeLM) -> None:
    """Each hit is one whole answer that was bought, however often it is replaced meanwhile."""
    bought = [f"answer {at}" for at in range(12)]
    endpoint.configure(answers={"": bought})
    asked = lm(temperature=1.0)
    told, done = [asked(messages=MESSAGES)], threading.Event()

    def ask() -> None:
        while not done.is_set():
            told.append(asked(messages=MESSAGES))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    with cachectl.phase("again", cachectl.Policy.REFRESH):
        told += [asked(messages=MESSAGES) for _ in range(11)]
    done.set()
    for thread in threads:
        thread.join()
    assert {text for one in told for text in one} == set(bought)
    assert [asked(messages=MESSAGES) for _ in range(3)] == [bought[-1:]] * 3
    assert endpoint.requests == 12


def test_what_had_to_make_room(endpoint: Endpoint, lm: MakeLM) -> None:
    """An entry that is no longer in memory is read from disk, and at hand from then on."""
    cachectl.configure(memory_bytes=8_000)
    asked = lm()
    first = [asked(f"Where is {at}?") for at in range(12)]
    assert [asked(f"Where is {at}?") for at in range(12)] == first
    assert [asked("Where is 3?") for _ in range(3)] == [first[3]] * 3
    assert endpoint.requests == 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_in_a_fork(endpoint: Endpoint, lm: MakeLM) -> None:
    """A child is served what its parent had at hand, and notes it under ids of its own."""
    asked = lm()
    told = [asked(messages=MESSAGES) for _ in range(3)]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        same = [asked(messages=MESSAGES) for _ in range(3)] == told
        os.write(writing, " ".join(one["uuid"] for one in asked.history[-3:]).encode())
        os._exit(0 if same else 1)
    told += [asked(messages=MESSAGES) for _ in range(3)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(writing)
    with os.fdopen(reading) as ids:
        assert len({*ids.read().split(), *(one["uuid"] for one in asked.history)}) == 9
    assert endpoint.requests == 1


@pytest.mark.parametrize("where", ["at the LM", "in DSPy's settings"])
def test_a_callback_that_is_added_in_between(lm: MakeLM, where: str) -> None:
    """Whoever listens from the third hit on hears of the third."""
    asked, heard = lm(), Heard()
    with cachectl.phase("compile"):
        for _ in range(3):
            asked(messages=MESSAGES)
        if where == "at the LM":
            asked.callbacks = [heard]
        with dspy.context(callbacks=[] if asked.callbacks else [heard]):
            asked(messages=MESSAGES)
        asked.callbacks = []
        asked(messages=MESSAGES)
    assert [one[0] for one in heard.told] == ["start", "end"]


def test_an_lm_that_is_given_its_own_forward(lm: MakeLM) -> None:
    """It answers itself from then on."""
    asked = lm()
    before = [asked(messages=MESSAGES) for _ in range(3)]
    asked.forward = lambda **_: dspy.clients.call_result.attributes(
        {"choices": [{"message": {"content": "mine"}}], "usage": {}, "model": "mine"}
    )
    assert asked(messages=MESSAGES) == ["mine"]
    del asked.forward
    assert [asked(messages=MESSAGES)] == before[:1]


@pytest.mark.parametrize("name", ["role", "content"])
def test_text_that_cannot_be_sent(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, name: str) -> None:
    """DSPy refuses it wherever it stands, of a governed LM and of a plain one."""
    for asked in (lm(), plain_lm()):
        for messages in (MESSAGES, [{**MESSAGES[0], name: "\ud800"}], [{**MESSAGES[0], name: ["a", {"b": "\ud800"}]}]):
            with pytest.raises(ValueError, match="not valid Unicode") if messages is not MESSAGES else nullcontext():
                asked(messages=messages)
    assert endpoint.requests == 1


class Counting(dspy.LM):  # type: ignore[misc]
    """Somebody's LM that counts its own calls."""

    asked = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return super().__call__(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return await super().acall(*args, **kwargs)


def test_an_lm_with_calls_of_its_own(endpoint: Endpoint) -> None:
    """Its own code runs for each call, whether its answer is at hand or not."""
    asked: Any = cachectl.wrap(Counting("openai/test-model", api_base=endpoint.url, api_key="sk-x"))
    for _ in range(3):
        asked(messages=MESSAGES)
        asyncio.run(asked.acall(messages=MESSAGES))
    assert asked.asked == 6
    assert endpoint.requests == 1
