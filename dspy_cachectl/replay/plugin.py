"""The pytest plugin: tests that replay cassettes. It does nothing, and loads nothing, until a test asks for it.

The cassette of a test is opened with the first fixture that is the test's own, and closed after the last of them: a
fixture that outlives the test has a cassette of its own, which does not depend on the test that came first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dspy_cachectl.errors import CachectlError, ConfigurationError
from dspy_cachectl.replay import choice, summary
from dspy_cachectl.replay.choice import TestCassette
from dspy_cachectl.replay.summary import Note

if TYPE_CHECKING:
    from dspy_cachectl.context.open_cassette import Recording
    from dspy_cachectl.gating.gate import Gate
    from dspy_cachectl.replay.cassettes import Cassette
    from dspy_cachectl.replay.open_test_cassette import OpenTestCassette

_NOTES = "dspy_cachectl_notes"
_CHOSEN = pytest.StashKey[TestCassette | None]()
_OPEN = pytest.StashKey["OpenTestCassette"]()
_FAILURE = pytest.StashKey[BaseException | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("cachectl", "cassettes of dspy-cachectl")
    group.addoption(
        "--cachectl",
        choices=choice.MODES,
        metavar="MODE",
        help="what every test that has a cassette does with calls: "
        "replay (never call), record (where a test has no recordings yet), new (record what is missing), "
        "all (record everything anew), off (no cassettes: calls go through)",
    )
    group.addoption(
        "--cachectl-strict", action="store_true", help="fail the session if a cassette has recordings that are not used"
    )
    parser.addini("cachectl_mode", "the mode of tests whose marker names none", default="replay")
    parser.addini("cachectl_folder", "the folder of cassettes beside each test file", default="cassettes")
    parser.addini("cachectl_all", "whether every test has a cassette, marked or not", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and put the hooks in place."""
    config.addinivalue_line(
        "markers",
        f"{choice.MARKER}(cassette=None, mode=None, redact=None): replay the LM calls of the test from a cassette",
    )
    config.pluginmanager.register(_Plugin(config), "dspy_cachectl_hooks")


@pytest.fixture
def cachectl_cassette(request: pytest.FixtureRequest) -> Cassette | None:
    """The cassette that is open in this test, a `dspy_cachectl.Cassette`; None with `--cachectl=off`."""
    opened = request.node.stash.get(_OPEN, None)
    return None if opened is None else opened.cassette


@pytest.fixture
def cachectl_gate() -> Callable[..., Gate]:
    """A function that fails the test unless a candidate is surely not worse than a baseline by more than a margin.

    It takes two reports, or the files of saved ones, `not_worse_by=`, `level=`, and `undecided="skip"` for a test that
    is skipped where it cannot be told, and returns what it found. Nothing is asked.
    """

    def check(
        baseline: Any, candidate: Any, *, not_worse_by: float, level: float = 0.95, undecided: str = "fail"
    ) -> Gate:
        from dspy_cachectl.gating.gate import Outcome, gate
        from dspy_cachectl.reports.report import EvalReport

        if undecided not in {"fail", "skip"}:
            raise ConfigurationError(f'undecided is "fail" or "skip", and not {undecided!r}')
        reports = [one if isinstance(one, EvalReport) else EvalReport.load(one) for one in (baseline, candidate)]
        found = gate(*reports, not_worse_by=not_worse_by, level=level)
        if found.outcome is Outcome.CANNOT_TELL and undecided == "skip":
            pytest.skip(f"it cannot be told: {found.sentence}")
        if found.outcome is not Outcome.PASSED:
            pytest.fail(found.details(), pytrace=False)
        return found

    return check


class _Plugin:
    """What happens in one session. Strictly private."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        choice.check(config)
        self._summary: list[Note] = []
        self._notes: list[Note] = []
        self._item: pytest.Item | None = None
        self._asking: list[pytest.Item] = []
        self._collected: dict[Path, list[pytest.Item]] = defaultdict(list)
        self._looked_through: set[Path | str] = set()
        self._renewed: set[tuple[Path | str, str]] = set()
        self._failed_fixtures: dict[tuple[str, object], BaseException] = {}
        self._is_worker = hasattr(config, "workerinput")

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self._collected[item.path].append(item)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._asking = [item for item in session.items if choice.asks(item)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._item = item
        item.stash[_FAILURE] = None
        # Before any fixture: one that is shared must not fail for the marker of the test that came first.
        try:
            item.stash[_CHOSEN] = choice.of_test(item)
        except CachectlError as error:
            raise _unusable(item, error) from None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        item = self._item
        if item is None or not self._asking:
            return (yield)
        try:
            if fixturedef.scope == "function":
                self._open(item)
                return (yield)
            return (yield from self._set_up(fixturedef, request.node, item))
        except (Exception, pytest.fail.Exception) as error:
            if fixturedef.cached_result is None or fixturedef.cached_result[2] is None:
                # It is this plugin's, which pytest has to know as the fixture's result: it goes to the next test too.
                key = fixturedef.cache_key(request)  # type: ignore[arg-type]  # it is what pytest hands it
                fixturedef.cached_result = (None, key, (error, error.__traceback__))
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        if not self._asking:
            return (yield)
        self._open(item)
        if _OPEN in item.stash:
            from dspy_cachectl.calls.installation import ensure_installed

            ensure_installed()  # a fixture may have thrown it out
        result = yield
        failure = self._failure(item, None)
        if failure is not None:
            raise failure
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self._asking and call.when != "teardown" and call.excinfo is not None:
            # Whatever ended it: what it was given after a call without an answer is no result.
            failure = item.stash.get(_FAILURE, None) or self._failure(item, call.excinfo.value)
            if failure is not None:
                report.outcome = "failed"
                vars(report).pop("wasxfail", None)  # that it fails was expected; that it asks something else was not
                if call.excinfo.value is not failure:
                    report.longrepr = str(failure)
        if call.when == "call" and _OPEN in item.stash:
            opened = item.stash[_OPEN]
            opened.passed = report.passed
            opened.ended_as_expected = report.passed or (report.skipped and hasattr(report, "wasxfail"))
        if self._notes:
            # A worker's report takes them to where the summary is printed.
            vars(report)[_NOTES], self._notes = [asdict(note) for note in self._notes], []
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for data in vars(report).get(_NOTES, ()):
            self._summary.append(Note(**data))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        strict = self._config.getoption("cachectl_strict") and not self._is_worker
        if strict and summary.unused(self._summary) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        notes = self._summary + self._notes  # and of a test that was interrupted
        lines = summary.lines(notes, self._config.invocation_params.dir)
        if lines:
            terminalreporter.section("cassettes")
            for line in lines:
                terminalreporter.line(line)

    def _open(self, item: pytest.Item) -> None:
        """Open the cassette of a test, if it has one and it is not open."""
        chosen = item.stash.get(_CHOSEN, None)
        if chosen is None or _OPEN in item.stash:
            return
        from dspy_cachectl.replay.open_test_cassette import OpenTestCassette

        try:
            opened = OpenTestCassette(chosen)
        except CachectlError as error:
            raise _unusable(item, error) from None
        item.stash[_OPEN] = opened
        item.addfinalizer(lambda: self._close(item, opened))

    def _close(self, item: pytest.Item, opened: OpenTestCassette) -> None:
        del item.stash[_OPEN]
        self._finish(item, opened, passed=opened.passed, ended=opened.ended_as_expected, left=self._left(item, opened))
        failure = opened.failure()
        if failure is not None:
            raise failure

    def _left(self, item: pytest.Item, opened: OpenTestCassette) -> list[Recording]:
        """Return the recordings of tests that are no more, once for each file, where all tests were collected."""
        chosen = opened.chosen
        parts = any("::" in argument for argument in self._config.args) or self._config.getoption("lf", False)
        if parts or (chosen.mode != "all" and chosen.path in self._looked_through):
            return []
        self._looked_through.add(chosen.path)
        others = opened.session.others.values()
        gone = choice.gone({one.scope for one in others}, chosen.module, self._collected[item.path])
        return [one for one in others if one.scope in gone]

    def _set_up(
        self, fixturedef: pytest.FixtureDef[Any], node: choice.Node, item: pytest.Item
    ) -> Generator[None, object, object]:
        """Set up a fixture that outlives the test, in a cassette of its own if it has one."""
        chosen = choice.of_fixture(fixturedef, node, item, self._asking)
        if chosen is None:
            return (yield)
        from dspy_cachectl.replay.open_test_cassette import OpenTestCassette

        fixture = (fixturedef.argname, node)
        self._failed_fixtures.pop(fixture, None)
        if chosen.mode == "all" and (chosen.path, chosen.scope) in self._renewed:
            # pytest sets a fixture with parameters up again: the tests before have what it was answered first.
            chosen = replace(chosen, mode="new")
        self._renewed.add((chosen.path, chosen.scope))
        try:
            opened = OpenTestCassette(chosen, aside=True)
        except CachectlError as error:
            raise _unusable(item, error) from None
        if self._is_worker and not opened.cassette.contents.replays:
            # Each would be given other answers, and what followed from one's could not be replayed by another.
            opened.close(passed=False, ended=False, left=[])
            reason = "lasts longer than a test, and each worker of pytest-xdist sets it up: record it without -n"
            raise summary.failure(f"{item.nodeid}: {chosen.what} {reason}")
        passed = False
        try:
            result = yield
            passed = True
        finally:
            failure = opened.failure()
            if failure is not None:
                # Not raised here: pytest would give the fixture to the next test all the same.
                self._failed_fixtures[fixture] = failure
            self._finish(item, opened, passed=passed, ended=passed, left=[])
        return result

    def _finish(
        self, item: pytest.Item, opened: OpenTestCassette, *, passed: bool, ended: bool, left: list[Recording]
    ) -> None:
        try:
            self._notes.append(opened.close(passed=passed, ended=ended, left=left))
        except CachectlError as error:
            raise _unusable(item, error) from error

    def _failure(self, item: pytest.Item, error: BaseException | None) -> BaseException | None:
        """Return the failure of a test, or one of its fixtures, that made calls which are not recorded."""
        opened = item.stash.get(_OPEN, None)
        found = None if opened is None else opened.failure(error, item.path)
        for (name, node), failure in self._failed_fixtures.items():
            if found is None and name in getattr(item, "fixturenames", ()) and node in item.listchain():
                found = failure
        item.stash[_FAILURE] = found
        return found


def _unusable(item: pytest.Item, error: CachectlError) -> BaseException:
    return summary.failure(f"{item.nodeid}: {error}")
