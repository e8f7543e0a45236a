"""Records that threads, processes and machines change together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.memory import MemoryStore
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.registers.base import MemoryRegister, Record, Register
from dspy_cachectl.stores.tiers import Tiers
from tests.processes import Finished
from tests.stores.servers import Server

_COUNT = """
    import sys
    from concurrent.futures import ThreadPoolExecutor
    from dspy_cachectl.stores import open_stores

    register = open_stores(sys.argv[1], memory_bytes=0, disk_bytes=10**9)[-1].register()

    def count(record):
        return {"n": record.get("n", 0) + 1}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: register.change("counted", count), range(50)))
"""


def counted(record: Record) -> Record:
    """Count one more."""
    return {"n": record.get("n", 0) + 1}


@pytest.fixture(params=["memory", "file", "redis"])
def register(request: pytest.FixtureRequest, tmp_path: Path, shared_url: Callable[..., str]) -> Register:
    """A register of each kind."""
    if request.param == "memory":
        return MemoryRegister()
    return DiskStore(tmp_path).register() if request.param == "file" else RedisStore(shared_url("redis")).register()


def test_threads_lose_nothing(register: Register) -> None:
    """A hundred changes by eight threads are a hundred."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: register.change("counted", counted), range(100)))
    assert {"n": 100} == register.change("counted", lambda record: record)
    assert {} == register.change("another", lambda record: record)


def test_a_change_that_fails_changes_nothing(register: Register) -> None:
    """What a change raises goes through, and the record stays as it was."""
    register.change("counted", counted)

    def fails(record: Record) -> Record:
        record["n"] = 17
        raise KeyError("no")

    with pytest.raises(KeyError):
        register.change("counted", fails)
    assert {"n": 1} == register.change("counted", lambda record: record)


@pytest.mark.parametrize("kind", ["file", pytest.param("redis", marks=pytest.mark.exhaustive)])
def test_processes_lose_nothing(
    kind: str, tmp_path: Path, shared_url: Callable[..., str], child: Callable[..., Finished]
) -> None:
    """Four processes of four threads that count to fifty each count to two hundred, in a file and in a server."""
    location = str(tmp_path / "shared") if kind == "file" else shared_url("redis")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: child(_COUNT, location), range(4)))
    store = DiskStore(tmp_path / "shared") if kind == "file" else RedisStore(location)
    assert {"n": 4 * 50} == store.register().change("counted", lambda record: record)


def test_the_register_that_most_share_is_chosen(tmp_path: Path, shared_url: Callable[..., str]) -> None:
    """Of memory, a folder and a server it is the server's; without that the folder's; else the process's own."""
    memory, disk, server = MemoryStore(10**6), DiskStore(tmp_path), RedisStore(shared_url("redis"))
    places = [
        Tiers(stores, on_fault=lambda *_: None).register().place
        for stores in ([memory], [memory, disk], [memory, disk, server])
    ]
    assert "this process" in places[0]
    assert str(tmp_path) in places[1]
    assert "redis://" in places[2]


def test_a_server_that_is_away_is_an_error(tmp_path: Path) -> None:
    """A record that cannot be reached is told, not taken for empty."""
    server = Server(tmp_path)
    register = RedisStore(f"{server.url}?patience=1").register()
    register.change("counted", counted)
    server.kill()
    with pytest.raises(StoreUnavailableError):
        register.change("counted", counted)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    """What is no record is not taken for one, nor written over."""
    register = DiskStore(tmp_path).register()
    register.change("counted", counted)
    with register._database.change() as sql:
        sql("UPDATE records SET record = '[1'")
    with pytest.raises(CorruptEntryError, match="counted"):
        register.change("counted", counted)
