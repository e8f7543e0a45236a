"""What one answer of a program was made of: its draws, and what they cost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from dspy_cachectl.calls.call import Call


@dataclass
class UnitLog:
    """The LM calls of one unit (a question and a repeat).

    Attributes:
        draws: What identifies each answer that it was given, in the order in which they ended.
        requests: Responses bought.
        served: Calls served from the store.
        prompt_tokens: Tokens read, spent and saved.
        completion_tokens: Tokens written, spent and saved.
        cost: US dollars, spent and saved.
        seconds: Seconds of the provider, spent and saved.
        oldest: When the oldest of its answers was bought, in Unix seconds; None without one.
        newest: The same for the newest.
    """

    draws: list[str] = field(default_factory=list)
    requests: int = 0
    served: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    oldest: float | None = None
    newest: float | None = None

    def add(self, call: Call) -> None:
        """Add a call that has ended."""
        tally = call.tally
        if call.outcome not in {None, "failed", "missed"}:
            self.draws.append(call.draw_id)
        self.requests += tally.requests
        self.served += tally.served
        self.prompt_tokens += tally.prompt_tokens_spent + tally.prompt_tokens_saved
        self.completion_tokens += tally.completion_tokens_spent + tally.completion_tokens_saved
        self.cost += tally.cost_spent + tally.cost_saved
        self.seconds += tally.seconds_spent + tally.seconds_saved
        if call.drawn is not None and call.drawn.created:
            created = call.drawn.created
            self.oldest = created if self.oldest is None else min(self.oldest, created)
            self.newest = created if self.newest is None else max(self.newest, created)


class DrawLog:
    """Collects the calls of a run by unit. Thread-safe; set it as `PhaseRun.on_call`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._units: dict[str, UnitLog] = {}

    def __call__(self, call: Call) -> None:
        """Add a call that has ended to its unit."""
        unit = call.ruling.context.unit
        if unit is None:
            return
        with self._lock:
            self._units.setdefault(unit, UnitLog()).add(call)

    def take(self, unit: str) -> UnitLog:
        """Return what is known of a unit, and forget it."""
        with self._lock:
            return self._units.pop(unit, UnitLog())
