"""What an open cassette holds: what is recorded, what is served from it, and which draw each call stands for.

While a cassette is open it takes the place of the store. Phases go on inside it with ids of runs that are the same
each time, so that a recording and its replays ask for the same draws.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dspy_cachectl.accounting.ledger import Ledger
from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.entries import cleaning
from dspy_cachectl.entries.draws import Ordinals
from dspy_cachectl.entries.nearest import Nearest, nearest
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import CacheMissError
from dspy_cachectl.policy import Decision, Policy

Mode = Literal["replay", "record", "new", "all"]

CASSETTE_RUN = "cassette"
"""The run of the draws that are made outside the phases within a cassette."""

UNCACHED_RUN = "cassette-uncached"
"""The run of the calls that ask DSPy not to cache them."""

EACH_A_DRAW = Policy(fresh=True)
"""Each call is a draw of its own, sent as it is."""


_TOLD = frozenset({"messages", "prompt", "input", "request"})
_TRACEBACK = "Traceback (most recent call last)"
_INSTALLED = re.compile(r'(?<=File )(\\*")[^"\n]*[/\\](?:site|dist)-packages[/\\]')
_POINTED = re.compile(r"\n[ \t]*[~^]+(?=\n|\Z)")


def _portable(value: Any) -> Any:
    if isinstance(value, str):
        if _TRACEBACK not in value:
            return value
        return _POINTED.sub("", _INSTALLED.sub(r"\1site-packages/", value))
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    if type(value) is dict:
        return {name: _portable(item) for name, item in value.items()}
    return value


@dataclass(frozen=True)
class Recording:
    """An answer in a cassette.

    Attributes:
        key: The key of the draw.
        asked: The key of what was asked, whichever draw of it this is.
        data: The entry (see `records`).
        scope: Whose it is, in a file that several share; empty for nobody's.
    """

    key: str
    asked: str
    data: bytes
    scope: str = ""


class OpenCassette:
    """What a cassette serves and records while it is open. Thread-safe.

    Args:
        name: What the cassette is called in messages.
        recordings: What is on it.
        mode: What is done with a call: `"replay"` serves it or raises, `"new"` records what is not there,
            `"all"` records everything anew.
        clean: What every text goes through before it is written.
        portable: Whether its keys hold no address: see `endpoint`.
        on_recorded: Called with each new recording, before its answer reaches the program.
        scope: Whose recordings it serves and makes. Equal draws of two scopes have different keys, so that neither
            is served what the other recorded.
        is_unfinished: Whether its recording was cut short.

    Attributes:
        ledger: What happened to the calls within it.
        ordinals: Numbers the draws of calls that ask DSPy not to cache them.
        recorded: What was recorded since it was opened, by key.
        misses: The calls that it had no answer for, in their order.
        unkept: Why answers could not be recorded, in their order.
        temperatures: The temperature that each run lends.
    """

    def __init__(
        self,
        name: str,
        recordings: Iterable[Recording] = (),
        *,
        mode: Literal["replay", "new", "all"],
        clean: cleaning.Cleaner | None = None,
        portable: bool = True,
        on_recorded: Callable[[Recording], None] | None = None,
        scope: str = "",
        is_unfinished: bool = False,
    ) -> None:
        self.name = name
        self.is_unfinished = is_unfinished
        self.mode = mode
        self.scope = scope
        self.clean = clean or cleaning.Cleaner()
        self.ledger = Ledger()
        self.ordinals = Ordinals()
        self.recorded: dict[str, Recording] = {}
        self.misses: list[CacheMissError] = []
        self.unkept: list[Exception] = []
        self.temperatures: dict[str, float | None] = {}
        self._portable = portable
        self._endpoints: dict[str, list[str | None]] = {}
        self._on_recorded = on_recorded
        self._lock = free_after_fork(threading.Lock())
        self._loaded = {recording.key: recording for recording in recordings if recording.scope == scope}
        self._served_to: dict[str, str] = {}
        self._used: set[str] = set()
        self._passages: Counter[str] = Counter()
        self._draws: dict[str, list[str]] = {}
        self._stands_for: dict[str, str] = {}
        self._within: dict[str, list[str]] = {}
        for recording in self._loaded.values():
            # What has no key of its own is no draw: the answer to every such call.
            if recording.key != recording.asked:
                self._draws.setdefault(recording.asked, []).append(recording.key)

    @property
    def replays(self) -> bool:
        """Whether no call reaches a provider."""
        return self.mode == "replay"

    @property
    def unused(self) -> list[str]:
        """The keys of what was on it and was not asked for since it was opened."""
        return [key for key in self._loaded if key not in self._used and key not in self.recorded]

    def missed(self, miss: CacheMissError) -> None:
        """Note a call that it had no answer for."""
        self.misses.append(miss)

    def next_run(self, phase: str) -> str:
        """Return the run id of the next passage through a phase: the same each time the program is run."""
        with self._lock:
            self._passages[phase] += 1
            return f"{phase}-{self._passages[phase]}"

    def endpoint(self, model: str, address: str | None) -> str | None:
        """Return what stands for an endpoint in the keys: nothing for a model's first, a number for its others.

        The same model has another address on another machine, and a server in a test another port each time.
        """
        if not self._portable:
            return address
        with self._lock:
            known = self._endpoints.setdefault(model, [])
            if address not in known:
                known.append(address)
            place = known.index(address)
        return None if place == 0 else f"endpoint-{place + 1}"

    def portable(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a request as its key is made: without where DSPy is installed, and what only some Pythons point at.

        An agent is told of what a tool raised by the lines of a traceback, and asks with them.
        """
        if not self._portable:
            return request
        return {name: _portable(value) if name in _TOLD else value for name, value in request.items()}

    def policy(self, policy: Policy) -> Policy:
        """Return what a policy comes to here: one that does not read makes draws, since each call is another."""
        if not policy.reads:
            policy = replace(policy, reads=True, stores=True, fresh=True, temperature=None)
        return replace(policy, max_age=None)

    def decide(self, decision: Decision) -> Decision:
        """Return what a decision comes to in a cassette."""
        raises = decision.raises or self.replays
        return decision._replace(
            reads=True,
            stores=not raises,
            raises=raises,
            coalesces=decision.coalesces and not raises,
        )

    def find(self, key: str, asked: str, *, draw: bool) -> bytes | None:
        """Return the answer to a call, or None where there is none yet.

        Args:
            key: The key of the draw.
            asked: The key of what is asked.
            draw: Whether any recorded draw of it will do that was not served yet. Threads may number equal calls
                otherwise than they did when it was recorded.
        """
        key, asked = self._own(key), self._own(asked)
        with self._lock:
            recording = self.recorded.get(key)
            if recording is None and self.mode != "all":
                recording = self._loaded.get(self._stands_for.get(key, key))
                if draw and (recording is None or self._served_to.get(recording.key, key) != key):
                    recording = self._unserved_draw(asked)
            if recording is None:
                return None
            if draw:
                # No two calls get one draw: who numbers its calls otherwise must not run out of answers unseen.
                self._served_to[recording.key], self._stands_for[key] = key, recording.key
            self._used.add(recording.key)
            return recording.data

    def _unserved_draw(self, asked: str) -> Recording | None:
        drawn = self._draws.get(asked, ())
        return next((self._loaded[key] for key in drawn if key not in self._served_to), None)

    def keep(self, key: str, asked: str, data: bytes, tool: str | None = None) -> bytes:
        """Record an answer. Return the entry as it is kept: with its texts cleaned.

        Args:
            key: The key of the draw.
            asked: The key of what was asked.
            data: The entry.
            tool: The key of the tool's call in which it was asked, or None.

        Raises:
            Exception: What the user's function raised that redacts texts, or why the recording cannot be written down;
                `unkept` has these too. An error of the disk is raised as well, and then it is recorded all the same.
        """
        try:
            recording = Recording(self._own(key), self._own(asked), self.clean.entry(data), self.scope)
        except Exception as error:
            self.unkept.append(error)
            raise
        with self._lock:
            self.recorded[recording.key] = recording
            if tool is not None:
                self._within.setdefault(tool, []).append(recording.key)
        try:
            if self._on_recorded is not None:
                self._on_recorded(recording)
        except UnstorableError as error:
            del self.recorded[recording.key]
            self.unkept.append(error)
            raise
        return recording.data

    def forget_within(self, tool: str) -> None:
        """Do without what a tool asked itself, whose result is recorded: no replay asks it. What was served stays."""
        with self._lock:
            for key in self._within.pop(tool, ()):
                if key not in self._used:
                    self.recorded.pop(key, None)

    def _own(self, key: str) -> str:
        return hashlib.sha256(f"{self.scope}\n{key}".encode()).hexdigest() if self.scope else key

    def nearest(self, asked: Mapping[str, Any]) -> Nearest | None:
        """Return the recording whose request is most like the one that was asked.

        Args:
            asked: The description of the request, clean (see `cleaning`).
        """
        merged = {**self._loaded, **self.recorded}
        # Of equally like ones the one that is left over: it is what the changed request was.
        entries = sorted(((key, one.data) for key, one in merged.items()), key=lambda entry: entry[0] in self._used)
        return nearest(asked, entries)
