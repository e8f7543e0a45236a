"""An older package beside a newer one: what it cannot read it says, and neither removes nor calls damaged."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries import records
from dspy_cachectl.stores.reader import kept, key_of
from tests.cli.commands import command, data
from tests.cli.stores import COMPILED, DRAWN, answer, describe_run, filled, table
from tests.endpoint import Endpoint
from tests.faults.entries import of_version

NEWER = (1, 7, 9)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A store in which some entries, and the description of a run, are of a newer version."""
    folder = tmp_path / "mixed"
    keys = filled(folder, [COMPILED] * 5 + [DRAWN] * 5)
    describe_run(folder, "run-2")
    newer = of_version(records.FORMAT_VERSION + 1)
    with table(folder) as connection:
        for key in (*(keys[number] for number in NEWER), "run:run-2"):
            (value,) = connection.execute("SELECT value FROM Cache WHERE key = ?", (kept(key),)).fetchone()
            connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (newer(value), kept(key)))
    return folder


def left(folder: Path) -> dict[str, bytes]:
    with table(folder) as connection:
        return {str(key_of(stands)): value for stands, value in connection.execute("SELECT key, value FROM Cache")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["clear", "--all", "--yes"],
        ["clear", "--model", "openai/mini", "--yes"],
        ["clear", "--run", "run-2", "--yes"],
        ["--clear-cache", "--yes"],
        ["prune", "--older-than", "1s", "--yes"],
        ["prune", "--max-size", "1KB", "--yes"],
        ["runs", "rm", "run-2", "--yes"],
        ["verify", "--repair", "--yes"],
    ],
    ids=" ".join,
)
def test_entries_of_a_newer_version_stay(mixed: Path, arguments: list[str]) -> None:
    """Whatever removes entries leaves them as they are, and says how many there are."""
    before = left(mixed)
    newer = {answer(number)[0] for number in NEWER} | {"run:run-2"}
    with table(mixed) as connection:
        connection.execute("UPDATE Cache SET store_time = 1")
    done = command(*arguments, store=mixed)
    assert 0 == done.returncode, done.stderr
    after = left(mixed)
    assert {key: before[key] for key in newer} == {key: after[key] for key in newer & after.keys()}
    assert arguments[0] == "verify" or after.keys() < before.keys()
    assert "newer version" in done.stdout
    assert "damaged" not in done.stdout.replace("Nothing is damaged", "")


def test_they_are_not_called_damaged(mixed: Path) -> None:
    """Lists, runs and checks say what they are."""
    rows = {row["key"]: row for row in data("ls", store=mixed)}
    assert {answer(number)[0] for number in NEWER} == {key for key, row in rows.items() if row["newer"]}
    assert {None} == {row["damage"] for row in rows.values()}
    assert ["newer"] == [run["state"] for run in data("runs", store=mixed)]
    assert "damaged" not in command("ls", store=mixed).stdout + command("runs", store=mixed).stdout
    assert {"newer"} == {flaw["kind"] for flaw in data("verify", store=mixed)["flaws"]}


def later(folder: Path, version: int = 99) -> Path:
    """Make the store in a folder one of another version, down to its schema."""
    with sqlite3.connect(folder / "cache.db") as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    return folder


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """Each command says that it is one, and changes nothing."""
    folder = tmp_path / "newer"
    filled(folder, [COMPILED] * 3)
    later(folder)
    before = (folder / "cache.db").read_bytes()
    for arguments in (
        ["ls"],
        ["stats"],
        ["runs"],
        ["clear", "--all", "--yes"],
        ["prune", "--older-than", "1s", "--yes"],
        ["verify", "--repair", "--yes"],
        ["export", str(tmp_path / "x.jsonl")],
    ):
        done = command(*arguments, store=folder)
        assert (1, True) == (done.returncode, "newer version" in done.stderr), arguments
    found = [one for one in json.loads(command("doctor", "--json", store=folder).stdout) if one["name"] == "store"]
    assert [True] == ["newer version" in one["message"] and "upgrade" in one["remedy"] for one in found]
    assert not any("damaged" in one["message"] for one in found)
    assert before == (folder / "cache.db").read_bytes()


@pytest.mark.parametrize("name", ["eval", "compile"])
def test_that_everything_is_bought_is_said_before_anything_is(
    tmp_path: Path, endpoint: Endpoint, lm: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A run on a newer store begins with the words that its answers are not served, and new ones not kept."""
    folder = tmp_path / "newer"
    filled(folder, [COMPILED] * 3)
    later(folder)
    cachectl.configure(store=str(folder))
    with caplog.at_level(logging.WARNING, "dspy_cachectl"), cachectl.phase(name):
        assert any("not served" in line and "not kept" in line for line in caplog.messages)
        assert 0 == endpoint.requests
        assert lm()("question")
    assert 1 == len([line for line in caplog.messages if "not kept" in line])
    assert 1 == endpoint.requests
    cachectl.uninstall()


def test_a_store_of_an_older_version_is_left_alone(tmp_path: Path) -> None:
    """Its keys are made in another way: a command says so, and changes nothing."""
    folder = tmp_path / "older"
    filled(folder, [COMPILED] * 3)
    later(folder, 1)
    before = (folder / "cache.db").read_bytes()
    for arguments in (["ls"], ["clear", "--all", "--yes"], ["verify", "--repair", "--yes"]):
        done = command(*arguments, store=folder)
        assert (1, True) == (done.returncode, "older version" in done.stderr), arguments
    assert before == (folder / "cache.db").read_bytes()
