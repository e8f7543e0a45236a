"""A hit from a server is one question to it, and waits for nobody; a call that it cannot help asks it no oftener."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.calls.flight import Flights
from dspy_cachectl.errors import CacheMissError, ReplayIncompleteError, StoreUnavailableError
from dspy_cachectl.stores import MemoryStore, Store
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.redis.store import RedisStore
from tests.calls.support import until
from tests.calls.test_single_flight import waiting
from tests.endpoint import Endpoint
from tests.limits import SOON
from tests.stores.servers import Server, program

FIRST, QUESTION = "What connects, and notes who answers?", "What do all machines know?"

MakeLM = Callable[..., Any]


def asked_of(server: Server) -> int:
    """How many values a server was asked for so far."""
    found = re.search(rb"cmdstat_get:calls=(\d+)", server.say("INFO", "commandstats"))
    return int(found[1]) if found else 0


@pytest.fixture(params=["alone", pytest.param("behind a folder", marks=pytest.mark.exhaustive)])
def stores(request: pytest.FixtureRequest, shared_url: Callable[..., str], tmp_path: Path) -> Callable[[], list[Store]]:
    """Stores as another machine has them, each time: only the server is the same."""
    url, made = shared_url("redis"), iter(range(100))

    def make() -> list[Store]:
        folder = [] if request.param == "alone" else [DiskStore(tmp_path / f"machine-{next(made)}")]
        return [MemoryStore(), *folder, RedisStore(url)]

    return make


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("it waits for others that ask the same")


@pytest.mark.parametrize(
    ("policy", "plain"),
    [
        ("compile", False),
        pytest.param("compile", True, marks=pytest.mark.exhaustive),
        pytest.param("replay", False, marks=pytest.mark.exhaustive),
        ("replay", True),
    ],
)
def test_a_hit_is_one_question_and_waits_for_nobody(
    stores: Callable[[], list[Store]],
    shared_servers: Callable[[str], Server],
    lm: MakeLM,
    plain_lm: MakeLM,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    plain: bool,
) -> None:
    """The server is asked once for what another machine has bought, and nobody is in the way, whoever rules."""
    model = (plain_lm if plain else lm)()
    cachectl.install(stores())
    with cachectl.phase("compile"):
        bought = [model(text) for text in (FIRST, QUESTION)][1]
    cachectl.install(stores())
    monkeypatch.setattr(Flights, "run", refuse)
    with cachectl.phase("again", cachectl.Policy.REPLAY if policy == "replay" else cachectl.Policy.REUSE) as run:
        model(FIRST)
        before = asked_of(shared_servers("redis"))
        assert bought == model(QUESTION)
        assert 1 == asked_of(shared_servers("redis")) - before
    assert (2, 2) == (endpoint.requests, run.stats.replayed + run.stats.reused)


@pytest.mark.parametrize(("way", "expected"), [("shared", 2), ("plain", 1), ("replayed", 1)])
def test_a_miss_asks_no_oftener_than_need_be(
    stores: Callable[[], list[Store]],
    lm: MakeLM,
    plain_lm: MakeLM,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    expected: int,
) -> None:
    """Who shares its answer looks once more when its turn has come, since another may have had it; others do not."""
    looks, get_filed = list[str](), RedisStore.get_filed

    def look(self: RedisStore, key: str) -> Any:
        looks.append(key)
        return get_filed(self, key)

    monkeypatch.setattr(RedisStore, "get_filed", look)
    cachectl.install(stores())
    policy = cachectl.Policy.REPLAY if way == "replayed" else cachectl.Policy.REUSE
    with suppress(CacheMissError, ReplayIncompleteError), cachectl.phase("one", policy):
        (plain_lm if way == "plain" else lm)()(QUESTION)
    assert [expected] == [looks.count(key) for key in set(looks)]


@pytest.mark.parametrize("fault", ["killed", pytest.param("stopped", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_a_read_that_fails_is_counted_once(
    lm: MakeLM, plain_lm: MakeLM, endpoint: Endpoint, tmp_path: Path, fault: str, plain: bool
) -> None:
    """A server that is away fails once for each call, which is bought, and served from memory from then on."""
    program("redis")
    server = Server(tmp_path / "server")
    try:
        model = (plain_lm if plain else lm)()
        made: list[Store] = [MemoryStore(), RedisStore(f"{server.url}?patience=0.5")]
        cachectl.install(made)
        model(FIRST)
        server.kill() if fault == "killed" else server.signal(signal.SIGSTOP)
        with cachectl.phase("compile") as run:
            for _ in range(2):
                model(QUESTION)
        assert (2, 1, 1) == (endpoint.requests, run.stats.reused, run.stats.failed_reads)
    finally:
        server.kill()


@pytest.mark.parametrize("fails", [False, True])
def test_what_came_in_meanwhile_is_not_bought_again(
    stores: Callable[[], list[Store]], lm: MakeLM, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """What another thread has stored since a call looked for it is served, whether the server still knows it or not."""
    model, looks = lm(), list[str]()
    get_filed = RedisStore.get_filed

    def look(self: RedisStore, key: str) -> Any:
        looks.append(key)
        if len(looks) > 1:
            return get_filed(self, key)
        thread = Thread(target=another)
        thread.start()
        thread.join(SOON)
        if fails:
            raise StoreUnavailableError("it is away")
        return None

    cachectl.install(stores())
    monkeypatch.setattr(RedisStore, "get_filed", look)
    with cachectl.phase("compile") as run:
        another = cachectl.carry(partial(model, QUESTION))
        model(QUESTION)
    assert (1, 1, 1) == (endpoint.requests, run.stats.fresh, run.stats.reused)
    assert fails == run.stats.failed_reads


def test_who_asks_the_same_meanwhile_shares_one_look(
    stores: Callable[[], list[Store]], lm: MakeLM, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread asks the server for a hit, eight others have one of them ask for all, and no ninth."""
    model, looks, get_filed = lm(), list[str](), RedisStore.get_filed
    cachectl.install(stores())
    bought = model(QUESTION)

    def look(self: RedisStore, key: str) -> Any:
        looks.append(key)
        if len(looks) == 1:
            others.extend(pool.submit(another) for _ in range(8))
            assert [bought] * 8 == [other.result(SOON) for other in others]
        else:
            until(lambda: waiting() == 7)
        return get_filed(self, key)

    cachectl.install(stores())
    monkeypatch.setattr(RedisStore, "get_filed", look)
    others: list[Future[Any]] = []
    with ThreadPoolExecutor(8) as pool, cachectl.phase("compile") as run:
        another = cachectl.carry(partial(model, QUESTION))
        assert bought == model(QUESTION)
    assert (2, 1, 9) == (len(looks), endpoint.requests, run.stats.reused)
