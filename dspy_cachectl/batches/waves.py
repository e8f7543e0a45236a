"""What a phase asks in place of a provider while a program is rehearsed, and when it then runs in earnest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from typing import Any

from dspy.clients.call_result import CallResult
from dspy.utils.exceptions import LMError

from dspy_cachectl.accounting.ledger import SERVED
from dspy_cachectl.batches.lines import Line, line_of, why_not
from dspy_cachectl.calls.call import CALL, Call
from dspy_cachectl.context.process import state
from dspy_cachectl.errors import BudgetExceededError, ConfigurationError
from dspy_cachectl.policy import Kind


class Missed(BaseException):
    """Ends a rehearsal at a call whose answer is still to be bought. No `Exception`, which a program would catch."""


class Waves:
    """The calls of an evaluation that go by batches. Thread-safe.

    A rehearsal runs the program to the first call of each question that has no answer yet. Those calls are the lines of
    the next wave. What is asked in earnest finds all answers, and counts each that a batch brought as bought.

    Attributes:
        is_rehearsal: Whether the program is rehearsed.
        lines: What the rehearsal missed, by key.
        mail: What batches answered, by key.
        failed: Why there is no answer, by key, where there will be none.
        refused: Why a call cannot be sent with a batch, or None.
        left_out: The units that a budget does not allow, which are not asked.
        refusal: What says so, or None.
    """

    def __init__(self) -> None:
        self.is_rehearsal = True
        self.lines: dict[str, Line] = {}
        self.mail: dict[str, CallResult] = {}
        self.failed: dict[str, str] = {}
        self.refused: ConfigurationError | None = None
        self.left_out: Set[str | None] = frozenset()
        self.refusal: BudgetExceededError | None = None
        self._bought: set[str] = set()
        self._served: set[str] = set()
        self._awaited: dict[str, str | None] = {}
        self._astray: set[str | None] = set()
        self._lock = threading.Lock()

    def count_as_bought(self, keys: Iterable[str]) -> None:
        """Count answers as bought that batches of this run brought to the store, once they are served in earnest."""
        self._bought.update(keys)

    def begin(self) -> None:
        """Begin a rehearsal."""
        self._awaited = {line.key: line.unit for line in self.lines.values() if line.key in self.mail}
        self.lines, self._served = {}, set()

    def end(self) -> None:
        """End a rehearsal: leave out the questions whose program asked something else than in the one before.

        Raises:
            ConfigurationError: If a call cannot be sent with a batch.
        """
        if self.refused is not None:
            raise self.refused
        changing = {unit for key, unit in self._awaited.items() if key not in self._served}
        again = {line.unit for line in self.lines.values()}
        astray = changing & again - self.left_out
        self._astray |= astray
        if astray:
            state.say_once(
                "batch:astray",
                "the program asks something else each time that it is run, with the same inputs and answers: what was "
                "bought for such questions is of no use, and they are asked at once, at the ordinary price. Seed what "
                "is random in it, and leave the time out of what it asks",
            )
        self._leave_out(self._astray | self.left_out)

    def stop_before(self, units: Set[str | None], refusal: BudgetExceededError) -> None:
        """Leave out units that a budget does not allow."""
        self.left_out, self.refusal = self.left_out | units, refusal
        self._leave_out(self.left_out)

    def _leave_out(self, units: Set[str | None]) -> None:
        self.lines = {key: line for key, line in self.lines.items() if line.unit not in units}

    def engine(self, lm: Any, prepared: Any, asynchronous: bool, choose: Callable[[], Any]) -> Any:
        """Return what answers a call that the store does not; None where the provider is to be asked at once.

        Args:
            lm: The LM.
            prepared: The call as DSPy has prepared it.
            asynchronous: Whether DSPy awaits it.
            choose: Returns what DSPy would ask: engine, request and provider.

        Raises:
            Missed: It is sent with the next batch.
            LMError: There will be no answer.
        """
        call: Call | None = vars(prepared).get(CALL)
        key = None if call is None else call.key
        if key is not None and key in self.failed:
            raise LMError(f"no batch has its answer: {self.failed[key]}")
        if call is not None and key is not None and key in self.mail:
            call.within = {key}  # in the next rehearsal it is the same draw, and not one that somebody repeated
            call.sent_at = None  # how long a batch took is not how long the provider takes for an answer
            return (_Awaited if asynchronous else _Delivered)(self._delivered(key)), None, None
        if not self.is_rehearsal:
            return None
        why = why_not(lm, prepared, call)
        if why:
            self.refused = ConfigurationError(
                f"a call of {lm.model!r} cannot be sent with a batch: {why}. Leave batch out, or give the program "
                "another LM"
            )
            raise Missed
        backend, request, provider = choose()
        assert call is not None  # noqa: S101 - for the type checker: it has a key
        assert key is not None  # noqa: S101 - likewise
        line = line_of(lm, prepared, call, backend=backend, request=request, by=provider)
        with self._lock:
            self.lines.setdefault(key, line)
        raise Missed

    def _delivered(self, key: str) -> CallResult:
        with self._lock:
            self._served.add(key)
            if self.is_rehearsal:
                self._bought.add(key)
            else:
                self._bought.discard(key)
        result = self.mail[key]
        return replace(result, outputs=list(result.outputs))  # DSPy puts others' answers into it

    def hides(self, call: Call) -> bool:
        """Tell whether a call that has ended is not counted: of a rehearsal only what was bought elsewhere is."""
        if not self.is_rehearsal:
            return False
        if call.key is not None and call.answered.outcome in SERVED:
            self._served.add(call.key)
        return call.asked.kind in {Kind.LM, Kind.PLAIN_LM} or call.answered.outcome in SERVED

    def is_bought_now(self, key: str | None) -> bool:
        """Tell whether a served answer is to be counted as bought: once, where a batch of this run brought it."""
        if self.is_rehearsal or key not in self._bought:
            return False
        with self._lock:
            is_first = key in self._bought
            self._bought.discard(key)
        return is_first


class _Delivered:
    """An engine whose answer is there: DSPy goes its way with it, as with any other."""

    has_answer = True

    def __init__(self, result: CallResult) -> None:
        self._result = result

    def complete_legacy(self, lm: Any, request: Any, **context: Any) -> CallResult:  # noqa: ARG002 - DSPy's
        """Return the answer."""
        return self._result


class _Awaited(_Delivered):
    """The same, where DSPy awaits it."""

    async def complete_legacy(self, lm: Any, request: Any, **context: Any) -> CallResult:  # noqa: ARG002
        """Return the answer."""
        return self._result
