"""The pytest plugin: off until it is asked, its options and what it says at the end."""

from __future__ import annotations

import pytest

from tests.replay.plugin.suites import Suite

TESTS = """
import os

import pytest
from conftest import ask


def words():
    return os.environ.get("WORDS", "One? Two? Three?").split()


@pytest.mark.cachectl
def test_marked(say):
    say(*(ask(word) for word in words()))
    if "OUTCOME" in os.environ:
        getattr(pytest, os.environ["OUTCOME"])("as the environment says")


@pytest.mark.cachectl
def test_other(say):
    say(ask("Other?"))
"""


def test_it_is_off_until_it_is_asked(suite: Suite) -> None:
    """Without a marker, the fixture or an option nothing of DSPy is loaded, and nothing is written or printed."""
    suite.write(
        "test_plain.py",
        """
        import sys

        import pytest

        @pytest.fixture(scope="module")
        def module(): return 1

        @pytest.mark.unconfigured
        def test_plain(module, tmp_path, request):
            loaded = [name for name in sys.modules if name.split(".")[0] in ("dspy", "litellm", "mlflow", "orjson")]
            assert [] == loaded
            assert "dspy_cachectl.replay.open_test_cassette" not in sys.modules
            assert not [name for name in request.fixturenames if "cachectl" in name]
        """,
    )
    for arguments in ((), ("--cachectl=record",), ("--cachectl=off",)):
        ran = suite.run(*arguments, fresh=True)
        assert (0, {"passed": 1}) == (ran.code, ran.counts()), ran.text
        assert "= cassettes =" not in ran.text
    assert not suite.cassette("").exists()


def test_an_unmarked_test_is_left_as_it_is(suite: Suite) -> None:
    """Before and after a marked test, DSPy's own cache is in place and calls go through, whatever the mode."""
    suite.write(
        "test_qa.py",
        """
        import dspy
        import pytest

        def plain(text):
            lm = dspy.LM("openai/test-model", api_base=ENDPOINT["api_base"], api_key="k", temperature=1.0)
            return lm(text)

        @pytest.fixture(autouse=True)
        def _endpoint():
            import os
            global ENDPOINT
            ENDPOINT = {"api_base": os.environ["SUITE_URL"]}

        @pytest.mark.unconfigured
        def test_a():
            assert plain("unmarked")
            assert type(dspy.cache).__module__ == "dspy.clients.cache"

        @pytest.mark.unconfigured
        @pytest.mark.cachectl
        def test_b():
            assert plain("marked")
            assert type(dspy.cache).__module__ == "dspy_cachectl.calls.cache"

        @pytest.mark.unconfigured
        def test_c():
            assert plain("unmarked as well")
            assert type(dspy.cache).__module__ == "dspy.clients.cache"
        """,
    )
    recorded = suite.run("--cachectl=record")
    assert (0, 3) == (recorded.code, recorded.requests), recorded.text
    assert {"test_b": 1} == suite.scopes()
    # The unmarked ones find the answers that DSPy has kept on the disk.
    assert 0 == suite.run("--cachectl=replay", "-k", "test_b").requests


def test_the_fixture_asks_for_a_cassette_and_gives_it(suite: Suite) -> None:
    """A test that uses `cachectl_cassette` needs no marker, and sees what happened in its own cassette."""
    suite.write(
        "test_qa.py",
        """
        import os

        from conftest import ask

        def test_it(cachectl_cassette, say):
            say(ask("Same?"), ask("Same?"))
            if "OFF" in os.environ:
                assert cachectl_cassette is None
                return
            stats = cachectl_cassette.stats
            say(stats.calls, stats.requests, stats.replayed, cachectl_cassette.recorded, cachectl_cassette.path.name)
        """,
    )
    assert [2, 2, 0, 2, "test_qa.jsonl"] == suite.run("--cachectl=record").answers["test_it"]
    assert [2, 0, 2, 0, "test_qa.jsonl"] == suite.replay().answers["test_it"]
    off = suite.run("--cachectl=off", OFF="1")
    assert (0, {"passed": 1}) == (off.code, off.counts()), off.text
    assert off.requests > 0


def test_options_and_markers_choose_the_mode(suite: Suite) -> None:
    """The command line is over the marker, the marker over the configuration; a test that is off stays off."""
    suite.write(
        "test_qa.py",
        """
        import pytest
        from conftest import ask

        @pytest.mark.cachectl(mode="new")
        def test_new(say): say(ask("Same?"))

        @pytest.mark.cachectl(mode="off")
        def test_off(say): say(ask("Off?"))

        class TestClass:
            pytestmark = pytest.mark.cachectl(mode="replay", cassette="classes.jsonl")

            @pytest.mark.cachectl(mode="new")
            def test_merged(self, say): say(ask("Same?"))

        def test_unmarked(say): say(ask("Unmarked?"))
        """,
    )
    marked = suite.run()
    assert (0, 4) == (marked.code, marked.requests), marked.text
    assert {"test_new": 1} == suite.scopes()
    assert {"../test_qa.py::TestClass::test_merged": 1} == suite.scopes("classes.jsonl")
    assert 2 == suite.run("--cachectl=all", "-k", "new or merged or off").requests
    assert {"test_new": 1} == suite.scopes()
    assert 0 == suite.run("--cachectl=replay", "-k", "new or merged").requests
    suite.set("cachectl_mode = record", "cachectl_all = true", "cachectl_folder = fixtures/llm")
    everything = suite.run("-k", "not test_off")
    assert (0, 3) == (everything.code, everything.requests), everything.text
    found = sorted(path.relative_to(suite.folder).as_posix() for path in suite.folder.rglob("fixtures/llm/*"))
    assert ["fixtures/llm/classes.jsonl", "fixtures/llm/test_qa.jsonl"] == found
    replayed = suite.replay("-k", "not test_off")
    assert (0, everything.answers) == (replayed.code, replayed.answers)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("cachectl_mode = sometimes", "cachectl_mode is one of replay, record, new, all, off, not 'sometimes'"),
        ("cachectl_folder = ../elsewhere", "cachectl_folder names a folder beside each test file"),
    ],
)
def test_settings_that_cannot_be_used_are_usage_errors(suite: Suite, option: str, message: str) -> None:
    """pytest ends before the first test, with its code for that."""
    suite.set(option)
    suite.write("test_qa.py", TESTS)
    ran = suite.run()
    assert 4 == ran.code
    assert message in ran.text


def test_markers_that_cannot_be_used_fail_their_tests(suite: Suite) -> None:
    """Each failure names the test and what the marker takes, and the other tests run."""
    suite.write(
        "test_qa.py",
        """
        import pytest

        @pytest.mark.cachectl("name.jsonl")
        def test_positional(): pass

        @pytest.mark.cachectl(casette="name.jsonl")
        def test_misspelt(): pass

        @pytest.mark.cachectl(mode="once")
        def test_mode(): pass

        @pytest.mark.cachectl(cassette=3)
        def test_name(): pass

        @pytest.mark.cachectl(redact="secret")
        def test_redact(): pass

        def test_good(): pass
        """,
    )
    ran = suite.run()
    assert {"errors": 5, "passed": 1} == ran.counts(), ran.text
    for words in (
        "test_qa.py::test_positional: the marker 'cachectl' takes cassette=, mode=, redact=, not 'name.jsonl'",
        "test_qa.py::test_misspelt: the marker 'cachectl' takes cassette=, mode=, redact=, not casette",
        "test_qa.py::test_mode: the marker's mode= is one of 'replay', 'record', 'new', 'all', 'off', not 'once'",
        "test_qa.py::test_name: the marker's cassette= is the name of a file, not 3",
        "test_qa.py::test_redact: the marker's redact= is a function from text to text, not 'secret'",
    ):
        assert words in ran.text


def test_a_damaged_cassette_fails_its_tests_with_the_line(suite: Suite) -> None:
    """The failure names the test, the file and the line."""
    suite.write("test_qa.py", TESTS)
    suite.run("--cachectl=record")
    path = suite.cassette("test_qa.jsonl")
    path.write_text(path.read_text(encoding="utf-8") + '{"scope": 3}\n', encoding="utf-8")
    ran = suite.replay()
    assert {"errors": 2} == ran.counts()
    for name in ("test_marked", "test_other"):
        assert f"test_qa.py::{name}: {path}, line 6: the line is no recording" in ran.text


def test_the_summary_counts_calls_and_tokens(suite: Suite) -> None:
    """One line says what was recorded, and later what was not paid again."""
    suite.write("test_qa.py", TESTS)
    recorded, replayed = suite.run("--cachectl=record"), suite.replay()
    first = next(line for line in recorded.result.outlines if "recorded," in line)
    again = next(line for line in replayed.result.outlines if "replayed," in line)
    tokens = first.split("4 answers recorded, ")[1].split(" tokens spent")[0]
    assert int(tokens.replace(",", "")) > 100
    assert f"4 calls replayed, {tokens} tokens not spent" == again
    both = suite.run("--cachectl=new", WORDS="One? Two? Three? Four?").result.outlines
    assert any(line.startswith("4 calls replayed") and "; 1 answer recorded" in line for line in both)


def test_recordings_that_a_test_no_more_asks_for_are_reported(suite: Suite) -> None:
    """The summary names the file, the test and the request, where the test ran through; `all` removes them."""
    suite.write("test_qa.py", TESTS)
    suite.run("--cachectl=record")
    used = suite.replay()
    assert "not used" not in used.text
    for env in ({"OUTCOME": "skip"}, {"OUTCOME": "fail"}, {"OUTCOME": "xfail"}):
        assert "not used" not in suite.replay(WORDS="One?", **env).text
    assert "not used" not in suite.replay("-k", "other", WORDS="One?").text
    unused = suite.replay(WORDS="One?")
    assert (0, 0) == (unused.code, unused.requests)
    assert "cassettes/test_qa.jsonl: 2 recordings not used; --cachectl=all removes" in unused.text
    assert 2 == sum(line.startswith("  test_marked: ") for line in unused.result.outlines)
    assert any(line.startswith("  test_marked: ") and "Two?" in line for line in unused.result.outlines)
    strict = suite.replay("--cachectl-strict", WORDS="One?")
    assert (1, {"passed": 2}) == (strict.code, strict.counts())
    assert 0 == suite.replay("--cachectl-strict").code
    assert 2 == suite.run("--cachectl=all", WORDS="One?").requests
    assert {"test_marked": 1, "test_other": 1} == suite.scopes()


def test_recordings_of_a_test_that_is_no_more_are_reported(suite: Suite) -> None:
    """Only where the whole file was collected; a test that is deselected or not named keeps what it has."""
    suite.write("test_qa.py", TESTS)
    suite.run("--cachectl=record")
    suite.write("test_qa.py", TESTS.replace("def test_other", "def test_renamed"))
    quiet = (("-k", "marked"), ("test_qa.py::test_marked",))
    told = suite.replay("-k", "marked")
    assert "cassettes/test_qa.jsonl: 1 recording not used" in told.text
    assert any(line.startswith("  test_other: ") for line in told.result.outlines)
    assert "not used" not in suite.replay(*quiet[1]).text
    suite.run("--cachectl=all", *quiet[1])
    assert {"test_marked": 3, "test_other": 1} == suite.scopes()
    suite.run("--cachectl=all", *quiet[0])
    assert {"test_marked": 3} == suite.scopes()


def test_a_test_that_failed_keeps_what_it_did_not_ask_for(suite: Suite) -> None:
    """Recorded anew only in part, the rest stays: what was paid for is not lost to a failure."""
    suite.write("test_qa.py", TESTS)
    suite.run("--cachectl=record")
    failed = suite.run("--cachectl=all", "-k", "marked", WORDS="One?", OUTCOME="fail")
    assert (1, 1) == (failed.code, failed.requests)
    assert {"test_marked": 3, "test_other": 1} == suite.scopes()


def test_a_fixture_may_configure_the_cache_of_dspy(suite: Suite) -> None:
    """What it puts in place does not answer in place of the cassette."""
    suite.write(
        "test_qa.py",
        """
        import dspy
        import pytest
        from conftest import ask

        @pytest.fixture
        def configured(tmp_path):
            dspy.configure_cache(disk_cache_dir=str(tmp_path))

        @pytest.mark.cachectl
        def test_it(configured, say):
            say(ask("Same?"), ask("Same?"))
        """,
    )
    recorded = suite.run("--cachectl=record")
    assert (0, 2) == (recorded.code, recorded.requests), recorded.text
    assert {"test_it": 2} == suite.scopes()
    assert recorded.answers == suite.replay().answers


def test_a_recording_that_was_killed_is_gone_on_with(suite: Suite) -> None:
    """What the killed process had bought is not bought again, also where another test is recorded first."""
    suite.write(
        "test_qa.py",
        """
        import os

        import pytest
        from conftest import ask

        pytestmark = pytest.mark.cachectl

        def test_killed(say):
            first = [ask("One?"), ask("Two?")]
            if "KILLED" in os.environ:
                os._exit(9)
            say(*first, ask("Three?"))

        def test_other(say):
            say(ask("Other?"))
        """,
    )
    killed = suite.run("--cachectl=record", "-k", "killed", KILLED="1")
    other = suite.run("--cachectl=record", "-k", "other")
    rest = suite.run("--cachectl=record")
    assert [(9, 2), (0, 1), (0, 1)] == [(ran.code, ran.requests) for ran in (killed, other, rest)]
    assert rest.answers == suite.replay().answers
    assert ["test_qa.jsonl"] == [path.name for path in suite.cassette("").iterdir()]
