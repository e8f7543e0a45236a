"""The store in Redis or Valkey: the contract, and what only a shared store promises."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dspy_cachectl.errors import ConfigurationError, StoreUnavailableError
from dspy_cachectl.stores.redis.layout import tag_of
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.rows import Rows
from tests.endpoint import Endpoint
from tests.processes import Finished
from tests.stores.contract import COMPILED, DRAWN, KnowingContract
from tests.stores.servers import Server


class InServer(KnowingContract):
    """The contract, kept in a server of a kind."""

    kind: str

    @pytest.fixture
    def store(self, tmp_path: Path, shared_url: Callable[..., str]) -> Iterator[RedisStore]:
        made = RedisStore(shared_url(self.kind))
        yield made
        made.close()


class TestRedis(InServer):
    """A store in Redis keeps the contract."""

    kind = "redis"


@pytest.mark.exhaustive
class TestValkey(InServer):
    """A store in Valkey keeps the contract."""

    kind = "valkey"


@pytest.mark.exhaustive
class TestCluster(InServer):
    """A store in a cluster of three keeps the contract."""

    kind = "cluster"


TWO_QUESTIONS = """
import os, dspy, dspy_cachectl as cachectl
lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret")
with cachectl.phase("compile"):
    print([lm(text)[0] for text in ("one", "two")])
with cachectl.phase("eval", run_id="r1"):
    print([lm(text)[0] for text in ("one", "two")])
"""


def test_machines_share_what_is_bought(
    shared_url: Callable[..., str], child: Callable[..., Finished], endpoint: Endpoint
) -> None:
    """What one process has bought, answers and draws alike, another one is given, with nothing else in common."""
    address = {"DSPY_CACHECTL_STORE": shared_url("redis")}
    first = child(TWO_QUESTIONS, env=address)
    assert 4 == endpoint.requests

    assert first.output == child(TWO_QUESTIONS, env=address).output
    assert 4 == endpoint.requests


def test_nothing_shows_the_password(shared_servers: Callable[[str], Server], tmp_path: Path) -> None:
    """What opens the server is in no error, no location, no representation and no key's name."""
    server = shared_servers("redis")
    secret = "hunter2-of-the-server"
    address = f"redis://somebody:{secret}@127.0.0.1:{server.port}?patience=60"
    store = RedisStore(address)
    with pytest.raises(StoreUnavailableError) as error:
        store.get("key")

    shown = "".join(traceback.format_exception(error.value)) + repr(store.address) + store.location
    assert secret not in shown
    assert "redis://127.0.0.1" in shown
    with pytest.raises(ConfigurationError) as wrong:
        RedisStore(f"{address}&nmespace=x")
    assert (secret not in str(wrong.value), "namespace" in str(wrong.value)) == (True, True)


def test_values_are_small_and_expire(shared_url: Callable[..., str]) -> None:
    """A value that can be packed takes less room than it has, and none stays for ever; what cannot is kept as it is."""
    store = RedisStore(f"{shared_url('redis')}&ttl=2h")
    values = {"text": b"answer " * 1000, "noise": random.Random(1).randbytes(5000), "small": b"answer"}
    for key, value in values.items():
        store.put_marked(key, value, COMPILED, "name.rest")

    assert values == {key: store.get(key) for key in values}
    kept = {key: len(store.client.run("read", tag_of(key), ("GET", store.names.entry(key)))) for key in values}
    assert (kept["text"] < 300, kept["noise"] < 5200, kept["small"] < 200) == (True, True, True)
    for names in store.client.scan(store.names.pattern("[ei]:")):
        for left in store.client.many("read", [("PTTL", name) for name in names]):
            assert 7_000_000 < left <= 7_200_000


def test_lists_mend_themselves(shared_url: Callable[..., str]) -> None:
    """What the server has removed is in no list that was read, and is counted no more; the rest is."""
    store = RedisStore(shared_url("redis"))
    for at in range(60):
        store.put(f"{at:064x}", b"value", COMPILED if at % 2 else DRAWN)
    for at in range(0, 60, 3):
        store.client.run("write", tag_of(f"{at:064x}"), ("DEL", store.names.entry(f"{at:064x}")))

    newest = store.lists.places(Rows(lambda _: True), limit=30)
    assert [at for at in reversed(range(60)) if at % 3][:30] == [int(place.key, 16) for place in newest]
    assert 40 == len(list(store.lists.rows(store.lists.places(Rows(lambda _: True)))))
    assert {COMPILED: 20, DRAWN: 20} == store.labels()
