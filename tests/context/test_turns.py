"""Processes that ask the same at once: one request for all, whatever becomes of the one that makes it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.stores import leases
from dspy_cachectl.stores.file_leases import NAME
from dspy_cachectl.stores.leases import Holder, Turn
from tests.context.turns import Nursery
from tests.endpoint import Endpoint
from tests.stores.servers import KINDS, free_port, running

QUESTION = "What is asked by all?"


@pytest.fixture
def kind() -> str:
    """The kind of store that they share."""
    return "folder"


@pytest.fixture
def nursery(endpoint: Endpoint, tmp_path: Path, kind: str) -> Iterator[Nursery]:
    """What forks processes over one store."""
    with contextlib.ExitStack() as held:
        store = str(tmp_path / "shared")
        if kind in KINDS:
            store = f"{held.enter_context(running(tmp_path / 'server', kind)).url}?patience=60"
        elif kind == "folder and redis":
            store = json.dumps([store, held.enter_context(running(tmp_path / "server", "redis")).url])
        elif kind == "folder and nobody":
            store = json.dumps([store, f"redis://127.0.0.1:{free_port()}"])
        made = Nursery(endpoint.url, store)
        held.callback(made.end)
        held.callback(endpoint.release)
        yield made


def stores(*quick: str) -> pytest.MarkDecorator:
    """Each kind of store, those that are not named only in the whole suite."""
    marks = {kind: [] if kind in quick else [pytest.mark.exhaustive] for kind in ("folder", "folder and redis", *KINDS)}
    return pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks[kind]) for kind in marks])


def lead(nursery: Nursery, endpoint: Endpoint, *others: str, **options: object) -> None:
    """Let one process ask, and the others wait for its answer."""
    endpoint.hold()
    nursery.ask("leader", QUESTION, **options)
    assert endpoint.wait_for(1)
    for other in others:
        nursery.ask(other, QUESTION, **options)
    for other in others:
        nursery.hear("waits", other)


@pytest.mark.parametrize(
    ("processes", "threads", "prompts"), [(8, 4, 10), pytest.param(8, 16, 50, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("how", ["threads", pytest.param("async", marks=pytest.mark.exhaustive)])
@stores("folder", "folder and redis")
def test_one_request_a_prompt(
    nursery: Nursery, endpoint: Endpoint, processes: int, threads: int, prompts: int, how: str
) -> None:
    """Many processes of many threads, or coroutines, ask the same that nobody has asked before: once each."""
    endpoint.configure(delay=0.3)
    names = [f"process {at}" for at in range(processes)]
    asked = [f"question {at:03}" for at in range(prompts)]
    for name in names:
        nursery.ask(name, *asked, threads=threads, how=how)
    done = [nursery.hear("done", name) for name in names]

    assert prompts == endpoint.requests == sum(one["stats"].get("fresh", 0) for one in done)
    assert 1 == len({tuple(one["answers"]) for one in done})
    assert prompts == len(set(done[0]["answers"]))
    assert processes * threads * prompts == sum(
        one["stats"].get(outcome, 0) for one in done for outcome in ("fresh", "coalesced", "reused")
    )


@pytest.mark.parametrize("how", ["threads", pytest.param("async", marks=pytest.mark.exhaustive)])
def test_who_waits_is_given_the_answer(nursery: Nursery, endpoint: Endpoint, how: str) -> None:
    """One asks and two wait: they are answered from the store, and counted as joined."""
    lead(nursery, endpoint, "second", "third", how=how)
    endpoint.release()

    done = [nursery.hear("done", name) for name in ("leader", "second", "third")]
    assert 1 == endpoint.requests == len({tuple(one["answers"]) for one in done})
    assert [{"fresh": 1}, {"coalesced": 1}, {"coalesced": 1}] == [
        {name: one["stats"][name] for name in ("fresh", "coalesced") if name in one["stats"]} for one in done
    ]


@pytest.mark.parametrize("kind", ["folder and nobody"])
def test_the_folder_tells_where_the_server_is_away(nursery: Nursery, endpoint: Endpoint) -> None:
    """The processes of one machine make one request, whatever has become of the store behind."""
    lead(nursery, endpoint, "second", "third")
    endpoint.release()

    done = [nursery.hear("done", name) for name in ("leader", "second", "third")]
    assert 1 == endpoint.requests == len({tuple(one["answers"]) for one in done})


@stores("folder")
def test_a_killed_leader_is_followed(nursery: Nursery, endpoint: Endpoint, kind: str) -> None:
    """Killed while it waits for its answer: one of those who wait asks, and the others are given its answer."""
    lead(nursery, endpoint, "second", "third", lasts=600 if kind == "folder" else 5)
    os.kill(nursery.hear("asks", "leader")["pid"], signal.SIGKILL)

    assert endpoint.wait_for(2)
    endpoint.release()
    second, third = (nursery.hear("done", name) for name in ("second", "third"))
    assert second["answers"] == third["answers"]
    assert 2 == endpoint.requests


@stores("folder")
def test_a_stopped_leader_is_not_waited_for(nursery: Nursery, endpoint: Endpoint) -> None:
    """Stopped: who waits asks for itself, and the leader, when it goes on, is given the answer that was stored."""
    lead(nursery, endpoint, "second", lasts=0.5)
    leader = nursery.hear("asks", "leader")["pid"]
    os.kill(leader, signal.SIGSTOP)
    try:
        assert endpoint.wait_for(2)
        endpoint.release()
        second = nursery.hear("done", "second")
    finally:
        os.kill(leader, signal.SIGCONT)
    assert second["answers"] == nursery.hear("done", "leader")["answers"]
    assert 2 == endpoint.requests


class Shared:
    """A lease of a name, of which `holders` tells who has it; the stopped one renews nothing."""

    def __init__(self, holders: dict[str, str], name: str, me: str) -> None:
        self.holders, self.name, self.me = holders, name, me

    def take(self) -> Holder | None:
        holder = self.holders.setdefault(self.name, self.me)
        return None if holder == self.me else Holder(holder.encode(), b"")

    def renew(self) -> None:
        """Nothing is renewed so soon."""

    def give_back(self) -> None:
        if self.holders[self.name] == self.me:
            self.holders.pop(self.name)


def test_behind_a_stopped_leader_one_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who give up its lock in the folder one takes the server's lease, and the others wait for that one."""
    now, holders = [0.0], {"folder": "stopped"}
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    turns = [
        Turn([Shared(holders, "folder", me), Shared(holders, "server", me)], lambda _: False, pytest.fail)
        for me in ("second", "third")
    ]
    second, third = (turn.pauses() for turn in turns)
    assert next(second)
    assert next(third)
    now[0] += leases.LASTS + 1
    assert [] == list(second)
    assert {"folder": "stopped", "server": "second"} == holders
    assert next(third)
    turns[0].end()
    assert [] == list(third)
    turns[1].end()
    assert {"folder": "stopped"} == holders


@stores("folder", "redis")
def test_when_the_leader_fails_a_waiter_leads(nursery: Nursery, endpoint: Endpoint) -> None:
    """The provider refuses the leader: it has that error, and the others one answer, for one more request."""
    endpoint.fail(status=500, times=1)
    lead(nursery, endpoint, "second", "third", lasts=600)
    endpoint.release()

    done = [nursery.hear("done", name) for name in ("leader", "second", "third")]
    assert 2 == endpoint.requests
    assert ["LMServerError"] == done[0]["answers"]
    assert done[1]["answers"] == done[2]["answers"] != done[0]["answers"]


@pytest.mark.parametrize("kind", ["folder", pytest.param("folder and redis", marks=pytest.mark.exhaustive)])
def test_when_the_provider_is_down_nobody_waits_for_a_third(nursery: Nursery, endpoint: Endpoint) -> None:
    """Each of six is told the provider's error."""
    endpoint.fail(status=500)
    others = [f"process {at}" for at in range(5)]
    lead(nursery, endpoint, *others, lasts=600)
    endpoint.release()

    assert [["LMServerError"]] * 6 == [nursery.hear("done", name)["answers"] for name in ("leader", *others)]
    assert 6 == endpoint.requests


def test_who_cannot_know_of_others_asks_and_says_so(
    endpoint: Endpoint, lm: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file of the locks is somebody else's: it stays as it is, and the answer comes all the same."""
    cachectl.install(str(tmp_path))
    lm("openai/m")(QUESTION)
    file = tmp_path / NAME
    file.write_text("a shopping list")
    assert lm("openai/m")("Another one?")
    assert 2 == endpoint.requests
    assert "a shopping list" == file.read_text()
    assert "cannot know of one another, and each may ask" in caplog.text
    assert str(file) in caplog.text
