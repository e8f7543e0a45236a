"""What is known of a run beside its draws: an entry of its own that says when it began and whether it came to its end.

A run may be passed through several times: it is resumed, or several processes share it. The passage that was opened
last owns the description, and only it can say that the run is complete. Where a run is made in parts, each part has a
description of its own, which nobody else writes, and the run is complete when all parts of so many are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import orjson
import pydantic

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.entries import records
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreError
from dspy_cachectl.stores import RUN_KIND, Label
from dspy_cachectl.stores.tiers import Tiers


@dataclass(frozen=True)
class Passage:
    """The passage through a run that was opened last.

    Attributes:
        policy: The name of its policy, or None.
        token: What tells it from other passages.
        opened: When it was opened, in Unix seconds; likewise the next.
        ended: When its block ended without an error; None while it is open, and where an error or a kill ended it.
        calls: The calls in it, once it has ended; likewise the next two.
        draws: The distinct draws in it, bought and resumed.
        failed: The calls that ended in an error, whether or not the program went on.
        part: Which part of the run it makes, from 0.
        parts: Of how many.
    """

    policy: str | None = None
    token: str = ""
    opened: float = 0.0
    ended: float | None = None
    calls: int = 0
    draws: int = 0
    failed: int = 0
    part: int = 0
    parts: int = 1

    @property
    def is_complete(self) -> bool:
        """Whether all its draws were made: it ended without an error, and so did every call."""
        return self.ended is not None and not self.failed


def run_key(run_id: str, part: int = 0, parts: int = 1) -> str:
    """Return the key under which a run is described, or one of its parts."""
    return f"{RUN_KIND}:{run_id}" if parts == 1 else f"{RUN_KIND}-part:{part}/{parts}:{run_id}"


def together(passages: Sequence[Passage]) -> Passage:
    """Return the passages through a run as one: the one opened last, or all parts of as many as that one is of."""
    last = max(passages, key=lambda passage: passage.opened)
    parts = [passage for passage in passages if passage.parts == last.parts]
    ends = [passage.ended for passage in parts if passage.ended is not None]
    return replace(
        last,
        part=0,
        ended=max(ends) if len(ends) == last.parts else None,
        calls=sum(passage.calls for passage in parts),
        draws=sum(passage.draws for passage in parts),
        failed=sum(passage.failed for passage in parts),
    )


def decode(data: bytes) -> tuple[records.Origin, Passage]:
    """Decode the description of a run: its phase, when it began and the temperature lent; and its last passage.

    Raises:
        CorruptEntryError: If it is damaged.
        FormatVersionError: If a newer version of this package wrote it.
    """
    entry = records.decode(data)
    try:
        return entry.origin, _passages().validate_json(orjson.dumps(entry.answer), strict=True)
    except (pydantic.ValidationError, TypeError) as error:
        raise CorruptEntryError(f"the description of a run cannot be decoded: {error}") from error


@lru_cache(maxsize=1)
def _passages() -> pydantic.TypeAdapter[Passage]:
    return pydantic.TypeAdapter(Passage)


def note_opening(
    tiers: Tiers,
    run_id: str,
    *,
    phase: str,
    policy: str | None,
    temperature: float | None,
    token: str,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Describe a run whose draws are about to be made; one that is described already is open again.

    Args:
        tiers: Where it is described.
        run_id: The run.
        phase: The phase that makes it.
        policy: The name of its policy, or None.
        temperature: The temperature that is lent, or None.
        token: What tells this passage from others.
        part: Which part of it this passage makes, from 0.
        parts: Of how many.
    """
    now = time.time()
    origin = records.Origin(kind=RUN_KIND, model="", phase=phase, run_id=run_id, temperature=temperature, created=now)
    data = tiers.get(run_key(run_id), behind=True)
    if data is not None:
        try:
            origin = decode(data)[0]
        except FormatVersionError:
            return  # what a newer version wrote is left as it is
        except StoreError:
            pass  # it is damaged, and written anew
    passage = Passage(policy=policy, token=token, opened=now, part=part, parts=parts)
    if parts > 1 and data is None:
        # Of the run as a whole nothing is known but this. Who comes later leaves it, and has its temperature of it.
        whole = replace(passage, opened=0.0, part=0, parts=1)
        tiers.put_first(run_key(run_id), _encoded(origin, whole), _label(origin), mark="")
    _put(tiers, origin, passage)


def note_end(tiers: Tiers, run_id: str, *, token: str, tally: Tally, part: int = 0, parts: int = 1) -> None:
    """Note that a passage ended without an error, unless another was opened since; see `note_opening`."""
    data = tiers.get(run_key(run_id, part, parts), behind=True)
    if data is None:
        return
    try:
        origin, passage = decode(data)
    except StoreError:
        return  # said when it was opened
    if passage.token == token:
        ended = {"ended": time.time(), "calls": tally.calls, "draws": tally.draws, "failed": tally.failed}
        _put(tiers, origin, Passage(**{**asdict(passage), **ended}))


def _put(tiers: Tiers, origin: records.Origin, passage: Passage) -> None:
    tiers.put(run_key(origin.run_id or "", passage.part, passage.parts), _encoded(origin, passage), _label(origin))


def _encoded(origin: records.Origin, passage: Passage) -> bytes:
    return records.encode(origin, asdict(passage))


def _label(origin: records.Origin) -> Label:
    return Label(kind=RUN_KIND, phase=origin.phase, run=origin.run_id or "")
