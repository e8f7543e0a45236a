"""The pytest plugin where something goes wrong: a test that fails in the middle, and a merge of two branches."""

from __future__ import annotations

import pytest

from tests.replay.plugin.suites import Suite
from tests.replay.repositories import Repository
from tests.replay.support import unfinished

TESTS = """
    import os

    import pytest
    from conftest import ask

    pytestmark = pytest.mark.cachectl

    def test_it(say):
        found = [ask(f"Number {number}?") for number in range(10)]
        if "BROKEN" in os.environ:
            raise eval(os.environ["BROKEN"])
        say(*found, *(ask(f"Number {number}?") for number in range(10, 25)))
"""


@pytest.mark.parametrize(
    "broken",
    [
        "KeyboardInterrupt",
        *(
            pytest.param(error, marks=pytest.mark.exhaustive)
            for error in ("AssertionError", "pytest.skip.Exception('later')")
        ),
    ],
)
def test_a_test_that_failed_in_the_middle(suite: Suite, broken: str) -> None:
    """Its recording is unfinished, which the summary says, and the next recording goes on with it."""
    suite.write("test_qa.py", TESTS)
    failed = suite.run("--cachectl=record", BROKEN=broken)
    assert (10, ["test_it"]) == (failed.requests, unfinished(suite.cassette("test_qa.jsonl")))
    assert "cassettes/test_qa.jsonl: 1 recording cut short; --cachectl=record goes on" in failed.text
    assert "  test_it" in failed.result.outlines
    mended = suite.run("--cachectl=record")
    assert (0, 15, []) == (mended.code, mended.requests, unfinished(suite.cassette("test_qa.jsonl")))
    assert "cut short" not in mended.text
    assert (mended.answers, 0) == (suite.replay().answers, suite.run("--cachectl=record").requests)


def test_a_test_that_is_to_fail(suite: Suite) -> None:
    """A test that failed as it is expected to has come to its end, and so has one whose assertion is the last."""
    suite.write("test_qa.py", TESTS.replace("def test_it", "@pytest.mark.xfail\n    def test_it"))
    expected = suite.run("--cachectl=record", BROKEN="AssertionError")
    assert ({"xfailed": 1}, 10) == (expected.counts(), expected.requests)
    assert [] == unfinished(suite.cassette("test_qa.jsonl"))
    assert "cut short" not in expected.text


def test_a_fixture_that_failed_in_the_middle(suite: Suite) -> None:
    """A lasting fixture's recording is gone on with, too, and those of other tests are whole."""
    suite.write(
        "test_qa.py",
        """
        import os

        import pytest
        from conftest import ask, make_lm

        @pytest.fixture(scope="module")
        def lasting():
            make_lm()("One?")
            assert "BROKEN" not in os.environ
            return make_lm()("Two?")[0]

        @pytest.mark.cachectl
        def test_with(lasting, say): say(lasting, ask("Three?"))

        @pytest.mark.cachectl
        def test_without(say): say(ask("Four?"))
        """,
    )
    failed = suite.run("--cachectl=record", BROKEN="1")
    assert (2, ["lasting (fixture)"]) == (failed.requests, unfinished(suite.cassette("test_qa.jsonl")))
    mended = suite.run("--cachectl=record")
    assert (0, 2, []) == (mended.code, mended.requests, unfinished(suite.cassette("test_qa.jsonl")))
    assert mended.answers == suite.replay().answers


def test_tests_added_on_two_branches(suite: Suite) -> None:
    """The plugin's cassette of a test file to which two branches have added a test each, and one that both added."""
    suite.write(
        "test_qa.py",
        """
        import pytest
        from conftest import ask

        pytestmark = pytest.mark.cachectl

        def test_base(say): say(ask("Base?"))
        def test_ours(say): say(ask("Ours?"))
        def test_theirs(say): say(ask("Theirs?"))
        """,
    )
    repository = Repository(suite.folder, "cassettes/test_qa.jsonl")
    (suite.folder / ".gitignore").write_text("*\n!cassettes\n!cassettes/*\n", encoding="utf-8")
    answers = suite.run("--cachectl=record", "-k", "base").answers
    repository.commit("base")
    repository.git("checkout", "-q", "-b", "theirs")
    answers |= suite.run("--cachectl=record", "-k", "theirs").answers
    repository.commit("theirs")
    repository.git("checkout", "-q", "main")
    answers |= suite.run("--cachectl=record", "-k", "ours").answers
    repository.commit("ours")
    assert not repository.merge()  # both are after the base's
    named = suite.replay()
    assert (1, 0) == (named.code, named.requests)
    assert "version control left a conflict here" in named.text
    # One test is recorded anew, and the others have what they had.
    answers |= suite.run("--cachectl=all", "-k", "ours").answers
    assert answers == suite.replay().answers
