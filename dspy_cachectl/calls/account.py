"""Counting a call when it has ended: what it cost or saved, in every ledger that is due."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dspy.utils.callback_context import ACTIVE_CALL_ID

from dspy_cachectl.accounting.ledger import SERVED, TOGETHER, Ledger, Row, Tally
from dspy_cachectl.accounting.together import Where
from dspy_cachectl.calls.answering import say_who_answered
from dspy_cachectl.calls.call import Answered, Call
from dspy_cachectl.context import evaluations
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import Ruling, phase_here
from dspy_cachectl.entries.token_counts import NAMES
from dspy_cachectl.errors import CacheMissError
from dspy_cachectl.policy import Kind

_SPENT = {name: f"{name}_spent" for name in NAMES}

WATCHED: dict[str, Call | None] = {}
"""What is known of the LM calls that somebody wants to know of, by DSPy's id of the call."""


class Counted:
    """A block that a call ends with: it is counted then, however it ended."""

    # No generator: that takes longer than the block of a hit has time for.
    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        """Nothing is known yet."""

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Count it."""
        call = self._call
        if error is not None and (isinstance(error, CacheMissError) or call.answered.outcome is None):
            call.answered = Answered("missed" if isinstance(error, CacheMissError) else "failed")
        account(call)


def account(call: Call) -> None:
    """Count a call: in its phase, in the phases it strayed from, in its evaluation and in the process.

    A call that only the cache sees is counted twice: when it asks, and when it was answered.
    """
    asked, tally = call.asked, call.tally
    ruling = asked.ruling
    if ruling.run is not None and ruling.run.waves is not None and ruling.run.waves.hides(call):
        return
    _add_answer(call)
    if tally.calls and (ruling.late or ruling.stray_of):
        tally.late += ruling.late
        tally.stray += bool(ruling.stray_of)
    is_served = call.answered.outcome in SERVED
    _add_up(call, call.key if is_served and not call.is_of_parts else None, at_once=not is_served)
    # A governed LM's call is found around the code that it runs; a plain one's only here, by the id of DSPy's call.
    if WATCHED and asked.kind is Kind.PLAIN_LM and (call_id := ACTIVE_CALL_ID.get()) in WATCHED:
        WATCHED[call_id] = call
    if ruling.run is not None and ruling.run.on_call is not None:
        ruling.run.on_call(call)
    if tally.stray:
        _note_stray(call)


def account_tool(call: Call) -> None:
    """Count a call of a tool likewise: it is no call of an LM, and only its own counters say what became of it."""
    tally, ruling = call.tally, call.asked.ruling
    tally.late += ruling.late
    tally.stray += bool(ruling.stray_of)
    _add_up(call, call.key if tally.tool_calls_served else None, at_once=True)
    if tally.stray:
        _note_stray(call)


def _add_up(call: Call, served: str | None, *, at_once: bool) -> None:
    """Count a call in every ledger that is due, and in the use of the store.

    Args:
        call: The call.
        served: The key of the entry that answered it and that it is noted beside, or None.
        at_once: Not together with the next calls: those that are bought are few, and nobody waits for another hit.
    """
    asked, tally, usage = call.asked, call.tally, state.usage
    ruling = asked.ruling
    ledgers = (*_ledgers(ruling), *evaluations.ledgers())
    for ledger in ledgers:
        at_once = at_once or ledger.also is not None  # where another process may end this one
    name, model, role = ruling.context.name, asked.model, asked.role
    used = asked.kind._value_, model, name, role or "", asked.run_id or ""
    where = Where(ledgers, (name, role, model), usage if ruling.cassette is None else None, used)
    TOGETHER.note(where, tally, served)
    if at_once:
        TOGETHER.add_up()
    if usage is not None:
        usage.flush_if_due()


def note_all_served(call: Call, keys: Iterable[str]) -> None:
    """Note beside entries that they were served: each answers a part of a call, which is counted as a whole."""
    call.is_of_parts = True
    if state.usage is not None and call.asked.ruling.cassette is None:
        state.usage.note_served(keys)


def count_elsewhere(tally: Tally, ruling: Ruling) -> None:
    """Count something that happened to no call in particular."""
    for ledger in _ledgers(ruling):
        ledger.record(Row(ruling.context.name, None, ""), tally)


def count_for(call: Call | None, tally: Tally) -> None:
    """Count something for a call; for none in particular where there is none."""
    if call is None:
        count_elsewhere(tally, phase_here())
    else:
        call.tally.add(tally)


def _ledgers(ruling: Ruling) -> list[Ledger]:
    ledgers = [state.ledger]
    if ruling.cassette is not None:
        ledgers.append(ruling.cassette.ledger)
    run = ruling.run
    if run is not None:
        ledgers.append(run.ledger)
    while run is not None and (run := run.evaluated_in) is not None:
        ledgers.append(run.of_evaluations)
    return ledgers


def _add_answer(call: Call) -> None:
    outcome, origin, tally = call.answered.outcome, call.answered.origin, call.tally
    if outcome is not None:
        vars(tally)[outcome] = 1
    if origin is None:
        return
    say_who_answered(call, origin)
    origin = call.answered.paid or origin
    if outcome in SERVED:
        vars(tally).update(origin.saves)  # which was not counted before
    else:
        bought = 0 if call.asked.local else origin.requests
        tally.requests += bought
        tally.add_all({counter: getattr(origin, name) for name, counter in _SPENT.items()})
        tally.cost_spent += origin.cost or 0.0
        if origin.cost is None and call.asked.kind is not Kind.EMBEDDING:
            tally.unpriced += bought  # and not calls, of which one may make several requests
        tally.seconds_spent += origin.seconds
        tally.truncated += origin.truncated
    # What is bought is looked at when it comes (see `known`).
    if outcome == "resumed" and origin.known is True:
        tally.not_distinct += 1


def _note_stray(call: Call) -> None:
    ruling = call.asked.ruling
    row = Row(ruling.context.name, call.asked.role, call.asked.model)
    for run in ruling.stray_of:
        if run is not ruling.run:
            run.ledger.record(row, Tally(stray=1))
            if run.on_call is not None:
                run.on_call(call)
    names = ", ".join(repr(run.name) for run in ruling.stray_of)
    state.say_once(
        f"stray:{names}",
        f"a call to {row.model!r} came from a thread that carries no phase while {names} is open elsewhere. "
        "A bare thread pool does not carry DSPy's settings: open the phase with everywhere=True, or hand the "
        "pool cachectl.carry(function). Such calls are counted as stray",
    )
