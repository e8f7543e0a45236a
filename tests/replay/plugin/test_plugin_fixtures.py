"""The pytest plugin with fixtures, coroutines and test cases: whichever test comes first, all are answered alike."""

from __future__ import annotations

from tests.replay.plugin.suites import Suite


def test_a_fixture_that_outlives_a_test_has_recordings_of_its_own(suite: Suite) -> None:
    """Fixtures of classes, modules and the session replay their answers whoever needs them first, and once each."""
    suite.write("conftest.py", (suite.folder / "conftest.py").read_text(encoding="utf-8") + SESSION_FIXTURE)
    suite.write("test_qa.py", FIXTURES)
    suite.write("test_other.py", "import pytest\n\n@pytest.mark.cachectl\ndef test_it(say, model):\n    say(model)\n")
    recorded = suite.run("--cachectl=record")
    assert (0, 8) == (recorded.code, recorded.requests), recorded.text
    for arguments, env in (((), {}), ((), {"REVERSED": "1"}), (("test_qa.py", "-k", "second or small"), {})):
        replayed = suite.replay(*arguments, **env)
        assert (0, 0) == (replayed.code, replayed.requests), replayed.text
        assert {name: recorded.answers[name] for name in replayed.answers} == replayed.answers
    assert ["conftest.jsonl", "test_qa.jsonl"] == sorted(path.name for path in suite.cassette("").iterdir())
    assert {"model[model='small'] (fixture)": 1, "model[model='large'] (fixture)": 1} == suite.scopes("conftest.jsonl")
    assert {
        "compiled[model='small'] (fixture)": 1,
        "compiled[model='large'] (fixture)": 1,
        "TestClass::prepared (fixture)": 1,
        "TestClass::test_class": 1,
        "_xunit_setup_module_fixture_test_qa (fixture)": 1,
        "in_conftest (fixture of conftest.py)": 1,
    } == suite.scopes()
    renewed = suite.run("--cachectl=all")
    assert 8 == renewed.requests
    assert renewed.answers == suite.replay(REVERSED="1").answers
    assert recorded.answers != renewed.answers


SESSION_FIXTURE = """

@pytest.fixture(scope="session", params=["small", "large"])
def model(request):
    return make_lm()(f"the {request.param} one")[0]


@pytest.fixture(scope="module")
def in_conftest():
    return make_lm()("of the module")[0]
"""

FIXTURES = """
import pytest
from conftest import ask, make_lm

pytestmark = pytest.mark.cachectl


def setup_module():
    global prepared
    prepared = make_lm()("prepare")[0]


@pytest.fixture(scope="module")
def compiled(model):
    return [model, make_lm()("compile")[0]]


def test_first(say, compiled):
    say(*compiled, prepared)


def test_second(say, compiled, in_conftest):
    say(*compiled, in_conftest)


class TestClass:
    @pytest.fixture(scope="class")
    def prepared(self):
        return make_lm()("class")[0]

    def test_class(self, say, prepared):
        say(prepared, ask("Same?"))
"""


def test_what_a_fixture_starts_outlives_its_cassette(suite: Suite) -> None:
    """A context that a module's fixture keeps, as an event loop does, finds the cassette of each test."""
    suite.write(
        "test_qa.py",
        """
        import contextvars

        import pytest
        from conftest import ask

        pytestmark = pytest.mark.cachectl

        @pytest.fixture(scope="module")
        def kept():
            return contextvars.copy_context()

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(say, kept, number):
            say(kept.run(ask, "Same?"), ask("Same?"))
        """,
    )
    recorded = suite.run("--cachectl=record")
    assert (0, 4) == (recorded.code, recorded.requests), recorded.text
    assert {"test_it[1]": 2, "test_it[2]": 2} == suite.scopes()
    assert recorded.answers == suite.replay(REVERSED="1").answers


def test_a_fixture_that_swallowed_a_miss_fails_each_test_that_uses_it(suite: Suite) -> None:
    """What it gave cannot be trusted, for the second test as little as for the first."""
    suite.write(
        "test_qa.py",
        """
        import os

        import pytest
        from conftest import make_lm

        pytestmark = pytest.mark.cachectl

        @pytest.fixture(scope="module")
        def compiled():
            try:
                return make_lm()(os.environ.get("PROMPT", "compile"))
            except Exception:
                return None

        @pytest.fixture(scope="module")
        def strict():
            return make_lm()(os.environ.get("PROMPT", "compile"))

        def test_one(compiled): pass
        def test_two(compiled): pass
        def test_three(strict): pass
        def test_four(strict): pass
        def test_without(): pass
        """,
    )
    assert 0 == suite.run("--cachectl=record").code
    replayed = suite.replay(PROMPT="do it")
    assert {"failed": 2, "errors": 2, "passed": 1} == replayed.counts(), replayed.text
    assert 2 == replayed.text.count("1 call of the fixture 'compiled' had no recording; ")
    assert 2 == replayed.text.count("1 call of the fixture 'strict' had no recording; ")
    assert 4 == replayed.text.count("asked 'do it', stored 'compile'")


def test_async_tests_and_fixtures_have_cassettes(suite: Suite) -> None:
    """Coroutines find the cassette in loops of a test and in loops that outlive it."""
    suite.write(
        "test_qa.py",
        """
        import asyncio

        import dspy
        import pytest
        import pytest_asyncio

        pytestmark = pytest.mark.cachectl

        async def ask(text):
            return (await dspy.Predict("question -> answer").acall(question=text)).answer

        @pytest_asyncio.fixture
        async def prepared():
            yield await ask("Prepared?")

        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def lasting():
            from conftest import make_lm
            return (await make_lm().acall("lasting"))[0]

        async def test_one(say, prepared):
            say(prepared, *sorted(await asyncio.gather(ask("Same?"), ask("Same?"), ask("Other?"))))

        async def test_two(say):
            say(await ask("Same?"))

        @pytest.mark.asyncio(loop_scope="module")
        async def test_three(say, lasting):
            say(lasting, await ask("Same?"))

        @pytest.mark.asyncio(loop_scope="module")
        async def test_four(say, lasting):
            say(lasting, await ask("Same?"))
        """,
    )
    recorded = suite.run("--cachectl=record")
    assert (0, {"passed": 4}, 8) == (recorded.code, recorded.counts(), recorded.requests), recorded.text
    for env in ({}, {"REVERSED": "1"}):
        replayed = suite.replay(**env)
        assert (0, recorded.answers) == (replayed.code, replayed.answers), replayed.text
    assert {"test_one": 4, "test_two": 1, "test_three": 1, "test_four": 1, "lasting (fixture)": 1} == suite.scopes()


def test_methods_of_test_cases_have_cassettes(suite: Suite) -> None:
    """So do `setUpClass` and `setUp`; a miss that a test case swallowed fails it."""
    suite.write(
        "test_qa.py",
        """
        import os
        import unittest

        import pytest
        from conftest import ask, make_lm

        @pytest.mark.cachectl
        class TestCase(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.shared = make_lm()("shared")[0]

            def setUp(self):
                self.own = ask("Own?")

            def test_one(self):
                self.write("one", self.shared, self.own, ask("Same?"))

            def test_two(self):
                self.write("two", self.shared, self.own, ask("Same?"))

            def test_swallowed(self):
                with self.assertRaises(ZeroDivisionError):
                    try:
                        ask(os.environ.get("PROMPT", "Prompt?"))
                    finally:
                        1 / 0

            def test_raised(self):
                ask(os.environ.get("PROMPT", "Prompt?"))

            def write(self, *answers):
                import json
                with open(os.environ["SUITE_ANSWERS"], "a") as file:
                    file.write(json.dumps(answers) + "\\n")
        """,
    )
    recorded = suite.run("--cachectl=record")
    assert (0, {"passed": 4}, 9) == (recorded.code, recorded.counts(), recorded.requests), recorded.text
    replayed = suite.replay(REVERSED="1")
    assert (0, recorded.answers) == (replayed.code, replayed.answers), replayed.text
    changed = suite.replay(PROMPT="Another?")
    assert {"failed": 2, "passed": 2} == changed.counts()
    assert 2 == changed.text.count("asked 'Another?', stored 'Prompt?'")
    assert 2 == changed.text.count("1 call of this test had no recording; ")
    assert "strict.py" not in changed.text
