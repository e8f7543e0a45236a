"""A hit that is copied from what was decoded once: what DSPy itself would make of it, and nobody else's."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import threading
import uuid
from typing import Any

import dspy
import pydantic
import pytest
from dspy.clients.legacy_outputs import plain

import dspy_cachectl as cachectl
from dspy_cachectl.calls.installation import installed
from dspy_cachectl.entries import records
from dspy_cachectl.entries.decoded import Decoded, DecodedEntries
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint

TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"where": {"type": "string"}}}},
}


class Form(pydantic.BaseModel):
    answer: str


KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "two": {"n": 2, "temperature": 1.0},
    "tools": {"tools": [TOOL]},
    "form": {"response_format": Form},
    "logprobs": {"logprobs": True},
}


def _seen(lm: Any, outputs: Any) -> tuple[Any, ...]:
    """What a program sees of a call: its outputs, and what the history says but for when it was."""
    entry = lm.history[-1]
    response = entry["response"]
    dumped = response.model_dump() if isinstance(response, pydantic.BaseModel) else repr(response)
    noted = {name: value for name, value in entry.items() if name not in {"response", "uuid", "timestamp"}}
    said = [plain({**noted, "cachectl": noted["cachectl"]["outcome"]}), list(entry)]
    assert uuid.UUID(entry["uuid"]).version == 4
    assert abs(dt.datetime.now() - dt.datetime.fromisoformat(entry["timestamp"])) < dt.timedelta(hours=1)
    return plain(outputs), dumped, *said, type(response)


def _spoil(value: Any) -> None:
    """Change whatever can be changed in what a program was given."""
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value.clear()
    elif isinstance(value, list):
        for item in value:
            _spoil(item)
        value.append("spoilt")
    elif isinstance(value, pydantic.BaseModel):
        for item in list(value.__dict__.values()):
            _spoil(item)
        value.__dict__["model"] = "spoilt"
    elif isinstance(value, dspy.lm15.Response):
        _spoil(value.provider_data)


FULL = pytest.mark.exhaustive


@pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=FULL)])
@pytest.mark.parametrize("engine", ["auto", "litellm"])
@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(one, marks=FULL) for one in ("text API", "API of responses"))])
def test_each_hit_is_as_the_first(endpoint: Endpoint, lm: MakeLM, kind: str, engine: str, asynchronous: bool) -> None:
    """The first hit is DSPy's own making, the next ones are copies: equal, whatever was done to others."""
    endpoint.configure(call_tools=kind == "tools")
    apis = {"text API": "text", "API of responses": "responses"}
    asked = lm(engine=engine, model_type=apis.get(kind, "chat"), **KINDS.get(kind, {}))

    def ask() -> Any:
        return asyncio.run(asked.acall("Where?")) if asynchronous else asked("Where?")

    with cachectl.phase("compile"):
        ask()
        first = _seen(asked, copy.deepcopy(ask()))
        for _ in range(3):
            outputs = ask()
            assert _seen(asked, outputs) == first
            _spoil(outputs)
            _spoil(asked.history[-1]["response"])
    assert endpoint.requests == (2 if (kind, engine) == ("two", "auto") else 1)  # the native engine asks for each
    assert first[2]["cachectl"] == "reused"
    assert first[2]["usage"] == {}


def test_an_entry_that_is_replaced_is_not_served(endpoint: Endpoint, lm: MakeLM) -> None:
    """Whoever asks after a refresh is given the new answer, however often the old one was served."""
    endpoint.configure(answers={"": ["old", "new"]})
    asked = lm(temperature=1.0)
    old = [asked("Where?") for _ in range(4)]
    with cachectl.phase("again", cachectl.Policy.REFRESH):
        new = asked("Where?")
    assert [asked("Where?") for _ in range(3)] == [new] * 3
    assert new not in old
    assert endpoint.requests == 2


def test_threads_are_each_given_their_own(endpoint: Endpoint, lm: MakeLM) -> None:
    """Eight threads that ask the same at once, while it is replaced, share nothing that can be changed."""
    asked, found, lock = lm(engine="litellm"), [], threading.Lock()
    asked("Where?")
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        for _ in range(20):
            outputs = asked("Where?")
            with lock:
                found.append((outputs, id(outputs)))
            outputs.append("spoilt")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160 == len({place for _, place in found})
    assert all(outputs[1:] == ["spoilt"] for outputs, _ in found)
    assert endpoint.requests == 1


def _entry(at: int) -> bytes:
    return records.encode(records.Origin("lm", "m"), {"at": at})


def test_what_is_decoded_stays_within_its_budget() -> None:
    """Of more entries than there is room for, which are asked for in turn, some are there each time."""
    entries = {str(at): _entry(at) for at in range(150)}
    table = DecodedEntries(100 * (2 * len(entries["0"]) + 3000))
    for _ in range(3):
        found = [(table._kept.get(key), table.decode(key, data)) for key, data in entries.items()]
    assert [one.data for _, one in found] == list(entries.values())
    assert 20 < sum(before is one for before, one in found) < 100
    assert len(table._kept) == len(table._keys) in range(95, 101)
    table.clear()
    assert not table._kept


@pytest.mark.parametrize("vectors", [[[0.1, -0.0, 1e300]], [[1, 2.5]], [[0.1], [0.2]], [["text"]], []])
def test_vectors_are_each_given_anew(vectors: list[list[Any]]) -> None:
    """Numbers come back as what they were, however often, and each time in a list of its own."""
    entry = Decoded(records.encode(records.Origin("embedding", "m"), vectors))
    for _ in range(4):
        served = entry.answer()
        assert repr(vectors) == repr(served)
        for vector in served:
            vector.append(None)


def test_another_reader_of_dspys_cache_is_given_the_record(endpoint: Endpoint, lm: MakeLM) -> None:
    """Who asks `dspy.cache` itself gets what DSPy put there, each time a new one."""
    asked = dspy.LM("openai/test-model", api_base=endpoint.url, api_key="sk-x", temperature=0.0)
    lm()
    asked("Where?")
    cache = installed()
    assert cache is not None
    request = {"_fn_identifier": "dspy.clients.lm.litellm_completion", "model": "openai/test-model"}
    request |= {"messages": [{"role": "user", "content": "Where?"}], **asked.kwargs}
    one, two = cache.get(dict(request)), cache.get(dict(request))
    assert one == two
    assert one is not two
    assert one["_dspy_format"]
