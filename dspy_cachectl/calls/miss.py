"""Why a replay has no answer to a call, and which stored entry is nearest to what was asked."""

from __future__ import annotations

import itertools
from typing import Any

import orjson

from dspy_cachectl.calls.call import Call
from dspy_cachectl.context.process import state
from dspy_cachectl.entries import differences
from dspy_cachectl.entries.nearest import NEVER_STORED, nearest
from dspy_cachectl.stores.tiers import Tiers

_SEARCHED_FOR_NEAREST = 2_000


def explained(call: Call, reason: str, tiers: Tiers) -> dict[str, Any]:
    """Return the reason of a miss, and the nearest entry with what differs: the arguments of `Call.miss`."""
    asked, run, cassette = call.asked, call.asked.ruling.run, call.asked.ruling.cassette
    if run is not None and not run.explains_next_miss:
        return {"reason": reason}
    why_not_stored = state.why_not_stored.get(asked.key.request or "")
    if why_not_stored is not None:
        return {"reason": why_not_stored}
    wanted = orjson.loads(asked.description())
    if cassette is not None:
        wanted = cassette.clean.request(wanted)  # as its recordings are, and as a message may show it
    keys = itertools.islice(tiers.keys(asked.kind.value), _SEARCHED_FOR_NEAREST)
    like = ((key, tiers.get(key, behind=True) or b"") for key in keys)  # the memory keeps no requests
    found = nearest(wanted, like) if cassette is None else cassette.nearest(wanted)
    if found is None:
        return {"reason": reason}
    if reason == NEVER_STORED:
        reason = found.reason(wanted, asked.run_id)
    lines = differences.between(wanted, found.description)
    return {"reason": reason, "nearest": found.key, "differences": lines}
