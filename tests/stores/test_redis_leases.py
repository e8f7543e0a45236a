"""Leases in a server: whose they are, and what becomes of one that is lost, late or cannot be given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import MemoryStore, leases
from dspy_cachectl.stores.leases import LostLeaseError, Turn
from dspy_cachectl.stores.redis.store import RedisStore
from tests.endpoint import Endpoint
from tests.stores.servers import Server

NAME = "ab" * 32


@pytest.fixture
def store(shared_url: Callable[..., str]) -> RedisStore:
    return RedisStore(shared_url("redis"))


def forget(store: RedisStore, name: str = NAME) -> None:
    """Let the server lose a lease, as a restart does."""
    store.client.run("write", "a", ("DEL", store.names.lease(name)))


class TestLost:
    """The server has forgotten it, or it was not renewed in time."""

    def test_is_told_and_left_to_the_other(self, store: RedisStore) -> None:
        """Who has lost one is told so when it is given back; the other's stays."""
        first, second = store.lease(NAME), store.lease(NAME)
        assert first.take() is None
        forget(store)
        assert second.take() is None
        with pytest.raises(LostLeaseError, match="was lost"):
            first.renew()
        with pytest.raises(LostLeaseError):
            first.give_back()
        second.renew()
        second.give_back()
        assert first.take() is None

    def test_is_counted(
        self, store: RedisStore, endpoint: Endpoint, lm: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The answer comes all the same; it is counted as a failed write, and said."""
        cachectl.install([MemoryStore(), store])
        endpoint.hold()
        with cachectl.phase("compile") as run:
            asking = threading.Thread(target=cachectl.carry(lambda: lm()("Who am I?")))
            asking.start()
            assert endpoint.wait_for(1)
            (name,) = next(store.client.scan(store.names.pattern("l:")))
            store.client.run("write", "0", ("DEL", name))
            endpoint.release()
            asking.join()
        assert (1, 1) == (run.stats.fresh, run.stats.failed_writes)
        assert 1 == caplog.text.count("was lost before its answer came")


class TestLate:
    """Commands that come late, or whose reply is lost, leave no lease behind."""

    def test_a_renewal(self, store: RedisStore) -> None:
        """One that arrives after the lease was given back does not take it again."""
        lease = store.lease(NAME)
        lease.take()
        lease.give_back()
        with pytest.raises(LostLeaseError):
            lease.renew()
        assert store.lease(NAME).take() is None

    def test_a_renewal_that_failed(self, store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """It does not keep its holder from giving the lease back."""
        lease, run = store.lease(NAME), store.client.run
        lease.take()

        def fail(*_: Any, **__: Any) -> Any:
            raise StoreError("no reply")

        monkeypatch.setattr(store.client, "run", fail)
        with pytest.raises(StoreError):
            lease.renew()
        monkeypatch.setattr(store.client, "run", run)
        lease.give_back()
        assert store.lease(NAME).take() is None


def test_what_cannot_be_given_back_is_said(shared_servers: Callable[[str], Server]) -> None:
    """A server that is away when a call ends: the fault is told to whoever asked for the lease."""
    told: list[Exception] = []
    store = RedisStore(f"{shared_servers('redis').url}?namespace=away&patience=60")
    turn = Turn(store.lease(NAME), lambda _: False, told.append)
    assert [] == list(turn.pauses())
    store.client.run = lambda *_, **__: (_ for _ in ()).throw(StoreError("away"))  # type: ignore[method-assign]
    turn.end()
    assert ["away"] == [str(error) for error in told]
    assert leases._RENEWING._held == {}
