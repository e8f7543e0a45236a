"""Kills, damage, full disks and other processes lose nothing, and are never trusted."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.predictions.journal import Journal
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.rows import LONGEST
from dspy_cachectl.predictions.snapshot import FOLDER
from dspy_cachectl.stores.database import Database
from tests.limits import PATIENCE
from tests.predictions.support import evaluate, examples, fail, key_of
from tests.processes import DSPY_MODULES, ROOT, python


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def refuse(*_: Any, **__: Any) -> None:
    raise StoreUnavailableError("read-only")


HALF = """
    import sys
    from dspy_cachectl.fingerprints.data import questions_of
    from dspy_cachectl.predictions.library import Library
    from tests.predictions.support import compute, examples, key_of
    data = examples(10)
    session = Library(sys.argv[1]).open(key_of(data), questions_of(data), run_id=sys.argv[2])
    compute(session, at_most=7)
    print("ready", flush=True)
    sys.stdin.readline()
"""


def half(folder: Path, run_id: str) -> subprocess.Popen[str]:
    """Seven of ten answers in another process, which then waits."""
    child = start(HALF, str(folder), run_id)
    assert child.stdout is not None
    assert "ready\n" == child.stdout.readline()
    return child


def test_killed_evaluation_keeps_every_finished_question(tmp_path: Path) -> None:
    """After `kill -9` the next evaluation computes the rest, under the same run."""
    child = half(tmp_path, "killed")
    child.kill()
    child.communicate()
    again = evaluate(Library(tmp_path), examples(10))

    assert ("killed", "extended", 3) == (again.run_id, again.status, again.computed)
    assert [] == Journal(tmp_path).sessions()


def test_journal_of_a_living_process_is_read_and_left_alone(tmp_path: Path) -> None:
    """What another process has finished so far is served; its journal stays its own."""
    child = half(tmp_path, "living")
    try:
        again = evaluate(Library(tmp_path), examples(10))
        assert ("living", 3) == (again.run_id, again.computed)
        assert [True] == [session.is_alive for session in Journal(tmp_path).sessions()]
    finally:
        child.kill()
        child.communicate()


def test_two_processes_on_one_library_lose_nothing(tmp_path: Path) -> None:
    """Each computes a half under the same run; the snapshot has both."""
    script = """
        import sys
        from dspy_cachectl.fingerprints.data import questions_of
        from dspy_cachectl.predictions.library import Library
        from tests.predictions.support import examples, key_of, row
        data = examples(200)
        with Library(sys.argv[1]).open(key_of(data), questions_of(data), run_id="shared") as session:
            print("open", flush=True)
            sys.stdin.readline()
            for question in session.questions[int(sys.argv[2])::2]:
                session.keep(row(question))
            session.finish()
    """
    children = [start(script, str(tmp_path), str(half)) for half in (0, 1)]
    for child in children:
        assert child.stdout is not None
        assert "open\n" == child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    assert [0, 0] == [child.wait(PATIENCE) for child in children]
    for child in children:
        child.communicate()

    assert ("loaded", 0) == ((again := evaluate(Library(tmp_path), examples(200))).status, again.computed)
    assert 1 == len(Library(tmp_path).snapshots())


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("where", ["start", "middle", "end", "cut"])
def test_damaged_snapshot_is_set_aside_and_recomputed(
    tmp_path: Path, where: str, compress: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit or a cut file is never trusted and never fatal, and said once."""
    library = Library(tmp_path, compress=compress)
    path = evaluate(library, examples(30)).path
    content = bytearray(path.read_bytes())
    if where == "cut":
        content = content[: len(content) * 2 // 3]
    else:
        content[{"start": 80, "middle": len(content) // 2, "end": len(content) - 12}[where]] ^= 4
    path.write_bytes(content)

    with caplog.at_level(logging.WARNING, "dspy_cachectl"):
        again = evaluate(library, examples(30))
        third = evaluate(library, examples(30))

    assert (30, 0) == (again.computed, third.computed)
    assert [f"{path.name}.damaged"] == [found.name for found in tmp_path.glob("*.damaged")]
    assert 1 == len([one for one in caplog.records if "set aside" in one.message])


def test_full_disk_does_not_end_the_evaluation(tmp_path: Path) -> None:
    """Where nothing can be written any more the session goes on, and warns once."""
    script = """
        import json, logging, resource, sys
        import dspy
        from dspy_cachectl.fingerprints.data import questions_of
        from dspy_cachectl.predictions.library import Library
        from tests.predictions.support import compute, examples, key_of
        warnings = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: warnings.append(record.getMessage())
        logging.getLogger("dspy_cachectl").addHandler(handler)
        data = examples(500)
        with Library(sys.argv[1]).open(key_of(data), questions_of(data)) as session:
            # No file of this process grows beyond it: what a full disk does.
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
            computed = compute(session)
            path = session.finish()
            answers = len(list(session.kept.in_order())), session.kept.count(), session.kept.served(1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(json.dumps([computed, path, answers, len(warnings)]))
    """
    pytest.importorskip("resource")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = python("-c", textwrap.dedent(script), tmp_path, warm=DSPY_MODULES, env=environment).data

    assert [500, None, [500, 500, 500], 1] == found
    # The disk had room again when the session closed.
    assert 0 == evaluate(Library(tmp_path), examples(500)).computed


def test_folder_that_cannot_be_written_does_not_end_the_evaluation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A library that has a file in its place by the time it is used serves nothing, keeps nothing, and says so once."""
    library = Library(tmp_path / "library")
    (tmp_path / "library").write_text("a file")

    with caplog.at_level(logging.WARNING, "dspy_cachectl"):
        session = evaluate(library, examples(3))

    assert ("computed", 3) == (session.status, session.computed)
    assert 1 == len(caplog.records), caplog.messages


def test_read_only_library_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Loading writes nothing."""
    library = Library(tmp_path)
    evaluate(library, examples(3))

    monkeypatch.setattr(Database, "change", refuse)
    monkeypatch.setattr(Library, "_write", refuse)
    again = evaluate(library, examples(3))

    assert ("loaded", []) == (again.status, caplog.messages)


def test_damaged_row_of_a_killed_evaluation_costs_that_row_alone(tmp_path: Path) -> None:
    """What is no row, or larger than any that is written, is left out."""
    child = half(tmp_path, "killed")
    child.kill()
    child.communicate()
    cut = b'{"example_key":"%s","occurrence":0,"repeat":0,"created":1,"error":null}'
    damage = (b"{", b"x" * (LONGEST + 1), b'{"inputs":[%s]}' % b",".join([b"[]"] * 1_000_000), cut)
    with contextlib.closing(sqlite3.connect(Journal(tmp_path).path)) as database, database:
        places = database.execute("SELECT example FROM rows").fetchall()[: len(damage)]
        for (example,), row in zip(places, damage, strict=True):
            database.execute(
                "UPDATE rows SET row = ? WHERE example = ?", (row.replace(b"%s", example.encode()), example)
            )

    again = evaluate(Library(tmp_path), examples(10))

    assert ("killed", "extended", 7) == (again.run_id, again.status, again.computed)


@pytest.mark.parametrize("content", [b"rubbish" * 1000, b"SQLite format 3\0" + b"rubbish" * 1000, "other", ""])
def test_journal_that_is_no_journal_is_left_alone(
    tmp_path: Path, content: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rubbish, or another program's database, in the journal's place is never fatal, and never written to."""
    journal = Journal(tmp_path).path
    journal.parent.mkdir()
    if isinstance(content, bytes):
        journal.write_bytes(content)
    elif content:
        with contextlib.closing(sqlite3.connect(journal)) as database, database:
            database.execute("CREATE TABLE theirs (x)")
    before = journal.read_bytes() if content else None

    assert 3 == evaluate(Library(tmp_path), examples(3)).computed
    assert 0 == evaluate(Library(tmp_path), examples(3)).computed
    assert 0 == Library(tmp_path).clear(lambda _: False).count(journal)
    if content:
        assert before == journal.read_bytes()
        assert any(str(journal) in message for message in caplog.messages)


def test_without_a_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that refuses SQLite's log, such as a network drive, a killed evaluation keeps its answers too."""
    refused = []

    class Refusing(sqlite3.Connection):
        def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
            if "WAL" in query:
                refused.append(query)
                raise sqlite3.OperationalError("unable to open database file")
            return super().execute(query, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, factory=Refusing, **more))
    library, data = Library(tmp_path), examples(5)
    session = library.open(key_of(data), questions_of(data))
    session.write = refuse
    with pytest.raises(KeyboardInterrupt):
        fail(session, KeyboardInterrupt(), after=3)

    assert refused
    assert [] == library.snapshots()
    assert 2 == evaluate(library, data).computed


def test_exception_in_an_evaluation_keeps_what_was_finished(tmp_path: Path) -> None:
    """An error of the caller's reaches the caller, and the answers stay."""
    library, data = Library(tmp_path), examples(5)
    session = library.open(key_of(data), questions_of(data))
    with pytest.raises(RuntimeError, match="mine"):
        fail(session, RuntimeError("mine"), after=4)

    assert [False] == [info.is_complete for info in library.snapshots()]
    again = evaluate(library, data)
    assert (session.run_id, 1) == (again.run_id, again.computed)
    assert [True] == [info.is_complete for info in library.snapshots()]


def test_lock_is_given_up_on_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a library's lock without bound."""
    monkeypatch.setattr("dspy_cachectl.predictions.library._PATIENCE", 0.05)
    Library(tmp_path).prune()
    with FileLock(tmp_path / FOLDER / "lock"), pytest.raises(StoreUnavailableError, match="held by another"):
        Library(tmp_path).prune()
    assert [] == Library(tmp_path).prune()


def test_half_written_snapshots_of_the_dead_are_removed(tmp_path: Path) -> None:
    """A file that a kill left half written is taken away, and never read; one that only has such a name stays."""
    library = Library(tmp_path)
    whole = evaluate(library, examples(2)).path.read_bytes()
    left, empty, theirs, named = (tmp_path / FOLDER / f"{name}.tmp" for name in ("0" * 32, "1" * 32, "2" * 32, "abc"))
    for path, data in ((left, whole[:90]), (empty, b""), (theirs, b"{}"), (named, whole[:90])):
        path.write_bytes(data)

    assert {left, empty} == set(library.prune())
    assert (b"{}", whole[:90]) == (theirs.read_bytes(), named.read_bytes())
    assert "loaded" == evaluate(library, examples(2)).status
