"""`dspy-cachectl doctor`: what is wrong is found, each with what to do about it, and it never hangs."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspy_cachectl.boundary import file_systems
from dspy_cachectl.manage import diagnosis
from dspy_cachectl.manage.diagnosis import Finding, Surroundings
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.cli.commands import command
from tests.cli.stores import COMPILED, filled
from tests.faults.test_damaged_database import damage_page

SECRET = "sk-hunter2hunter2hunter2"


def doctor(*arguments: str | Path, store: Path, **variables: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """The exit code, and level and message of what was found by name."""
    done = command("doctor", *arguments, "--json", store=store, **variables)
    assert "Traceback" not in done.stderr
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in json.loads(done.stdout):
        assert finding["level"] == "ok" or finding["remedy"] or finding["name"] in {"store", "disk"}
        found.setdefault(finding["name"], []).append((finding["level"], finding["message"]))
    return done.returncode, found


def levels(found: dict[str, list[tuple[str, str]]]) -> dict[str, set[str]]:
    return {name: {level for level, _ in items} - {"ok"} for name, items in found.items() if {"ok"} != {
        level for level, _ in items
    }}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "full"
    filled(folder, [COMPILED] * 12)
    return folder


@contextlib.contextmanager
def listening() -> Iterator[int]:
    """A port that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def server() -> Iterator[tuple[int, list[Any]]]:
    """A server that answers what it is asked, and notes it."""
    asked: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, dict(self.headers)))
            self.send_response(200 if self.path == "/mlflow/health" else 503)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running.server_port, asked
    running.shutdown()
    thread.join()
    running.server_close()


def test_where_all_is_well(store: Path) -> None:
    """Nothing is wrong: exit code 0, and each version and the entries are named."""
    code, found = doctor(store=store)
    assert (0, {}) == (code, levels(found))
    assert {"python", "dspy-cachectl", "dspy", "litellm", "mlflow", "diskcache", "store", "disk"} <= found.keys()
    assert "12 entries" in found["store"][0][1]
    people = command("doctor", store=store)
    assert (0, "") == (people.returncode, people.stderr)
    assert all(line.startswith(("ok", "warning", " ")) for line in people.stdout.splitlines())


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    """It is fine, and is not made."""
    code, found = doctor(store=tmp_path / "missing")
    assert (0, "not there yet" in found["store"][0][1]) == (code, True)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("is_set", [False, True], ids=["by option", "by setting"])
def test_a_store_that_is_no_folder(tmp_path: Path, is_set: bool) -> None:
    """What is wrong is said once, in words, and the other checks go on."""
    (tmp_path / "file").write_text("notes")
    for location, words in ((str(tmp_path / "file"), "is a file; name a folder"), ("s3://bucket", "unknown store")):
        named = {"DSPY_CACHECTL_STORE": location} if is_set else {}
        done = command("doctor", "--json", store=None if is_set else location, cwd=tmp_path, **named)
        errors = [finding for finding in json.loads(done.stdout) if finding["level"] == "error"]
        wrong = "configuration" if is_set else "store"
        assert (1, [wrong]) == (done.returncode, [finding["name"] for finding in errors])
        assert words in errors[0]["message"]
        assert "BadParameter" not in done.stdout
        assert "mlflow server" in done.stdout


def test_a_store_in_memory(tmp_path: Path) -> None:
    """It is allowed, so it is no error."""
    done = command("doctor", "--json", store="memory://", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (0, set()) == (done.returncode, {finding["level"] for finding in found} - {"ok"})
    assert ["in the memory of each program, and gone when that ends"] == [
        finding["message"] for finding in found if finding["name"] == "store"
    ]


def test_a_damaged_store(store: Path) -> None:
    """A damaged database is an error, and the other checks go on."""
    damage_page("Cache")(store)
    code, found = doctor(store=store)
    assert (1, {"error"}) == (code, levels(found)["store"])
    (store / "cache.db").write_bytes(b"not a database" * 1000)
    code, found = doctor(store=store)
    assert (1, {"error"}) == (code, levels(found)["store"])
    assert "python" in found


def test_settings_that_cannot_be_used(store: Path) -> None:
    """They are an error with the setting's name."""
    code, found = doctor(store=store, DSPY_CACHECTL_DISK_BYTES="-1")
    assert (1, {"error"}) == (code, levels(found)["configuration"])
    assert "disk_bytes" in found["configuration"][0][1]
    without = json.loads(command("doctor", "--json", DSPY_CACHECTL_DISK_BYTES="-1").stdout)
    assert ["configuration"] == [finding["name"] for finding in without if finding["level"] == "error"]


def test_a_store_that_may_grow_beyond_the_disk(store: Path) -> None:
    """More allowed than there is room for is a warning."""
    code, found = doctor(store=store, DSPY_CACHECTL_DISK_BYTES=str(shutil.disk_usage(store).total * 2))
    assert (0, {"disk": {"warning"}}) == (code, levels(found))


def test_dspys_own_cache_in_the_same_folder(store: Path) -> None:
    """Two caches in one folder are an error."""
    code, found = doctor(store=store, DSPY_CACHEDIR=str(store))
    assert (1, {"error"}) == (code, levels(found)["dspy.cache"])


def test_what_waits_in_the_outbox(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that wait are a warning, which says for how long and names what delivers them."""
    state = str(tmp_path / "state")
    monkeypatch.setenv("DSPY_CACHECTL_STATE", state)
    Outbox().put(Record("a" * 32, 1, 2))
    assert "1 waiting" in doctor(store=store, DSPY_CACHECTL_STATE=state)[1]["outbox"][0][1]
    with sqlite3.connect(Outbox().path) as connection:
        connection.execute("UPDATE records SET written = written - 7 * 86400")
    connection.close()
    code, found = doctor(store=store, DSPY_CACHECTL_STATE=state)
    assert (0, {"outbox": {"warning"}}) == (code, levels(found))
    assert "the first for 7d" in found["outbox"][0][1]
    assert "`dspy-cachectl mlflow sync` delivers" in command("doctor", store=store, DSPY_CACHECTL_STATE=state).stdout


def test_a_server_that_answers(store: Path, server: tuple[int, list[Any]]) -> None:
    """It is asked once, without credentials, and they are shown nowhere."""
    port, asked = server
    uri = f"http://user:{SECRET}@127.0.0.1:{port}/mlflow/?token={SECRET}"
    done = command("doctor", "--json", store=store, MLFLOW_TRACKING_URI=uri)
    assert 0 == done.returncode
    assert SECRET not in done.stdout + done.stderr
    assert ["/mlflow/health"] == [path for path, _ in asked]
    assert SECRET not in str(asked)
    (finding,) = [item for item in json.loads(done.stdout) if item["name"] == "mlflow server"]
    assert "ok" == finding["level"]


def test_a_server_that_does_not_answer(store: Path, server: tuple[int, list[Any]]) -> None:
    """Nobody there, nobody who speaks, and a server in trouble are warnings, within the limit."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    with listening() as silent:
        for port in (closed, silent, server[0]):
            uri = f"http://user:{SECRET}@127.0.0.1:{port}/"
            done = command("doctor", "--timeout", "0.5", "--json", store=store, MLFLOW_TRACKING_URI=uri)
            (finding,) = [item for item in json.loads(done.stdout) if item["name"] == "mlflow server"]
            assert (0, "warning") == (done.returncode, finding["level"])
            assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [
        ("litellm", "1.82.7", "error"),
        ("litellm", "1.82.8", "error"),
        ("litellm", "1.107.0", "error"),
        ("litellm", "1.107.1", "ok"),
        ("litellm", "1.9.0", "warning"),
        ("dspy", "3.4.0", "warning"),
        ("dspy", "3.4.1", "ok"),
        ("dspy", "3.4.9", "ok"),
        ("dspy", "3.5.0", "warning"),
        ("dspy", "3.4.1rc1", "warning"),
        ("dspy", None, "error"),
        ("mlflow", None, "ok"),
    ],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, name: str, version: str | None, level: str) -> None:
    """Compromised releases and a missing package are errors, unsupported ones are warnings."""
    real = diagnosis._version
    monkeypatch.setattr(diagnosis, "_version", lambda asked: version if asked == name else real(asked))
    found = {finding.name: finding for finding in diagnosis.check_versions(Surroundings(Path))}
    assert (level, level == "ok") == (found[name].level, not found[name].remedy)


def test_a_check_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks are run all the same."""

    def check_something(_: Surroundings) -> Iterator[Finding]:
        yield Finding("before", "ok", "seen")
        raise RuntimeError("broken")

    def check_more(_: Surroundings) -> Iterator[Finding]:
        yield Finding("more", "ok", "seen")

    monkeypatch.setattr(diagnosis, "CHECKS", (check_something, check_more))
    found = [(finding.name, finding.level) for finding in diagnosis.diagnose(Surroundings(Path))]
    assert ("something", "error") in found
    assert ("more", "ok") in found


@pytest.mark.parametrize(("kind", "level"), [("nfs4", "warning"), ("fuse.sshfs", "warning"), ("ext4", "ok")])
def test_disks_that_are_not_local(monkeypatch: pytest.MonkeyPatch, store: Path, kind: str, level: str) -> None:
    """SQLite's locks are not to be relied on there."""
    monkeypatch.setattr(file_systems, "kind_of", lambda path: kind)
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**15))
    found = {finding.name: finding.level for finding in diagnosis.check_disk(Surroundings(lambda: store))}
    assert {"disk": "ok", "file system": level} == found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it in a file")
def test_the_kind_of_file_system_is_that_of_the_innermost_mount() -> None:
    """`/proc` is a file system of its own."""
    assert "proc" == file_systems.kind_of(Path("/proc/self"))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
def test_who_else_may_write_or_read_what_is_kept(store: Path, tmp_path: Path) -> None:
    """A folder that others may write to is named, and so are one above it and files that others may read."""
    place = tmp_path / "place"
    place.mkdir()
    shutil.move(store, place / "full")
    store = place / "full"
    tmp_path.chmod(0o755)

    def said(folder: Path, mode: int) -> str:
        before = folder.stat().st_mode & 0o7777
        folder.chmod(mode)
        try:
            code, found = doctor(store=store)
        finally:
            folder.chmod(before)
        assert 0 == code
        levels = {level for level, _ in found["privacy"]}
        return "" if levels == {"ok"} else " ".join(message for _, message in found["privacy"])

    assert "" == said(store, 0o755) == said(place, 0o1777) == said(store / "cache.db", 0o400)
    assert f"everybody may write to {store}," in said(store, 0o777)
    assert f"everybody may write to {store}," in said(store, 0o1777)
    assert f"everybody may write to {place}," in said(place, 0o777)
    for mode in (0o644, 0o640, 0o602):
        assert f"others may read {store / 'cache.db'}" in said(store / "cache.db", mode)
    foreign = 54321  # a group of nobody's own
    if os.geteuid() == 0:
        for folder in (store, place):
            os.chown(folder, -1, foreign)
            assert f"its group may write to {folder}," in said(folder, 0o775)
    (store / "table.json").write_text("mine")
    (store / "table.json").chmod(0o666)
    assert "" == said(store, 0o700)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not there")
def test_what_would_be_committed(store: Path, tmp_path: Path) -> None:
    """A store in a checkout that does not ignore it is named, with the line that ignores it."""
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "init", "--quiet", str(checkout)], check=True)
    shutil.move(store, checkout / "kept" / "store")

    def said() -> list[str]:
        code, found = doctor(store=checkout / "kept" / "store")
        assert 0 == code
        return [message for level, message in found["privacy"] if level != "ok"]

    (warning,) = said()
    assert f"lies in the git checkout {checkout}" in warning
    (checkout / ".gitignore").write_text("/kept/store/\n")
    assert [] == said()
