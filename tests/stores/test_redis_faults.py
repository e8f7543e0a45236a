"""What a broken server costs: little, to few, and nothing is lost that a caller had; then it is used again."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreError, StoreUnavailableError
from dspy_cachectl.manage.shared_store import verify
from dspy_cachectl.stores import MemoryStore
from dspy_cachectl.stores.leases import LostLeaseError, Turn
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.rows import Rows
from tests.endpoint import Endpoint
from tests.stores.contract import COMPILED, DRAWN
from tests.stores.faulty import FAULTS, Broken
from tests.stores.servers import Cluster, Server, program, until

THREADS = 8
PATIENCE = 1.0
VALUE = bytes(range(256)) * 12


@pytest.fixture
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broken]:
    is_slow = "slow" in request.node.name  # by which it is not too late, but costs
    made = Broken(tmp_path / "server", patience=PATIENCE / 4 if is_slow else PATIENCE)
    yield made
    made.close()


QUICK = {"stopped", "slow"}
WRITES_ONLY = {"full", "read-only"}


def worked(store: RedisStore, seconds: float, name: str, until_refused: bool = False) -> list[Counter[str]]:
    """Read and write with some threads for a while; what became of the commands of each."""
    end = time.monotonic() + seconds

    def work(thread: int) -> Counter[str]:
        became: Counter[str] = Counter()
        at = 0
        while (time.monotonic() < end or not at) and not (until_refused and became["refused"]):
            at += 1
            key = f"{name}-{thread}-{at}"
            for doing in (partial(store.put, key, VALUE, DRAWN), partial(store.get, "there")):
                try:
                    found = doing()
                    assert found in {None, VALUE}
                    became["done"] += 1
                except StoreError as error:
                    became["waited" if "failed: there was no reply" in str(error) else "refused"] += 1
            time.sleep(0.005)  # as a program that does something with what it got
        return became

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


def _put(store: RedisStore, key: str) -> None:
    """Put an entry as soon as the store is used: on a busy machine a command may be late without a fault."""
    for _ in until("the store to be used"):
        try:
            store.put(key, VALUE, DRAWN)
            if store.get(key) == VALUE:
                return
        except StoreUnavailableError:
            continue


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=() if name in QUICK else pytest.mark.exhaustive) for name in FAULTS]
)
def test_a_fault_costs_little_and_passes(broken: Broken, fault: str) -> None:
    """No thread waits for its time more than three times; what is written before and after is there; reads go on."""
    store = broken.store
    _put(store, "there")
    before = worked(store, 0.0, "before")
    assert fault == "slow" or not any(one["waited"] + one["refused"] for one in before)

    end = FAULTS[fault](broken)
    during = worked(store, 60.0, "during", until_refused=True) if fault == "slow" else worked(store, 3.0, "during")
    end()

    assert max(one["waited"] for one in during) <= 3
    assert all(one["refused"] for one in during)
    if fault in WRITES_ONLY:
        assert min(one["done"] for one in during) > 10
    _put(store, "after")


def test_a_dead_node_of_a_cluster_takes_nothing_else_with_it(tmp_path: Path) -> None:
    """The keys of the other nodes are read and written as before."""
    program("cluster")
    cluster = Cluster(tmp_path)
    try:
        store = RedisStore(f"{cluster.url}?patience=5")
        keys = [hashlib.sha256(b"%d" % at).hexdigest() for at in range(256)]
        for key in keys:
            store.put(key, VALUE, DRAWN)
        cluster.servers[2].kill()

        def lost() -> set[str]:
            gone = set()
            for key in keys:
                try:
                    assert VALUE == store.get(key)
                except StoreUnavailableError:
                    gone.add(key)
            return gone

        first = lost()
        assert 0 < len(first) < 160
        assert first == lost()
    finally:
        cluster.kill()


POLICIES = ("allkeys-random", "allkeys-lru", "volatile-lru", "volatile-ttl", "noeviction")


@pytest.mark.parametrize(
    "policy", [pytest.param(name, marks=pytest.mark.exhaustive if at else ()) for at, name in enumerate(POLICIES)]
)
def test_lists_are_true_of_a_full_server(tmp_path: Path, policy: str) -> None:
    """Whatever a server removes to make room, after one look at all of it the lists tell what is there, and no more."""
    program("redis")
    server = Server(tmp_path, maxmemory="4mb", maxmemory_policy=policy)
    try:
        store = RedisStore(f"{server.url}?patience=30")
        noise = random.Random(1)
        for at in range(4000):
            try:
                store.put(hashlib.sha256(b"%d" % at).hexdigest(), noise.randbytes(2600), (DRAWN, COMPILED)[at % 2])
            except StoreUnavailableError:
                break
        server.say("CONFIG", "SET", "maxmemory", 0)
        for _ in until("the store to be written again"):
            if not store.client.rests("write"):
                break

        newest = list(store.lists.rows(store.lists.places(Rows(lambda _: True), limit=50)))
        assert 50 == len([entry for entry in newest if store.get(entry.key)])
        verify(store)
        there = sum(len(set(names)) for names in store.client.scan(store.names.pattern("e:")))
        assert 100 < there < 4000
        assert there == sum(store.labels().values()) == len(list(store.keys()))
    finally:
        server.kill()


def test_a_full_server_is_said_to_be_full(tmp_path: Path) -> None:
    """Of a server that lets nothing go, in words, and not where in a script of ours it was refused."""
    program("redis")
    server = Server(tmp_path, maxmemory=1)
    try:
        with pytest.raises(StoreUnavailableError, match=r"failed: the server is full, and removes nothing.*\)$"):
            RedisStore(f"{server.url}?patience=60").put(LEASED, VALUE, DRAWN)
    finally:
        server.kill()


LEASED = "ab" * 32


@pytest.fixture
def leasing(shared_url: Callable[..., str]) -> RedisStore:
    """A store of one's own."""
    return RedisStore(shared_url("redis"))


def forget(leasing: RedisStore, name: str = LEASED) -> None:
    """Let the server lose a lease, as a restart does."""
    leasing.client.run("write", "a", ("DEL", leasing.names.lease(name)))


class TestLostLeases:
    """The server has forgotten it, or it was not renewed in time."""

    def test_is_told_and_left_to_the_other(self, leasing: RedisStore) -> None:
        """Who has lost one is told so when it is given back; the other's stays."""
        first, second = leasing.lease(LEASED), leasing.lease(LEASED)
        assert first.take() is None
        forget(leasing)
        assert second.take() is None
        with pytest.raises(LostLeaseError, match="was lost"):
            first.renew()
        with pytest.raises(LostLeaseError):
            first.give_back()
        second.renew()
        second.give_back()
        assert first.take() is None

    def test_is_counted(
        self, leasing: RedisStore, endpoint: Endpoint, lm: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The answer comes all the same; it is counted as a failed write, and said."""
        cachectl.install([MemoryStore(), leasing])
        endpoint.hold()
        with cachectl.phase("compile") as run:
            asking = threading.Thread(target=cachectl.carry(lambda: lm()("Who am I?")))
            asking.start()
            assert endpoint.wait_for(1)
            (name,) = next(leasing.client.scan(leasing.names.pattern("l:")))
            leasing.client.run("write", "0", ("DEL", name))
            endpoint.release()
            asking.join()
        assert (1, 1) == (run.stats.fresh, run.stats.failed_writes)
        assert 1 == caplog.text.count("was lost before its answer came")


def test_nobody_waits_for_a_lease_that_is_none(broken: Broken) -> None:
    """A server that replies something else to whoever asks for a lease is away, and has no holder to wait for."""
    _put(broken.store, "there")
    broken.way.begin("other")
    with pytest.raises(StoreUnavailableError, match="replies something else"):
        broken.store.lease(LEASED).take()
    assert broken.store.client.rests("read")
    broken.way.begin("none")
    _put(broken.store, "after")


class TestLateLeases:
    """Commands that come late, or whose reply is lost, leave no lease behind."""

    def test_a_renewal(self, leasing: RedisStore) -> None:
        """One that arrives after the lease was given back does not take it again."""
        lease = leasing.lease(LEASED)
        lease.take()
        lease.give_back()
        with pytest.raises(LostLeaseError):
            lease.renew()
        assert leasing.lease(LEASED).take() is None

    def test_a_renewal_that_failed(self, leasing: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """It does not keep its holder from giving the lease back."""
        lease, run = leasing.lease(LEASED), leasing.client.run
        lease.take()

        def fail(*_: Any, **__: Any) -> Any:
            raise StoreError("no reply")

        monkeypatch.setattr(leasing.client, "run", fail)
        with pytest.raises(StoreError):
            lease.renew()
        monkeypatch.setattr(leasing.client, "run", run)
        lease.give_back()
        assert leasing.lease(LEASED).take() is None


@pytest.mark.parametrize("replied", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_what_was_refused_is_not_lost(leasing: RedisStore, monkeypatch: pytest.MonkeyPatch, replied: bool) -> None:
    """A lease that a full server refuses, or whose reply was lost, is given back without a word."""
    lease, run = leasing.lease(LEASED), leasing.client.run

    def fail(*arguments: Any, **options: Any) -> Any:
        if replied:
            run(*arguments, **options)
        raise StoreError("full")

    monkeypatch.setattr(leasing.client, "run", fail)
    with pytest.raises(StoreError):
        lease.take()
    monkeypatch.setattr(leasing.client, "run", run)
    lease.give_back()
    assert leasing.lease(LEASED).take() is None


def test_what_cannot_be_given_back_is_said(leasing: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away when a call ends: the fault is told to whoever asked for the lease."""
    told: list[Exception] = []
    turn = Turn([leasing.lease(LEASED)], lambda _: False, told.append)
    assert [] == list(turn.pauses())

    def fail(*_: Any, **__: Any) -> Any:
        raise StoreError("away")

    monkeypatch.setattr(leasing.client, "run", fail)
    turn.end()
    assert ["away"] == [str(error) for error in told]
