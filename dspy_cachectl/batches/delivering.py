"""The lines of a wave on their way: sent as batches, waited for, and taken."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dspy_cachectl.batches import notes
from dspy_cachectl.batches.batch import Batch
from dspy_cachectl.batches.lines import Line
from dspy_cachectl.batches.notes import Note, name_of
from dspy_cachectl.batches.provider import ENDED, Account, NotSentError
from dspy_cachectl.batches.spending import affordable, within_budgets
from dspy_cachectl.batches.waves import Waves
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.errors import BatchError, BatchPendingError, BudgetExceededError

_logger = logger_for(__name__)

_MOST_LINES, _MOST_BYTES = 50_000, 190 * 1024**2
"""What one batch may hold: OpenAI's limits, and less than its 200 MB."""
_MOST_SILENT = 10
"""So many times in a row a provider may not say how far a batch is."""
_MAY_PASS = frozenset({408, 409, 425, 429})
_OK = 200

Show = Callable[..., None]
"""Told how many lines are answered, of how many, and what makes a sentence of it."""


@dataclass(frozen=True)
class Sending:
    """How the waves of one evaluation are sent.

    Attributes:
        how: How batches are waited for.
        evaluation: A hash of the evaluation, by which a later process finds what was sent.
        run_id: Its run, or None.
        show: Told how far it is.
        pause: Waits for so many seconds.
        tries: How often a line was asked whose last batch had no answer to it, by key.
        places: The units in the order in which a budget allows them as far as it goes; None where it allows a wave or
            none of it.
    """

    how: Batch
    evaluation: str
    run_id: str | None
    show: Show
    pause: Callable[[float], None] = time.sleep
    tries: dict[str, int] = field(default_factory=dict)
    places: Mapping[str, int] | None = None

    def deliver(self, waves: Waves, number: int) -> None:
        """Send what a rehearsal missed, unless it was sent before, and take the answers.

        Args:
            waves: What is missed, and where the answers go.
            number: Which wave it is, from 1.

        Raises:
            BatchPendingError: If a batch is not done, and is not to be waited for.
            BatchError: If the provider refuses a batch, or somebody has cancelled it.
            BudgetExceededError: If a budget does not allow it, and no unit comes before another.
            StoreError: If what is sent cannot be noted.
        """

        def send() -> None:
            with notes.sending():
                on_their_way = list(self._sent_before(waves))
                on_their_way += [_send(note, lines) for note, lines in self._new(_not_in(on_their_way, waves))]
            total = sum(len(note.keys) for note in on_their_way)
            _logger.info("wave %d: %d answers are awaited in %s", number, total, _ids(on_their_way))
            self._wait(waves, on_their_way, number)

        with notes.sending():
            to_be_paid = _not_in(self._sent_before(waves), waves)
        while True:
            try:
                return within_budgets(to_be_paid, waves.mail, send)
            except BudgetExceededError as refusal:
                if self.places is None:
                    raise
                self._cut(waves, to_be_paid, refusal)
                to_be_paid = [line for line in to_be_paid if line.key in waves.lines]

    def _cut(self, waves: Waves, lines: list[Line], refusal: BudgetExceededError) -> None:
        """Leave out of a wave that was refused all units from the first on that there is no room for."""
        places = self.places or {}
        units: defaultdict[int, list[Line]] = defaultdict(list)
        for line in lines:
            units[places.get(str(line.unit), len(places))].append(line)
        in_order = sorted(units)
        # Where all of them fit it was for something else, and is again.
        end = in_order[affordable(units[place] for place in in_order) % len(in_order)]
        beyond = {unit for unit, place in places.items() if place >= end}
        waves.stop_before(beyond | {line.unit for at in in_order if at >= end for line in units[at]}, refusal)

    def _sent_before(self, waves: Waves) -> Iterator[Note]:
        """Yield the batches that what is missed was sent with last."""
        last = {key: note for note in notes.noted() for key in note.keys}
        found: dict[str, Note] = {}
        for key in waves.lines:
            note = last.get(key)
            if note is not None and self.tries.get(key, 0) < note.attempt:
                found[note.name] = note
        for note in found.values():
            known = note if note.batch is not None else _found(note, _account(note, waves.lines.values()))
            if known is not None:
                yield known

    def _new(self, missing: Iterable[Line]) -> Iterator[tuple[Note, list[Line]]]:
        """Yield the batches that are to be sent: each is of one model, one account and one attempt."""
        groups: defaultdict[tuple[str, int], list[Line]] = defaultdict(list)
        for line in missing:
            groups[line.group, self.tries.get(line.key, 0) + 1].append(line)
        for (_, attempt), lines in groups.items():
            for part in _parts(sorted(lines, key=lambda line: line.key)):
                keys = tuple(line.key for line in part)
                yield (
                    Note(
                        name=name_of(keys, part[0].endpoint, attempt),
                        evaluation=self.evaluation,
                        run_id=self.run_id,
                        provider=part[0].provider,
                        model=part[0].model,
                        keys=keys,
                        attempt=attempt,
                        created=time.time(),
                    ),
                    part,
                )

    def _wait(self, waves: Waves, awaited: list[Note], number: int) -> None:
        interval, silent, answered = self.how.interval, 0, dict.fromkeys((note.name for note in awaited), 0)
        total = sum(len(note.keys) for note in awaited)
        while awaited:
            for note in list(awaited):
                try:
                    batch = _account(note, waves.lines.values()).look(str(note.batch))
                except BatchError as error:
                    silent += 1
                    if silent >= _MOST_SILENT:
                        raise _gone(note, error) from error
                    continue
                silent = 0
                answered[note.name] = getattr(getattr(batch, "request_counts", None), "completed", None) or 0
                if batch.status in ENDED:
                    self._take(waves, note, batch)
                    awaited.remove(note)
            self.show(sum(answered.values()), total, _said(number, awaited))
            if awaited and not self.how.wait:
                raise BatchPendingError([str(note.batch) for note in awaited], total, self.run_id)
            if awaited:
                self.pause(interval)
                interval = self.how.after(interval)

    def _take(self, waves: Waves, note: Note, batch: Any) -> None:
        """Take the answers of a batch that has ended, and note what it has none to."""
        account, said = _account(note, waves.lines.values()), dict[str, tuple[str, bool]]()
        for file in (batch.output_file_id, batch.error_file_id):
            for row in _rows(account, note, file) if file else ():
                line = waves.lines.get(str(row.get("custom_id")))
                if line is not None:
                    why = _read(waves, line, row)
                    said |= {line.key: why} if why else {}
        missing = set(note.keys) & waves.lines.keys() - waves.mail.keys()
        if missing and batch.status in {"failed", "cancelled"}:
            _end(note, batch, missing)
        for key in missing:
            reason, is_final = said.get(key, (f"batch {note.batch} {batch.status} without an answer to it", False))
            self.tries[key] = note.attempt
            if is_final or note.attempt >= self.how.attempts:
                waves.failed[key] = reason


def _ids(sent: Iterable[Note]) -> str:
    return ", ".join(str(note.batch) for note in sent)


def _not_in(sent: Iterable[Note], waves: Waves) -> list[Line]:
    keys = {key for note in sent for key in note.keys}
    return [line for line in waves.lines.values() if line.key not in keys]


def _rows(account: Account, note: Note, file: str) -> Iterator[dict[str, Any]]:
    try:
        yield from account.rows(file)
    except BatchError as error:
        raise _gone(note, error) from error


def _gone(note: Note, error: BatchError) -> BatchError:
    return BatchError(f"{error}. Where it is gone for good, remove {notes.path_of(note)}: it is then sent anew")


def _parts(lines: list[Line]) -> Iterator[list[Line]]:
    part, size = list[Line](), 0
    for line in lines:
        length = len(line.as_bytes())
        if part and (len(part) >= _MOST_LINES or size + length > _MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += length
    if part:
        yield part


def _account(note: Note, lines: Iterable[Line]) -> Account:
    """Return the account that a batch is of: that of the calls whose answers it has."""
    keys = set(note.keys)
    line = next(line for line in lines if line.key in keys)
    return Account(line.provider, line.connection)


def _found(note: Note, account: Account) -> Note | None:
    """Return a batch that was noted and may have been sent, or None where it was not."""
    try:
        batch = account.find(note.name)
    except BatchError as error:
        raise BatchError(
            f"a process was killed while it sent a batch of {len(note.keys):,} lines, and it is not known whether the "
            f"provider has it: {error}. Where it has none of that time, remove {notes.path_of(note)}, and run again"
        ) from error
    if batch is None:
        notes.remove(note)
        return None
    known = replace(note, batch=batch)
    notes.write(known)
    return known


def _send(note: Note, lines: list[Line]) -> Note:
    """Send a batch, unless somebody has who has no part in this state folder."""
    account = Account(lines[0].provider, lines[0].connection)
    notes.write(note)
    try:
        batch = account.send(note.name, b"".join(line.as_bytes() for line in lines))
    except NotSentError:
        notes.remove(note)
        raise
    sent = replace(note, batch=batch)
    notes.write(sent)
    return sent


def _read(waves: Waves, line: Line, row: dict[str, Any]) -> tuple[str, bool] | None:
    """Take what a batch says to a line. Return why that is no answer, and whether it will never be one; or None."""
    response = row.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status == _OK and isinstance(body, dict):
        try:
            waves.mail[line.key] = line.answer(body)
        except Exception as error:  # noqa: BLE001 - DSPy's and LiteLLM's readers raise what they like
            return scrub(f"it cannot be read: {type(error).__name__}: {error}"), False
        return None
    fault = row.get("error") or (body.get("error") if isinstance(body, dict) else None)
    said = str((fault.get("message") if isinstance(fault, dict) else fault) or "no reason was given")
    is_final = isinstance(status, int) and 400 <= status < 500 and status not in _MAY_PASS
    return scrub(f"{status}: {said}" if status else said), is_final


def _end(note: Note, batch: Any, missing: set[str]) -> None:
    """End with a batch that the provider refused, or that somebody has cancelled: what was answered is kept."""
    kept = tuple(key for key in note.keys if key not in missing)
    if kept:
        notes.write(replace(note, keys=kept))
    else:
        notes.remove(note)
    errors = getattr(getattr(batch, "errors", None), "data", None) or ()
    why = "; ".join(str(getattr(error, "message", error)) for error in errors)
    what = "was refused by the provider" if batch.status == "failed" else "was cancelled"
    raise BatchError(
        scrub(
            f"batch {note.batch} of {len(note.keys):,} lines {what}{f': {why}' if why else ''}. {len(kept):,} answers "
            "of it are there and are taken by the next evaluation, which sends the others anew"
        )
    )


def _said(number: int, awaited: list[Note]) -> Callable[[], str]:
    def facts() -> str:
        lines = sum(len(note.keys) for note in awaited)
        return f"wave {number}" + (f", {lines:,} lines in {len(awaited)} batches awaited" if awaited else "")

    return facts
