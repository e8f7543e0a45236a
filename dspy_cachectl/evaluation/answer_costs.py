"""What one answer of a program was made of: its draws, and what they cost."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.calls.call import Call


@dataclass
class AnswerCost:
    """The LM calls of one answer: of a question and a repeat.

    Attributes:
        draws: What identifies each of the LM's answers, in the order in which they ended.
        tally: What happened to the calls.
        created: When each of the LM's answers was bought, in Unix seconds, where that is known.
    """

    draws: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    created: list[float] = field(default_factory=list)

    def add(self, call: Call) -> None:
        """Add a call that has ended."""
        self.tally.add(call.tally)
        if call.answered.outcome not in {None, "failed", "missed"}:
            self.draws.append(call.draw_id)
        if call.answered.origin is not None and call.answered.origin.created:
            self.created.append(call.answered.origin.created)

    @property
    def prompt_tokens(self) -> int:
        """Tokens read for it, spent and saved."""
        return self.tally.prompt_tokens_spent + self.tally.prompt_tokens_saved

    @property
    def completion_tokens(self) -> int:
        """Tokens written for it, spent and saved."""
        return self.tally.completion_tokens_spent + self.tally.completion_tokens_saved

    @property
    def cost(self) -> float:
        """US dollars, spent and saved."""
        return self.tally.cost_spent + self.tally.cost_saved

    @property
    def seconds(self) -> float:
        """Seconds of the provider, spent and saved."""
        return self.tally.seconds_spent + self.tally.seconds_saved


class AnswerCosts:
    """Collects the calls of a run by answer. Thread-safe; set it as `PhaseRun.on_call`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._costs: defaultdict[str, AnswerCost] = defaultdict(AnswerCost)

    def __call__(self, call: Call) -> None:
        """Add a call that has ended to its answer."""
        unit = call.asked.ruling.context.unit
        if unit is not None:
            with self._lock:
                self._costs[unit].add(call)

    def take(self, unit: str) -> AnswerCost:
        """Return what is known of an answer, and forget it."""
        with self._lock:
            return self._costs.pop(unit, AnswerCost())
