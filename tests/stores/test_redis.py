"""The store in Redis or Valkey: the contract, and what only a shared store promises."""

from __future__ import annotations

import random
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.config import settings
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, StoreUnavailableError
from dspy_cachectl.manage.shared_store import verify
from dspy_cachectl.stores.base import Label, Put
from dspy_cachectl.stores.redis import store as redis_store
from dspy_cachectl.stores.redis.layout import tag_of
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.rows import Rows
from tests.endpoint import Endpoint
from tests.processes import Finished
from tests.stores.contract import COMPILED, DRAWN, KnowingContract
from tests.stores.servers import Server, free_port, program


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
    with cachectl.configure(store=address):
        shown += repr(settings())
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


def test_use_is_told_apart_so_far(shared_url: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that names a run, and a phase, for each request: what is counted is right in sum, and stays small."""
    monkeypatch.setattr(redis_store, "_MOST_COUNTERS", 60)
    monkeypatch.setattr(redis_store, "_MOST_LABELS", 10)
    store = RedisStore(shared_url("redis"))
    for at in range(200):
        store.add_usage({Label("lm", "m", f"phase-{at % 50}", "", f"run-{at:03}"): {"calls": 1, "cost_spent": 0.5}}, {})
        assert len(store.usage()) <= 32
    found = store.usage()
    assert (200, 100.0) == tuple(sum(one[name] for one in found.values()) for name in ("calls", "cost_spent"))
    assert any(label.run == "run-199" for label in found)


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


def test_what_is_damaged_makes_room(shared_url: Callable[..., str]) -> None:
    """Bytes that were changed in the server are an error to read, and gone when the answer is bought anew."""
    store = RedisStore(shared_url("redis"))
    store.put("key", random.Random(1).randbytes(1000), DRAWN)
    store.client.run("write", tag_of("key"), ("SETRANGE", store.names.entry("key"), 500, b"damage"))
    with pytest.raises(CorruptEntryError):
        store.get("key")

    assert Put(None, {}) == store.put_first("key", b"bought anew", COMPILED, "")
    assert (b"bought anew", {COMPILED: 1}) == (store.get("key"), store.labels())


def over_a_socket(folder: Path) -> tuple[list[Server], str]:
    """A server with a socket, and its address."""
    server = Server(folder, unixsocket=folder / "s")
    return [server], f"unix://{folder}/s?patience=30"


def with_tls(folder: Path) -> tuple[list[Server], str]:
    """A server that speaks TLS on another port, and its address."""
    files = {name: folder / f"{name}.pem" for name in ("key", "cert")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files["key"], "-out", files["cert"]),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    options = {"tls_port": port, "tls_cert_file": files["cert"], "tls_key_file": files["key"]}
    server = Server(folder, **options, tls_ca_cert_file=files["cert"], tls_auth_clients="no")
    return [server], f"rediss://127.0.0.1:{port}?patience=30&ssl_ca_certs={files['cert']}"


def with_few_rights(folder: Path) -> tuple[list[Server], str]:
    """A server with a user who has what the guide says, and its address."""
    server = Server(folder)
    rights = ("+@read", "+@write", "+@scripting", "+@connection", "-@dangerous", "+info")
    assert server.say("ACL", "SETUSER", "cache", "on", ">pass%40word", "~cachectl:*", *rights).startswith(b"+OK")
    return [server], f"redis://cache:pass%2540word@127.0.0.1:{server.port}?patience=30"


def behind_a_sentinel(folder: Path) -> tuple[list[Server], str]:
    """A server that a sentinel names, and the address by it."""
    server = Server(folder / "server")
    written = folder / "sentinel.conf"
    written.write_text(f"sentinel monitor mine 127.0.0.1 {server.port} 1\n")
    sentinel = Server(folder, first=(written, "--sentinel"))
    return [sentinel, server], f"redis+sentinel://127.0.0.1:{sentinel.port}/mine?patience=30"


@pytest.mark.parametrize(
    "way",
    [
        over_a_socket,
        *(pytest.param(way, marks=pytest.mark.exhaustive) for way in (with_tls, with_few_rights, behind_a_sentinel)),
    ],
)
def test_every_way_to_a_server(way: Callable[[Path], tuple[list[Server], str]], tmp_path: Path) -> None:
    """Entries are kept, listed, counted and removed, whatever leads to the server."""
    program("redis")
    started, address = way(tmp_path)
    try:
        store = RedisStore(address)
        assert Put(None, {}) == store.put_first("key", b"value", DRAWN, "name.rest")
        store.add_usage({DRAWN: {"calls": 2}}, {"key": 1})
        assert (b"value", {DRAWN: 1}, {"name.rest": "key"}) == (store.get("key"), store.labels(), store.marked("name"))
        assert {DRAWN: {"calls": 2}} == store.usage()
        assert ["key"] == list(store.keys())
        verify(store)
        assert (True, 0, 0) == (store.delete("key"), store.clear(), len(list(store.keys())))
    finally:
        for server in started:
            server.kill()
