"""The pytest plugin with pytest-xdist: several workers record into one file, and what each saw is what is replayed."""

from __future__ import annotations

import pytest

from tests.replay.plugin.suites import Suite
from tests.replay.support import left_over

TESTS = """
import os

import pytest
from conftest import ask, make_lm

pytestmark = pytest.mark.cachectl


@pytest.mark.parametrize("number", range(6))
def test_many(say, number):
    say(ask("Same?"), ask("Same?"))
    ask(f"Number {number}?" if number or "WORDS" not in os.environ else os.environ["WORDS"])
"""

FIXTURES = """
import pytest
from conftest import ask, make_lm

pytestmark = pytest.mark.cachectl


@pytest.fixture(scope="session")
def prepared():
    return make_lm()("prepare")[0]


@pytest.mark.parametrize("group", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in "abcd"])
def test_group(say, group, prepared):
    say(prepared, ask(f"Following from {prepared}"))
"""


def test_what_workers_record_is_replayed_by_one_process_and_by_workers(suite: Suite) -> None:
    """Each test is answered as it was recorded, whoever ran it; the summary adds the workers up."""
    suite.write("test_qa.py", TESTS)
    recorded = suite.run("--cachectl=record", "-n2")
    assert (0, {"passed": 6}, 18) == (recorded.code, recorded.counts(), recorded.requests), recorded.text
    assert 1 == sum(line.startswith("18 answers recorded") for line in recorded.result.outlines)
    assert dict.fromkeys((f"test_many[{number}]" for number in range(6)), 3) == suite.scopes()
    assert [] == left_over(suite.cassette(""))
    for arguments in ((), ("-n2",)):
        replayed = suite.replay(*arguments, REVERSED="1")
        assert (0, recorded.answers) == (replayed.code, replayed.answers), replayed.text
        assert 1 == sum(line.startswith("18 calls replayed") for line in replayed.result.outlines)


@pytest.mark.exhaustive
def test_what_one_process_recorded_is_replayed_by_workers(suite: Suite) -> None:
    """And what is missing, or not used, is reported from the workers."""
    suite.write("test_qa.py", TESTS)
    recorded = suite.run("--cachectl=record")
    replayed = suite.replay("-n2", "--cachectl-strict")
    assert (0, recorded.answers) == (replayed.code, replayed.answers), replayed.text
    missing = suite.replay("-n2", WORDS="Number zero?")
    assert (1, {"passed": 5, "failed": 1}) == (missing.code, missing.counts())
    assert "asked 'zero?', stored '0?'" in missing.text
    suite.write("test_qa.py", TESTS.replace("range(6)", "range(5)"))
    unused = suite.replay("-n2", "--cachectl-strict")
    assert (1, {"passed": 5}) == (unused.code, unused.counts())
    assert "cassettes/test_qa.jsonl: 3 recordings not used" in unused.text


@pytest.mark.exhaustive
def test_a_fixture_that_each_worker_sets_up_is_replayed_and_not_recorded_by_workers(suite: Suite) -> None:
    """Each would be given another answer, and what follows from it could not be replayed: one sentence refuses it."""
    suite.write("test_qa.py", FIXTURES)
    workers = ("-n2", "--dist=loadgroup")
    for mode in ("record", "all"):
        refused = suite.run(f"--cachectl={mode}", *workers)
        assert ({"errors": 4}, 0) == (refused.counts(), refused.requests), refused.text
        assert 4 == refused.text.count("the fixture 'prepared' lasts longer than a test, and each worker of ")
    assert not suite.cassette("").exists()
    recorded = suite.run("--cachectl=record")
    assert (0, 5) == (recorded.code, recorded.requests), recorded.text
    for ran in (suite.replay(*workers), suite.run("--cachectl=record", *workers)):
        assert (0, 0, recorded.answers) == (ran.code, ran.requests, ran.answers), ran.text
