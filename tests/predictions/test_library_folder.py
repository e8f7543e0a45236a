"""A library in a folder of the user's: what is the user's stays as it is, and what is ours is for its owner alone."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import sys
import time
import tracemalloc
from pathlib import Path

import orjson
import pytest

from dspy_cachectl.boundary.ownership import SNAPSHOT_HEAD
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.predictions import journal, snapshot
from dspy_cachectl.predictions.journal import Journal
from dspy_cachectl.predictions.library import DAY, Library
from dspy_cachectl.predictions.snapshot import FOLDER, FORMAT_VERSION, write_snapshot
from tests.predictions.support import compute, evaluate, examples, fail, key_of

OLD = 60 * DAY
THEIRS = {
    "table.json": '{"a": 1}',
    "old.json": "[]",
    "package.json": "{}",
    "photo.damaged": "a photo",
    ".b_x.tmp": "mine",
    "model_0123456789abcdef.json": '{"metadata": {"kind": "theirs"}}',
    "model_0123456789abcdef.json.zst": "mine",
    "model_0123456789abcdef.json.damaged": "mine",
    ".lock": "mine",
    "unfinished-1.db": "mine",
}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name in THEIRS and path.is_file()}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder with files of the user's, all of them old."""
    for name, text in THEIRS.items():
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1, 1))
    return tmp_path


@pytest.mark.parametrize("compress", [False, True])
def test_files_of_the_users_stay_as_they_are(shared: Path, compress: bool) -> None:
    """Whatever is done with a library: no file but ours is renamed, removed, or written over."""
    library = Library(shared, max_bytes=1, compress=compress)
    evaluate(library, examples(3))
    evaluate(library, examples(3), force_recompute=True)
    library.prune()
    library.clear(lambda _: True)
    library.clear()

    assert THEIRS == contents(shared)
    assert [] == library.snapshots()


def test_files_of_the_users_do_not_count(shared: Path) -> None:
    """A large file beside the snapshots does not make the library full."""
    with (shared / "model_fedcba9876543210.json").open("wb") as file:
        file.truncate(3 * 1024**3)
    library = Library(shared)
    first, second = evaluate(library, examples(3)), evaluate(library, examples(3, start=9))

    assert library.usage() == sum(info.bytes for info in library.snapshots()) < 100_000
    assert {first.path, second.path} == {info.path for info in library.snapshots()}


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_of_the_users_of_our_very_name_is_not_written_over(tmp_path: Path, compress: bool) -> None:
    """Where the name is taken the snapshot gets another, and is found under it."""
    path = evaluate(Library(tmp_path / "elsewhere", compress=compress), examples(3), run_id="one").path
    theirs = tmp_path / "library" / path.name
    theirs.parent.mkdir()
    theirs.write_text("mine")
    library = Library(theirs.parent, compress=compress)
    session = evaluate(library, examples(3), run_id="one")

    assert "mine" == theirs.read_text()
    assert [session.path] == [info.path for info in library.snapshots()]
    assert "loaded" == evaluate(library, examples(3), run_id="one").status


def test_damaged_files_of_ours_are_old_some_day(tmp_path: Path) -> None:
    """A snapshot that was set aside is removed when it is older than the library keeps anything."""
    library = Library(tmp_path)
    path = evaluate(library, examples(3)).path
    aside = path.with_name(f"{path.name}.damaged")
    aside.write_bytes(path.read_bytes())
    os.utime(aside, (1, 1))

    assert [aside] == library.expired() == library.prune()


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A named pipe of a snapshot's name is left alone."""
    os.mkfifo(tmp_path / "model_0123456789abcdef.json")

    assert "loaded" == [evaluate(Library(tmp_path), examples(3)).status for _ in range(2)][-1]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
@pytest.mark.parametrize("compress", [False, True])
def test_what_is_kept_is_for_its_owner_alone(tmp_path: Path, compress: bool) -> None:
    """Folders are 0700 and files 0600, whatever the umask; a snapshot whose mode was changed keeps it."""
    library = Library(tmp_path / "library", compress=compress)
    before = os.umask(0o022)
    try:
        with library.open(key_of(examples(3)), questions_of(examples(3)), run_id="one") as session:
            compute(session, at_most=1)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [library.root, *library.root.rglob("*")]}
            session.finish()
        assert 0o600 == stat.S_IMODE(session.path.stat().st_mode)
        session.path.chmod(0o664)
        evaluate(library, examples(3), run_id="one")
    finally:
        os.umask(before)

    assert {0o700} == {modes.pop("library"), modes.pop(FOLDER)}
    assert {0o600} == set(modes.values())
    assert len(modes) >= 2
    assert 0o664 == stat.S_IMODE(session.path.stat().st_mode)


@pytest.mark.parametrize(
    ("metadata", "rows"),
    [
        (b"", b"x" * 100_000_000),
        (b',"x":"' + b"x" * 100_000_000, b""),
        (b',"x":[' + b"[]," * 2_000_000 + b"[]]},\n", b""),
    ],
    ids=["one line", "long metadata", "many parts"],
)
def test_files_of_more_than_is_ever_written(
    tmp_path: Path, metadata: bytes, rows: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """They are named and set aside in bounded memory, and the evaluation goes on."""
    library = Library(tmp_path)
    session = evaluate(library, examples(3), run_id="one")
    kept = {**session.header, "rows": 3, "oldest": time.time(), "saved": time.time(), "format": FORMAT_VERSION}
    head = SNAPSHOT_HEAD + orjson.dumps(kept)[1:-1]
    session.path.write_bytes(head + (metadata or b'},\n"predictions": [\n' + rows))
    tracemalloc.start()
    try:
        again = evaluate(library, examples(3), run_id="one")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert ("computed", 3) == (again.status, again.computed)
    assert peak < 150_000_000
    assert session.path.with_name(f"{session.path.name}.damaged").exists()
    assert any(session.path.name in message for message in caplog.messages)


def test_what_a_newer_version_keeps_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its snapshots and its journal are neither removed nor called damaged, and it is said that they are not served."""
    with monkeypatch.context() as newer:
        newer.setattr(snapshot, "FORMAT_VERSION", snapshot.FORMAT_VERSION + 1)
        newer.setattr(journal, "FORMAT_VERSION", journal.FORMAT_VERSION + 1)
        path = evaluate(Library(tmp_path), examples(3)).path
        session = Library(tmp_path).open(key_of(examples(9)), questions_of(examples(9)))
        compute(session, at_most=4)
        session.journal.close()
        unfinished = session.journal.path
    kept, rows = path.read_bytes(), sqlite3.connect(unfinished).execute("SELECT COUNT(*) FROM rows").fetchone()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "dspy_cachectl"):
        library = Library(tmp_path, max_age=1.0)
        again = evaluate(library, examples(3))
        library.clear()

    assert 3 == again.computed
    assert kept == path.read_bytes()
    assert rows == sqlite3.connect(unfinished).execute("SELECT COUNT(*) FROM rows").fetchone() == (4,)
    assert [True, True] == [any(str(one) in message for message in caplog.messages) for one in (path, unfinished)]
    assert not any("damaged" in message for message in caplog.messages)


def test_a_newer_journal_under_our_name_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What helps is a newer package, and no room on the disk."""
    unfinished = Journal(tmp_path).path
    session = Library(tmp_path).open(key_of(examples(9)), questions_of(examples(9)))
    compute(session, at_most=4)
    session.journal.close()
    with contextlib.closing(sqlite3.connect(unfinished)) as connection:
        connection.execute(f"PRAGMA user_version = {journal.FORMAT_VERSION + 1}")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "dspy_cachectl"):
        assert 3 == evaluate(Library(tmp_path), examples(3)).computed
    said = " ".join(caplog.messages)
    assert "Upgrade dspy-cachectl" in said
    assert "Make room" not in said


@pytest.mark.parametrize(("repeats", "answered"), [(1, 8), (3, 8), (3, 35)])
def test_a_cut_evaluation_says_how_much_was_answered(tmp_path: Path, repeats: int, answered: int) -> None:
    """The cell again after Ctrl-C: neither the questions nor the repeats are new."""
    library, data = Library(tmp_path), examples(30)
    session = library.open(key_of(data), questions_of(data), repeats=repeats)
    with pytest.raises(KeyboardInterrupt):
        fail(session, KeyboardInterrupt(), after=answered)

    again = evaluate(library, data, repeats=repeats)

    assert ("extended", 30 * repeats - answered) == (again.status, again.computed)
    assert [f"answers: {answered} of {30 * repeats} were answered before"] == again.changes


def test_written_rows_are_never_too_large_to_be_read(tmp_path: Path) -> None:
    """What the reader would refuse is refused when it is written."""
    path = tmp_path / "x.json"
    with pytest.raises(UnstorableError, match="large"):
        write_snapshot(path, {"x": "x" * 20_000_000}, [], {})
    assert not path.exists()
    assert [] == Journal(tmp_path).sessions()
