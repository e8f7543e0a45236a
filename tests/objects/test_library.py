"""A library in an object store: what one machine has found, another is served."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError, MissingExtraError
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.parts import PartFiles
from dspy_cachectl.predictions.snapshot import read_info
from dspy_cachectl.stores.objects import ObjectStore
from tests.limits import PATIENCE
from tests.objects.conftest import Bucket, Cutting
from tests.objects.servers import NAME, SECRET
from tests.predictions.support import compute, examples, key_of, row
from tests.processes import ROOT, Finished

DATA = examples(6)
QUESTIONS = questions_of(DATA)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], None]:
    """Return what goes to another machine: a folder for what has to survive a process, of its own."""

    def goes_to(name: str) -> None:
        cachectl.configure(state=str(tmp_path / name))

    return goes_to


def evaluate(url: str, run_id: str | None = None, at_most: int | None = None) -> int:
    """Answer what is missing, wait until it is in the bucket, and return how many answers that took."""
    library = Library(url)
    with library.open(key_of(DATA), QUESTIONS, run_id=run_id) as session:
        made = compute(session, at_most)
        if at_most is None:
            session.finish({"metric": "exact"})
    assert library.wait() == 0
    return made


def test_another_machine_is_served_what_one_has_kept(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """Nothing that was kept is asked again, wherever."""
    made = []
    for name in ("one", "two", "two"):
        machine(name)
        made.append(evaluate(bucket.url))
    assert made == [6, 0, 0]
    assert sorted(name.count("/") for name in bucket.dump()) == [2, 4]


def test_what_was_cut_is_gone_on_with_elsewhere(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """An evaluation that ended early has its part, and who goes on replaces that by a whole one."""
    machine("one")
    assert evaluate(bucket.url, at_most=2) == 2
    machine("two")
    assert evaluate(bucket.url) == 4
    machine("three")
    assert [info.rows for info in Library(bucket.url).snapshots()] == [6]


def test_two_writers_lose_no_row(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """Two that know nothing of each other add to one run, and a third is served what both have."""
    sessions = []
    for name, start in (("one", 0), ("two", 3)):
        machine(name)
        library = Library(bucket.url)
        session = library.open(key_of(DATA), QUESTIONS, run_id="eval-both")
        for question in QUESTIONS[start : start + 3]:
            session.keep(row(question))
        sessions.append((library, session))
    for library, session in sessions:
        session.close()
        assert library.wait() == 0
    machine("three")
    assert evaluate(bucket.url, "eval-both") == 0


def test_lost_replies_do_no_harm(
    cutting: Cutting, bucket: Bucket, machine: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A write that was done and of which no reply came is found done."""
    lost: list[str] = []

    def each_once(method: str, path: str) -> bool:
        is_lost = method == "PUT" and path not in lost
        lost.extend([path] if is_lost else [])
        return is_lost

    cutting.cuts = each_once
    machine("one")
    assert evaluate(bucket.url) == 6
    assert len(lost) == 2  # the part, and the index
    machine("two")
    assert evaluate(bucket.url) == 0
    assert len(bucket.dump()) == 2


@pytest.mark.parametrize("refused", ["index", pytest.param("part", marks=pytest.mark.exhaustive)])
def test_what_did_not_go_up_goes_up_next_time(
    cutting: Cutting, bucket: Bucket, machine: Callable[[str], None], refused: str
) -> None:
    """An upload that is cut leaves what was there whole, and is done by the next evaluation."""
    machine("one")
    assert evaluate(bucket.url, "eval-a", at_most=3) == 3
    before = bucket.dump()

    cutting.refuses = lambda method, path: (
        method == "PUT" and (path.endswith("/index.json.zst") == (refused == "index"))
    )
    library = Library(bucket.url)
    with library.open(key_of(DATA), QUESTIONS) as session:
        assert compute(session) == 3
    assert library.wait() == 1
    assert before.items() <= bucket.dump().items()
    machine("two")
    with Library(bucket.url).open(key_of(DATA), QUESTIONS) as elsewhere:
        assert elsewhere.kept_before == 3

    cutting.refuses = lambda *_: False
    machine("one")
    assert evaluate(bucket.url) == 0
    machine("two")
    assert evaluate(bucket.url) == 0


def test_nobody_waits_for_an_upload(cutting: Cutting, bucket: Bucket, machine: Callable[[str], None]) -> None:
    """An evaluation ends though the store takes nothing, and its rows are on the disk."""
    machine("one")
    ended = threading.Event()

    def held(method: str, _path: str) -> bool:
        return method == "PUT" and not ended.wait(PATIENCE)

    cutting.refuses = held
    library = Library(bucket.url)
    with library.open(key_of(DATA), QUESTIONS) as session:
        compute(session)
        path = session.finish()
    assert path is not None
    assert 6 == read_info(path).rows
    assert {} == bucket.dump()
    ended.set()
    assert library.wait(PATIENCE) == 0


def test_the_index_is_made_anew_where_it_is_gone_or_damaged(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """Parts say themselves what they are."""
    machine("one")
    assert evaluate(bucket.url) == 6
    index = next(name for name in bucket.dump() if name.endswith("index.json.zst"))
    for number, spoil in enumerate((bucket.remove, lambda name: bucket.write(name, b"(\xb5/\xfd damaged"))):
        spoil(index)
        machine(f"other-{number}")
        assert evaluate(bucket.url) == 0
        assert evaluate(bucket.url, f"eval-{number}") == 6
        machine(f"third-{number}")
        assert {6} == {info.rows for info in Library(bucket.url).snapshots()}
        assert 2 + number == len(Library(bucket.url).snapshots())


def test_a_newer_index_and_damaged_parts_are_left_alone(
    bucket: Bucket, machine: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """What this version cannot read is neither served nor written over, and it is said."""
    machine("one")
    assert evaluate(bucket.url) == 6
    dumped = bucket.dump()
    part = next(name for name in dumped if "index" not in name)
    bucket.write(part, dumped[part][:-1] + b"x")
    machine("two")
    assert evaluate(bucket.url, "eval-other") == 6
    index = next(name for name in dumped if "index" in name)
    newer = zstandard.ZstdCompressor().compress(b'{"format":99,"parts":{},"replaced":{}}')
    bucket.write(index, newer)
    machine("three")
    library = Library(bucket.url)
    with library.open(key_of(DATA), QUESTIONS) as session:
        assert compute(session) == 6
    assert library.wait() == 1
    assert newer == bucket.dump()[index]
    assert "Upgrade dspy-cachectl" in caplog.text


def test_without_a_server_evaluations_go_on(
    cutting: Cutting, bucket: Bucket, machine: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """What was read before is served, and what is found is kept on this machine."""
    machine("one")
    assert evaluate(bucket.url) == 6
    cutting.refuses = lambda *_: True
    library = Library(bucket.url)
    with library.open(key_of(DATA), QUESTIONS) as session:
        assert session.kept_before == 6
    assert "does not reply" in caplog.text


def test_nothing_in_the_bucket_or_in_what_is_said_is_a_secret_or_a_pickle(
    bucket: Bucket, machine: Callable[[str], None], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Neither objects and their names, nor files, logs, errors and pickles hold the credentials."""
    machine("one")
    evaluate(bucket.url)
    library = Library("s3://there-is-no-such-bucket/x")
    with library.open(key_of(DATA), QUESTIONS) as session:
        compute(session)
    assert library.wait() == 1
    assert "NoSuchBucket" in caplog.text
    store = ObjectStore(bucket.url)
    assert store.names()
    dumped = bucket.dump()
    unpacked = [
        zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read() for data in dumped.values()
    ]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    said = [caplog.text.encode(), *(name.encode() for name in dumped), pickle.dumps(store)]
    for data in (*dumped.values(), *unpacked, *files, *said):
        assert SECRET.encode() not in data
        assert NAME.encode() not in data
    for data in (*dumped.values(), *unpacked):
        with pytest.raises(Exception, match=r".*"):
            pickle.loads(data)
    assert store.names() == pickle.loads(pickle.dumps(store)).names()


def test_a_fork_of_who_has_used_it_is_refused(bucket: Bucket, child: Callable[..., Finished]) -> None:
    """It is told so, with a store of its own too, and does not wait for ever; a fork before the first use goes on."""
    said = child(
        """
        import multiprocessing, sys
        from dspy_cachectl.errors import StoreUnavailableError
        from dspy_cachectl.stores.objects import ObjectStore

        def use(_=None):
            try:
                return ObjectStore(sys.argv[1]).names()
            except StoreUnavailableError as error:
                return str(error)

        def forked():
            with multiprocessing.get_context("fork").Pool(1) as pool:
                return pool.map(use, [1])[0]

        print(forked(), use(), forked(), sep="\\n")
        """,
        bucket.url,
    )
    before, used, after = said.stdout.splitlines()
    assert (before, used) == ("[]", "[]")
    assert "in a process that was forked" in after


@pytest.mark.parametrize(
    "address", ["s3://name:passw0rd@bucket/x", "s3://", "s3://b/../x", "s3://bucket/x?key=passw0rd", "s3://bucket//x"]
)
def test_an_address_that_cannot_be_used_is_refused(address: str) -> None:
    """The error says how to write one, and shows no credentials."""
    with pytest.raises(ConfigurationError, match="bucket/prefix") as error:
        Library(address)
    assert "passw0rd" not in str(error.value)


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optional package that is missing is named by its extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"dspy-cachectl\[s3\]"):
        Library("s3://bucket/prefix")


def command(*words: str, code: int = 0) -> str:
    """Run a command in this process; what it prints."""
    from typer.testing import CliRunner

    from dspy_cachectl.cli.app import app

    found = CliRunner().invoke(app, words)
    assert code == found.exit_code, found.output
    return found.output


def test_the_commands_look_into_a_bucket(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """Each command takes the address as it takes a folder; what is removed is gone for all."""
    machine("one")
    evaluate(bucket.url)
    (listed,) = json.loads(command("predictions", "ls", "--library", bucket.url, "--json"))
    name = listed["path"].rpartition("/")[2]
    assert "answer=a" in command("predictions", "show", name, "--library", bucket.url)
    assert "6 predictions alike" in command("predictions", "diff", name, name, "--library", bucket.url)
    assert 6 == command("predictions", "export", name, "-", "--library", bucket.url).count(",a,1.0,")
    assert bucket.url in command("predictions", "clear", "--all", "--yes", "--library", bucket.url)
    assert ["index.json.zst"] == [one.rpartition("/")[2] for one in bucket.dump()]
    assert evaluate(bucket.url) == 6


def test_what_is_damaged_or_gone_is_found(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """`verify` reads each part from the bucket, whatever is on this machine; nothing there is pruned."""
    machine("one")
    for run in ("eval-a", "eval-b"):
        evaluate(bucket.url, run)
    asked = ("verify", "--predictions", bucket.url)
    assert "Nothing is damaged" in command(*asked)
    first, second = (name for name in sorted(bucket.dump()) if "index" not in name)
    bucket.write(first, bucket.dump()[first][:-1])
    bucket.remove(second)
    found = command(*asked, code=3)
    assert ("is damaged" in found, "is gone" in found) == (True, True)
    said = command("prune", "--predictions", bucket.url, "--yes", code=2)
    assert "it has rules of its own" in " ".join(said.replace("│", "").split())


def test_the_doctor_counts_what_waits(
    cutting: Cutting, bucket: Bucket, machine: Callable[[str], None], tmp_path: Path
) -> None:
    """What is not sent and what a killed evaluation left are said, and a bucket that does not reply."""

    def found() -> list[str]:
        cachectl.configure(predictions=bucket.url)
        return [one["message"] for one in json.loads(command("doctor", "--json")) if one["name"] == "predictions"]

    machine("one")
    evaluate(bucket.url, "eval-a")
    assert [bucket.url] == found()
    cutting.refuses = lambda method, _: method == "PUT"
    library = Library(bucket.url)
    with library.open(key_of(DATA), QUESTIONS, run_id="eval-b") as session:
        compute(session)
    assert 1 == library.wait()
    code = "import os; from tests.objects.test_library import *; cut(os.environ['BUCKET'])"
    place = {"DSPY_CACHECTL_STATE": str(tmp_path / "one"), "PYTHONPATH": str(ROOT), "BUCKET": bucket.url}
    assert -9 == subprocess.run([sys.executable, "-c", code], env={**os.environ, **place}, check=False).returncode
    assert 2 == len(found())
    assert "1 snapshot waits to be sent" in found()
    cutting.refuses = lambda *_: True
    assert any("does not reply" in message for message in found())
    cutting.refuses = lambda *_: False
    bucket.name = "there-is-no-such-bucket"
    assert any("NoSuchBucket" in message for message in found())


def cut(url: str) -> None:
    """Answer one question, and be killed."""
    session = Library(url).open(key_of(DATA), QUESTIONS, run_id="eval-c")
    session.keep(row(QUESTIONS[0]))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.exhaustive
def test_processes_that_write_at_once_lose_nothing(bucket: Bucket, tmp_path: Path) -> None:
    """Four processes, each on a machine of its own, change one index."""
    code = "import sys; from tests.objects.test_library import *; evaluate(sys.argv[1], sys.argv[2])"
    ran = [
        subprocess.Popen(
            [sys.executable, "-c", code, bucket.url, f"eval-{number}"],
            env={**os.environ, "DSPY_CACHECTL_STATE": str(tmp_path / f"process-{number}")},
        )
        for number in range(4)
    ]
    assert [0] * 4 == [process.wait(PATIENCE) for process in ran]
    assert {f"eval-{number}" for number in range(4)} == {info.run_id for info in Library(bucket.url).snapshots()}


def test_what_is_sent_while_the_index_is_read_is_found(
    bucket: Bucket, machine: Callable[[str], None], cutting: Cutting
) -> None:
    """A snapshot that waits is found in the index or where it waits, whenever it goes up; else it is bought twice."""
    machine("one")
    assert 3 == evaluate(bucket.url, "eval-a", at_most=3)
    cutting.refuses = lambda method, _: method == "PUT"
    with Library(bucket.url).open(key_of(DATA), QUESTIONS) as session:
        compute(session)
    assert 1 == Library(bucket.url).wait(PATIENCE)
    cutting.refuses = lambda *_: False
    left: list[int] = []

    def sends_meanwhile(method: str, path: str) -> bool:
        if method == "GET" and path.endswith("/index.json.zst") and not left:
            left.append(1)
            left[0] = PartFiles(bucket.url).send()
        return False

    cutting.cuts = sends_meanwhile
    found = Library(bucket.url).snapshots()
    assert ([0], 6) == (left, max(info.rows for info in found))
