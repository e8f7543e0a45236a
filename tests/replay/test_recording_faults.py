"""Nothing that was paid for is lost while a cassette is recorded: killed processes, two at once, disks that fail."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.replay import files, unsaved
from dspy_cachectl.stores.database import Database
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, gold, qa, question
from tests.endpoint import Endpoint
from tests.faults.devices import make_device
from tests.faults.disks import read_only, small_disk
from tests.limits import PATIENCE
from tests.replay.support import ask, left_over, recordings

ROOT = Path(__file__).resolve().parents[2]
THREADS = 4
RECORD = """
import sys, dspy
import dspy_cachectl as cachectl
from tests.calls.support import evaluate, examples, qa

dspy.configure(lm=cachectl.LM("openai/test-model", api_base=sys.argv[1], api_key="sk-test", temperature=1.0))
with cachectl.cassette(sys.argv[2], sys.argv[3]) as opened:
    print(evaluate(qa(), examples(*map(int, sys.argv[4:6]))[int(sys.argv[6]):], threads=4))
print(opened.stats.requests)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "cassettes").mkdir()
    return tmp_path / "cassettes" / "answers.jsonl"


@pytest.fixture(autouse=True)
def _lm(lm: MakeLM) -> None:
    dspy.configure(lm=lm(temperature=1.0))


def ask_and(text: str, then: Callable[[], object]) -> list[str]:
    """Ask, and let something happen."""
    answers = ask(text)
    then()
    return answers


def start(endpoint: Endpoint, path: Path, mode: str, questions: int, copies: int = 1, first: int = 0) -> Any:
    """Record an evaluation in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RECORD, endpoint.url, str(path), mode, *map(str, (questions, copies, first))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(path: Path, of: Path) -> Path:
    """Leave the first recording of a cassette behind for another, as one that could not be saved."""
    left = unsaved.Unsaved(of)
    left.append(next(iter(files.read(path).recordings.values())))
    left.close(keep=True)
    (file,) = path.parent.glob(f".{of.name}.*.unsaved")
    return file


class TestKilled:
    @pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
    @pytest.mark.parametrize("mode", ["record", "new", pytest.param("all", marks=pytest.mark.exhaustive)])
    def test_what_was_bought_is_kept(
        self, endpoint: Endpoint, path: Path, mode: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A recording that was killed is gone on with: only the calls in the air are paid twice."""
        endpoint.configure(gold=gold(40), accuracy=0.6, delay=0.03)
        process = start(endpoint, path, mode, 40)
        assert endpoint.wait_for(20)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not path.exists()
        assert 1 == len(list(path.parent.glob(".*.unsaved")))
        arrived = endpoint.requests
        endpoint.configure(delay=0.0)

        with cachectl.cassette(path, "new" if mode == "all" else mode) as opened:
            score = evaluate(qa(), examples(40), threads=THREADS)
        assert 40 <= endpoint.requests <= 40 + THREADS
        assert_counted(opened.stats, resumed=40 - opened.stats.fresh, fresh=endpoint.requests - arrived)
        assert 1 == len([line for line in caplog.messages if "was killed" in line])
        assert [] == left_over(path.parent)
        with cachectl.cassette(path):
            assert score == evaluate(qa(), examples(40), threads=THREADS)

    def test_of_another_cassette(self, endpoint: Endpoint, path: Path) -> None:
        """Names that are like this one's, or like a pattern, are not this one's."""
        with cachectl.cassette(path, "record"):
            ask("one")
        other = left_behind(path, path.with_name("answerz.jsonl"))
        with cachectl.cassette(path.with_name("answer[sz].jsonl"), "record"):
            pass
        assert other.exists()

    @pytest.mark.parametrize("mode", ["record", "new", "all"])
    @pytest.mark.parametrize("content", ["text", "database", "nothing"])
    def test_a_file_of_somebody_elses(self, endpoint: Endpoint, path: Path, content: str, mode: Any) -> None:
        """Where it only has such a name it is neither taken nor removed, and it is said where it cannot be read."""
        theirs = path.with_name(f".{path.name}.01234567.unsaved")
        theirs.write_bytes(b"precious" * 1000 if content == "text" else b"")
        if content == "database":
            with contextlib.closing(sqlite3.connect(theirs)) as connection:
                connection.execute("CREATE TABLE recordings (key, process, line)")
        before = theirs.read_bytes()
        if content == "nothing":
            with cachectl.cassette(path, mode):
                ask("one")
        else:
            with pytest.raises(cachectl.StoreUnavailableError, match="01234567"), cachectl.cassette(path, mode):
                ask("one")
            assert 0 == endpoint.requests
        assert before == theirs.read_bytes()
        assert [theirs.name] == left_over(path.parent)

    def test_of_a_newer_version(self, endpoint: Endpoint, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a newer version left behind is said and left as it is; a replay needs none of it."""
        with cachectl.cassette(path, "record"):
            recorded = ask("one")
        monkeypatch.setattr(unsaved, "VERSION", 2)
        left = left_behind(path, path)
        monkeypatch.undo()
        before = left.read_bytes()
        with pytest.raises(cachectl.FormatVersionError, match="newer"), cachectl.cassette(path, "new"):
            ask("two")
        with cachectl.cassette(path):
            assert recorded == ask("one")
        assert (before, 1) == (left.read_bytes(), endpoint.requests)

    def test_a_damaged_one(self, endpoint: Endpoint, path: Path) -> None:
        """Is named and left as it is."""
        with cachectl.cassette(path, "record"):
            ask("one")
        file = left_behind(path, path)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("UPDATE recordings SET line = ?", (b'{"key": "x"}',))
            connection.commit()
        with pytest.raises(cachectl.CorruptEntryError, match=re.escape(str(file))), cachectl.cassette(path, "new"):
            ask("two")
        assert (True, 1) == (file.exists(), endpoint.requests)

    @pytest.mark.parametrize("bomb", ["rows without end", "gigabytes"])
    def test_a_bomb(self, endpoint: Endpoint, path: Path, bomb: str) -> None:
        """Is named, and neither unfolded nor read to its end, though it bears our mark."""
        with cachectl.cassette(path, "record"):
            ask("one")
        file = left_behind(path, path)
        if bomb == "gigabytes":
            os.truncate(file, 4 * 1024**3)  # a sparse file: it takes no room on the disk
        else:
            rows = "WITH RECURSIVE r(x) AS (SELECT '' UNION ALL SELECT x || 'y' FROM r) SELECT x AS process, x AS line"
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute("DROP TABLE recordings")
                connection.execute(f"CREATE VIEW recordings AS {rows} FROM r")
                connection.commit()
        with pytest.raises(cachectl.CorruptEntryError, match=re.escape(str(file))), cachectl.cassette(path, "new"):
            ask("two")
        assert (True, 1) == (file.exists(), endpoint.requests)

    def test_one_that_goes_while_it_is_looked_at(
        self, endpoint: Endpoint, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process saves and removes its own at any moment, which is no fault."""
        with cachectl.cassette(path, "record"):
            ask("one")
        left = left_behind(path, path)
        read = Database.read

        def go_then_read(database: Database, *query: Any) -> list[tuple[Any, ...]]:
            if database.path != left or not left.exists():
                return read(database, *query)
            left.unlink()
            raise cachectl.StoreUnavailableError("unable to open database file")

        monkeypatch.setattr(Database, "read", go_then_read)
        with cachectl.cassette(path, "new") as opened:
            ask("one")
        assert (0, 1) == (opened.recorded, endpoint.requests)

    def test_who_may_read_it(self, endpoint: Endpoint, path: Path) -> None:
        """What is not saved yet is for this user alone; the folder that is made for it is not."""
        path = path.parent / "below" / path.name
        before = os.umask(0o022)
        try:
            with cachectl.cassette(path, "record"):
                ask("one")
                (file,) = path.parent.glob(".*.unsaved")
                assert (0o600, 0o755) == tuple(one.stat().st_mode & 0o777 for one in (file, path.parent))
        finally:
            os.umask(before)
        assert 0o644 == path.stat().st_mode & 0o777


class TestTwoProcesses:
    def test_at_once(self, endpoint: Endpoint, path: Path) -> None:
        """Two processes that record different questions into one file at once: all of it is there."""
        endpoint.configure(delay=0.01)
        processes = [start(endpoint, path, "new", 30, 1, 0), start(endpoint, path, "new", 60, 1, 30)]
        for process in processes:
            output, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors
            assert "30" == output.split()[-1]
        assert (60, 60) == (endpoint.requests, len(recordings(path)))
        assert [] == left_over(path.parent)
        with cachectl.cassette(path) as opened:
            evaluate(qa(), examples(60), threads=THREADS)
        assert (60, []) == (opened.stats.replayed, opened.unused)

    def test_many_threads(self, endpoint: Endpoint, path: Path) -> None:
        """Cassettes that threads of one process record into one file, one after another and at once."""

        def record(number: int) -> list[str]:
            lm = dspy.settings.lm
            with cachectl.cassette(path, "new"):
                return [lm(question(number))[0]]

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(cachectl.carry(record), number) for number in range(8)]
            recorded = [future.result() for future in futures]
        with cachectl.cassette(path):
            assert recorded == [ask(question(number)) for number in range(8)]
        assert endpoint.requests == 8


class TestDisks:
    def test_replay_in_a_read_only_folder(self, endpoint: Endpoint, path: Path, tmp_path: Path) -> None:
        """A replay writes nothing, so it needs nothing but reading; `record` of what exists neither."""
        with cachectl.cassette(path, "record"):
            recorded = ask("one")
        modes: tuple[Any, ...] = ("replay", "record")
        with read_only(path.parent, tmp_path / "view") as view:
            for mode in modes:
                with cachectl.cassette(view / path.name, mode):
                    assert recorded == ask("one")
        assert endpoint.requests == 1

    @pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
    @pytest.mark.parametrize("mode", ["record", "new", "all"])
    def test_recording_in_a_read_only_folder(
        self, endpoint: Endpoint, path: Path, tmp_path: Path, mode: Any, there: bool
    ) -> None:
        """It is refused before anything is paid for: also in a folder that is still to be made there."""
        if there:
            with cachectl.cassette(path, "record"):
                ask("one")
            mode = "all" if mode == "record" else mode
        bought = endpoint.requests
        with read_only(path.parent, tmp_path / "view") as view:
            for place in (view / path.name, view / "below" / path.name):
                with (
                    pytest.raises(cachectl.StoreUnavailableError, match="cannot be written"),
                    cachectl.cassette(place, mode),
                ):
                    ask("two")
            assert ([path.name] if there else []) == [one.name for one in view.iterdir()]
        assert bought == endpoint.requests

    @pytest.mark.parametrize("place", ["file/answers.jsonl", "file/below/answers.jsonl", "loop", "device"])
    @pytest.mark.parametrize("mode", ["record", "new", "all"])
    def test_recording_where_there_can_be_no_file(
        self, endpoint: Endpoint, tmp_path: Path, mode: Any, place: str
    ) -> None:
        """Below a file, in a circle of links or in the place of a device nothing is asked, and nothing is changed."""
        (tmp_path / "file").write_text("precious")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        make_device(tmp_path / "null")
        (tmp_path / "device").symlink_to(tmp_path / "null")
        before = (tmp_path / "null").lstat()
        with pytest.raises(cachectl.StoreUnavailableError), cachectl.cassette(tmp_path / place, mode):
            ask("one")
        assert (0, "precious") == (endpoint.requests, (tmp_path / "file").read_text())
        assert (tmp_path / "loop").is_symlink()
        after = (tmp_path / "null").lstat()
        assert (before.st_mode, before.st_ino) == (after.st_mode, after.st_ino)

    def test_a_full_disk(self, endpoint: Endpoint, path: Path, tmp_path: Path) -> None:
        """On a full disk answers reach the program; with room again all of them are in the file."""
        endpoint.configure(answers={"large": ["word " * 20_000]})
        with small_disk(tmp_path / "disk") as disk:
            path = disk.path / "answers.jsonl"
            with cachectl.cassette(path, "record") as opened:
                recorded = ask("one")
                disk.fill()
                recorded += ask("large", "two")
                disk.free()
                recorded += ask("three")
            assert_counted(opened.stats, fresh=4, requests=4, failed_writes=2)
            assert (4, []) == (len(recordings(path)), left_over(disk.path))
            with cachectl.cassette(path):
                assert recorded == ask("one", "large", "two", "three")
        assert endpoint.requests == 4

    def test_a_disk_that_stays_full(self, endpoint: Endpoint, path: Path, tmp_path: Path) -> None:
        """What is there stays whole, the end raises, and what was written down is in the next recording."""
        with small_disk(tmp_path / "disk") as disk:
            path = disk.path / "answers.jsonl"
            with cachectl.cassette(path, "record"):
                recorded = ask("one")
            before = path.read_bytes()
            with (
                pytest.raises(cachectl.StoreUnavailableError, match="cannot be written"),
                cachectl.cassette(path, "new"),
            ):
                recorded += ask_and("two", disk.fill)
            assert before == path.read_bytes()
            disk.free()
            with cachectl.cassette(path, "new"):
                assert recorded == ask("one", "two")
            assert [] == left_over(disk.path)
        assert endpoint.requests == 2


class TestProvider:
    def test_errors(self, endpoint: Endpoint, path: Path) -> None:
        """A call that failed is not recorded; one that DSPy retried is."""
        dspy.settings.lm.num_retries = 2
        endpoint.fail("status", status=500, times=1, match="again")
        endpoint.fail("status", status=400, match="refused")
        with cachectl.cassette(path, "record") as opened:
            recorded = ask("again")
            with pytest.raises(Exception, match="400"):
                ask("refused")
        assert (1, 1) == (opened.recorded, opened.stats.failed)
        bought = endpoint.requests
        with cachectl.cassette(path):
            assert recorded == ask("again")
        with pytest.raises(cachectl.CacheMissError), cachectl.cassette(path):
            ask("refused")
        assert bought == endpoint.requests

    @pytest.mark.parametrize("kind", ["empty", "content_filter", "length"])
    def test_answers_that_no_store_keeps(self, endpoint: Endpoint, path: Path, kind: str) -> None:
        """An empty, refused or cut answer is recorded, since the program went on with it."""
        endpoint.fail(kind)
        with cachectl.cassette(path, "record"):
            recorded = dspy.settings.lm("one")
        with cachectl.cassette(path):
            assert recorded == dspy.settings.lm("one")
        assert endpoint.requests == 1

    def test_answers_that_do_not_parse(self, endpoint: Endpoint, path: Path) -> None:
        """An adapter's second try after an answer that it could not read replays with both."""
        endpoint.fail("garbage", times=1)
        with cachectl.cassette(path, "record") as opened:
            recorded = qa()(question="Q?").answer
        assert 2 == opened.recorded == endpoint.requests
        with cachectl.cassette(path) as replay:
            assert recorded == qa()(question="Q?").answer
        assert [] == replay.unused
        assert endpoint.requests == 2

    def test_an_error_of_the_program(self, endpoint: Endpoint, path: Path) -> None:
        """What was bought before the program failed is recorded."""
        with pytest.raises(ZeroDivisionError), cachectl.cassette(path, "new"):
            ask_and("one", lambda: 1 / 0)
        with cachectl.cassette(path, "new") as opened:
            ask("one")
        assert_counted(opened.stats, resumed=1)
        assert endpoint.requests == 1


def test_forked_children_record_nothing_twice(endpoint: Endpoint, child: Callable[..., Any], path: Path) -> None:
    """A cassette in a process that forks: the child's end does not write, and the parent's recording is whole."""
    script = """
        import multiprocessing, os, sys, dspy
        import dspy_cachectl as cachectl
        lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")
        with cachectl.cassette(sys.argv[1], "record"):
            first = lm("one")
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            second = lm("two")
        print(len(open(sys.argv[1]).readlines()))
    """
    assert 3 == child(script, str(path)).data
    assert endpoint.requests == 2
