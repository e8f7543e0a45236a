"""`dspy-cachectl verify`: every damage is found, what is whole is not, and repairing destroys nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from dspy_cachectl.entries import records
from dspy_cachectl.manage.exchange import put_known
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import kept, key_of
from tests.cli.commands import command, data
from tests.cli.stores import COMPILED, DRAWN, answer, at_terminal, damage_rows, filled, keys_in, table
from tests.endpoint import Endpoint
from tests.faults.disks import read_only
from tests.faults.entries import of_version
from tests.predictions.support import evaluate, examples
from tests.processes import Finished


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, list[str]]:
    """Forty answers, three of them large."""
    folder = tmp_path / "full"
    return folder, filled(folder, [COMPILED] * 30 + [DRAWN] * 10, large=3)


def flaws(folder: Path, *arguments: str | Path) -> dict[str, str]:
    """What `verify` finds, by where."""
    done = command("verify", *arguments, "--json", store=folder)
    shown = json.loads(done.stdout)
    assert (3 if any(flaw["kind"] != "newer" for flaw in shown["flaws"]) else 0) == done.returncode, done.stderr
    return {flaw["where"]: flaw["kind"] for flaw in shown["flaws"]}


def quarantine(folder: Path) -> Path:
    (found,) = folder.with_name(f"{folder.name}.quarantine").iterdir()
    return found


def test_a_whole_store_is_clean(store: tuple[Path, list[str]]) -> None:
    """Nothing is found where nothing is wrong, and nothing is changed."""
    folder, _ = store

    def content() -> dict[Path, bytes]:
        # SQLite may not read without its log and the memory for locks, and makes them.
        return {
            path: path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("cache.db-")
        }

    before = content()
    shown = data("verify", store=folder)
    assert (40, []) == (shown["entries"], shown["flaws"])
    assert before == content()


def test_what_a_program_stores_is_clean(tmp_path: Path, child: object, endpoint: Endpoint) -> None:
    """Each kind of entry that DSPy programs leave behind has the key of its request."""
    pytest.importorskip("numpy")
    script = """
        import os, sys
        import dspy
        import dspy_cachectl as cachectl

        cachectl.install(sys.argv[1])
        at = {"api_base": os.environ["ENDPOINT_URL"], "api_key": "sk-test"}
        lm, plain = cachectl.LM("openai/test-model", version="v2", **at), dspy.LM("openai/test-model", **at)
        lm("a question", temperature=0.5, rollout_id=3)
        plain("a question")
        dspy.Embedder("openai/test-embedding", **at)(["one", "two"])
        with cachectl.phase("mine", cachectl.Policy.REUSE, scope={"b": "2", "a": "1"}), dspy.context(lm=lm):
            dspy.ChainOfThought("question: str, numbers: list[int] -> answer: float")(question="?", numbers=[1, 2])
        with cachectl.phase("eval"):
            lm("a question"), plain("another")
    """
    assert callable(child)
    child(script, str(tmp_path / "real"))
    shown = data("verify", store=tmp_path / "real")
    assert ([], True) == (shown["flaws"], shown["entries"] >= 7)


def test_every_damage_to_a_row_is_found_and_moved_aside(store: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Damaged, planted and misplaced rows are told apart; repairing keeps them all, and touches nothing outside."""
    folder, keys = store
    secret = tmp_path / "secret.val"
    secret.write_text("precious")
    expected = damage_rows(folder, keys[10:], secret)
    rows_before = keys_in(folder)

    assert expected == flaws(folder)
    assert rows_before == keys_in(folder)
    dry = command("verify", "--repair", "--dry-run", store=folder)
    assert (3, rows_before) == (dry.returncode, keys_in(folder))
    done = data("verify", "--repair", "--yes", store=folder)
    assert (len(expected), []) == (done["repaired"]["rows"], done["left"])

    assert {} == flaws(folder)
    assert rows_before - set(expected) == keys_in(folder)
    with sqlite3.connect(quarantine(folder) / "rows.db") as aside:
        assert set(expected) == {key_of(stands) for (stands,) in aside.execute("SELECT key FROM Cache")}
        (cut,) = aside.execute("SELECT value FROM Cache WHERE key = ?", (kept(keys[10]),)).fetchone()
    assert answer(10)[1][:-7] == cut
    assert ("precious", False) == (secret.read_text(), (tmp_path / "mark").exists())
    assert set(expected.values()) == {
        item["kind"] for item in json.loads((quarantine(folder) / "flaws.json").read_text())
    }


def known_store(folder: Path, count: int) -> list[str]:
    """Fill a store with answers that are known again by the provider's id. Return the keys."""
    store, keys = DiskStore(folder), []
    for number in range(count):
        key, data = answer(number)
        origin, value, tagged, description = records.take_apart(data)
        origin |= {"response_ids": [f"chatcmpl-{number:032x}"], "content": f"{number:016x}"}
        data = records.put_together(origin, value, tagged=tagged, request=description)
        put_known(store, key, data, COMPILED, records.decode_origin(data))
        keys.append(key)
    store.close()
    return keys


def marks_of(folder: Path) -> dict[str, str]:
    """By what each entry is known again, with SQLite alone."""
    with table(folder) as connection:
        rows = connection.execute("SELECT key, mark FROM Cache WHERE mark NOTNULL")
        return {str(key_of(stands)): mark for stands, mark in rows}


def test_what_answers_are_known_by_is_checked_and_made_anew(tmp_path: Path) -> None:
    """An index entry that is lost, wrong or too many is found, and repairing files it anew and moves nothing."""
    folder = tmp_path / "known"
    keys = known_store(folder, 5)
    DiskStore(folder).put(*answer(9), COMPILED)
    before, rows = marks_of(folder), keys_in(folder)
    assert set(keys) == set(before)
    assert {} == flaws(folder)
    with table(folder) as connection:
        for key, mark in ((keys[0], None), (keys[1], "other.rest"), (answer(9)[0], "planted.rest")):
            connection.execute("UPDATE Cache SET mark = ? WHERE key = ?", (mark, kept(key)))

    assert {keys[0]: "mark", keys[1]: "mark", answer(9)[0]: "mark"} == flaws(folder)
    done = data("verify", "--repair", "--yes", store=folder)
    repaired = done["repaired"]
    assert (3, 0, None, []) == (repaired["marks"], repaired["rows"], repaired["quarantine"], done["left"])
    assert (before, rows, {}) == (marks_of(folder), keys_in(folder), flaws(folder))


def test_a_database_that_is_built_anew_knows_its_answers(tmp_path: Path) -> None:
    """Where the index itself is damaged, what it said is made anew out of the entries."""
    folder = tmp_path / "known"
    known_store(folder, 300)
    before = marks_of(folder)
    with table(folder) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_mark'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (folder / "cache.db").open("r+b") as database:
        database.seek((page - 1) * size)
        database.write(b"\xff" * size)

    assert "database" in flaws(folder).values()
    done = data("verify", "--repair", "--yes", store=folder)
    assert [] == done["left"]
    assert (before, {}) == (marks_of(folder), flaws(folder))


def test_texts_that_are_wrong(store: tuple[Path, list[str]]) -> None:
    """Keys that are no text or no UTF-8 are found."""
    folder, keys = store
    with table(folder) as connection:
        connection.execute("UPDATE Cache SET key = x'0102' WHERE key = ?", (kept(keys[11]),))
        connection.execute("UPDATE Cache SET key = CAST(x'ff41' AS TEXT) WHERE key = ?", (kept(keys[12]),))
        connection.execute("UPDATE Cache SET tag = CAST(x'ff41' AS TEXT) WHERE key = ?", (kept(keys[13]),))
    assert ["key", "key"] == sorted(flaws(folder).values())
    command("verify", "--repair", "--yes", store=folder)
    assert ({}, 38) == (flaws(folder), len(keys_in(folder)))


def test_an_entry_of_a_newer_version_is_left_alone(store: tuple[Path, list[str]]) -> None:
    """It is named, and is no damage: exit code 0, and repairing leaves it where it is."""
    folder, keys = store
    newer = of_version(records.FORMAT_VERSION + 1)(answer(20)[1])
    DiskStore(folder).put(keys[20], newer, COMPILED)
    assert {keys[20]: "newer"} == flaws(folder)
    done = command("verify", "--repair", "--yes", store=folder)
    assert (0, newer) == (done.returncode, DiskStore(folder).get(keys[20]))


def test_a_request_that_was_cleaned_says_nothing_of_its_key(store: tuple[Path, list[str]]) -> None:
    """An imported entry whose request was made clean keeps its key, and is no damage."""
    folder, keys = store
    origin, value, tagged, description = records.take_apart(answer(20)[1])
    for changed, expected in (({"version": "x"}, {keys[20]: "key"}), ({"version": "x", "cleaned": True}, {})):
        data = records.put_together(origin, value, tagged=tagged, request={**description, **changed})
        DiskStore(folder).put(keys[20], data, COMPILED)
        assert expected == flaws(folder)


@pytest.mark.parametrize(("damage", "least"), [("pages", 360), ("cut", 200), ("root", 0)])
def test_a_damaged_database_is_built_anew(tmp_path: Path, damage: str, least: int) -> None:
    """All rows that can be read are kept, the old database lies in quarantine, and the store works again."""
    folder = tmp_path / "damaged"
    keys = filled(folder, [COMPILED] * 400)
    database = folder / "cache.db"
    content = bytearray(database.read_bytes())
    pages = len(content) // 4096
    with sqlite3.connect(database) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache'").fetchone()
    connection.close()
    if damage == "pages":
        for page in (pages // 2, pages // 2 + 1, pages * 3 // 4):
            content[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    elif damage == "cut":
        del content[len(content) * 3 // 4 :]
    else:
        content[(root - 1) * 4096 : root * 4096] = b"\xa5" * 4096
    database.write_bytes(content)

    assert {"cache.db": "database"} == flaws(folder)
    assert bytes(content) == database.read_bytes()
    done = data("verify", "--repair", "--yes", store=folder)
    assert [] == done["left"] == done["repaired"]["problems"]
    assert bytes(content) == (quarantine(folder) / "database" / "cache.db").read_bytes()
    left = keys_in(folder)
    assert left <= set(keys)
    assert least <= len(left) == done["repaired"]["kept"] - done["repaired"]["rows"]
    assert {} == flaws(folder)
    store = DiskStore(folder)
    store.put(*answer(999), COMPILED)
    assert answer(999)[1] == store.get(answer(999)[0])


def test_what_is_no_database_of_ours_is_left_alone(tmp_path: Path) -> None:
    """What only has the name of a store's database is named, and repairing neither moves nor copies it."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"not a database" * 1000)

    assert {"cache.db": "database"} == flaws(folder)
    done = command("verify", "--repair", "--yes", store=folder)

    assert (3, True) == (done.returncode, "move it away" in done.stdout)
    assert (b"not a database" * 1000) == (folder / "cache.db").read_bytes()
    assert [folder] == list(tmp_path.iterdir())


def test_a_damaged_database_in_use_is_left_alone(tmp_path: Path) -> None:
    """What another process has open is not replaced under its hands: exit code 3, and it says why."""
    folder = tmp_path / "damaged"
    filled(folder, [COMPILED] * 400)
    content = bytearray((folder / "cache.db").read_bytes())
    page = len(content) // 8192
    content[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    (folder / "cache.db").write_bytes(content)
    with sqlite3.connect(folder / "cache.db") as other:
        other.execute("SELECT value FROM Settings").fetchall()
        done = command("verify", "--repair", "--yes", store=folder)
        assert (3, True) == (done.returncode, "in use" in done.stdout)
        assert bytes(content) == (folder / "cache.db").read_bytes()
    other.close()


def test_snapshots_are_checked_where_they_are_named(tmp_path: Path) -> None:
    """A damaged snapshot is found, and repairing sets it aside beside the others."""
    from dspy_cachectl.predictions.library import Library

    root = tmp_path / "library"
    evaluate(Library(root), examples(3))
    (snapshot,) = root.glob("*.json")
    content = snapshot.read_bytes()
    nowhere = tmp_path / "none"
    assert {} == flaws(nowhere, "--predictions", root)
    snapshot.write_bytes(content.replace(b'"answer":"a"', b'"answer":"b"'))
    assert {snapshot.name: "snapshot"} == flaws(nowhere, "--predictions", root)
    assert snapshot.exists()
    done = command("verify", "--repair", "--yes", "--predictions", root, store=nowhere)
    assert (0, False) == (done.returncode, snapshot.exists())
    assert snapshot.with_name(f"{snapshot.name}.damaged").exists()


def test_it_asks_before_it_repairs(store: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Without a yes nothing is moved: exit code 2 where nobody can be asked, 3 where somebody says no."""
    folder, keys = store
    damage_rows(folder, keys[10:], tmp_path / "secret.val")
    before = keys_in(folder)
    refused = command("verify", "--repair", store=folder)
    denied, _ = at_terminal("--store", folder, "verify", "--repair", typed="no")
    assert (2, 3, before) == (refused.returncode, denied, keys_in(folder))
    agreed, _ = at_terminal("--store", folder, "verify", "--repair", typed="yes")
    assert (0, 33) == (agreed, len(keys_in(folder)))


def test_a_store_that_cannot_be_written_cannot_be_repaired(store: tuple[Path, list[str]], tmp_path: Path) -> None:
    """On a read-only disk the damage is found, and repairing is one message and exit code 1."""
    folder, keys = store
    damage_rows(folder, keys[10:], tmp_path / "secret.val")
    shutil.rmtree(tmp_path / "view", ignore_errors=True)
    with read_only(folder, tmp_path / "view") as view:
        assert 7 == len(flaws(view))
        if view != folder:  # elsewhere permission bits do not hold root in another process
            done = command("verify", "--repair", "--yes", store=view)
            assert 1 == done.returncode
            assert done.stderr.startswith("dspy-cachectl: could not repair the store")


def test_a_locked_store_cannot_be_checked(store: tuple[Path, list[str]]) -> None:
    """A database that another process keeps to itself is no damage: exit code 1."""
    folder, _ = store
    with sqlite3.connect(folder / "cache.db", isolation_level=None) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        done = command("verify", store=folder)
        other.execute("ROLLBACK")
    other.close()
    assert (1, "") == (done.returncode, done.stdout)
    assert "locked" in done.stderr


def test_checking_while_another_process_writes(
    store: tuple[Path, list[str]], child: object, endpoint: Endpoint
) -> None:
    """Entries that come, change and go meanwhile are no damage."""
    script = """
        import random, subprocess, sys, threading
        from dspy_cachectl.stores import Label
        from dspy_cachectl.stores.disk import DiskStore
        from tests.cli.stores import COMPILED, answer
        from dspy_cachectl.manage.verification import verify
        from pathlib import Path

        store, done = DiskStore(sys.argv[1]), threading.Event()

        def write():
            while not done.is_set():
                for number in range(8):
                    store.put(*answer(number, large=number < 4), COMPILED)
                store.delete(answer(2)[0])

        writing = threading.Thread(target=write)
        writing.start()
        found = [flaw for _ in range(30) for flaw in verify(Path(sys.argv[1])).flaws]
        done.set()
        writing.join()
        assert not found, found
    """
    assert callable(child)
    finished: Finished = child(script, str(store[0]))
    assert 0 == finished.returncode
