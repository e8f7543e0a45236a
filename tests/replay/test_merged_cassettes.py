"""Cassettes in version control: what two branches have added is merged by git, and a conflict is named, or resolved."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.replay.repositories import Repository
from tests.replay.support import ask, recordings, unfinished

UNION = "*.jsonl merge=union\n"


@pytest.fixture(autouse=True)
def _lm(lm: MakeLM) -> None:
    dspy.configure(lm=lm(temperature=1.0))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    return Repository(folder)


def replayed(path: Path, *texts: str) -> list[str]:
    with cachectl.cassette(path) as opened:
        answers = ask(*texts)
    assert [] == opened.unused
    return answers


def test_additions_at_different_places(endpoint: Endpoint, repository: Repository) -> None:
    """Git's ordinary merge takes both, and the merged file replays all of it."""
    base = repository.record("record", "b", "c", "d", "m")
    ours, theirs = repository.branches("new", ("a", "b", "c", "d", "m"), ("b", "c", "d", "m", "z"))
    assert repository.merge()
    assert [*ours, theirs[-1]] == replayed(repository.path, "a", "b", "c", "d", "m", "z")
    assert (base, 6) == (ours[1:], endpoint.requests)


def test_additions_at_one_place(endpoint: Endpoint, repository: Repository) -> None:
    """Between the same two lines git asks, and with `merge=union` it keeps both sides by itself."""
    repository.attributes(UNION)
    repository.record("record", "a", "z")
    ours, theirs = repository.branches("new", ("a", "m", "z"), ("a", "n", "z"))
    assert repository.merge()
    assert [ours[0], ours[1], theirs[1], ours[2]] == replayed(repository.path, "a", "m", "n", "z")
    assert 4 == endpoint.requests


def test_both_have_recorded_the_same_call(endpoint: Endpoint, repository: Repository) -> None:
    """One of the two answers is served, each time the same one; writing the file again leaves one line of it."""
    repository.attributes(UNION)
    repository.record("record", "a")
    ours, theirs = repository.branches("new", ("a", "m"), ("a", "m"))
    assert ours[1] != theirs[1]
    assert repository.merge()
    assert 3 == len(recordings(repository.path))
    assert [theirs] * 2 == [replayed(repository.path, "a", "m") for _ in range(2)]
    assert [*theirs, "z"] == [*repository.record("new", "a", "m", "z")[:2], "z"]
    assert 3 == len(recordings(repository.path))


def test_both_have_made_the_file(endpoint: Endpoint, repository: Repository) -> None:
    """Two branches that begin the same cassette merge as well: it has one header."""
    repository.attributes(UNION)
    ours, theirs = repository.branches("record", ("a", "c"), ("b", "c"))
    assert repository.merge()
    assert [ours[0], *theirs] == replayed(repository.path, "a", "b", "c")


def test_one_has_gone_on_with_what_the_other_left_unfinished(endpoint: Endpoint, repository: Repository) -> None:
    """A recording that was cut short on one branch, and is whole on another, merges with an addition."""
    repository.attributes(UNION)
    with contextlib.suppress(KeyboardInterrupt), cachectl.cassette(repository.path, "record"):
        ask("b", "c")
        raise KeyboardInterrupt
    assert [""] == unfinished(repository.path)
    repository.commit("cut short")
    ours, theirs = repository.branches("record", ("b", "c", "d"), ("a", "b", "c"))
    assert repository.merge()
    assert [] == unfinished(repository.path)
    assert [theirs[0], *ours] == replayed(repository.path, "a", "b", "c", "d")


@pytest.fixture(params=["merge", "diff3", "zdiff3"])
def conflict(request: pytest.FixtureRequest, repository: Repository) -> tuple[Repository, list[str], list[str]]:
    """A cassette in which git has left a conflict, in one of its styles; the answers of the base and of both sides.

    The last of the styles came with git 2.35.
    """
    repository.git("config", "merge.conflictStyle", request.param)
    repository.record("record", "a", "m", "z")
    ours, theirs = repository.branches("all", ("a", "m", "n", "z"), ("a", "m", "o", "z"))
    assert not repository.merge()
    return repository, ours, theirs


@pytest.mark.parametrize("mode", ["replay", "record", "new"])
def test_a_conflict_is_named(endpoint: Endpoint, conflict: tuple[Repository, Any, Any], mode: Any) -> None:
    """In each mode the file and the line are said, and what to do; nothing is asked and nothing is written."""
    path = conflict[0].path
    before, asked = path.read_bytes(), endpoint.requests
    line = next(number for number, line in enumerate(before.splitlines(), start=1) if line.startswith(b"<<<<<<<"))
    with pytest.raises(cachectl.CorruptEntryError) as error, cachectl.cassette(path, mode):
        raise AssertionError("it opened")
    assert f"{path}, line {line}: version control left a conflict here (<<<<<<< HEAD)" in str(error.value)
    assert 'the mode "all"' in str(error.value)
    done = command("import", path, store=path.parent / "store")
    assert (1, True) == (done.returncode, f"line {line}: version control left a conflict" in done.stderr)
    assert not (path.parent / "store").exists()
    assert (before, asked) == (path.read_bytes(), endpoint.requests)


def test_all_overwrites_a_conflict(
    endpoint: Endpoint, conflict: tuple[Repository, list[str], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """What is asked for is recorded anew, what is not is kept of both sides, and no mark is left."""
    repository, ours, theirs = conflict
    asked = endpoint.requests
    with cachectl.cassette(repository.path, "all"):
        again = ask("a", "m")
    assert 2 == endpoint.requests - asked
    assert 1 == len([line for line in caplog.messages if f"{repository.path}, line " in line and "conflict" in line])
    assert [*again, ours[2], theirs[2]] == replayed(repository.path, "a", "m", "n", "o", "z")[:4]
    assert 5 == len(recordings(repository.path))


def test_all_overwrites_it_where_nothing_else_changes(
    endpoint: Endpoint, conflict: tuple[Repository, Any, Any]
) -> None:
    """Also where nothing is asked for: the file is whole afterwards."""
    with cachectl.cassette(conflict[0].path, "all"):
        pass
    assert 5 == len(recordings(conflict[0].path))


def test_a_conflict_in_the_header(repository: Repository) -> None:
    """Of two headers that are in a conflict one is kept."""
    repository.record("record", "a")
    head, line = repository.path.read_bytes().splitlines()
    other = head.replace(b"}", b',"more":1}')
    marked = [b"<<<<<<< HEAD", head, b"=======", other, b">>>>>>> theirs", line]
    repository.path.write_bytes(b"\n".join([*marked, b""]))
    with pytest.raises(cachectl.CorruptEntryError, match="line 1: version control"), cachectl.cassette(repository.path):
        raise AssertionError("it opened")
    with cachectl.cassette(repository.path, "all"):
        pass
    assert [head, line] == repository.path.read_bytes().splitlines()


def test_a_compressed_one(endpoint: Endpoint, tmp_path: Path) -> None:
    """Git leaves one side whole, which replays; where it was told to merge it as text, that is said."""
    folder = tmp_path / "repository"
    folder.mkdir()
    repository = Repository(folder, "answers.jsonl.zst")
    base = repository.record("record", "a")
    ours, theirs = repository.branches("new", ("a", "m"), ("a", "n"))
    assert not repository.merge()
    assert ours == replayed(repository.path, "a", "m")
    repository.git("checkout", "--theirs", repository.path.name)
    assert [*base, theirs[1]] == replayed(repository.path, "a", "n")
    repository.path.write_bytes(b"<<<<<<< HEAD\n" + repository.path.read_bytes())
    for mode in ("replay", "all"):
        with (
            pytest.raises(cachectl.CorruptEntryError, match="version control tried to merge it"),
            cachectl.cassette(repository.path, mode),  # type: ignore[arg-type]
        ):
            raise AssertionError("it opened")
