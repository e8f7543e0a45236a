"""The commands on a shared store: what they say and do of a folder, they say and do of an address."""

from __future__ import annotations

import itertools
import json
import math
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.entries.records import FORMAT_VERSION, MAGIC
from dspy_cachectl.manage.verification import _expected_key
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import read_rows, row_numbers
from dspy_cachectl.stores.redis.layout import tag_of
from dspy_cachectl.stores.redis.store import RedisStore
from dspy_cachectl.stores.redis.tending import list_anew
from dspy_cachectl.stores.rows import Rows
from tests.cli.commands import command, entry
from tests.predictions.support import evaluate, examples
from tests.stores.contract import COMPILED, DRAWN, VECTOR


def keyed(label: Label, value: bytes) -> str:
    """The key that an answer has by its request."""
    found = _expected_key(value, label)
    assert found is not None
    return found


MADE = [
    (label, entry(label, prompt=f"question {at}", answer=f"answer {at}", **origin))
    for at, (label, origin) in enumerate(
        [(COMPILED, {}), (DRAWN, {"rollout_id": 1}), (VECTOR, {}), (DRAWN, {"rollout_id": 2}), (COMPILED, {})] * 3
    )
]
ENTRIES = {keyed(label, value): (label, value) for label, value in MADE}
KEYS = list(ENTRIES)
OF_PLACE = {"store", "stored", "served_at", "moment", "oldest", "newest", "size", "bytes", "by", "file"}
"""What depends on where and when an entry is kept."""


def newer_entry(value: bytes) -> bytes:
    """The entry as a newer version would have written it."""
    rest = bytes([FORMAT_VERSION + 1, *value[9:]])
    return MAGIC + zlib.crc32(rest).to_bytes(4, "big") + rest


@pytest.fixture(params=["redis", pytest.param("cluster", marks=pytest.mark.exhaustive)])
def address(request: pytest.FixtureRequest, shared_url: Callable[..., str]) -> str:
    """The address of a store with some entries."""
    found = shared_url(request.param)
    filled(RedisStore(found))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the same entries."""
    filled(DiskStore(tmp_path / "folder"))
    return tmp_path / "folder"


def filled(store: Any) -> None:
    for key, (label, value) in ENTRIES.items():
        store.put(key, value, label)
    store.add_usage({COMPILED: {"calls": 3, "reused": 1, "cost_saved": 0.25}}, {KEYS[0]: 4, "gone": 1})
    store.close()


def said(*arguments: str | Path, store: str | Path) -> Any:
    """Return what a command says as JSON, but for what depends on the place."""
    done = command("--store", str(store), *arguments, "--json")
    assert (0, "") == (done.returncode, done.stderr), done.output
    return _bare(json.loads(done.stdout))


def _bare(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _bare(value) for name, value in found.items() if name not in OF_PLACE}
    return [_bare(one) for one in found] if isinstance(found, list) else found


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats"],
        ["ls"],
        ["ls", "--sort", "served", "--limit", "2"],
        ["ls", "--reverse", "--limit", "4", "--kind", "lm"],
        ["ls", "--run", "run-1", "--contains", "QUESTION 8"],
        ["show", KEYS[3][:6]],
        ["diff", KEYS[0], KEYS[4]],
        ["explain", KEYS[4]],
        ["runs"],
        ["clear", "--run", "run-1", "--yes", "--dry-run"],
        ["prune", "--older-than", "1h", "--yes"],
        ["verify"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_says_the_same(address: str, folder: Path, arguments: list[str]) -> None:
    """A command says of a shared store what it says of a folder with the same entries."""
    assert said(*arguments, store=folder) == said(*arguments, store=address)


WINDOWS = {
    "all": {},
    "after": {"after": 1_000_004.0},
    "before": {"before": 1_000_004.0},
    "between": {"after": 1_000_001.0, "before": 1_000_005.0},
    "after, and not ahead": {"after": 1_000_004.0, "ahead": 1_000_010.0},
    "before, or ahead": {"before": 1_000_004.0, "ahead": 1_000_010.0},
    "ahead alone": {"before": -math.inf, "ahead": 1_000_010.0},
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_means_the_same_by_age(
    window: dict[str, float], shared_url: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ages are asked for, with or without a limit and either way round, the same entries come."""
    shared, folder = RedisStore(shared_url("redis")), DiskStore(tmp_path / "folder")
    for at in range(16):
        monkeypatch.setattr(time, "time", lambda at=at: 1_000_000.0 + at)
        for store in (shared, folder):
            store.put(f"{at:064x}", b"value", (COMPILED, DRAWN, VECTOR)[at % 3])
    rows = Rows(lambda label: label != VECTOR, **window)

    for reverse, limit in itertools.product((False, True), (None, 3, 40)):
        numbers = row_numbers(folder, rows, reverse=reverse, limit=limit)
        expected = [entry.key for entry in read_rows(folder, numbers)]
        places = row_numbers(shared, rows, reverse=reverse, limit=limit)
        assert expected == [entry.key for entry in read_rows(shared, places)]


def test_removes_the_same(address: str, folder: Path) -> None:
    """Of a run nothing is left, and of all else everything."""
    for place in (folder, address):
        assert 6 == said("clear", "--run", "run-1", "--yes", store=place)["removed"]

    assert {COMPILED: 6, VECTOR: 3} == RedisStore(address).labels() == DiskStore(folder).labels()
    assert said("ls", store=folder) == said("ls", store=address)


def test_carries_between_a_folder_and_a_server(address: str, folder: Path, tmp_path: Path) -> None:
    """What was exported from either is the same, and imports into the other."""
    files = [tmp_path / name for name in ("from-folder.json", "from-server.json")]
    for place, file in zip((folder, address), files, strict=True):
        said("export", file, store=place)
    assert files[0].read_bytes() == files[1].read_bytes()
    said("clear", "--all", "--yes", store=address)

    assert 15 == said("import", files[0], store=address)["files"][0]["added"]
    assert set(ENTRIES) == set(RedisStore(address).keys()) - {"run:run-1"}


def test_verify_mends(address: str) -> None:
    """What is damaged is named, and moved aside where that is asked for; lists that the server cut short are whole."""
    store = RedisStore(address)
    damaged, unlisted, gone = (KEYS[at] for at in range(3))
    for key, words in {damaged: ("SETRANGE", 300, b"xx"), gone: ("DEL",)}.items():
        store.client.run("write", tag_of(key), (words[0], store.names.entry(key), *words[1:]))
    its = store.names.filed(tag_of(unlisted), DRAWN.encode().encode())
    store.client.run("write", tag_of(unlisted), ("DEL", its))
    store.close()

    done = command("--store", address, "verify")
    assert (3, "entry" in done.stdout, damaged[:8] in done.stdout) == (done.returncode, True, True)
    assert 14 == sum(store.labels().values())
    assert 0 == command("--store", address, "verify", "--repair", "--yes").returncode
    assert 0 == command("--store", address, "verify").returncode
    assert 13 == sum(store.labels().values()) == len(list(store.keys()))
    assert 0 == list_anew(store, list(ENTRIES))


def test_repair_reaches_predictions(address: str, tmp_path: Path) -> None:
    """Damaged ones that were checked with a server are renamed, as those that were checked with a folder are."""
    evaluate(Library(tmp_path / "library"), examples(3))
    (snapshot,) = (tmp_path / "library").glob("*.json")
    snapshot.write_bytes(snapshot.read_bytes().replace(b'"answer":"a"', b'"answer":"b"'))
    found = command("--store", address, "verify", "--predictions", tmp_path / "library")
    assert (3, True) == (found.returncode, snapshot.exists())
    done = command("--store", address, "verify", "--repair", "--yes", "--predictions", tmp_path / "library")
    assert (0, False) == (done.returncode, snapshot.exists()), done.output
    assert snapshot.with_name(f"{snapshot.name}.damaged").exists()


def test_entries_of_a_newer_version_stay(address: str) -> None:
    """What this version cannot read it does not remove, and says how many there are."""
    store, newer = RedisStore(address), KEYS[:2]
    for key in newer:
        label, value = ENTRIES[key]
        store.put(key, newer_entry(value), label)
    store.close()

    done = command("--store", address, "clear", "--all", "--yes")
    assert (0, True) == (done.returncode, "newer version" in done.stdout)
    assert sorted(newer) == sorted(store.keys())
    assert 0 == command("--store", address, "prune", "--older-than", "0s", "--yes").returncode
    assert sorted(newer) == sorted(store.keys())


def test_doctor_looks_at_the_server(address: str) -> None:
    """It says what is there, and what a full server would do."""
    done = command("--store", address, "doctor", "--timeout", "1")

    assert "15 entries" in " ".join(done.stdout.split())
    assert "volatile-lru" in done.stdout
    assert "know of one another" in " ".join(done.stdout.split())


class TestWhoMayOnlyRead:
    """A user who may not write, as on a replica or where the server is full: what can be said is said."""

    @pytest.fixture
    def named(self, shared_url: Callable[..., str]) -> str:
        """The address for that user, of a store of which one entry is gone that its lists tell of."""
        address = shared_url("redis")
        store = RedisStore(address)
        filled(store)
        store.client.run("write", tag_of(KEYS[0]), ("DEL", store.names.entry(KEYS[0])))
        rights = (f"~{store.names.space}*", "+@read", "+@connection", "+@scripting")
        store.client.run("read", "0", ("ACL", "SETUSER", "reader", "on", ">secret", *rights))
        store.close()
        return address.replace("://", "://reader:secret@", 1)

    def test_doctor(self, named: str) -> None:
        """It says that there is no lease, and that the server does not say what it would do when it is full."""
        done = command("--store", named, "doctor", "--timeout", "1")
        said = " ".join(done.stdout.split())
        assert 0 == done.returncode
        assert "it gives no leases" in said, said
        assert "it does not tell how it is set" in said
        assert "secret" not in said

    def test_ls(self, named: str) -> None:
        """Each entry that is there is shown, whatever the lists tell besides, and however many are asked for."""
        for limit in range(1, len(KEYS) + 1):
            shown = {one["key"] for one in said("ls", "--limit", str(limit), store=named)}
            assert min(limit, len(KEYS) - 1) == len(shown - {KEYS[0]}) == len(shown)

    def test_verify(self, named: str) -> None:
        """It looks at every entry, says that the lists are as they were, and why."""
        done = command("--store", named, "verify")
        assert (0, True) == (done.returncode, "Nothing is damaged." in done.stdout)
        assert "The lists are as they were: " in done.stdout
        assert "@user_script" not in done.stdout


def test_no_command_shows_the_password(address: str) -> None:
    """Whatever is wrong, what opens the server is not shown."""
    secret = "hunter2-of-the-server"
    named = address.replace("://", f"://somebody:{secret}@", 1)
    for arguments in (["stats"], ["ls"], ["config", "show"], ["doctor"], ["verify"], ["clear", "--all", "--yes"]):
        assert secret not in command("--store", named, *arguments).output


def test_doctor_looks_at_each_of_several(address: str, folder: Path) -> None:
    """Of a list of stores it says of each how it is."""
    done = command("doctor", "--timeout", "1", DSPY_CACHECTL_STORE=json.dumps([str(folder), address]))

    said = " ".join(done.stdout.split())
    assert (2, True) == (said.count("15 entries"), str(folder) in said)
