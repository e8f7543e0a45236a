"""What this process shares: its ledger, its open phases, and what was already said. Strictly private."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dspy_cachectl.accounting.ledger import TOGETHER, Ledger, Stats
from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.config import Stores
from dspy_cachectl.context.elsewhere import announce, refusals_of
from dspy_cachectl.seen.candidates import Candidates
from dspy_cachectl.stores.base import name_of
from dspy_cachectl.stores.marks import Marks

if TYPE_CHECKING:
    from dspy.clients.cache import Cache

    from dspy_cachectl.accounting.usage import Usage
    from dspy_cachectl.context.open_cassette import OpenCassette
    from dspy_cachectl.context.phases import PhaseContext, PhaseRun

logger = logger_for("dspy_cachectl")

SETTING = "cachectl"
"""The key in DSPy's settings under which the phase travels."""

STARTED = time.time()
"""When this process began, as far as this package is concerned, in Unix seconds."""

_MOST_ANSWERS = 20_000
_MOST_UNSTORED = 10_000
_MOST_SAID = 10_000
_MOST_CLOSED = 100

Place = tuple[Stores, int, int]
"""How a configured store is opened: where it is, and how much memory and disk it may take."""


class Process:
    """The state that every thread of this process shares.

    Attributes:
        process: Its number, which each call compares with that of its phase: to ask the system takes longer.
        ledger: What happened to all calls.
        runs: The phase runs that someone still holds, by token.
        handed_over: The runs that another process opened and handed over by pickle, by token.
        open_runs: The runs whose blocks are open, innermost last.
        at_home: The runs whose blocks are open, innermost last, in a task or in the main thread.
        everywhere: The phases that hold for the whole process, innermost last.
        last_run: The phase run that closed last.
        last_report: The `EvalReport` that was made last.
        why_not_stored: Why answers that were bought are not stored, by the key of what was asked.
        cassettes: The cassettes that are open, by token.
        usage: Adds up how the store in use is used; None where no store is.
        cache: The `ManagedCache` that was put in place last; None where none is.
        was_installed: Whether it ever was.
        opened_with: The settings that its store was opened with; None for a store of the user's own.
        in_memory: The caches whose stores are in memory alone, by the settings they were opened with.
        dspys_cache: The cache whose place it took; None where DSPy had built none.
        overrules_dspy: Whether `install()` was called: what DSPy's own cache was told does not matter then.
        answers: By what the answers that are in no store are known again, by their keys.
        candidates: What was compiled here: which programs were scored on which questions.
        instead_of_evaluating: What is done with an evaluation that is opened, in the place of asking; None to ask.
        replaced: What else of DSPy is replaced meanwhile, by its home and its name (see `patches`).
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = free_after_fork(threading.RLock())
        # Apart from the lock above, which calls take: opening a store may wait for a disk.
        self.installing = free_after_fork(threading.RLock())
        self.reset()

    def reset(self) -> None:
        """Forget everything, in place: other modules hold the object. For tests, after `uninstall`."""
        self.ledger = Ledger()
        self.runs: weakref.WeakValueDictionary[str, PhaseRun] = weakref.WeakValueDictionary()
        self.handed_over: OrderedDict[str, PhaseRun] = OrderedDict()
        self.open_runs: list[PhaseRun] = []
        self.at_home: list[PhaseRun] = []
        self.everywhere: list[PhaseContext] = []
        self.last_run: PhaseRun | None = None
        self.last_report: Any = None
        self.cassettes: dict[str, OpenCassette] = {}
        self._closed: deque[str] = deque()
        self.usage: Usage | None = None
        self.cache: Any = None
        self.was_installed = False
        self.opened_with: Place | None = None
        self.in_memory: dict[Place, Any] = {}
        self.dspys_cache: Cache | None = None
        self.overrules_dspy = False
        self.instead_of_evaluating: Callable[..., Any] | None = None
        self.replaced: dict[tuple[Any, str], Any] = {}
        self.why_not_stored: OrderedDict[str, str] = OrderedDict()
        self._said: OrderedDict[str, None] = OrderedDict()
        self.answers = Marks()
        self.candidates = Candidates()
        self._news: set[tuple[Any, int]] = set()

    def say_once(self, topic: str, message: str) -> None:
        """Log a warning, the first time that its topic comes up."""
        with self.lock:
            if topic in self._said:
                return
            self._said[topic] = None
            if len(self._said) > _MOST_SAID:
                self._said.popitem(last=False)
        logger.warning("%s", message)

    def enter(self, run: PhaseRun) -> None:
        """Note that the block of a run was entered."""
        with self.lock:
            self.runs[run.context.token] = run
            self.open_runs.append(run)
            self._announce(run)
            if run.home.is_ones_own and not run.context.is_cassette:
                self.at_home.append(run)

    def _announce(self, run: PhaseRun) -> None:
        """Say to workers what is open, where a run has been entered or left that they should know of."""
        if run.is_told:
            own = [one for one in self.open_runs if one.is_told and not one.is_handed_over]
            announce([one.to_tell(list(self._around(one)), replays=self._replays(one.context)) for one in own])

    def _replays(self, context: PhaseContext) -> bool:
        cassette = self.cassettes.get(context.cassette_token)
        return context.replays or (cassette is not None and cassette.replays)

    def _around(self, run: PhaseRun) -> Iterator[str]:
        outer = run.outer
        while outer is not None:
            yield outer.token
            known = self.runs.get(outer.token)
            outer = None if known is None else known.outer

    def take_over(self, run: PhaseRun) -> PhaseRun:
        """Hold a run that another process opened, and return it, or the one that was taken over before."""
        with self.lock:
            known = self.runs.get(run.context.token)
            if known is not None:
                return known
            self._hand_over(run)
            return run

    def _hand_over(self, run: PhaseRun) -> None:
        run.hand_over()
        self.runs[run.context.token] = self.handed_over[run.context.token] = run
        if len(self.handed_over) > _MOST_CLOSED:
            self.handed_over.popitem(last=False)

    def before_fork(self) -> None:
        """Let a child have a part in the phases that are open."""
        TOGETHER.add_up()
        for run in list(self.runs.values()):
            if not run.closed:
                run.share()

    def after_fork(self) -> None:
        """Count in the child what happens there, and its calls in a phase where that was opened."""
        self.process = os.getpid()
        self.ledger.clear()
        for run in list(self.runs.values()):
            if not run.closed:
                self._hand_over(run)

    def leave(self, run: PhaseRun, *, stays_behind: bool) -> None:
        """Note that the block of a run was left.

        Args:
            run: The run.
            stays_behind: Whether its phase may be left behind where it was entered.
        """
        entered = run.context.entered
        if entered is not None:
            entered.stays_behind = entered.stays_behind or stays_behind
            entered.left = True
        with self.lock:
            refused = refusals_of(run.context.token)
            run.end(refused if self._replays(run.context) else 0)
            self._no_longer_open(run)
            self._announce(run)

    def left_elsewhere(self, run: PhaseRun) -> None:
        """Note that the block of a run was left in the process that opened it."""
        with self.lock:
            self._no_longer_open(run)
            if run.context in self.everywhere:
                self.everywhere.remove(run.context)

    def _no_longer_open(self, run: PhaseRun) -> None:
        for opened in (self.open_runs, self.at_home):
            if run in opened:
                opened.remove(run)

    def close_cassette(self, token: str, closed: OpenCassette) -> None:
        """Put a closed cassette in the place of an open one, for stragglers; of those that came long ago none is left.

        Args:
            token: The token under which it was opened.
            closed: What stragglers find.
        """
        with self.lock:
            self.cassettes.pop(token, None)
            self.cassettes[token] = closed
            self._closed.append(token)
            if len(self._closed) > _MOST_CLOSED:
                self.cassettes.pop(self._closed.popleft(), None)

    def is_news(self, what: tuple[Any, ...]) -> bool:
        """Tell whether something that is noted once, in the store in use, was not noted yet; from now on it is."""
        with self.lock:
            is_new = (what, id(self.cache)) not in self._news
            if len(self._news) < _MOST_SAID:
                self._news.add((what, id(self.cache)))
        return is_new

    def note_why_not_stored(self, asked: str | None, why: str) -> None:
        """Remember why an answer that was bought is not stored, to explain a miss."""
        if asked is None:
            return
        with self.lock:
            self.why_not_stored[asked] = why
            if len(self.why_not_stored) > _MOST_UNSTORED:
                self.why_not_stored.popitem(last=False)

    def note_answer(self, key: str, mark: str) -> dict[str, str]:
        """Note by what an answer that is in no store is known again. Return what `Marks.named` had of it before."""
        with self.lock:
            before = self.answers.named(name_of(mark))
            self.answers.add(key, mark)
            if len(self.answers) > _MOST_ANSWERS:
                self.answers.remove_first()
        return before


state = Process()

if sys.platform != "win32":
    # Before the stores hold a fork up: what is shared is a file.
    os.register_at_fork(before=state.before_fork, after_in_child=state.after_fork)


def stats() -> Stats:
    """Return what happened to all calls of this process so far."""
    return state.ledger.snapshot()
