"""In which states a model has answered all those who use a store: a small record of each model."""

from __future__ import annotations

import hashlib
from typing import Any

from dspy_cachectl.drift.states import Asked, State
from dspy_cachectl.stores.registers.base import Record, Register

_MOST_KEPT = 20


def noted(register: Register, asked: Asked, state: State, created: float) -> State | None:
    """Note that a model answered in a state. Return the one before it, where the store has not met it yet.

    Args:
        register: Where the store keeps records.
        asked: The model, and where it is served.
        state: The state.
        created: When it answered, in Unix seconds.

    Raises:
        StoreError: If the record cannot be read or written.
    """
    before: list[State] = []

    def change(record: Record) -> Record:
        known = _read(record)
        others = sorted((when, other) for other, when in known.items() if other != state)
        before[:] = [others[-1][1]] if others and state not in known else []
        known[state] = max(created, known.get(state, 0.0))
        latest = sorted(known.items(), key=lambda item: item[1])[-_MOST_KEPT:]
        return {"states": [[*one, when] for one, when in latest]}

    name = hashlib.sha256(f"{asked[0]}\n{asked[1]}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    register.change(f"drift:{name}", change)
    return next((one for one in before if not one.is_same(state)), None)


def _read(record: Record) -> dict[State, float]:
    """Return the states of a record; what is none is passed over."""
    found: dict[State, float] = {}
    stored: Any = record.get("states")
    for one in stored if isinstance(stored, list) else []:
        if isinstance(one, list) and list(map(type, one)) == [str, str, float]:
            found[State(one[0], one[1])] = one[2]
    return found
