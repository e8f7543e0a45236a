"""Where people have something written to: never over what is ours, nor over a device; `-` is standard output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.cli.commands import command
from tests.cli.stores import COMPILED, filled
from tests.endpoint import Endpoint
from tests.faults.devices import make_device
from tests.predictions import support
from tests.reports.made_up import report
from tests.strangers.folders import facts_of

MakeLM = Callable[..., cachectl.LM]
WAYS = ("itself", "relative", "link", "hard link", "folder link")


@pytest.fixture
def ours(tmp_path: Path, lm: MakeLM, endpoint: Endpoint) -> Iterator[dict[str, Path]]:
    """A file of each kind that we work with, by its kind."""
    filled(tmp_path / "store", [COMPILED] * 3)
    done = Library(tmp_path / "library")
    kept = support.evaluate(done, support.examples(3)).path
    session = done.open(support.key_of(support.examples(9)), questions_of(support.examples(9)))
    support.compute(session, at_most=2)
    Outbox().put(Record("a" * 32, 1, 2, "http://127.0.0.1:1"))
    dspy.configure(lm=lm())
    cassette, other = tmp_path / "cassettes" / "answers.jsonl", tmp_path / "cassettes" / "other.jsonl"
    for path in (cassette, other):
        with cachectl.cassette(path, "record"):
            dspy.settings.lm("one")
    with cachectl.cassette(cassette), cachectl.cassette(other, "new"):
        dspy.settings.lm("two")
        (unsaved,) = other.parent.glob(".*.unsaved")
        yield {
            "store": tmp_path / "store" / "cache.db",
            "log": session.journal.path.with_name(f"{session.journal.path.name}-wal"),
            "snapshot": kept,
            "journal": session.journal.path,
            "outbox": Outbox().path,
            "cassette": cassette,
            "recording": other,
            "unsaved": unsaved,
        }
    session.journal.close()


def way_to(path: Path, way: str, place: Path) -> Path:
    """Another name for a file."""
    if way == "link":
        place.symlink_to(path)
    elif way == "hard link":
        os.link(path, place)
    elif way == "folder link":
        place.symlink_to(path.parent)
        return place / path.name
    elif way == "relative":
        return Path(os.path.relpath(path))
    return path if way == "itself" else place


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_written_over_what_is_ours(ours: dict[str, Path], tmp_path: Path, way: str) -> None:
    """By whatever way it is reached, and with --force: each refuses, and not a byte is another."""
    before = {kind: facts_of(path) for kind, path in ours.items()}
    for kind, path in ours.items():
        place = way_to(path, way, tmp_path / f"to-{kind}.csv")
        for write in (report([1.0, 0.0]).save, report([1.0, 0.0]).plot):
            with pytest.raises(ConfigurationError):
                write(place)
        if kind == "cassette" or (kind == "recording" and way == "hard link"):
            continue  # to another process it is a file like any other, and that it gets another is not noticed here
        for arguments in (
            ["export", place, "--force"],
            ["predictions", "export", ours["snapshot"].name, place, "--force"],
        ):
            named = ["--predictions", ours["snapshot"].parent] if arguments[0] == "predictions" else []
            done = command(*arguments, *named, store=tmp_path / "store", cwd=Path.cwd())
            assert 1 == done.returncode, (kind, arguments, done.stdout)
    assert before == {kind: facts_of(path) for kind, path in ours.items()}


def _no_file(kind: str, path: Path) -> None:
    if kind == "device":
        make_device(path)
    elif kind == "standard output":
        path.symlink_to("/proc/self/fd/1")
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["device", "standard output", "pipe"])
def test_what_is_no_file_is_an_error_at_once(tmp_path: Path, kind: str) -> None:
    """Of exports, reports, tables, figures and imports, also as root; and it stays what it is."""
    store, library, place = tmp_path / "store", tmp_path / "library", tmp_path / "place.csv"
    filled(store, [COMPILED] * 3)
    kept = support.evaluate(Library(library), support.examples(3)).path
    _no_file(kind, place)
    before = place.lstat()
    for arguments in (
        ["export", place, "--force"],
        ["export", place],
        ["import", place],
        ["predictions", "export", kept.name, place, "--force", "--predictions", library],
    ):
        done = command(*arguments, store=store)
        assert 1 == done.returncode, (arguments, done.stdout)
        assert "dspy-cachectl: " in done.stderr
    with pytest.raises(cachectl.StoreUnavailableError):
        report([1.0, 0.0]).save(place)
    with pytest.raises(cachectl.CachectlError):
        cachectl.EvalReport.load(place)
    for mode in ("replay", "record", "new", "all"):
        with pytest.raises(cachectl.CachectlError), cachectl.cassette(place, mode):  # type: ignore[arg-type]
            pass
    after = place.lstat()
    assert (before.st_mode, before.st_ino, before.st_rdev) == (after.st_mode, after.st_ino, after.st_rdev)


def test_a_dash_is_standard_output(tmp_path: Path) -> None:
    """What would be in the file is on standard output, and nothing else is; the words go to standard error."""
    store, library = tmp_path / "store", tmp_path / "library"
    filled(store, [COMPILED] * 3)
    kept = support.evaluate(Library(library), support.examples(3)).path
    for arguments, name in (
        (["export"], "answers.jsonl"),
        (["predictions", "export", kept.name], "table.csv"),
    ):
        named = ["--predictions", library] if arguments[0] == "predictions" else []
        written = command(*arguments, tmp_path / name, *named, store=store, cwd=tmp_path)
        printed = command(*arguments, "-", *named, store=store, cwd=tmp_path)
        assert (0, 0) == (written.returncode, printed.returncode), printed.stderr
        assert (tmp_path / name).read_text() == printed.stdout
        assert "Wrote 3" in printed.stderr
    assert not (tmp_path / "-").exists()
    both = command("export", "-", "--json", store=store)
    assert (2, "") == (both.returncode, both.stdout)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """An export to a link writes what it leads to, which keeps its mode; one that leads nowhere makes the file."""
    store, target = tmp_path / "store", tmp_path / "target.jsonl"
    filled(store, [COMPILED] * 3)
    (tmp_path / "link.jsonl").symlink_to(target)
    for _ in range(2):
        assert 0 == command("export", tmp_path / "link.jsonl", "--force", store=store).returncode
        assert (True, 4) == ((tmp_path / "link.jsonl").is_symlink(), len(target.read_text().splitlines()))
        target.chmod(0o640)
    assert 0o640 == target.stat().st_mode & 0o777
    refused = command("export", tmp_path / "link.jsonl", store=store)
    assert (1, True) == (refused.returncode, "is there already" in refused.stderr)


def test_mlflow_makes_no_tables_in_a_database_of_ours(tmp_path: Path) -> None:
    """Results for such an address wait, and say why; the store stays a store."""
    pytest.importorskip("mlflow")
    store = tmp_path / "store"
    filled(store, [COMPILED] * 3)
    before = (store / "cache.db").read_bytes()
    outcome = log_to_mlflow(report([1.0, 0.0]), tracking_uri=f"sqlite:///{store / 'cache.db'}", timeout=10)
    assert ("pending", True) == (outcome.status, "database of dspy_cachectl" in outcome.reason)
    assert 1 == len(Outbox().waiting())
    assert before == (store / "cache.db").read_bytes()
    assert 3 == len(json.loads(command("ls", "--json", store=store).stdout))
