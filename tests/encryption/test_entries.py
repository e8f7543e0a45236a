"""Entries that are encrypted: what is in the bytes, who reads them, and what whoever does not is told."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.cli.commands import command
from tests.encryption.support import KEY, OTHER, PROMPT, VARIABLE, bytes_below, bytes_in, readable_in
from tests.endpoint import Endpoint
from tests.processes import Finished

ASK = """
import json, os, sys
import dspy_cachectl as cachectl

lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-x")
with cachectl.phase("compile") as run:
    answers = [lm(f"PROMPT {number}?")[0] for number in range(int(sys.argv[1]))]
print(json.dumps({"answers": answers, "failed_reads": run.stats.failed_reads}))
""".replace("PROMPT", PROMPT)


@pytest.fixture
def ask(child: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Ask some questions in a process of its own, with keys or without."""

    def run(keys: str = "", count: int = 3, **variables: str) -> Finished:
        return child(ASK, str(count), env={VARIABLE: keys, **variables})

    monkeypatch.delenv(VARIABLE, raising=False)
    return run


def change(store: Path) -> None:
    """Flip a bit in what is encrypted of an entry, and make the checksum fit, as a forger would."""
    with sqlite3.connect(store / "cache.db") as connection:
        number, value = connection.execute(
            "SELECT rowid, value FROM Cache WHERE tag LIKE 'lm%' ORDER BY rowid"
        ).fetchone()
        changed = bytearray(value)
        changed[-1] ^= 1
        changed[4:8] = zlib.crc32(changed[8:]).to_bytes(4, "big")
        connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (bytes(changed), number))


def test_on_disk_is_nothing_to_read(ask: Callable[..., Finished], endpoint: Endpoint, tmp_path: Path) -> None:
    """No prompt and no answer is in the folder's bytes; who has the key is served, and the commands list it all."""
    first = ask(KEY).data
    texts = [PROMPT, *first["answers"]]
    assert [] == readable_in(bytes_below(tmp_path / "store"), texts)
    assert first == ask(KEY).data
    assert 3 == endpoint.requests

    store = tmp_path / "store"
    assert 3 == len(json.loads(command("ls", "--json", store=store).stdout))
    assert 0 == command("stats", store=store).returncode
    shown = json.loads(command("ls", "--json", store=store).stdout)[0]["key"]
    closed = command("show", shown, store=store)
    assert 1 == closed.returncode
    assert "encrypted" in closed.stderr
    assert VARIABLE in closed.stderr
    assert PROMPT in command("show", shown, store=store, **{VARIABLE: KEY}).stdout


@pytest.mark.parametrize("keys", ["", OTHER])
def test_who_has_no_key_buys_and_destroys_nothing(ask: Callable[..., Finished], endpoint: Endpoint, keys: str) -> None:
    """Without the key, or with another, each call is bought, it is said once, and the entries stay as they are."""
    first = ask(KEY).data
    other = ask(keys)
    assert 6 == endpoint.requests
    assert 1 == other.stderr.count("it is encrypted")
    assert 3 == other.data["failed_reads"]
    assert KEY not in other.output
    assert first == ask(KEY).data
    assert 6 == endpoint.requests


def test_what_cannot_be_searched_is_counted(ask: Callable[..., Finished], tmp_path: Path) -> None:
    """Without the key `--contains` finds nothing, removes nothing, and says of how many it cannot know."""
    ask(KEY)
    store = tmp_path / "store"
    for words in (("ls",), ("clear", "--yes")):
        done = command(*words, "--contains", PROMPT, store=store)
        assert 0 == done.returncode, done.output
        assert "3 entries could not be searched: encrypted, and the key for that is not given" in done.stderr
    done = command("verify", store=store)
    assert 0 == done.returncode
    assert "3 sealed: encrypted, and the key for that is not given; no damage" in done.stdout
    found = command("clear", "--contains", PROMPT, "--yes", store=store, **{VARIABLE: KEY})
    assert ("Removed 3 entries." in found.stdout, "searched" in found.stderr) == (True, False)


def test_a_key_is_changed(ask: Callable[..., Finished], endpoint: Endpoint) -> None:
    """What an old key has encrypted is read while it stands behind the new one, which encrypts what is new."""
    ask(OTHER, count=2)
    ask(f"{KEY}, {OTHER}", count=4)
    assert 4 == endpoint.requests
    ask(f"{OTHER},{KEY}", count=4)
    assert 4 == endpoint.requests
    ask(KEY, count=4)
    assert 6 == endpoint.requests


@pytest.mark.parametrize("how", ["another key", pytest.param("damage", marks=pytest.mark.exhaustive)])
def test_what_cannot_be_read_hides_nothing_behind_it(
    ask: Callable[..., Finished],
    endpoint: Endpoint,
    tmp_path: Path,
    shared_servers: Callable[[str], Any],
    how: str,
) -> None:
    """Where a folder has what cannot be read, the server behind it is asked: a key was changed there alone, say."""
    front, port = tmp_path / "front", shared_servers("redis").port
    behind = f"redis://127.0.0.1:{port}?namespace=behind-{uuid.uuid4().hex}&patience=60"
    both = {"DSPY_CACHECTL_STORE": json.dumps([str(front), behind])}
    first = ask(OTHER, count=1, **both).data
    if how == "damage":
        change(front)
    else:
        assert 0 == command("--store", behind, "rekey", **{VARIABLE: f"{KEY},{OTHER}"}).returncode
    key = OTHER if how == "damage" else KEY
    again = ask(key, count=1, **both).data
    assert (first["answers"], 1) == (again["answers"], again["failed_reads"])
    assert first["answers"] == ask(key, count=1, **both).data["answers"]
    assert 1 == endpoint.requests
    # The damaged one was replaced, and the other's left as it is.
    found = command("verify", store=front, **{VARIABLE: OTHER})
    assert (0, False) == (found.returncode, "sealed" in found.stdout)


def test_what_was_changed_is_a_miss(ask: Callable[..., Finished], endpoint: Endpoint, tmp_path: Path) -> None:
    """A flipped bit, even where the checksum fits, is said and bought again; the new answer takes its place."""
    ask(KEY, count=1)
    change(tmp_path / "store")
    again = ask(KEY, count=1)
    assert "was changed" in again.stderr
    assert 2 == endpoint.requests
    assert again.data["answers"] == ask(KEY, count=1).data["answers"]
    assert 2 == endpoint.requests


def test_entries_cannot_be_swapped(ask: Callable[..., Finished], endpoint: Endpoint, tmp_path: Path) -> None:
    """An answer that somebody files under the key of another question is not served to it."""
    first = ask(KEY, count=2).data
    with sqlite3.connect(tmp_path / "store" / "cache.db") as connection:
        rows = connection.execute("SELECT rowid, value FROM Cache WHERE tag LIKE 'lm%'").fetchall()
        for (number, _), (_, value) in zip(rows, reversed(rows), strict=True):
            connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (value, number))
    again = ask(KEY, count=2)
    assert "filed where it does not belong" in again.stderr
    assert 4 == endpoint.requests
    assert first["answers"] != again.data["answers"]


def test_plain_entries_are_read_on(ask: Callable[..., Finished], endpoint: Endpoint) -> None:
    """Who begins to encrypt is served what was stored before."""
    assert ask(count=2).data == ask(KEY, count=2).data
    assert 2 == endpoint.requests


def test_in_a_server_is_nothing_to_read(
    ask: Callable[..., Finished], endpoint: Endpoint, tmp_path: Path, shared_servers: Callable[[str], Any]
) -> None:
    """What Redis keeps holds no prompt and no answer; a second machine that has the key is served."""
    server = shared_servers("redis")
    where = {"DSPY_CACHECTL_STORE": f"redis://127.0.0.1:{server.port}?namespace={tmp_path.name}&patience=60"}
    first = ask(KEY, **where).data
    saved = bytes_in(server.port, tmp_path.name)
    assert tmp_path.name.encode() in saved
    assert [] == readable_in(saved, [PROMPT, *first["answers"], KEY])
    assert first == ask(KEY, **where).data
    assert 3 == endpoint.requests


class TestGiven:
    """How keys are given, and that they are shown nowhere."""

    @pytest.mark.parametrize("wrong", ["short", f"{KEY},", KEY + "=="])
    def test_no_key(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        """What is no key is refused without being shown."""
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(ConfigurationError, match=r"encryption_key.*make one") as said:
            cachectl.configure(guard=True)
        assert wrong not in str(said.value)

    def test_no_file_holds_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key in pyproject.toml is refused, and not shown."""
        (tmp_path / "pyproject.toml").write_text(f'[tool.dspy_cachectl]\nencryption_key = "{KEY}"\n')
        monkeypatch.chdir(tmp_path)
        done = command("config", "show", cwd=tmp_path, store=tmp_path / "store")
        assert "does not stand in a file" in done.output.replace("\n", " ")
        assert KEY not in done.output

    def test_a_function_gives_them(self) -> None:
        """In code a function gives one key or several; a text is refused, as it would stand in a file."""
        with cachectl.configure(encryption_key=lambda: [KEY, OTHER]) as settings:
            assert "on, 2 keys" == repr(settings.encryption_key)
            with pytest.raises(ConfigurationError, match="not pickled"):
                pickle.dumps(settings)
        with pytest.raises(ConfigurationError, match="give a function"):
            cachectl.configure(encryption_key=KEY)

    def test_config_show_counts_them(self, tmp_path: Path) -> None:
        """It is told that it is on, and with how many keys."""
        done = command("config", "show", store=tmp_path / "store", **{VARIABLE: f"{KEY},{OTHER}"})
        assert "on, 2 keys" in done.stdout
        assert KEY not in done.output
        assert os.environ.get(VARIABLE) is None

    def test_config_show_tells_that_there_is_none(self, tmp_path: Path) -> None:
        """As of any other setting that is not set: nothing was removed."""
        assert "[removed]" not in command("config", "show", store=tmp_path / "store").stdout
