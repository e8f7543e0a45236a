"""What is known of a run beside its draws: an entry of its own that says when it began and whether it came to its end.

A run may be passed through several times: it is resumed, or several processes share it. The passage that was opened
last owns the description, and only it can say that the run is complete.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

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
    """

    policy: str | None = None
    token: str = ""
    opened: float = 0.0
    ended: float | None = None
    calls: int = 0
    draws: int = 0
    failed: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all its draws were made: it ended without an error, and so did every call."""
        return self.ended is not None and not self.failed


def run_key(run_id: str) -> str:
    """Return the key under which a run is described."""
    return f"{RUN_KIND}:{run_id}"


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
    tiers: Tiers, run_id: str, *, phase: str, policy: str | None, temperature: float | None, token: str
) -> None:
    """Describe a run whose draws are about to be made; one that is described already is open again."""
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
    _put(tiers, origin, Passage(policy=policy, token=token, opened=now))


def note_end(tiers: Tiers, run_id: str, *, token: str, tally: Tally) -> None:
    """Note that a passage ended without an error, unless another was opened since."""
    data = tiers.get(run_key(run_id), behind=True)
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
    description: dict[str, Any] = asdict(passage)
    label = Label(kind=RUN_KIND, phase=origin.phase, run=origin.run_id or "")
    tiers.put(run_key(origin.run_id or ""), records.encode(origin, description), label)
