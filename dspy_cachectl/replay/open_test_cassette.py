"""The cassette of a test, or of a fixture, while it is open, and why the test fails if it had no answer."""

from __future__ import annotations

import contextvars
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dspy_cachectl.calls.installation import install, installed, uninstall
from dspy_cachectl.context.open_cassette import Recording
from dspy_cachectl.entries import records
from dspy_cachectl.errors import CacheMissError, ReplayIncompleteError
from dspy_cachectl.replay.cassettes import Cassette, CassetteSession
from dspy_cachectl.replay.choice import TestCassette
from dspy_cachectl.replay.places import place_of
from dspy_cachectl.replay.summary import COUNTED, Note, failure
from dspy_cachectl.reports.texts import cut, plural

P = ParamSpec("P")
T = TypeVar("T")

_MISSES_SHOWN = 5
_TEXT_SHOWN = 70


class OpenTestCassette:
    """An open cassette, and the managed cache in place of DSPy's for as long.

    Args:
        chosen: Which, and how.
        aside: Open it for the process and not in this context: what is started within it may outlive it.

    Raises:
        CachectlError: If it cannot be opened.

    Attributes:
        chosen: Which, and how.
        session: The cassette that is entered.
        passed: Whether its test went through.
        ended_as_expected: Whether it did, or failed as it is expected to.
    """

    def __init__(self, chosen: TestCassette, *, aside: bool = False) -> None:
        self.chosen = chosen
        self.passed = self.ended_as_expected = False
        self._told = 0
        self._context = contextvars.copy_context() if aside else None
        # No store is asked within a cassette: the configured one is not even opened.
        self._cache = None if installed() is not None else install("memory://")
        try:
            self.session: CassetteSession = self._run(
                CassetteSession, place_of(chosen.path), chosen.mode, chosen.redact, scope=chosen.scope
            )
        except BaseException:
            self._give_back()
            raise

    @property
    def cassette(self) -> Cassette:
        """The cassette, to look at."""
        return self.session.cassette

    def failure(self, error: BaseException | None = None, file: Path | None = None) -> BaseException | None:
        """Return why its test fails, as what it raises, if calls had no recording that were not told yet.

        Args:
            error: What the test raised.
            file: The test's file.
        """
        misses = self.cassette.misses[self._told :]
        self._told += len(misses)
        if not misses:
            return None
        what, command = self.chosen.what, self.chosen.command
        lines = [f"{plural(len(misses), 'call')} of {what} had no recording; no result of it can be trusted.", ""]
        lines += [miss.explanation for miss in misses[:_MISSES_SHOWN]]
        if len(misses) > _MISSES_SHOWN:
            lines.append(f"... and {len(misses) - _MISSES_SHOWN} more")
        if error is not None:
            at = _line(error, file)
            if not isinstance(error, (CacheMissError, ReplayIncompleteError)):
                lines += ["", f"The test then ended with {type(error).__name__}: {error}{at}"]
            elif at:
                lines.append(f"  asked for{at}")
        lines.append("")
        if any(one.scope == self.cassette.contents.scope for one in self.session.others.values()):
            lines.append(f"To record what is missing:     pytest --cachectl=new {command}")
            lines.append(f"To record all of it anew:      pytest --cachectl=all {command}")
        else:
            lines.append(f"Nothing is recorded for {what} yet. To record it:")
            lines.append(f"    pytest --cachectl=record {command}")
        return failure("\n".join(lines))

    def close(self, *, passed: bool, ended: bool, left: list[Recording]) -> Note:
        """Leave it, and save what was recorded.

        Args:
            passed: Whether it asked for everything that it asks for: what it did not ask for is then not used.
            ended: Whether it came to the end that it is to have; otherwise its recording is cut short.
            left: Recordings of scopes that are known no more.

        Returns:
            What happened.

        Raises:
            CachectlError: If something could not be recorded.
        """
        contents = self.cassette.contents
        unused = left
        # One that replays nobody's recordings shares them with tests that may use the others.
        if passed and contents.scope == self.chosen.scope:
            mine = set(contents.unused)
            unused = [one for key, one in self.session.others.items() if key in mine] + left
        renews = contents.mode == "all"
        forget = frozenset(one.key for one in unused) if renews else frozenset()
        try:
            self._run(self.session.close, whole=ended, forget=forget)
        finally:
            self._give_back()
        counts = {name: getattr(self.cassette.stats, name) for name in COUNTED}
        return Note(
            path=str(self.chosen.path),
            counts={**counts, "recorded": self.cassette.recorded},
            unused=[] if renews else [(one.key, one.scope, _text(one)) for one in unused],
            unfinished=contents.scope if self.session.is_cut_short else "",
        )

    def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs) if self._context is None else self._context.run(function, *args, **kwargs)

    def _give_back(self) -> None:
        if self._cache is not None and installed() is self._cache:
            uninstall()


def _line(error: BaseException, file: Path | None) -> str:
    """Return where in the test's file an exception came from, or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    numbers = [frame.lineno for frame in frames if file is not None and Path(frame.filename) == file]
    return f" at {file.name}:{numbers[-1]}" if file is not None and numbers else ""


def _text(recording: Recording) -> str:
    """Return what a recording answers, in a few words."""
    request: Any = records.decode_request(recording.data).get("request")
    messages = request.get("messages") if isinstance(request, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else request
    content = last.get("content", last) if isinstance(last, dict) else last
    return cut(str(content), _TEXT_SHOWN)
