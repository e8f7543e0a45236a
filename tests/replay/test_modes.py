"""What each mode of a cassette asks for, records and keeps. The provider's count says what was asked."""

from __future__ import annotations

import difflib
import json
import subprocess
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.context.open_cassette import Recording
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.replay import files
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, gold, qa, question
from tests.endpoint import Endpoint
from tests.replay.support import ask, left_over, lines, recordings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "answers.jsonl"


def swallow_a_miss(then: BaseException) -> None:
    """What a program may do that catches everything, and fails later."""
    with pytest.raises(cachectl.CacheMissError):
        ask("one")
    raise then


@pytest.fixture(autouse=True)
def _lm(lm: MakeLM) -> None:
    dspy.configure(lm=lm(temperature=1.0))


class TestModes:
    def test_record_then_replay(self, endpoint: Endpoint, path: Path) -> None:
        """`record` records where there is no file, replays where there is one, and adds nothing to it."""
        with cachectl.cassette(path, "record") as first:
            recorded = ask("one", "two")
        with cachectl.cassette(path, "record") as second:
            assert recorded == ask("one", "two")
        assert endpoint.requests == 2
        assert (2, 0) == (first.recorded, second.recorded)
        assert_counted(first.stats, fresh=2, requests=2)
        assert_counted(second.stats, replayed=2, requests=0)
        with pytest.raises(cachectl.CacheMissError, match='in the mode "new"'), cachectl.cassette(path, "record"):
            ask("three")
        assert endpoint.requests == 2

    def test_replay_of_nothing(self, endpoint: Endpoint, path: Path) -> None:
        """Without a file there is nothing to replay; the message says how to record it."""
        with pytest.raises(cachectl.ConfigurationError, match='in the mode "record"'), cachectl.cassette(path):
            pass
        assert not path.parent.exists()

    def test_new_records_what_is_missing(self, endpoint: Endpoint, path: Path) -> None:
        """`new` serves what is recorded and asks for the rest; the file then has both."""
        with cachectl.cassette(path, "new"):
            recorded = ask("one", "two")
        with cachectl.cassette(path, "new") as again:
            answers = ask("one", "three", "two", "two")
        assert [recorded[0], recorded[1]] == [answers[0], answers[2]]
        assert endpoint.requests == 4
        assert_counted(again.stats, reused=0, resumed=2, fresh=2, requests=2)
        with cachectl.cassette(path) as replay:
            assert answers == ask("one", "three", "two", "two")
        assert (4, []) == (len(recordings(path)), replay.unused)

    def test_all_asks_anew(self, endpoint: Endpoint, path: Path) -> None:
        """`all` asks for everything again, and keeps what was not asked for."""
        with cachectl.cassette(path, "record"):
            before = ask("one", "two")
        with cachectl.cassette(path, "all") as again:
            after = ask("one")
        assert before[0] != after[0]
        assert (3, 1, 1) == (endpoint.requests, again.recorded, len(again.unused))
        with cachectl.cassette(path):
            assert [after[0], before[1]] == ask("one", "two")

    def test_a_name_that_is_none(self, path: Path) -> None:
        """A misspelt mode is refused, with the known ones."""
        with pytest.raises(cachectl.ConfigurationError, match="'replay', 'record', 'new', 'all'"):
            cachectl.cassette(path, "once")  # type: ignore[arg-type]

    def test_a_redact_that_is_none(self, path: Path) -> None:
        """`redact=` is a function."""
        with pytest.raises(cachectl.ConfigurationError, match="from text to text"):
            cachectl.cassette(path, "record", redact="name")  # type: ignore[arg-type]


class TestDraws:
    def test_draws_of_one_request(self, endpoint: Endpoint, path: Path) -> None:
        """Outside phases each call is recorded by itself; the draws come back in their order, and three are no four."""
        with cachectl.cassette(path, "record"):
            recorded = ask("one", "one", "one")
        assert len(set(recorded)) == 3
        with cachectl.cassette(path):
            assert recorded == ask("one", "one", "one")
        with pytest.raises(cachectl.CacheMissError), cachectl.cassette(path):
            ask(*["one"] * 4)
        assert endpoint.requests == 3

    def test_no_draw_is_served_twice(self, endpoint: Endpoint, path: Path) -> None:
        """A phase that asks once more than it did takes no other phase's draw unseen: the last call misses."""

        def program(found: list[str], *counts: int) -> None:
            for count in counts:
                with cachectl.phase("eval"):
                    found += ask(*["one"] * count)

        recorded: list[str] = []
        with cachectl.cassette(path, "record"):
            program(recorded, 2, 2)
        served: list[str] = []
        with pytest.raises(cachectl.CacheMissError), cachectl.cassette(path):
            program(served, 3, 2)
        assert sorted(served) == sorted(recorded[:3])
        assert endpoint.requests == 4

    def test_a_reused_answer_is_no_draw(self, endpoint: Endpoint, path: Path) -> None:
        """What `compile` reuses is not given to `eval` as a fresh draw."""
        with cachectl.cassette(path, "record"), cachectl.phase("compile"):
            assert 1 == len(set(ask("one", "one")))
        with pytest.raises(cachectl.CacheMissError), cachectl.cassette(path), cachectl.phase("eval"):
            ask("one")
        assert endpoint.requests == 1

    def test_policies_of_phases(self, endpoint: Endpoint, path: Path) -> None:
        """`compile` reuses within a cassette, `eval` draws, OFF and REFRESH ask each time; all of it replays."""

        def program() -> list[list[str]]:
            found = []
            policies = (None, None, cachectl.Policy.OFF, cachectl.Policy.REFRESH)
            for name, policy in zip(("compile", "eval", "off", "anew"), policies, strict=True):
                with cachectl.phase(name, policy):
                    found.append(ask("one", "one"))
            return found

        with cachectl.cassette(path, "record"):
            recorded = program()
        assert [1, 2, 2, 2] == [len(set(answers)) for answers in recorded]
        assert endpoint.requests == 7
        with cachectl.cassette(path):
            assert recorded == program()
        assert endpoint.requests == 7


class TestMisses:
    def test_raised(self, endpoint: Endpoint, path: Path) -> None:
        """A call without a recording names the cassette, the nearest recording and what differs."""
        with cachectl.cassette(path, "record"):
            ask(question(1), "something else")
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.cassette(path) as opened:
            ask(question(2))
        assert str(path) in str(miss.value)
        assert miss.value.nearest is not None
        assert "asked '002?', stored '001?'" in str(miss.value)
        assert str(path) == miss.value.cassette
        assert [miss.value] == opened.misses
        assert endpoint.requests == 1 + 1

    def test_raised_again_at_the_end(self, endpoint: Endpoint, path: Path) -> None:
        """`Evaluate` swallows misses and scores them 0.0; the end of the cassette raises them all the same."""
        endpoint.configure(gold=gold(5), accuracy=1.0)
        with cachectl.cassette(path, "record"):
            assert evaluate(qa(), examples(3)) == 100.0
        with pytest.raises(cachectl.ReplayIncompleteError) as ending, cachectl.cassette(path) as opened:
            assert evaluate(qa(), examples(5)) == 60.0
        assert (2, 2) == (ending.value.count, len(opened.misses))
        assert "asked '003?'" in str(ending.value) or "asked '004?'" in str(ending.value)
        assert endpoint.requests == 3
        assert_counted(opened.stats, replayed=3, missed=2)

    def test_swallowed_in_a_phase(self, endpoint: Endpoint, path: Path) -> None:
        """A phase within the cassette that ends raises too, and what it raised is not raised a second time."""
        with cachectl.cassette(path, "record"):
            pass
        with pytest.raises(cachectl.ReplayIncompleteError), cachectl.cassette(path), cachectl.phase("eval") as run:
            evaluate(qa(), examples(2))
        assert run.stats.missed == 2
        assert endpoint.requests == 0

    def test_another_error_of_the_program(self, path: Path) -> None:
        """An error that a swallowed miss may have led to is the cause of what is raised."""
        with cachectl.cassette(path, "record"):
            pass
        with pytest.raises(cachectl.ReplayIncompleteError) as ending, cachectl.cassette(path):
            swallow_a_miss(KeyError("led astray"))
        assert isinstance(ending.value.__cause__, KeyError)

    def test_interruptions(self, path: Path) -> None:
        """What interrupts the program goes through, misses or not."""
        with cachectl.cassette(path, "record"):
            pass
        with pytest.raises(KeyboardInterrupt), cachectl.cassette(path):
            swallow_a_miss(KeyboardInterrupt())

    def test_a_renamed_phase(self, endpoint: Endpoint, path: Path) -> None:
        """The draws of a phase that has another name now are served all the same."""
        with cachectl.cassette(path, "record"), cachectl.phase("eval"):
            recorded = ask("one", "one")
        with cachectl.cassette(path), cachectl.phase("test", cachectl.Policy.FRESH):
            assert recorded == ask("one", "one")
        assert endpoint.requests == 2


def same_each_time(endpoint: Endpoint) -> None:
    endpoint.configure(answers={f"{word}": [f"the answer to {word}"] for word in ("one", "two", "three", "four")})


class TestFiles:
    @pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.zst"])
    @pytest.mark.parametrize("mode", ["all", "new"])
    def test_the_same_answers_change_nothing(self, endpoint: Endpoint, path: Path, name: str, mode: Any) -> None:
        """Recording the same answers again leaves the file as it is, byte for byte."""
        path = path.with_name(name)
        same_each_time(endpoint)
        with cachectl.cassette(path, "record"), cachectl.phase("compile"):
            ask("one", "two", "three")
        before, stamp = path.read_bytes(), path.stat().st_mtime_ns
        with cachectl.cassette(path, mode), cachectl.phase("compile"):
            ask("three", "two", "one")
        assert (3 if mode == "new" else 6) == endpoint.requests
        assert (before, stamp) == (path.read_bytes(), path.stat().st_mtime_ns)
        assert [] == left_over(path.parent)

    def test_one_changed_prompt_changes_one_line(self, endpoint: Endpoint, path: Path) -> None:
        """A prompt that is worded otherwise adds its line; all other lines stay."""
        same_each_time(endpoint)
        with cachectl.cassette(path, "record"):
            ask("one", "two", "three", "four")
        before = path.read_text().splitlines()
        with cachectl.cassette(path, "all"):
            ask("one", "two, please", "three", "four")
        after = path.read_text().splitlines()
        diff = list(difflib.unified_diff(before[1:], after[1:], n=0, lineterm=""))[2:]
        assert [1, 0] == [sum(line.startswith(sign) for line in diff) for sign in "+-"]
        assert "two, please" in diff[-1]

    def test_a_changed_answer_changes_one_line(self, endpoint: Endpoint, path: Path) -> None:
        """Of what is recorded anew only the line changes whose answer did."""
        same_each_time(endpoint)
        with cachectl.cassette(path, "record"):
            ask("one", "two", "three")
        before = path.read_text().splitlines()
        endpoint.configure(
            answers={"one": ["another answer"], "two": ["the answer to two"], "three": ["the answer to three"]}
        )
        with cachectl.cassette(path, "all"):
            ask("one", "two", "three")
        changed = [new for old, new in zip(before[1:], path.read_text().splitlines()[1:], strict=True) if old != new]
        assert 1 == len(changed)
        assert "another answer" in changed[0]

    def test_another_argument_of_a_tool_is_another_answer(self, path: Path) -> None:
        """What is called `id` differs each time; in the arguments of a tool it is what was answered."""

        def recording(response: str, argument: int) -> Recording:
            call = {"type": "tool_call", "id": response, "name": "find", "input": {"id": argument}}
            one = {"key": "a" * 64, "asked": "b" * 64, "origin": {"kind": "lm", "model": "m"}, "answer": [call]}
            return files.from_line(json.dumps(one).encode())

        files.write(path, [recording("first", 1)], before=files.CassetteFile())
        first = path.read_bytes()
        files.write(path, [recording("second", 1)], before=files.read(path))
        assert first == path.read_bytes()
        files.write(path, [recording("second", 2)], before=files.read(path))
        assert {"id": 2} == recordings(path)[0]["answer"][0]["input"]

    def test_lines_do_not_depend_on_the_order_of_calls(self, endpoint: Endpoint, tmp_path: Path) -> None:
        """The lines of a file are sorted by what was asked."""
        same_each_time(endpoint)
        texts = ["three", "one", "two", "one"]
        asked = []
        for name, order in (("a", texts), ("b", texts[::-1])):
            path = tmp_path / f"{name}.jsonl"
            with cachectl.cassette(path, "record"):
                ask(*order)
            asked.append([(one["key"], one["request"]) for one in recordings(path)])
        assert asked[0] == asked[1]
        words = [request["request"]["messages"][0]["content"] for _, request in asked[0]]
        assert ["one", "one", "three", "two"] == words

    def test_line_ends_and_order_of_somebody_else(self, endpoint: Endpoint, path: Path) -> None:
        """A file that an editor or a merge has rewritten, with other line ends and another order, is read."""
        with cachectl.cassette(path, "record"):
            recorded = ask("one", "two")
        head, *rest = path.read_bytes().splitlines()
        path.write_bytes(b"\r\n".join([head, *rest[::-1], b"", b""]))
        with cachectl.cassette(path):
            assert recorded == ask("one", "two")

    def test_a_merge_of_two_branches(self, endpoint: Endpoint, path: Path) -> None:
        """Git merges what two branches recorded besides; where it put a draw in twice, the last line counts."""
        with cachectl.cassette(path, "record"):
            base = ask("b", "c", "d")
        texts = [path.read_bytes()]
        for besides in ("a", "e"):
            path.write_bytes(texts[0])
            with cachectl.cassette(path, "new"), cachectl.phase("compile"):
                base += ask(besides)
            texts.append(path.read_bytes())
        branches = [path.with_name(name) for name in ("ours", "base", "theirs")]
        for branch, text in zip(branches, (texts[1], texts[0], texts[2]), strict=True):
            branch.write_bytes(text)
        merged = subprocess.run(["git", "merge-file", "-p", *branches], capture_output=True, check=True).stdout
        path.write_bytes(merged + merged.splitlines()[1] + b"\n")
        with cachectl.cassette(path) as opened:
            again = ask("b", "c", "d")
            with cachectl.phase("compile"):
                again += ask("a", "e")
        assert (base, []) == (again, opened.unused)

    def test_an_empty_recording(self, path: Path) -> None:
        """A block without calls leaves a header, so that its replay knows that it makes none."""
        with cachectl.cassette(path, "record"):
            pass
        assert 1 == len(lines(path))
        with cachectl.cassette(path) as opened:
            pass
        assert 0 == opened.stats.calls

    def test_the_header(self, endpoint: Endpoint, path: Path) -> None:
        """The first line says the format and nothing of who wrote it and when: two branches have the same."""
        with cachectl.cassette(path, "record"), cachectl.phase("compile"):
            ask("one")
        assert b'{"cassette":3,"keys":"cassette"}' == path.read_bytes().splitlines()[0]


@pytest.mark.parametrize("path", ["a\0b", "half\ud83d"])
def test_what_can_be_no_path_is_refused(path: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ConfigurationError, match=r"a cassette cannot be called .*; name a file"):
        cachectl.cassette(path, mode="record")
