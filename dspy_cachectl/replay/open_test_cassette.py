"""The cassette of a test, or of a fixture, while it is open."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dspy_cachectl.calls.installation import ensure_installed, install, installed, uninstall
from dspy_cachectl.context.open_cassette import Recording
from dspy_cachectl.entries import records
from dspy_cachectl.errors import StoreError
from dspy_cachectl.replay.cassettes import Cassette, CassetteSession
from dspy_cachectl.replay.choice import TestCassette
from dspy_cachectl.replay.summary import Note
from dspy_cachectl.reports.texts import cut

P = ParamSpec("P")
T = TypeVar("T")

_TEXT_SHOWN = 70


class OpenTestCassette:
    """An open cassette, and the managed cache in place of DSPy's for as long.

    Args:
        chosen: Which, and how.
        aside: Open it for the process and not in this context: what is started within it may outlive it.

    Raises:
        CachectlError: If it cannot be opened.
    """

    def __init__(self, chosen: TestCassette, *, aside: bool = False) -> None:
        self.chosen = chosen
        self._context = contextvars.copy_context() if aside else None
        # No store is asked within a cassette: the configured one is not even opened.
        self._cache = None if installed() is not None else install("memory://")
        try:
            self._open: CassetteSession = self._run(
                CassetteSession, chosen.path, chosen.mode, chosen.redact, scope=chosen.scope
            )
        except BaseException:
            self._give_back()
            raise

    @property
    def cassette(self) -> Cassette:
        """The cassette, to look at."""
        return self._open.cassette

    @property
    def records(self) -> bool:
        """Whether calls reach the provider, and their answers the file."""
        return not self.cassette.contents.replays

    @property
    def is_recorded(self) -> bool:
        """Whether there was anything that it could replay when it was opened."""
        return any(one.scope == self.cassette.contents.scope for one in self._open.others.values())

    def left_by(self, is_known: Callable[[str], bool]) -> list[Recording]:
        """Return the recordings of scopes that are known no more.

        Args:
            is_known: Given a scope, tells whether there is still somebody to replay it.
        """
        scopes = {one.scope for one in self._open.others.values()} - {""}
        gone = {scope for scope in scopes if not is_known(scope)}
        return [one for one in self._open.others.values() if one.scope in gone]

    @staticmethod
    def ensure_in_place() -> None:
        """Put the managed cache back, where a fixture has thrown it out."""
        ensure_installed()

    def close(self, *, whole: bool, left: list[Recording]) -> Note:
        """Leave it, and save what was recorded.

        Args:
            whole: Whether it asked for everything that it asks for: what it did not ask for is then not used.
            left: Recordings of scopes that are known no more.

        Returns:
            What happened.

        Raises:
            CachectlError: If something could not be recorded.
        """
        contents = self.cassette.contents
        unused = left
        # One that replays nobody's recordings shares them with tests that may use the others.
        if whole and contents.scope == self.chosen.scope:
            mine = set(contents.unused)
            unused = [one for key, one in self._open.others.items() if key in mine] + left
        renews = contents.mode == "all"
        forget = frozenset(one.key for one in unused) if renews else frozenset()
        try:
            self._run(self._open.close, forget=forget)
        finally:
            self._give_back()
        tally = contents.ledger.snapshot()
        return Note(
            path=str(self.chosen.path),
            replayed=tally.served,
            recorded=len(contents.recorded),
            tokens_saved=tally.tokens_saved,
            cost_saved=tally.cost_saved,
            tokens_spent=tally.tokens_spent,
            cost_spent=tally.cost_spent,
            unused=[] if renews else [(one.key, one.scope, _text(one)) for one in unused],
        )

    def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs) if self._context is None else self._context.run(function, *args, **kwargs)

    def _give_back(self) -> None:
        if self._cache is not None and installed() is self._cache:
            uninstall()


def _text(recording: Recording) -> str:
    """Return what a recording answers, in a few words."""
    try:
        request: Any = records.decode_request(recording.data).get("request") or {}
    except StoreError:
        return "?"
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else request
    content = last.get("content", last) if isinstance(last, dict) else last
    return cut(str(content), _TEXT_SHOWN)
