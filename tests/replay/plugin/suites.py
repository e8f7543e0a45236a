"""Test suites of a user, written into a folder and run by a pytest of their own against the counting endpoint."""

from __future__ import annotations

import json
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint
from tests.processes import PYTEST_MODULES, python
from tests.replay.support import recordings

KEY = "sk-suite-secret-0123456789"

INI = """
[pytest]
addopts = --strict-markers --strict-config -p no:cacheprovider
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

CONFTEST = """
import json, os, sys

import pytest

if os.environ.get("CUT_OFF"):
    def refuse(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            raise OSError(f"the network is cut off: {event} {arguments}")

    sys.addaudithook(refuse)


def make_lm(**options):
    import dspy_cachectl as cachectl

    key = {"api_key": os.environ["SUITE_KEY"]} if "SUITE_KEY" in os.environ else {}
    return cachectl.LM("openai/test-model", api_base=os.environ["SUITE_URL"], temperature=1.0, **key, **options)


def ask(text):
    import dspy

    return dspy.Predict("question -> answer")(question=text).answer


@pytest.fixture(autouse=True)
def _configured(request):
    if "unconfigured" not in request.keywords:
        import dspy

        dspy.configure(lm=make_lm())


@pytest.fixture
def say(request):
    def say(*answers):
        with open(os.environ["SUITE_ANSWERS"], "a") as file:
            file.write(json.dumps([request.node.nodeid.partition("::")[2].partition("@")[0], *answers]) + "\\n")

    return say


def pytest_configure(config):
    config.addinivalue_line("markers", "unconfigured: no LM is configured")


def pytest_collection_modifyitems(items):
    if os.environ.get("REVERSED"):
        items.reverse()
"""


@dataclass
class Ran:
    """A suite that has run.

    Attributes:
        result: What pytester knows of it.
        requests: The requests that reached the provider.
        answers: What each test said, by its name.
    """

    result: pytest.RunResult
    requests: int
    answers: dict[str, list[Any]]

    @property
    def code(self) -> int:
        """The exit code."""
        return int(self.result.ret)

    @property
    def text(self) -> str:
        """What it printed."""
        return f"{self.result.stdout}\n{self.result.stderr}"

    def counts(self) -> dict[str, int]:
        """How many tests passed, failed, had errors."""
        return {name: count for name, count in self.result.parseoutcomes().items() if "warning" not in name}


class Suite:
    """A folder with tests."""

    def __init__(self, pytester: pytest.Pytester, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        self._endpoint = endpoint
        self.folder = pytester.path
        pytester.makeini(INI)
        self.write("conftest.py", CONFTEST)
        monkeypatch.setenv("SUITE_URL", endpoint.url)

    def write(self, name: str, source: str) -> Path:
        """Write a file of the suite."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    def set(self, *options: str) -> None:
        """Add lines to its configuration file."""
        with (self.folder / "tox.ini").open("a", encoding="utf-8") as file:
            file.writelines(f"\n{option}\n" for option in options)

    def run(self, *arguments: str, fresh: bool = False, **env: str) -> Ran:
        """Run it with the provider at hand; `fresh` in a pytest that has imported nothing yet."""
        return self._run(arguments, {"SUITE_KEY": KEY, **env}, fresh=fresh)

    def replay(self, *arguments: str, **env: str) -> Ran:
        """Run it without a key and without a network."""
        return self._run(arguments, {"CUT_OFF": "1", "SUITE_URL": "http://127.0.0.1:9/v1", **env})

    def cassette(self, name: str) -> Path:
        """The path of a cassette beside the tests of the top folder."""
        return self.folder / "cassettes" / name

    def scopes(self, name: str = "test_qa.jsonl") -> dict[str, int]:
        """How many recordings each test and fixture has in a cassette."""
        found: dict[str, int] = {}
        for recording in recordings(self.cassette(name)):
            found[recording["scope"]] = found.get(recording["scope"], 0) + 1
        return found

    def _run(self, arguments: tuple[str, ...], env: dict[str, str], *, fresh: bool = False) -> Ran:
        said = self.folder / "said.jsonl"
        said.unlink(missing_ok=True)
        environment = {**os.environ, "SUITE_ANSWERS": str(said), **env}
        # What a developer's desk may have set. In CI pytest prints each failure's message once more, in its summary.
        for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):
            environment.pop(name, None)
        command = ["-m", "pytest", f"--basetemp={self.folder / 'basetemp'}", *arguments]
        if not fresh:
            command.append("-Wignore::pytest.PytestAssertRewriteWarning")  # what is imported is as it is
        with self._endpoint.counting() as seen:
            done = python(*command, warm=() if fresh else PYTEST_MODULES, cwd=self.folder, env=environment)
        result = pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0.0)
        lines = said.read_text(encoding="utf-8").splitlines() if said.exists() else []
        answers = {name: answer for name, *answer in map(json.loads, lines)}
        return Ran(result, seen.requests, answers)
