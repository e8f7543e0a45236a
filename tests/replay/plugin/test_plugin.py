"""The pytest plugin: what a test was answered when it was recorded it is answered again, whoever runs beside it."""

from __future__ import annotations

import json
import textwrap

from tests.replay.plugin.suites import KEY, Suite
from tests.replay.support import lines, recordings

TESTS = """
import os

import pytest
from conftest import ask

pytestmark = pytest.mark.cachectl


def test_one(say):
    say(ask("Same?"), ask("Same?"), ask("Only one?"))


@pytest.mark.parametrize("number", [1, 2])
def test_more(say, number):
    say(ask("Same?"), ask(f"Number {number}?"))


class TestGroup:
    def test_one(self, say):
        say(ask("Same?"))
"""
RECORDED = {"test_one": 3, "test_more[1]": 2, "test_more[2]": 2, "TestGroup::test_one": 1}


def test_a_recorded_suite_replays_the_same_answers_without_key_and_network(suite: Suite) -> None:
    """Every test is answered as it was recorded; two draws of one request come in their order."""
    suite.write("test_qa.py", TESTS)
    recorded = suite.run("--cachectl=record")
    replayed = suite.replay()
    assert (0, {"passed": 4}, 8) == (recorded.code, recorded.counts(), recorded.requests), recorded.text
    assert (0, {"passed": 4}, 0) == (replayed.code, replayed.counts(), replayed.requests), replayed.text
    assert RECORDED.keys() == recorded.answers.keys()
    assert recorded.answers == replayed.answers
    # Eight draws: no test is given another's, and none is given one twice.
    assert 8 == len({answer for answers in recorded.answers.values() for answer in answers})
    assert RECORDED == suite.scopes()
    assert ["test_qa.jsonl"] == [path.name for path in suite.cassette("").iterdir()]
    assert KEY not in suite.cassette("test_qa.jsonl").read_text(encoding="utf-8")


def test_neither_the_order_of_the_tests_nor_who_is_left_out_changes_an_answer(suite: Suite) -> None:
    """A suite recorded in one order is replayed in another, in parts, and one test at a time."""
    suite.write("test_qa.py", TESTS)
    recorded = suite.run("--cachectl=record").answers
    written = suite.cassette("test_qa.jsonl").read_bytes()
    assert recorded == suite.replay(REVERSED="1").answers
    assert {"test_more[2]": recorded["test_more[2]"]} == suite.replay("test_qa.py::test_more[2]").answers
    assert 2 == len(suite.replay("-k", "more").answers)
    assert written == suite.cassette("test_qa.jsonl").read_bytes()


def test_recording_goes_on_test_by_test(suite: Suite) -> None:
    """`record` asks only for tests without recordings, and `all -k` for the chosen ones; the others keep theirs."""
    suite.write("test_qa.py", TESTS)
    # Each test twice: the second time it replays what it has just recorded.
    part = suite.run("--cachectl=record", "-k", "more", "--keep-duplicates", "test_qa.py", "test_qa.py")
    assert {"passed": 4, "deselected": 4} == part.counts()
    rest = suite.run("--cachectl=record", REVERSED="1")
    assert (4, 4) == (part.requests, rest.requests)
    assert part.answers == {name: rest.answers[name] for name in part.answers}
    before = {line["key"]: line for line in recordings(suite.cassette("test_qa.jsonl"))}
    again = suite.run("--cachectl=all", "-k", "more")
    assert 4 == again.requests
    after = {line["key"]: line for line in recordings(suite.cassette("test_qa.jsonl"))}
    assert {"test_more[1]", "test_more[2]"} == {line["scope"] for key, line in after.items() if line != before[key]}
    assert rest.answers["test_more[1]"] != again.answers["test_more[1]"]
    assert {**rest.answers, **again.answers} == suite.replay().answers


def test_answers_of_a_test_that_failed_or_was_interrupted_are_kept(suite: Suite) -> None:
    """What was paid for is recorded, and replayed when the test has been mended."""
    failing = """
        import os

        import pytest
        from conftest import ask

        @pytest.mark.cachectl
        def test_it(say):
            say(ask("Same?"))
            if "BROKEN" in os.environ:
                raise eval(os.environ["BROKEN"])
    """
    suite.write("test_failing.py", failing)
    suite.write("test_interrupted.py", failing)
    failed = suite.run("--cachectl=record", "test_failing.py", BROKEN="AssertionError")
    interrupted = suite.run("--cachectl=record", "test_interrupted.py", BROKEN="KeyboardInterrupt")
    assert (1, 2) == (failed.code, interrupted.code)
    assert "1 answer recorded" in interrupted.text
    mended = suite.run("--cachectl=record")
    assert (0, 0) == (mended.code, mended.requests)
    assert failed.answers | interrupted.answers == mended.answers


def test_a_changed_prompt_fails_with_the_words_that_changed(suite: Suite) -> None:
    """A test that makes an unrecorded call fails with what differs, also where the program swallowed the error."""
    suite.write(
        "test_qa.py",
        """
        import dspy
        import pytest
        from conftest import ask

        pytestmark = pytest.mark.cachectl
        CAPITAL = "capital"

        def test_raised():
            ask(f"What is the {CAPITAL} of France?")

        def test_swallowed():
            try:
                ask(f"What is the {CAPITAL} of Spain?")
            except Exception:
                pass

        def test_scored_as_zero():
            devset = [dspy.Example(question=f"The {CAPITAL} of Italy?", answer="?").with_inputs("question")]
            score = dspy.Evaluate(devset=devset, metric=lambda *_: 1.0, display_progress=False, max_errors=100)
            assert score(dspy.Predict("question -> answer")).score == 100

        def test_skipped():
            try:
                ask(f"What is the {CAPITAL} of Norway?")
            except Exception:
                pytest.skip("no provider")

        @pytest.mark.xfail(reason="hard", strict=False)
        def test_expected_to_fail():
            assert ask(f"What is the {CAPITAL} of Peru?") == "Lima"

        def test_of_another_prompt():
            ask("Hello?")

        @pytest.fixture
        def asked():
            try:
                ask(f"What is the {CAPITAL} of Chile?")
            except Exception:
                return None

        def test_of_a_fixture(asked):
            pass

        @pytest.fixture
        def skipping():
            try:
                ask(f"What is the {CAPITAL} of Cuba?")
            except Exception:
                pytest.skip("no provider")

        def test_of_a_fixture_that_skips(skipping):
            pass

        @pytest.fixture
        def asking_late():
            yield
            try:
                ask(f"What is the {CAPITAL} of Iceland?")
            except Exception:
                pass

        def test_of_what_comes_after(asking_late):
            pass
        """,
    )
    recorded = suite.run("--cachectl=record")
    assert {"passed": 8, "xfailed": 1} == recorded.counts(), recorded.text
    source = (suite.folder / "test_qa.py").read_text(encoding="utf-8")
    suite.write("test_qa.py", source.replace('CAPITAL = "capital"', 'CAPITAL = "biggest city"'))
    replayed = suite.replay("--show-capture=no", "--junitxml=results.xml")
    assert (1, 0) == (replayed.code, replayed.requests)
    assert {"failed": 6, "errors": 2, "passed": 2} == replayed.counts(), replayed.text
    assert 8 == replayed.text.count("had no recording; no result of it can be trusted")
    assert 8 == replayed.text.count("asked 'biggest city', stored 'capital'")
    results = (suite.folder / "results.xml").read_text(encoding="utf-8")
    assert [6, 2, 0] == [results.count(f"<{kind} message=") for kind in ("failure", "error", "skipped")]
    assert "The test then ended with AssertionError: assert" in replayed.text
    assert "asked for at test_qa.py:10" in replayed.text
    assert "pytest --cachectl=new test_qa.py::test_swallowed" in replayed.text
    # The failure is the explanation, and no trace through the plugin.
    assert "open_test_cassette.py" not in replayed.text
    assert "plugin.py" not in replayed.text
    assert {"passed": 8, "xfailed": 1} == suite.run("--cachectl=all").counts()
    assert {"passed": 8, "xfailed": 1} == suite.replay().counts()


def test_a_missing_cassette_says_how_to_record_it(suite: Suite) -> None:
    """A test that was never recorded fails with the command; one that makes no call needs no cassette."""
    suite.write("test_qa.py", TESTS + "\n\ndef test_quiet():\n    pass\n")
    missing = suite.replay()
    assert (1, {"failed": 4, "passed": 1}) == (missing.code, missing.counts())
    assert "pytest --cachectl=record 'test_qa.py::test_more[1]'" in missing.text
    assert not suite.cassette("").exists()
    assert 0 == suite.run("--cachectl=record").code
    assert (0, {"passed": 5}) == ((again := suite.replay()).code, again.counts())
    # A test that comes later is recorded by the same command.
    suite.write("test_qa.py", TESTS + '\n\ndef test_later(say):\n    say(ask("Later?"))\n')
    assert "Nothing is recorded for this test yet" in suite.replay("-k", "later").text
    assert 1 == suite.run("--cachectl=record").requests


def test_modules_may_share_a_named_cassette(suite: Suite) -> None:
    """Tests of the same name in two files keep their own recordings in one cassette; `redact=` cleans them."""
    source = """
        import pytest
        from conftest import ask

        @pytest.mark.cachectl(redact=lambda text: text.replace("draw", "[hidden]"))
        class TestShared:
            pytestmark = pytest.mark.cachectl(cassette="shared.jsonl")

            def test_it(self, say):
                say(ask("Same?"))
    """
    suite.write("test_a.py", source)
    suite.write("test_b.py", source)
    recorded = [suite.run("--cachectl=record", name) for name in ("test_a.py", "test_b.py")]
    assert [1, 1] == [ran.requests for ran in recorded]
    assert recorded[0].answers != recorded[1].answers
    assert ["shared.jsonl"] == [path.name for path in suite.cassette("").iterdir()]
    prefix = "::TestShared::test_it"
    assert {f"../test_a.py{prefix}": 1, f"../test_b.py{prefix}": 1} == suite.scopes("shared.jsonl")
    text = suite.cassette("shared.jsonl").read_text(encoding="utf-8")
    assert "[hidden]" in text
    assert "draw-" not in text
    assert "hidden" in recorded[0].answers["TestShared::test_it"][0]
    for name, ran in zip(("test_b.py", "test_a.py"), reversed(recorded), strict=True):
        assert ran.answers == suite.replay(name).answers
    # Half of the tests were collected: the others' recordings may still be used.
    assert "not used" not in suite.replay("test_a.py").text


def test_a_cassette_that_no_test_recorded_is_every_tests(suite: Suite) -> None:
    """What a program recorded by itself is replayed to each test from its beginning."""
    suite.write(
        "test_qa.py",
        """
        import os

        import pytest
        from conftest import ask

        import dspy_cachectl as cachectl

        def test_recording(say):
            if "CUT_OFF" not in os.environ:
                with cachectl.cassette("cassettes/by_hand.jsonl", "all"):
                    say(ask("Same?"), ask("Same?"))

        @pytest.mark.cachectl(cassette="by_hand.jsonl")
        @pytest.mark.parametrize("asks", [1, 2, 3])
        def test_replaying(say, asks):
            say(*(ask("Same?") for _ in range(asks)))
        """,
    )
    recorded = suite.run("-k", "recording").answers["test_recording"]
    replayed = suite.replay()
    assert {"passed": 3, "failed": 1} == replayed.counts(), replayed.text
    assert {"test_replaying[1]": recorded[:1], "test_replaying[2]": recorded} == replayed.answers
    assert "not used" not in replayed.text
    assert "" == recordings(suite.cassette("by_hand.jsonl"))[0].get("scope", "")
    assert "by_hand" not in textwrap.dedent(json.dumps(lines(suite.cassette("by_hand.jsonl"))[0]))
