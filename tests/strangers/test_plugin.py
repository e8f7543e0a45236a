"""The pytest plugin beside other people's files: it cleans its cassettes of what is not used, and removes no file."""

from __future__ import annotations

import random
import sys

import pytest

from tests.endpoint import Endpoint
from tests.replay.plugin.suites import Suite
from tests.strangers.folders import HARMLESS, Strangers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes and devices among files")

TESTS = """
import pytest
from conftest import ask

pytestmark = pytest.mark.cachectl

def test_one():
    ask("one")

{second}
"""
SECOND = """
def test_two():
    ask("two")
"""


def test_files_of_others_stay(pytester: pytest.Pytester, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each mode, with recordings whose test is gone, and with cassettes of tests that are gone."""
    suite = Suite(pytester, endpoint, monkeypatch)
    suite.write("test_qa.py", TESTS.format(second=SECOND))
    suite.write("test_gone.py", TESTS.format(second=""))
    assert 0 == suite.run("--cachectl=record").code
    gone = suite.cassette("test_gone.jsonl").read_bytes()
    (suite.folder / "test_gone.py").unlink()
    suite.write("test_qa.py", TESTS.format(second=""))
    strangers, rng = Strangers(suite.folder), random.Random(1)
    (suite.folder / "elsewhere").mkdir()
    names = [*HARMLESS, ".test_qa.jsonl.01234567.new", "test_mine.jsonl", ".test_gone.jsonl.01234567.unsaved"]
    for name in names:
        strangers.place(rng, suite.cassette(name))

    for mode in ("replay", "record", "new", "all"):
        assert 0 == suite.run(f"--cachectl={mode}", "test_qa.py").code

    strangers.close()
    assert {"test_one": 1} == suite.scopes()
    assert gone == suite.cassette("test_gone.jsonl").read_bytes()
    assert {} == strangers.changed()
