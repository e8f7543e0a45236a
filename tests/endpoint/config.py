"""Every knob of the endpoint, with its default."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Config:
    """How the endpoint answers.

    Attributes:
        seed: Another seed is another sequence of answers.
        model: The one model that `GET /v1/models` names.
        answers_as: Question substring -> the name of the model that says that it answers; "" is every question.
        fingerprints: Number of a request, from 1 -> the `system_fingerprint` of its answer, and of those after it.
        delay: Seconds before every answer.
        deterministic_at_zero: At temperature 0 every draw of a prompt is the first one.
        fixed_id: Answer an identical request with the identical body, as a caching proxy does.
        ids: The ids of answers: "unique", "constant", "small" (one of 999, by chance), or "none".
        answers: Prompt substring -> texts; the k-th draw of a matching prompt takes the k-th, round and round.
        gold: Question substring -> right answer, for `accuracy`. The longest match counts.
        accuracy: Probability of the right answer where `gold` knows one; None switches it off.
        gold_field: The output field that `gold` and `answers` fill; None is the prompt's last one.
        beside: What a message of the chat API says beside its text, such as its reasoning.
        call_tools: Answer a request that offers tools with a tool call, until a tool has replied.
        react_steps: Tools that a ReAct program calls before it finishes.
        dimensions: Length of an embedding, where the request names none.
        batch_looks: How often a batch is looked at before it ends; None: until `Endpoint.finish_batches`.
        batch_ending: The state that batches end in: "completed", "expired", "failed" or "cancelled".
        batch_answered: So many lines are answered of a batch that ends otherwise than completed.
        usage: Prompt substring -> what the usage of a matching prompt says over what is counted; null is none at all.
    """

    seed: int = 0
    model: str = "test-model"
    answers_as: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    deterministic_at_zero: bool = True
    fixed_id: bool = False
    ids: str = "unique"
    answers: dict[str, list[str]] = field(default_factory=dict)
    gold: dict[str, str] = field(default_factory=dict)
    accuracy: float | None = None
    gold_field: str | None = None
    beside: dict[str, Any] = field(default_factory=dict)
    call_tools: bool = False
    react_steps: int = 1
    dimensions: int = 16
    batch_looks: int | None = 1
    batch_ending: str = "completed"
    batch_answered: int = 0
    usage: dict[str, Any] = field(default_factory=dict)

    def changed(self, options: dict[str, Any]) -> Config:
        """This configuration with `options` over it; a name that does not exist is a ValueError."""
        known = {item.name for item in fields(self)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ValueError(f"endpoint: no option {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return replace(self, **options)
