"""Memory, a folder and a shared store as one: what the shared one missed while it was away it is given later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import Label, MemoryStore, Store, missed
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.tiers import Tiers
from tests.stores.contract import COMPILED, DRAWN
from tests.stores.servers import Server, program, until


class Away:
    """A server that comes and goes, and the stores of a process that uses it behind a folder of its own."""

    def __init__(self, folder: Path) -> None:
        program("redis")
        self.folder = folder / "entries"
        self.server = Server(folder / "server")
        self.faults: list[str] = []
        self.opened: list[Tiers] = []

    def tiers(self, *, folder: str = "", patience: float = 5.0) -> Tiers:
        """The stores as another process would open them."""
        stores: list[Store] = [MemoryStore(), self.shared(patience)]
        if folder != "none":
            stores.insert(1, DiskStore(self.folder.with_name(folder or self.folder.name)))
        made = Tiers(stores, on_fault=lambda doing, error: self.faults.append(f"{doing}: {error}"))
        self.opened.append(made)
        return made

    def shared(self, patience: float = 30.0) -> RedisStore:
        """A store of its own in the server."""
        return RedisStore(f"redis://127.0.0.1:{self.server.port}?patience={patience}")

    def has(self, count: int) -> RedisStore:
        """Wait until there are so many entries in the server."""
        for _ in until(f"{count} entries in the server"):
            store = self.shared()
            try:
                if sum(store.labels().values()) == count:
                    return store
            except StoreError:
                continue
            finally:
                store.close()
        raise AssertionError

    def close(self) -> None:
        for tiers in self.opened:
            tiers.close()
        self.server.kill()


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Away]:
    made = Away(tmp_path)
    yield made
    made.close()


def test_fills_upward_under_its_label_and_mark(away: Away) -> None:
    """An answer of the server is in the folder under the run and model that it was bought for, and known again."""
    away.shared().put_marked("key", b"value", DRAWN, "name.rest")
    tiers = away.tiers()
    assert b"value" == tiers.get("key") == tiers.peek("key")

    folder = DiskStore(away.folder)
    assert ({DRAWN: 1}, {"name.rest": "key"}) == (folder.labels(), folder.marked("name"))


def test_memory_may_keep_less_than_the_stores_behind_it(away: Away) -> None:
    """What memory leaves out the folder has all the same, wherever it came from."""
    away.shared().put("key", b"value and request", DRAWN)
    stores = [MemoryStore(), DiskStore(away.folder), away.shared()]
    tiers = Tiers(stores, on_fault=lambda *_: None, for_memory=lambda value, _: value[:5])

    assert b"value" == tiers.get("key") == tiers.peek("key")
    assert b"value and request" == stores[1].get("key") == tiers.get("key", behind=True)
    assert DiskStore(away.folder).labels() == {DRAWN: 1}


def test_what_was_written_without_it_is_given_to_it(away: Away) -> None:
    """What a server had not when it was killed, and what it had and lost, is there when it is back, with its mark."""
    tiers = away.tiers()
    for at in range(150):
        tiers.put_first(f"before-{at}", b"%d" % at, DRAWN, mark=f"before{at}.rest")
    away.server.kill()
    for at in range(250):
        tiers.put_first(f"during-{at}", b"%d" % at, COMPILED, mark=f"during{at}.rest")
    assert {"write"} == {fault.partition(":")[0] for fault in away.faults}
    assert 250 == len(away.faults)
    away.server.start()

    shared = away.has(400)
    assert {DRAWN: 150, COMPILED: 250} == shared.labels()
    assert [b"%d" % at for at in range(250)] == [shared.get(f"during-{at}") for at in range(250)]
    assert {"during7.rest": "during-7"} == shared.marked("during7")
    assert {} == missed.waiting_beside(away.folder)


def test_what_was_lost_unseen_is_given_again(away: Away) -> None:
    """A server that was started anew between two commands, which nobody noticed, has all of it afterwards."""
    tiers = away.tiers()
    for at in range(50):
        tiers.put_first(f"before-{at}", b"%d" % at, DRAWN, mark=f"before{at}.rest")
    away.server.kill()
    away.server.start()
    tiers.put_first("after", b"value", COMPILED, mark="after.rest")
    assert [] == away.faults
    assert {DRAWN: 50, COMPILED: 1} == away.has(51).labels()


def test_what_was_given_and_lost_is_given_again(away: Away) -> None:
    """What a server missed, was given and has lost with all else is there again, too."""
    tiers = away.tiers()
    away.server.kill()
    tiers.put_first("missed", b"value", DRAWN, mark="missed.rest")
    away.server.start()
    away.has(1)
    for _ in until("nothing to wait"):
        if not missed.waiting_beside(away.folder):
            break
    away.server.kill()
    away.server.start()
    assert b"value" == tiers.get("missed")
    tiers.put_first("after", b"value", COMPILED, mark="after.rest")
    assert {DRAWN: 1, COMPILED: 1} == away.has(2).labels()


@pytest.mark.parametrize("folder", ["", pytest.param("none", marks=pytest.mark.exhaustive)])
def test_what_was_refused_is_given_when_it_takes_something(away: Away, folder: str) -> None:
    """What a server refused, that was never away, it has as soon as it takes the next entry."""
    tiers = away.tiers(folder=folder)
    tiers.put_first("before", b"value", DRAWN, mark="before.rest")
    for right in ("-@write", "-@scripting"):
        assert away.server.say("ACL", "SETUSER", "default", right).startswith(b"+OK")
        for at in range(3):
            tiers.put_first(f"{right}{at}", b"value", DRAWN, mark=f"{right}{at}.rest")
        assert away.server.say("ACL", "SETUSER", "default", "+@all").startswith(b"+OK")
    assert {"write"} == {fault.partition(":")[0] for fault in away.faults}
    assert 6 == len(away.faults)

    tiers.put_first("after", b"value", COMPILED, mark="after.rest")
    assert {DRAWN: 7, COMPILED: 1} == away.has(8).labels()


def test_what_is_refused_holds_up_nothing_else(away: Away) -> None:
    """An entry that a server refuses for good waits on, is counted, and the others are given to it."""
    tiers = away.tiers()
    shared = away.shared()
    for at in (0, 1):  # keys that somebody else has filled with something else
        shared.client.run("write", "0", ("RPUSH", shared.names.entry(f"refused{at}"), b"of another"))
    away.server.say("CONFIG", "SET", "maxmemory", 1)
    for key in ("refused0", *(f"{at}" for at in range(150)), "refused1"):
        tiers.put_first(key, b"value", DRAWN, mark="")
    away.faults.clear()
    away.server.say("CONFIG", "SET", "maxmemory", 0)

    assert {DRAWN: 150} == away.has(150).labels()
    for _ in until("both to be counted"):
        if 2 == sum("WRONGTYPE" in fault for fault in away.faults):
            break
    assert [2] == list(missed.waiting_beside(away.folder).values())


@pytest.mark.parametrize("folder", ["", pytest.param("none", marks=pytest.mark.exhaustive)])
def test_what_others_stored_first_stays(away: Away, folder: str) -> None:
    """A draw that another machine bought meanwhile is not replaced; what was drawn anew on purpose is."""
    tiers = away.tiers(folder=folder)
    away.server.kill()
    tiers.put_first("draw", b"mine", DRAWN, mark="")
    tiers.put("refreshed", b"mine", DRAWN)
    tiers.put_first("more", b"mine", DRAWN, mark="")
    away.server.start()
    other = away.shared()
    # Whichever is first: the catching up, or this other machine.
    for key in ("draw", "refreshed"):
        other.put_first(key, b"another's", DRAWN, "")

    away.has(3)
    for _ in until("what was drawn anew"):
        if other.get("refreshed") == b"mine":
            break
    assert other.get("more") == b"mine"
    assert other.get("draw") in {b"mine", b"another's"}


def test_a_later_process_gives_it_what_an_earlier_one_could_not(away: Away) -> None:
    """What waits is beside the folder, and is given by whoever opens that when the server is there again."""
    away.server.kill()
    first = away.tiers()
    for at in range(30):
        first.put_first(f"key-{at}", b"value", DRAWN, mark="")
    first.close()
    assert [30] == list(missed.waiting_beside(away.folder).values())
    away.opened.clear()
    del first

    away.server.start()
    away.tiers()
    assert {DRAWN: 30} == away.has(30).labels()


def test_what_does_not_fit_is_counted(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded; what it has no room for is in the folder, and is said to be there alone."""
    monkeypatch.setattr(missed, "MOST", 10)
    away.server.kill()
    tiers = away.tiers()
    for at in range(15):
        tiers.put_first(f"key-{at}", b"value", DRAWN, mark="")
    assert 5 == sum("kept here alone" in fault for fault in away.faults)
    assert 15 == len(list(DiskStore(away.folder).keys()))

    away.server.start()
    assert {DRAWN: 10} == away.has(10).labels()


def test_no_credential_waits(away: Away) -> None:
    """What is kept beside the folder tells where the server is, and not what opens it."""
    away.server.kill()
    shared = RedisStore(f"redis://somebody:hunter2@127.0.0.1:{away.server.port}")
    tiers = Tiers([MemoryStore(), DiskStore(away.folder), shared], on_fault=lambda *_: None)
    tiers.put("key", b"value", Label())
    tiers.close()

    assert b"hunter2" not in b"".join(path.read_bytes() for path in away.folder.iterdir())
    assert 1 == sum(missed.waiting_beside(away.folder).values())
