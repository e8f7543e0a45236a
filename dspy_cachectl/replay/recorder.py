"""The cassette of a test, or of a fixture, while it is open."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dspy_cachectl.calls.installation import ensure_installed, install, installed, uninstall
from dspy_cachectl.context.open_cassette import Mode, Recording
from dspy_cachectl.entries import records
from dspy_cachectl.errors import StoreError
from dspy_cachectl.predictions.locks import locked
from dspy_cachectl.replay.cassettes import Cassette, CassetteSession
from dspy_cachectl.replay.plans import Plan
from dspy_cachectl.replay.summary import Note, Unused

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = 3600.0
"""How long a worker waits for another that records the same fixture, in seconds."""

_TEXT_SHOWN = 70


class Recorder:
    """An open cassette, and the managed cache in place of DSPy's for as long.

    Args:
        plan: Which, and how.
        mode: What is done with calls.
        aside: Open it for the process and not in this context: what is started within it may outlive it.

    Raises:
        CachectlError: If it cannot be opened.
    """

    def __init__(self, plan: Plan, mode: Mode, *, aside: bool = False) -> None:
        self.plan = plan
        self._context = contextvars.copy_context() if aside else None
        # No store is asked within a cassette: the configured one is not even opened.
        self._cache = None if installed() is not None else install("memory://")
        try:
            self._open: CassetteSession = self._run(CassetteSession, plan.path, mode, plan.redact, scope=plan.scope)
        except BaseException:
            self._give_back()
            raise

    @property
    def cassette(self) -> Cassette:
        """The cassette, to look at."""
        return self._open.cassette

    @property
    def is_recorded(self) -> bool:
        """Whether there was anything that it could replay when it was opened."""
        return any(one.scope == self.cassette.contents.scope for one in self._open.others.values())

    def left_by(self, is_known: Callable[[str], bool]) -> list[Recording]:
        """Return the recordings of scopes that are known no more.

        Args:
            is_known: Given a scope, tells whether there is still somebody to replay it.
        """
        known: dict[str, bool] = {"": True}
        for one in self._open.others.values():
            if one.scope not in known:
                known[one.scope] = is_known(one.scope)
        return [one for one in self._open.others.values() if not known[one.scope]]

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
        if whole and contents.scope == self.plan.scope:
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
            path=str(self.plan.path),
            replayed=tally.served,
            recorded=len(contents.recorded),
            tokens_saved=tally.tokens_saved,
            cost_saved=tally.cost_saved,
            tokens_spent=tally.tokens_spent,
            cost_spent=tally.cost_spent,
            unused=[] if renews else [Unused(one.key, one.scope, _text(one)) for one in unused],
        )

    def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs) if self._context is None else self._context.run(function, *args, **kwargs)

    def _give_back(self) -> None:
        if self._cache is not None and installed() is self._cache:
            uninstall()


@contextlib.contextmanager
def turn(plan: Plan, folder: Path) -> Iterator[Mode]:
    """Let one worker at a time set a fixture up. Yield what is to be done with its calls.

    Each worker sets it up, and each test goes on with what its worker's fixture was answered: they are all given the
    same answers, also where everything is recorded anew.

    Args:
        plan: The fixture's.
        folder: A folder of this session, for all workers.

    Raises:
        StoreError: If its turn does not come.
    """
    if plan.mode == "replay":
        yield plan.mode
        return
    name = hashlib.sha256(f"{plan.path}\n{plan.scope}".encode()).hexdigest()[:32]
    done = folder / f"{name}.done"
    with locked(folder / f"{name}.lock", patience=_PATIENCE):
        yield "new" if plan.mode == "all" and done.exists() else plan.mode
        done.touch()


def _text(recording: Recording) -> str:
    """Return what a recording answers, in a few words."""
    try:
        request: Any = records.decode_request(recording.data).get("request") or {}
    except StoreError:
        return "?"
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else request
    content = last.get("content", last) if isinstance(last, dict) else last
    text = " ".join(str(content).split())
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}…"
