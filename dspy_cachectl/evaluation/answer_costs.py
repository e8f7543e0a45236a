"""What one answer of a program was made of: its draws, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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

    def facts(self) -> dict[str, Any]:
        """Return what it is made of, spent and saved, as fields of a kept prediction."""
        tally = self.tally
        return {
            "draws": tuple(self.draws),
            "prompt_tokens": tally.prompt_tokens_spent + tally.prompt_tokens_saved,
            "completion_tokens": tally.completion_tokens_spent + tally.completion_tokens_saved,
            "cost": tally.cost_spent + tally.cost_saved,
            "seconds": tally.seconds_spent + tally.seconds_saved,
        }
